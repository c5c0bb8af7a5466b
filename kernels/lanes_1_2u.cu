// wcodec: arch=80,90
// Full superblocks of one-byte integers whose coded field begins at bit 2. See lanes.cuh.
#include "lanes.cuh"

WCODEC_LANES(1_2u, 8, 2, false, 1)
