// wcodec: arch=80,90
// Full superblocks of four-byte elements, F32: the head is the upper half, the lower half is stored as it is. See lanes.cuh.
#include "lanes.cuh"

WCODEC_LANES(4_4, 16, 4, true, 4)
WCODEC_LANES(4_5, 16, 5, true, 4)
WCODEC_LANES(4_6, 16, 6, true, 4)
WCODEC_LANES(4_7, 16, 7, true, 4)
