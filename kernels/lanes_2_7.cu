// wcodec: arch=80,90
// Full superblocks of two-byte elements whose coded field begins at bit 7: BF16 or F16. See lanes.cuh.
#include "lanes.cuh"

WCODEC_LANES(2_7, 16, 7, true, 2)
