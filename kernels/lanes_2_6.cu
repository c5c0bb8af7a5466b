// wcodec: arch=80,90
// Full superblocks of two-byte elements whose coded field begins at bit 6: BF16 or F16. See lanes.cuh.
#include "lanes.cuh"

WCODEC_LANES(2_6, 16, 6, true, 2)
