// wcodec: arch=80,90
// Full superblocks of F32: the upper half is the head, its coded field begins at bit 4, the lower half is stored as it is. See lanes.cuh.
#include "lanes.cuh"

WCODEC_LANES(4_4, 16, 4, true, 4)
