// Integer mode: what its steps share. A superblock's samples live in shared memory, 64 to a row, from the first step to the last;
// the steps are `symbols.cuh`, `bitplanes.cuh`, `transform.cuh` and `predict.cuh`, and `integer.cu` runs them one after the other.
// One warp works on one superblock, so steps are ordered by __syncwarp alone.
#pragma once
#include "common.cuh"

// One superblock. Offsets of states and stream are into the tensor's payload, in units of 4 bytes.
struct Block {
    u32 states, stream;
    u32 tiles;         // index of its first tile code
    u32 classes;       // index of its first class, of 4 bits
    u16 stream_words;  // of 4 bytes
    u8 planes;         // 0: residuals
    u8 cols;           // 1 to 64
    u16 patches;       // 0 with planes
    u16 rows;          // 1 to 512
    u32 first_row, first_col;
};
static_assert(sizeof(Block) == 32, "the host writes superblocks as 32 bytes");

// One tensor of a launch.
struct Tensor {
    u64 payload;       // 16-byte aligned
    u64 blocks;        // const Block*, 16-byte aligned
    u64 entries;       // const u32*, 16-byte aligned: freq << (32 - P) | value << P | bias
    u64 tiles;         // const u8*: mode + 7 * transform, below 21
    u64 classes;       // const u8*, two classes to a byte, the first one low; below K
    u64 out;           // of row 0, which may lie before the memory that is written: only bytes within the clip are
    u64 clip_begin, clip_end;
    u64 status;        // u32*, lowest failure: superblock << 2 | code; all ones: none
    u32 end;           // superblocks of this launch up to and including this tensor's
    u32 contexts;
    u32 table_bits;
    u32 block_rows;
    u32 blocks_across;
    u32 tile_bits;     // log2 of a tile's side
    u32 row_stride;    // bytes
    u32 reserved;
};
static_assert(sizeof(Tensor) == 104, "the host writes tensors as 104 bytes");

constexpr u32 MAX_TENSORS = 32;

struct Batch {
    u32 count;
    u32 blocks;        // superblocks of all tensors
    u32 table_bytes;   // shared memory for the largest tables
    u32 symbol_bytes;  // of a warp's shared memory: for the bitplanes of a superblock
    u32 sample_bytes;  // for its samples
    u32 reserved;
    Tensor tensors[MAX_TENSORS];
};
static_assert(sizeof(Batch) == 24 + 32 * 104, "the host writes batches so");

constexpr u32 LANES = 64;
constexpr u32 STATE_LOW = 1u << 16;
constexpr u32 TRUNCATED = 1, CORRUPT = 2;

// Side of a transform block.
constexpr u32 SIDE = 8;
// Blocks that a warp transforms at a time, eight threads each, and the memory that they are transposed in.
constexpr u32 BLOCKS_AT_ONCE = 4;
constexpr u32 TRANSPOSE_BYTES = BLOCKS_AT_ONCE * SIDE * SIDE * 4;

extern __shared__ __align__(16) u8 shared[];

__device__ __forceinline__ void fail(const Tensor& t, const Block& b, u32 code) {
    const u32 number = b.first_row / t.block_rows * t.blocks_across + b.first_col / LANES;
    atomicMin(reinterpret_cast<u32*>(t.status), number << 2 | code);
}
