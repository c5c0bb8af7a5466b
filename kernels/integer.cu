// wcodec: arch=80
// Integer mode: residuals or bitplanes through rANS, the transform and the prediction undone, all in one kernel: a superblock's symbols
// and samples never leave shared memory in between, and nothing but the output is needed beside them.
//
// Thread to data: one warp per superblock. A block of up to 16 warps shares the tables of one tensor; the grid has one block per
// multiprocessor, and each works through a contiguous range of superblocks of the whole batch. Shared memory: tables (4 * K * 2^P
// bytes), then per warp the bitplanes of a superblock (none for residuals), its samples, and room to turn four 8x8 blocks.
// Bytes: stream and states once, tables once per block, output once.
#include "bitplanes.cuh"
#include "integer.cuh"
#include "predict.cuh"
#include "symbols.cuh"
#include "transform.cuh"

constexpr u32 COEFFICIENTS_PER_ROW = 8 * LANES;
constexpr u32 RESIDUAL_RUN = 4, PLANE_RUN = 2;

struct Superblock {
    const Tensor& t;
    const Block& b;
    const u8* tiles;   // its tile codes
    u8* symbols;
    u8* samples;
    int* turned;       // TRANSPOSE_BYTES

    // Tiles in raster order.
    __device__ __forceinline__ u32 across() const { return (b.cols + (1u << t.tile_bits) - 1) >> t.tile_bits; }
    __device__ __forceinline__ u32 count() const { return across() * ((b.rows + (1u << t.tile_bits) - 1) >> t.tile_bits); }
    __device__ __forceinline__ Tile tile(u32 index) const {
        const u32 side = 1u << t.tile_bits, row = index / across() * side, col = index % across() * side;
        return {row, col, min(side, b.rows - row), min(side, b.cols - col)};
    }

    // Residuals of the 8x8 blocks of a tile, of which the first is `first` of `all` transformed ones of the superblock.
    __device__ __forceinline__ void transformed(const Bitplanes& planes, const Tile& tile, u32 transform, u32 first, u32 all) const {
        const u32 lane = lane_index(), slot = lane / SIDE, line = lane % SIDE, per_side = tile.width / SIDE;
        const u32 blocks = per_side * per_side;
        int* area = turned + slot * SIDE * SIDE;
        for (u32 begin = 0; begin < blocks; begin += BLOCKS_AT_ONCE) {
            const u32 block = begin + slot;
            u32 x[SIDE];
            if (block < blocks) {
                for (u32 u = 0; u < SIDE; ++u) x[u] = u32(planes.coefficient(ZIGZAG_PLACE[SIDE * u + line] * all + first + block));
                inverse_1d(transform, x);
                for (u32 u = 0; u < SIDE; ++u) area[SIDE * u + line] = int(x[u]);
            }
            __syncwarp();
            if (block < blocks) {
                for (u32 v = 0; v < SIDE; ++v) x[v] = u32(area[SIDE * line + v]);
                inverse_1d(transform, x);
                u8* to = samples + LANES * (tile.row + block / per_side * SIDE + line) + tile.col + block % per_side * SIDE;
                for (u32 v = 0; v < SIDE; ++v) to[v] = as_residual(int(x[v]));
            }
            __syncwarp();
        }
    }

    // Residuals of a tile without a transform, from coefficient `first` on.
    __device__ __forceinline__ void plain(const Bitplanes& planes, const Tile& tile, u32 first) const {
        for (u32 i = lane_index(); i < tile.height * tile.width; i += WARP) {
            samples[LANES * (tile.row + i / tile.width) + tile.col + i % tile.width] = as_residual(planes.coefficient(first + i));
        }
        __syncwarp();
    }

