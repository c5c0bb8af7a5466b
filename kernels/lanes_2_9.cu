// wcodec: arch=80,90
// Full superblocks of two-byte elements whose coded field begins at bit 9: F16. See lanes.cuh.
#include "lanes.cuh"

WCODEC_LANES(2_9, 16, 9, true, 2)
