// wcodec: arch=80,90
// Full superblocks of one-byte integers whose coded field begins at bit 3. See lanes.cuh.
#include "lanes.cuh"

WCODEC_LANES(1_3u, 8, 3, false, 1)
