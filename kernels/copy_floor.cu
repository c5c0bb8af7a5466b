// wcodec: arch=80
// Memory floor for decoders: reads `in_vectors` and writes `out_vectors` of 16 bytes, and does nothing else. A decoder that
// turns as many compressed bytes into as many decoded ones cannot be faster than this.
//
// Thread to data: one block per tile, 256 threads × 4 vectors = 16 KiB of the longer side; the shorter side's tile is the
// proportional slice, so that reads and writes overlap as they do in a decoder. Thread t takes vectors t, t + 256, ...
// Where a tile has more output than input, the output repeats what the thread read last; equal sizes make a plain copy.
#include "common.cuh"

constexpr u32 THREADS = 256;
constexpr u32 PER_THREAD = 4;

extern "C" __global__ void __launch_bounds__(THREADS)
wcodec_copy_floor(const uint4* __restrict__ in, u64 in_vectors, uint4* __restrict__ out, u64 out_vectors) {
    const u64 tiles = gridDim.x, tile = blockIdx.x;
    const u64 in_begin = in_vectors * tile / tiles, in_count = in_vectors * (tile + 1) / tiles - in_begin;
    const u64 out_begin = out_vectors * tile / tiles, out_count = out_vectors * (tile + 1) / tiles - out_begin;

    uint4 v[PER_THREAD];
    uint4 last = make_uint4(0, 0, 0, 0);
#pragma unroll
    for (u32 i = 0; i < PER_THREAD; ++i) {
        const u32 k = i * THREADS + threadIdx.x;
        if (k < in_count) last = load16_stream(in + in_begin + k);
        v[i] = last;
    }
#pragma unroll
    for (u32 i = 0; i < PER_THREAD; ++i) {
        const u32 k = i * THREADS + threadIdx.x;
        if (k < out_count) store16_stream(out + out_begin + k, v[i]);
    }
}
