// wcodec: arch=80,90
// Full superblocks of two-byte elements whose coded field begins at bits 4 to 7: BF16, and some F16. See lanes.cuh.
#include "lanes.cuh"

WCODEC_LANES(2_4, 16, 4, true, 2)
WCODEC_LANES(2_5, 16, 5, true, 2)
WCODEC_LANES(2_6, 16, 6, true, 2)
WCODEC_LANES(2_7, 16, 7, true, 2)
