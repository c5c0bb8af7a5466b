// What the host prepares for a launch of lanes kernels (lanes.rs and launch/lanes.rs have the same layouts), and how its superblocks go
// to blocks and warps.
//
// The grid has one block per multiprocessor, each has its share of the superblocks of the whole batch, and its warps take from that one
// by one. A block's warps share the tables of one tensor in shared memory. At its begin is the share.
#pragma once
#include "common.cuh"

// One superblock. Offsets are into the tensor's payload, in units of 4 bytes.
struct Block {
    u32 raw, states, low, stream;
    u16 stream_words;  // of 4 bytes
    u8 base;           // 255: states stored whole
    u8 cols;           // 1 to 64
    u16 patches;
    u16 rows;          // 1 to 512
    u32 first_row, first_col;
};
static_assert(sizeof(Block) == 32, "the host writes superblocks as 32 bytes");

// One tensor of a launch.
struct Tensor {
    u64 payload;       // 16-byte aligned
    u64 blocks;        // const Block*, 16-byte aligned
    u64 buckets;       // const Bucket*; 0 where `entries` are there
    u64 entries;       // const u32*, 16-byte aligned: the fast path's tables as they stand in shared memory; 0: made from `buckets`
    u64 row_classes;   // const u8*, 0: all are 0
    u64 col_classes;   // const i8*, 0: all are 0
    u64 low_bits;      // const u8*, stored low bits per row; 0: all of them
    u64 out;           // of row 0, which may lie before the memory that is written: only rows within the clip are
    u64 clip_begin, clip_end;  // elements outside are not written; the fast path is only launched where all are inside
    u64 status;        // u32*, lowest failure: superblock << 2 | code; all ones: none
    u32 end;           // superblocks of this launch up to and including this tensor's
    u32 bucket_bits;   // log2 of a bucket's slots
    u32 contexts;
    u32 table_bits;
    u32 block_rows;
    u32 blocks_across;
    u8 head_bits, shift, sign, element_bytes;
    u32 row_stride;    // bytes
};
static_assert(sizeof(Tensor) == 120, "the host writes tensors as 120 bytes");

// A run of slots that belong to two symbols, see `alias` of wcodec-rans. Contexts stand one behind the other, so that bucket i has
// the table entries from i << bucket_bits on.
struct __align__(16) Bucket {
    u16 divide;  // slots of the first symbol
    u16 adjust;  // what added to a place behind them gives the second one's bias, modulo 2^16
    u16 own_freq, own_value;
    u16 alias_freq, alias_value;
    u32 reserved;
};
static_assert(sizeof(Bucket) == 16, "the host writes buckets as 16 bytes");

constexpr u32 MAX_TENSORS = 32;

struct Batch {
    u32 count;
    u32 blocks;  // superblocks of all tensors
    Tensor tensors[MAX_TENSORS];
};
static_assert(sizeof(Batch) == 8 + 32 * 120, "the host writes batches so");

constexpr u32 STATE_LOW = 1u << 16;
constexpr u32 PLAIN_STATES = 255;
constexpr u32 TRUNCATED = 1, CORRUPT = 2;

__device__ __forceinline__ void fail(const Tensor& t, const Block& b, u32 code) {
    const u32 number = b.first_row / t.block_rows * t.blocks_across + b.first_col / 64;
    atomicMin(reinterpret_cast<u32*>(t.status), number << 2 | code);
}

// A superblock's words, word i % 8 in thread i: one coalesced load, one register.
__device__ __forceinline__ u32 load_block_words(const Tensor& t, u32 index) {
    return __ldg(reinterpret_cast<const u32*>(t.blocks) + 8 * u64(index) + lane_index() % 8);
}

// Shuffles tell the compiler that all threads have the same, see `warp_index`.
__device__ __forceinline__ Block to_block(u32 words) {
    const auto word = [&](u32 i) { return __shfl_sync(FULL_WARP, words, i); };
    Block b;
    b.raw = word(0), b.states = word(1), b.low = word(2), b.stream = word(3);
    const u32 lengths = word(4), counts = word(5);
    b.stream_words = u16(lengths), b.base = u8(lengths >> 16), b.cols = u8(lengths >> 24);
    b.patches = u16(counts), b.rows = u16(counts >> 16);
    b.first_row = word(6), b.first_col = word(7);
    return b;
}

__device__ __forceinline__ u32 lanes_below() {
    u32 mask;
    asm("mov.u32 %0, %%lanemask_lt;" : "=r"(mask));
    return mask;
}

// Of patches of one element the last one counts. Threads have neighbouring patches, `there` says which have one.
__device__ __forceinline__ bool last_of_its_element(u32 there, u32 at) { return __match_any_sync(there, at) >> lane_index() == 1; }

extern __shared__ __align__(1024) u8 shared[];

// What the warps of a block share of their work on a tensor. Places in the tensor's list of superblocks: `first`, and every `step`th
// from there on, below `last`.
struct Share {
    u32 taken, first, step, last;
};
// Bytes before the warps' memory, so that all of it begins where a line of shared memory does.
constexpr u32 SHARE_BYTES = 128;

