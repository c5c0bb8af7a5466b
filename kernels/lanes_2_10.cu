// wcodec: arch=80,90
// Full superblocks of two-byte elements whose coded field begins at bit 10: F16. See lanes.cuh.
#include "lanes.cuh"

WCODEC_LANES(2_10, 16, 10, true, 2)
