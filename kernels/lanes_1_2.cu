// wcodec: arch=80,90
// Full superblocks of FP8 whose coded field begins at bit 2, with a raw sign. See lanes.cuh.
#include "lanes.cuh"

WCODEC_LANES(1_2, 8, 2, true, 1)
