// wcodec: arch=80,90
// Full superblocks of one-byte elements: FP8 with a raw sign, integers without. See lanes.cuh.
#include "lanes.cuh"

WCODEC_LANES(1_0, 8, 0, true, 1)
WCODEC_LANES(1_1, 8, 1, true, 1)
WCODEC_LANES(1_2, 8, 2, true, 1)
WCODEC_LANES(1_0u, 8, 0, false, 1)
WCODEC_LANES(1_1u, 8, 1, false, 1)
WCODEC_LANES(1_2u, 8, 2, false, 1)
WCODEC_LANES(1_3u, 8, 3, false, 1)
