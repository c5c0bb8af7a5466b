// wcodec: arch=80,90
// Full superblocks of two-byte elements whose coded field begins at bit 5: BF16. See lanes.cuh.
#include "lanes.cuh"

WCODEC_LANES(2_5, 16, 5, true, 2)
