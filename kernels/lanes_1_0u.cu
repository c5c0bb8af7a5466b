// wcodec: arch=80,90
// Full superblocks of one-byte integers whose coded field begins at bit 0. See lanes.cuh.
#include "lanes.cuh"

WCODEC_LANES(1_0u, 8, 0, false, 1)
