// wcodec: arch=80,90
// Full superblocks of two-byte elements whose coded field begins at bits 8 to 10: F16. See lanes.cuh.
#include "lanes.cuh"

WCODEC_LANES(2_8, 16, 8, true, 2)
WCODEC_LANES(2_9, 16, 9, true, 2)
WCODEC_LANES(2_10, 16, 10, true, 2)