    // Bitplanes to residuals to samples, tile by tile.
    __device__ __forceinline__ void reconstruct(const Bitplanes* planes) const {
        const u32 lane = lane_index(), tile_count = count();
        const u32 blocks_per_tile = 1u << (2 * (t.tile_bits - min(t.tile_bits, 3u)));
        u32 all = 0;
        if (planes != nullptr) {
            for (u32 i = lane; i < tile_count; i += WARP) all += __ldg(tiles + i) >= MODES ? blocks_per_tile : 0;
            all = __reduce_add_sync(FULL_WARP, all);
        }
        u32 next_block = 0, next_plain = all * SIDE * SIDE;
        for (u32 i = 0; i < tile_count; ++i) {
            const u32 code = __ldg(tiles + i);
            const Tile place = tile(i);
            if (planes != nullptr) {
                if (code >= MODES) {
                    transformed(*planes, place, code / MODES, next_block, all);
                    next_block += blocks_per_tile;
                } else {
                    plain(*planes, place, next_plain);
                    next_plain += place.height * place.width;
                }
            }
            predict_tile(code % MODES, place, t.tile_bits, samples);
            __syncwarp();
        }
    }

    // Samples to the output, two columns to a thread.
    __device__ __forceinline__ void write() const {
        const u32 col = 2 * lane_index();
        if (col >= b.cols) return;
        const bool both = col + 1 < b.cols;
        u64 at = t.out + u64(b.first_row) * t.row_stride + b.first_col + col;
        for (u32 row = 0; row < b.rows; ++row, at += t.row_stride) {
            const u32 pair = *reinterpret_cast<const u16*>(samples + LANES * row + col);
            if (both && at % 2 == 0 && at >= t.clip_begin && at + 1 < t.clip_end) {
                *reinterpret_cast<u16*>(at) = u16(pair);
            } else {
                if (at >= t.clip_begin && at < t.clip_end) *reinterpret_cast<u8*>(at) = u8(pair);
                if (both && at + 1 >= t.clip_begin && at + 1 < t.clip_end) *reinterpret_cast<u8*>(at + 1) = u8(pair >> 8);
            }
        }
    }

    __device__ __forceinline__ void decode() const {
        if (b.planes == 0) {
            if (!decode_symbols(t, b, b.rows, b.cols, b.rows, RESIDUAL_RUN, samples)) return;
            reconstruct(nullptr);
        } else {
            const u32 plane_rows = (b.rows * b.cols + COEFFICIENTS_PER_ROW - 1) / COEFFICIENTS_PER_ROW;
            if (!decode_symbols(t, b, plane_rows * b.planes, LANES, plane_rows, PLANE_RUN, symbols)) return;
            const Bitplanes planes = {symbols, b.planes, plane_rows * LANES};
            reconstruct(&planes);
        }
        write();
        __syncwarp();
    }
};

extern "C" __global__ void __launch_bounds__(512, 1)
wcodec_integer(const __grid_constant__ Batch batch) {
    u32 begin = u32(u64(batch.blocks) * blockIdx.x / gridDim.x);
    const u32 end = u32(u64(batch.blocks) * (blockIdx.x + 1) / gridDim.x);
    const u32 warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    u8* mine = shared + batch.table_bytes + warp * (batch.symbol_bytes + batch.sample_bytes + TRANSPOSE_BYTES);
    u32 tensor = 0, tensor_begin = 0;
    while (begin < end) {
        while (batch.tensors[tensor].end <= begin) tensor_begin = batch.tensors[tensor++].end;
        const Tensor& t = batch.tensors[tensor];
        __syncthreads();
        const uint4* entries = reinterpret_cast<const uint4*>(t.entries);
        for (u32 i = threadIdx.x; i < (t.contexts << t.table_bits) / 4; i += blockDim.x) reinterpret_cast<uint4*>(shared)[i] = __ldg(entries + i);
        __syncthreads();
        const u32 last = min(end, t.end);
        for (u32 i = begin + warp; i < last; i += warps) {
            const Block b = reinterpret_cast<const Block*>(t.blocks)[i - tensor_begin];
            u8* samples = mine + batch.symbol_bytes;
            const Superblock superblock = {
                t, b, reinterpret_cast<const u8*>(t.tiles) + b.tiles, mine, samples, reinterpret_cast<int*>(samples + batch.sample_bytes)};
            superblock.decode();
        }
        begin = last;
    }
}
