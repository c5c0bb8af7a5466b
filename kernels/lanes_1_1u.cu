// wcodec: arch=80,90
// Full superblocks of one-byte integers whose coded field begins at bit 1. See lanes.cuh.
#include "lanes.cuh"

WCODEC_LANES(1_1u, 8, 1, false, 1)
