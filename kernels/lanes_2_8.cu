// wcodec: arch=80,90
// Full superblocks of two-byte elements whose coded field begins at bit 8: F16. See lanes.cuh.
#include "lanes.cuh"

WCODEC_LANES(2_8, 16, 8, true, 2)
