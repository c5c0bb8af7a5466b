// wcodec: arch=80,90
// Full superblocks of FP8 whose coded field begins at bit 0, with a raw sign. See lanes.cuh.
#include "lanes.cuh"

WCODEC_LANES(1_0, 8, 0, true, 1)
