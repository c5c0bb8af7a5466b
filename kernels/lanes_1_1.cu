// wcodec: arch=80,90
// Full superblocks of FP8 whose coded field begins at bit 1, with a raw sign. See lanes.cuh.
#include "lanes.cuh"

WCODEC_LANES(1_1, 8, 1, true, 1)