// The bits of a fast path's table entry below the value, for a coded field: bits of a bias. The frequency has as many above it. This is
// the greatest P that leaves room for the value, so that shifts and masks do not depend on P.
__device__ constexpr u32 value_bit_of(u32 coded) { return coded <= 8 ? 12 : coded <= 10 ? 11 : 10; }

// Writes `freq << freq_bit | value << value_bit | bias` for every slot. Neighbouring threads have neighbouring slots, mostly of one
// bucket, which is one load for them all.
__device__ __forceinline__ void expand_tables(const Tensor& t, u32* tables, u32 freq_bit, u32 value_bit) {
    const uint4* buckets = reinterpret_cast<const uint4*>(t.buckets);
    const u32 slots = t.contexts << t.table_bits;
    for (u32 slot = threadIdx.x; slot < slots; slot += blockDim.x) {
        const uint4 bucket = __ldg(buckets + (slot >> t.bucket_bits));
        const u32 place = slot & ((1u << t.bucket_bits) - 1), divide = bucket.x & 0xffff, adjust = bucket.x >> 16;
        const u32 symbol = place < divide ? bucket.y : bucket.z;
        const u32 bias = place < divide ? place : (place + adjust) & 0xffff;
        tables[slot] = (symbol & 0xffff) << freq_bit | symbol >> 16 << value_bit | bias;
    }
}

// The warp's number. All threads have the same, which the compiler only knows of a shuffle's result; without that, every
// ballot below would carry code for diverged warps.
__device__ __forceinline__ u32 warp_index() { return __shfl_sync(FULL_WARP, threadIdx.x / WARP, 0); }

constexpr u32 NONE = 0xffffffff;

// Calls `load(tensor)` for every tensor of this block's share of the batch, which loads its tables, then
// `decode(tensor, words, claim)` for this warp's superblocks of it: `words` are those of the superblock and become those of the next,
// `claim()` takes the next and returns its index or `NONE`, and the result says whether there is one. `start(tensor, words)` comes
// when the tables are under way.
//
// Shares have the same number of superblocks, where the step from one tensor to the next counts as one for each warp: about what is
// lost while all wait for the last one. Warps take superblocks one by one, since they are not equally fast.
template <class Start, class Load, class Decode>
__device__ __forceinline__ void for_each_block(const Batch& batch, Start start, Load load, Decode decode) {
    const u32 warp = warp_index(), warps = blockDim.x / WARP;
    volatile Share* share = reinterpret_cast<volatile Share*>(shared);
    const u32 total = batch.blocks + (batch.count - 1) * warps;
    const u32 each = total / gridDim.x, longer = total % gridDim.x;
    const auto begin_of = [&](u32 block) { return each * block + min(block, longer); };
    const u32 begin = begin_of(blockIdx.x), end = begin_of(blockIdx.x + 1);
    u32 tensor_begin = 0;
    for (u32 tensor = 0; tensor < batch.count; tensor_begin = batch.tensors[tensor++].end) {
        const Tensor& t = batch.tensors[tensor];
        const u32 low = tensor_begin + warps * tensor, high = t.end + warps * tensor;
        if (high <= begin || low >= end) continue;
        u32 first = max(begin, low) - low, step = 1, last = min(end, high) - low;
        if (batch.count == 1) {
            first = blockIdx.x, step = gridDim.x, last = total;
        } else if (begin >= low && end <= high) {
            // Blocks whose whole share is of this tensor take turns: what is read and written at one time lies close together.
            // The first of them is the first whose share begins in the tensor; behind them comes the first whose share ends beyond it.
            const u32 split = longer * (each + 1);
            const u32 from = low <= split ? (low + each) / (each + 1) : (low - longer + each - 1) / each;
            const u32 to = high <= split ? high / (each + 1) : (high - longer) / each;
            first = begin_of(from) - low + blockIdx.x - from, step = to - from, last = begin_of(to) - low;
        }
        const u32 own = first + warp * step;
        const bool any = own < last;
        u32 words = any ? load_block_words(t, own) : 0;
        // A superblock may end before all of its last chunk has arrived, and others may still use the tables.
        asm volatile("cp.async.wait_all;" ::: "memory");
        __syncthreads();
        load(t);
        if (any) start(t, words);
        if (threadIdx.x == 0) share->taken = warps, share->first = first, share->step = step, share->last = last;
        asm volatile("cp.async.wait_all;" ::: "memory");
        __syncthreads();
        if (!any) continue;
        const auto claim = [=] {
            u32 index = NONE;
            if (lane_index() == 0) {
                index = share->first + atomicAdd(const_cast<u32*>(&share->taken), 1) * share->step;
                if (index >= share->last) index = NONE;
            }
            return __shfl_sync(FULL_WARP, index, 0);
        };
        while (decode(t, words, claim)) {}
    }
}
