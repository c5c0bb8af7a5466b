// wcodec: arch=80,90
// Full superblocks of two-byte elements whose coded field begins at bit 4: BF16. See lanes.cuh.
#include "lanes.cuh"

WCODEC_LANES(2_4, 16, 4, true, 2)
