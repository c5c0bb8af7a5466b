// Decoding superblocks of 64 rANS lanes: what all kernels of this family share, and the fast path for full superblocks.
// The format is defined by wcodec-rans (`superblock`); docs/cuda.md has the budgets.
//
// Thread to data: one warp per superblock. Thread t holds lanes t and t + 32, which are columns 2t and 2t + 1, so a row of 64
// elements leaves as one coalesced store. A block of up to 32 warps shares the tables of one tensor in shared memory; the grid
// has one block per multiprocessor, each has its share of the superblocks of the whole batch, and its warps take from that one by one.
//
// Shared memory: the share, then per warp a ring of stream bytes, its mirror, and the classes of a group of rows, then the tables
// (K * 2^P words).
#pragma once
#include "common.cuh"

// ---- What the host prepares (lanes.rs and launch/lanes.rs have the same layouts) ----

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
    u64 buckets;       // const Bucket*
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

extern __shared__ __align__(1024) u8 shared[];

// What the warps of a block share of their work on a tensor. Places in the tensor's list of superblocks: `first`, and every `step`th
// from there on, below `last`.
struct Share {
    u32 taken, first, step, last;
};
// Bytes before the warps' memory, so that all of it begins where a line of shared memory does.
constexpr u32 SHARE_BYTES = 128;

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

// ---- Full superblocks: 64 columns, whole groups of rows ----

// The split of a head at compile time, see `HeadLayout`; and whether there are registers for what comes after this group and this
// superblock.
template <u32 HEAD, u32 SHIFT, bool SIGN, u32 ELEMENT, bool AHEAD>
struct Layout {
    static constexpr u32 head = HEAD, shift = SHIFT, element = ELEMENT;
    static constexpr bool sign = SIGN;
    static constexpr u32 raw = SHIFT + SIGN;          // bits of a raw code
    static constexpr u32 coded = HEAD - raw;
    // A table entry has this many bits for the bias, then the value, then as many bits for the frequency: the greatest P that leaves
    // room for the value. So shifts and masks do not depend on P.
    static constexpr u32 value_bit = coded <= 8 ? 12 : coded <= 10 ? 11 : 10;
    // Rows of a group: as many as fill whole halfwords, at least the two that travel in the states.
    static constexpr u32 group = raw == 1 ? 32 : 16;
    static constexpr u32 halfwords = raw * group / 16;
    static constexpr bool carries = raw != 0;
    static constexpr bool ahead = AHEAD;
    // Warps of a block that loads ahead. Memory does best with few superblocks in progress, and more registers hold more that was asked
    // for; but one-byte elements are bound by instructions.
    static constexpr u32 warps = element == 1 || halfwords > 8 ? 28 : 20;
    static constexpr bool doubled = ahead && halfwords > 0 && halfwords <= 8;  // the next group's raw words have their own
    // First row of a group with bits in its last two halfwords. In every group such rows are finished at its end, so that the
    // last group, whose last two halfwords come out of the final states, needs no code of its own.
    static constexpr u32 ready = carries ? 16 * (halfwords - 2) / raw : group;
};

constexpr u32 RING = 2048;          // bytes
constexpr u32 CHUNK = 512;          // one 16-byte asynchronous copy per thread
constexpr u32 MIRROR = CHUNK;       // the ring's first chunk again: four rows read on without wrapping
constexpr u32 REFILL_ROWS = 4;      // 4 rows take at most 4 * 64 words = CHUNK bytes
constexpr u32 CLASS_ROWS = 64;      // rows whose classes are staged together
constexpr u32 CLASS_BYTES = 4 * CLASS_ROWS;
constexpr u32 FETCHED_CLASSES = 2 * CLASS_ROWS;  // bytes: classes of rows and of columns as they come
constexpr u32 WARP_BYTES = RING + MIRROR + CLASS_BYTES + FETCHED_CLASSES;
constexpr u32 HEAD = 2 * CHUNK;     // so much of a stream may be fetched before its superblock begins: what 4 + 4 rows can take
static_assert(SHARE_BYTES % 128 == 0 && WARP_BYTES % 128 == 0 && sizeof(Share) <= SHARE_BYTES, "rings and tables begin at a line");

// Shared addresses of the calling warp's memory, and of the tables behind that of all warps.
__device__ __forceinline__ u32 shared_base() { return u32(__cvta_generic_to_shared(shared)); }
__device__ __forceinline__ u32 warp_memory() { return __shfl_sync(FULL_WARP, shared_base() + SHARE_BYTES + warp_index() * WARP_BYTES, 0); }
__device__ __forceinline__ u32 tables_offset() { return SHARE_BYTES + blockDim.x / WARP * WARP_BYTES; }

__device__ __forceinline__ bool any_thread(bool mine) { return __any_sync(FULL_WARP, mine) != 0; }

// A superblock's stream, staged through shared memory. `ring`, `at` and `due` are shared addresses.
struct Feed {
    u32 ring;      // first byte of the ring
    u32 at;        // the next word, in ring .. ring + RING + MIRROR
    u32 due;       // when `at` gets here, the next chunk is fetched: ring + 1 to RING / CHUNK chunks
    u64 source;    // this thread's 16 bytes of the next chunk
    int left;      // bytes from `source` to the end of the stream; what a reader finds beyond it does not matter
    bool whole;    // the ring holds all of the stream and a byte more: it leaves the ring's begin to the next one

    __device__ __forceinline__ void copy(u32 to) const {
        const u32 destination = to + 16 * lane_index();
        if (left <= 0) return;
        // Read once: the second-level cache shall keep what was written until neighbouring rows of it are there.
        asm volatile(
            "{.reg .b64 once; createpolicy.fractional.L2::evict_first.b64 once, 1.0;"
            " cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, once;}" ::"r"(destination), "l"(source), "r"(min(left, 16))
            : "memory");
    }

    // Fetches the next chunk to `offset` in the ring. In its first round nobody reads the mirror.
    __device__ __forceinline__ void fetch(u32 offset, bool first_round) {
        copy(ring + offset);
        if (offset == 0 && !first_round) copy(ring + RING);
        asm volatile("cp.async.commit_group;" ::: "memory");
        source += CHUNK;
        left -= int(CHUNK);
    }

    // Before the first byte. `begin` is rounded down to 16 bytes: what lies before it is part of the payload.
    __device__ __forceinline__ void begin_at(u32 ring_address, u64 begin, u32 bytes) {
        const u32 skipped = u32(begin) & 15;
        ring = ring_address;
        at = ring + skipped;
        due = ring + CHUNK;
        source = begin - skipped + 16 * lane_index();
        left = int(skipped + bytes) - int(16 * lane_index());
        whole = skipped + bytes < RING;
    }

    // Fetches bytes FROM .. TO - 1 of the ring's first round, without waiting for them.
    template <u32 FROM, u32 TO>
    __device__ __forceinline__ void fetch_first() {
#pragma unroll
        for (u32 offset = FROM; offset < TO; offset += CHUNK) fetch(offset, true);
    }

    // As if bytes 0 .. HEAD - 1 had been fetched.
    __device__ __forceinline__ void skip_head() {
        source += HEAD;
        left -= int(HEAD);
    }

    // Until all that was fetched has arrived.
    __device__ __forceinline__ void wait() const {
        asm volatile("cp.async.wait_all;" ::: "memory");
        __syncwarp();
    }

    // Between two steps of REFILL_ROWS rows: makes sure that the next step finds its words.
    // After it more than RING - CHUNK bytes are ahead, all but the youngest CHUNK of them arrived; of a whole stream, all there is.
    __device__ __forceinline__ void refill() {
        if (any_thread(at >= due)) {  // all threads agree, and the compiler shall know
            if (whole) {
                // Once, for what came behind its head. Later only where a damaged stream goes on beyond its end, which the position
                // shows for good, since the ring's end is not the stream's: what it reads there does not matter.
                wait();
                due = ring + RING;
                at = min(at, due);
                return;
            }
            __syncwarp();  // all have read what is overwritten
            fetch(due - CHUNK - ring, false);
            asm volatile("cp.async.wait_group 1;" ::: "memory");
            due += CHUNK;
            // `due` gets to the ring's end when `at` does, and no earlier step went further than the mirror.
            if (due > ring + RING) at -= RING, due -= RING;
            __syncwarp();
        }
    }

    // Bytes from the begin of the stream to the next word; may lie beyond its end.
    __device__ __forceinline__ u32 position(u32 bytes) const {
        return bytes - u32(left + int(16 * lane_index())) - ((whole ? ring : due - CHUNK) + RING - at);
    }
};

__device__ __forceinline__ u32 shared_word(u32 address) {
    u32 word;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(address));
    return word;
}
// Not predicated by the compiler: threads that need no word load one all the same.
__device__ __forceinline__ u32 shared_half(u32 address) {
    u32 half;
    asm volatile("{.reg .u16 h; ld.shared.u16 h, [%1]; cvt.u32.u16 %0, h;}" : "=r"(half) : "r"(address));
    return half;
}

// Which threads' states need a word.
__device__ __forceinline__ u32 below_low(u32 state) {
    u32 mask;
    asm volatile("{.reg .pred p; setp.lt.u32 p, %1, 65536; vote.sync.ballot.b32 %0, p, 0xffffffff;}" : "=r"(mask) : "r"(state));
    return mask;
}

__device__ __forceinline__ void append_word(u32& state, u32 word) {
    asm("{.reg .pred p; setp.lt.u32 p, %0, 65536; @p mad.lo.u32 %0, %0, 65536, %1;}" : "+r"(state) : "r"(word));
}

// clamp(a + b, 0, limit)
__device__ __forceinline__ u32 clamped_sum(int a, int b, int limit) {
#if __CUDA_ARCH__ >= 900
    int c;
    asm("{.reg .s32 s; add.s32 s, %1, %2; min.relu.s32 %0, s, %3;}" : "=r"(c) : "r"(a), "r"(b), "r"(limit));
    return u32(c);
#else
    return u32(max(min(a + b, limit), 0));
#endif
}

// Loads a word that is read once. Volatile, so that loads stay in the order in which they are wanted.
__device__ __forceinline__ u32 load_stream(u64 at) {
    u32 word;
    asm volatile("ld.global.cs.u32 %0, [%1];" : "=r"(word) : "l"(at));
    return word;
}

__device__ __forceinline__ void prefetch(u64 at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(at)); }

// `a` where `mask` is set, `b` elsewhere: one instruction, which the compiler does not always find.
__device__ __forceinline__ u32 select(u32 mask, u32 a, u32 b) {
    u32 c;
    asm("lop3.b32 %0, %1, %2, %3, 0xe4;" : "=r"(c) : "r"(a), "r"(b), "r"(mask));
    return c;
}

// (a & mask) | b
__device__ __forceinline__ u32 joined(u32 a, u32 mask, u32 b) {
    u32 c;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(c) : "r"(a), "r"(mask), "r"(b));
    return c;
}

// Shifts left or, for negative amounts, right.
template <int BY>
__device__ __forceinline__ u32 shifted(u32 x) {
    if constexpr (BY >= 0) return x << BY;
    else return x >> -BY;
}

// The raw bits of row J of a group at their places in a 32-bit word that holds one head in each half; 8-bit heads in the lower
// byte of the half, their sign still in the half's highest bit.
template <class L, u32 J>
__device__ __forceinline__ u32 raw_bits(const u32 (&q)[L::halfwords ? L::halfwords : 1]) {
    if constexpr (L::raw == 0) return 0;
    else {
        constexpr u32 at = J * L::raw, k = at / 16, bit = at % 16;
        // The code's bit 0 is the sign, of the other column: one more rotation brings it to the top of that one.
        const u32 first = __funnelshift_r(q[k], q[k], bit + L::sign);
        if constexpr (bit + L::raw <= 16) return first;
        else {
            // Low bits 0 .. have - 1 are in halfword k, the others at the bottom of the next.
            constexpr u32 have = 16 - bit - L::sign;
            constexpr u32 mask = (((1u << have) - 1) | (L::sign ? 0x8000u : 0)) * 0x10001u;
            return select(mask, first, q[k + 1] << have);
        }
    }
}

template <class L>
struct Output {
    static constexpr u32 low_mask = ((1u << L::shift) - 1) * 0x10001u;
    static constexpr u32 raw_mask = low_mask | (L::sign && L::head == 16 ? 0x80008000u : 0);

    // Both values of a row at their places: 16-bit heads in halves, among other bits; 8-bit heads in bytes J % 2 and 2 + J % 2,
    // with zeros elsewhere.
    template <u32 J>
    static __device__ __forceinline__ u32 values(u32 even, u32 odd) {
        if constexpr (L::head == 16) {
            // Bytes 1 and 2 hold a value whatever the layout, see `value_bit`.
            return shifted<int(L::shift + 8) - int(L::value_bit)>(__byte_perm(even, odd, 0x6521));
        } else {
            constexpr u32 side = 8 * (J % 2);
            constexpr int by = int(L::shift + side) - int(L::value_bit);
            constexpr u32 mask = ((1u << L::coded) - 1) << (L::shift + side);
            return (shifted<by>(even) & mask) | (shifted<by + 16>(odd) & mask << 16);
        }
    }

    template <u32 J>
    static __device__ __forceinline__ void store(u64 at, u32 values, u32 raw, u32 low) {
        if constexpr (L::head == 16) {
            const u32 heads = select(raw_mask, raw, values);
            if constexpr (L::element == 2) __stcs(reinterpret_cast<u32*>(at), heads);
            else __stcs(reinterpret_cast<uint2*>(at), make_uint2(__byte_perm(low, heads, 0x5410), __byte_perm(low, heads, 0x7632)));
        } else {
            u32 bits = raw & low_mask;
            if constexpr (L::sign) bits |= raw >> 8 & 0x00800080u;
            const u32 packed = __byte_perm(values, 0, J % 2 ? 0x4431 : 0x4420) | __byte_perm(bits, 0, 0x4420);
            asm volatile("st.global.cs.u16 [%0], %1;" ::"l"(at), "h"(u16(packed)) : "memory");
        }
    }
};

// What stays the same while a warp works on one tensor.
struct Tables {
    u32 address;        // of the first entry, in shared memory
    u32 p;              // P
    u32 slot_mask;      // 2^P - 1
    int last_context;   // (K - 1) * 2^P
};

template <class L>
struct Superblock {
    u32 x0, x1;              // states
    int class0, class1;      // column classes times 2^P
    Feed feed;
    u32 classes;             // shared address of the group's row classes, times 2^P
    u64 out;                 // this thread's elements of the next row to store
    u32 row_stride;
    u64 low;
    u32 lows[4];             // of four rows
    u64 raw;                 // this thread's first word of the group's raw field
    u32 q[L::halfwords ? L::halfwords : 1];
    // Values of rows that wait for the group's end; 8-bit heads two rows to a word.
    static constexpr u32 per_word = L::head == 8 ? 2 : 1;
    u32 waiting[(L::group - L::ready) / per_word + 1];

    // One step of both lanes; returns both values at their places.
    template <u32 J>
    __device__ __forceinline__ u32 step(const Tables& tables, u32 below, int row_class) {
        const u32 c0 = clamped_sum(class0, row_class, tables.last_context);
        const u32 c1 = clamped_sum(class1, row_class, tables.last_context);
        const u32 e0 = shared_word(tables.address + 4 * joined(x0, tables.slot_mask, c0));
        const u32 e1 = shared_word(tables.address + 4 * joined(x1, tables.slot_mask, c1));
        constexpr u32 bias_mask = (1u << L::value_bit) - 1;
        x0 = __umulhi(e0, 1u << L::value_bit) * (x0 >> tables.p) + (e0 & bias_mask);
        x1 = __umulhi(e1, 1u << L::value_bit) * (x1 >> tables.p) + (e1 & bias_mask);
        const u32 m0 = below_low(x0), m1 = below_low(x1);
        // All who need a word, cut into three runs by the places of this thread's two lanes: `popc` is what the row waits for.
        const u32 at0 = feed.at + 2 * __popc(m0 & below);
        const u32 at1 = at0 + 2 * __popc(select(below, m1, m0));
        feed.at = at1 + 2 * __popc(m1 & ~below);
        const u32 w0 = shared_half(at0), w1 = shared_half(at1);
        append_word(x0, w0);
        append_word(x1, w1);
        return Output<L>::template values<J>(e0, e1);
    }

    // Low words of rows J .. END - 1, at most four and ahead of the rows that store them.
    template <u32 J, u32 END>
    __device__ __forceinline__ void load_lows() {
        if constexpr (L::element == 4 && J < END) {
            lows[J % 4] = load_stream(low + 128 * J);
            load_lows<J + 1, END>();
        }
    }

    // Loads words FROM .. TO - 1 of the group at `at`; the last group's last two are not in memory.
    template <u32 FROM, u32 TO>
    static __device__ __forceinline__ void load_raw(u32 (&q)[L::halfwords ? L::halfwords : 1], u64 at, bool last) {
        if constexpr (FROM < TO) {
            if (FROM + 2 < L::halfwords || !last) q[FROM] = load_stream(at + 128 * FROM);
            load_raw<FROM + 1, TO>(q, at, last);
        }
    }

    // Words that no row needs that waits for the group's end. Their registers take the next group's, so that memory has the time of
    // several rows to answer.
    static constexpr u32 early = L::ready * L::raw / 16;

    // The others. Loads have few scoreboards, and whoever waits for one of a scoreboard's loads waits for all: so they are loaded
    // when the group's first rows have waited for the early ones, where those rows can do without them.
    static constexpr bool late_inside = 16 * early >= 4 * L::raw || L::ready == 0;

    // `between` is called when four rows are done.
    template <u32 J, class Between>
    __device__ __forceinline__ void rows(const Tables& tables, u32 below, bool last, bool next_last, Between between) {
        if constexpr (J < L::group) {
            int4 c;
            asm volatile("ld.shared.v4.s32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(c.x), "=r"(c.y), "=r"(c.z), "=r"(c.w) : "r"(classes + 4 * J));
            load_lows<J, (J + 4 < L::ready ? J + 4 : L::ready)>();
            row<J>(tables, below, c.x);
            row<J + 1>(tables, below, c.y);
            row<J + 2>(tables, below, c.z);
            row<J + 3>(tables, below, c.w);
            feed.refill();
            if constexpr (!L::doubled && J < L::ready && L::ready <= J + 4 && early > 0) {
                if (!last) load_raw<0, early>(q, raw + 128 * L::halfwords, next_last);
            }
            if constexpr (J == 0) between();
            rows<J + 4>(tables, below, last, next_last, between);
        }
    }

    template <u32 J>
    __device__ __forceinline__ void store(u32 values) {
        Output<L>::template store<J>(out, values, raw_bits<L, J>(q), lows[J % 4]);
        out += row_stride;
    }

    template <u32 J>
    __device__ __forceinline__ void row(const Tables& tables, u32 below, int row_class) {
        const u32 values = step<J>(tables, below, row_class);
        if constexpr (J < L::ready) {
            store<J>(values);
        } else {
            constexpr u32 at = (J - L::ready / per_word * per_word) / per_word;
            if constexpr (per_word == 2 && J % 2 == 1 && J != L::ready) waiting[at] |= values;
            else waiting[at] = values;
        }
    }

    template <u32 J>
    __device__ __forceinline__ void finish() {
        if constexpr (J < L::group) {
            constexpr u32 at = (J - L::ready / per_word * per_word) / per_word;
            if constexpr (J == L::ready || J % 4 == 0) load_lows<J, J / 4 * 4 + 4>();
            store<J>(waiting[at]);
            finish<J + 1>();
        }
    }
};
static_assert(REFILL_ROWS == 4, "Superblock::rows refills after four rows");

// The 16 bits at bit `bit` behind a shared halfword. At most 15 are wanted, so two halfwords hold them.
__device__ __forceinline__ u32 shared_bits(u32 address, u32 bit) {
    const u32 at = address + (bit >> 4) * 2;
    return (shared_half(at) | shared_half(at + 2) << 16) >> (bit & 15);
}

// Patches that are in shared memory for sure: behind at most 256 bytes of overflow, of CHUNK bytes.
constexpr u32 STAGED = (CHUNK - 256) / 4;

// Applies patches and checks that they end the stream. `staged` is the shared address of the first one.
template <class L>
__device__ __forceinline__ void finish_stream(const Tensor& t, const Block& b, u32 position, u32 length, u32 staged) {
    if (position + 4 * b.patches > length) return fail(t, b, TRUNCATED);
    if (((position + 4 * b.patches + 3) & ~3u) != length) return fail(t, b, CORRUPT);
    if (b.patches == 0) return;
    __syncwarp();  // all rows are written
    for (u32 i = lane_index(); i < b.patches; i += WARP) {
        const u16* patch = reinterpret_cast<const u16*>(t.payload + 4 * u64(b.stream) + position + 4 * i);
        const u32 at = i < STAGED ? shared_half(staged + 4 * i) : __ldg(patch);
        const u32 value = i < STAGED ? shared_half(staged + 4 * i + 2) : __ldg(patch + 1);
        const u32 row = at / 64, col = at % 64;
        if (row >= b.rows || value >> L::coded != 0) {
            fail(t, b, CORRUPT);
            continue;
        }
        const u64 element = t.out + (b.first_row + u64(row)) * t.row_stride + (u64(b.first_col) + col) * L::element;
        constexpr u32 mask = ((1u << L::coded) - 1) << L::shift;
        if constexpr (L::element == 1) {
            volatile u8* head = reinterpret_cast<volatile u8*>(element);
            *head = u8((*head & ~mask) | value << L::shift);
        } else {
            // The word that holds the head: two elements or one. Nobody waits for what was there.
            const u32 by = L::element == 2 ? 16 * (col & 1) : 16;
            u32* word = reinterpret_cast<u32*>(element & ~u64(3));
            atomicAnd(word, ~(mask << by));
            atomicOr(word, value << L::shift << by);
        }
    }
}

// Asks for what a superblock begins with and nobody has loaded yet, a cache line or two per thread. Much earlier would be too early: 4000
// warps' superblocks are more than the second-level cache holds beside what is written.
template <class L>
__device__ __forceinline__ void prefetch_block(const Tensor& t, u32 words, bool stream_too) {
    const u32 lane = lane_index();
    if constexpr (!L::doubled && L::halfwords > 0) {
        const u32 raw = __shfl_sync(FULL_WARP, words, 0);
        if (lane < min(L::halfwords, WARP)) prefetch(t.payload + 4 * u64(raw) + 128 * lane);
    }
    if constexpr (!L::ahead) {
        const u32 states = __shfl_sync(FULL_WARP, words, 1);
        if (lane < 2) prefetch(t.payload + 4 * u64(states) + 128 * lane);
    }
    if constexpr (L::element == 4) {
        const u32 low = __shfl_sync(FULL_WARP, words, 2);
        if (lane < L::group) prefetch(t.payload + 4 * u64(low) + 128 * lane);
    }
    if (stream_too) {
        const u32 stream = __shfl_sync(FULL_WARP, words, 3), lengths = __shfl_sync(FULL_WARP, words, 4);
        if (lane <= RING / 128 && 32 * lane < (lengths & 0xffff)) prefetch(t.payload + 4 * u64(stream) + 128 * lane);
    }
}

// Fetches the classes of up to CLASS_ROWS rows, a multiple of 16, and of a superblock's columns to shared memory, without waiting for
// them. All threads have used what was there. Registers would do, but then the compiler waits for these loads before others begin.
__device__ __forceinline__ void fetch_classes(const Tensor& t, u32 row, u32 rows, u32 col, u32 address) {
    const u32 at = 4 * (lane_index() % 16);
    const bool of_rows = lane_index() < 16;
    const u64 from = of_rows ? t.row_classes : t.col_classes;
    if (from != 0 && (!of_rows || at < rows)) {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(address + 4 * lane_index()), "l"(from + (of_rows ? row : col) + at)
                     : "memory");
    }
}

// Makes words of the fetched bytes of rows, as the step adds them.
__device__ __forceinline__ void expand_classes(const Tensor& t, u32 fetched, u32 address, u32 shift) {
#pragma unroll
    for (u32 i = 0; i < CLASS_ROWS; i += WARP) {
        u32 class_;
        asm volatile("ld.shared.u8 %0, [%1];" : "=r"(class_) : "r"(fetched + lane_index() + i));
        const u32 word = t.row_classes != 0 ? class_ << shift : 0;
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(address + 4 * (lane_index() + i)), "r"(word) : "memory");
    }
    __syncwarp();
}

// Fetches the first bytes of a superblock's stream to the begin of the warp's ring, and its classes, without waiting for them. All threads
// have used what was there.
__device__ __forceinline__ void fetch_head(const Tensor& t, u32 words, u32 ring) {
    const u32 begin = __shfl_sync(FULL_WARP, words, 3), bytes = 4 * (__shfl_sync(FULL_WARP, words, 4) & 0xffff);
    const u32 rows = __shfl_sync(FULL_WARP, words, 5) >> 16;
    const u32 row = __shfl_sync(FULL_WARP, words, 6), col = __shfl_sync(FULL_WARP, words, 7);
    Feed feed;
    feed.begin_at(ring, t.payload + 4 * u64(begin), bytes);
    feed.template fetch_first<0, HEAD>();
    fetch_classes(t, row, rows, col, ring + RING + MIRROR + CLASS_BYTES);
}

// What a warp has asked for of its next superblock.
template <class L>
struct Ahead {
    u32 q[L::halfwords ? L::halfwords : 1];  // words of the raw field, the first group's or the next group's
    u32 stored0, stored1;                    // states
    bool head;                               // the stream's first bytes are in the ring, the classes beside it

    __device__ __forceinline__ void load(const Tensor& t, u32 words) {
        const u32 raw = __shfl_sync(FULL_WARP, words, 0), states = __shfl_sync(FULL_WARP, words, 1);
        const u32 rows = __shfl_sync(FULL_WARP, words, 5) >> 16;
        const u64 mine = t.payload + 4 * lane_index();
        stored0 = load_stream(mine + 4 * u64(states));
        stored1 = load_stream(mine + 4 * u64(states) + 128);
        if constexpr (L::doubled) {
            Superblock<L>::template load_raw<0, L::halfwords>(q, mine + 4 * u64(raw), rows == L::group);
        }
    }
};

// Decodes a superblock and begins with the next; `words` are its words and become those of the next. Returns whether there is one.
template <class L, class Claim>
__device__ __forceinline__ bool decode_full(
    const Tensor& t, u32& words, Claim claim, Ahead<L>& ahead, const Tables& tables, u32 below, u32 ring) {
    constexpr bool doubled = L::doubled;
    const u32 lane = lane_index();
    const Block b = to_block(words);
    const u64 payload = t.payload;
    const u32 length = 4 * b.stream_words;
    const bool packed = b.base != PLAIN_STATES;
    const u32 first_row = b.first_row, first_col = b.first_col, b_rows = b.rows;
    const u32 class_area = ring + RING + MIRROR, fetched = class_area + CLASS_BYTES;

    Superblock<L> s;
    s.raw = payload + 4 * u64(b.raw) + 4 * lane;
    if constexpr (doubled) {
#pragma unroll
        for (u32 i = 0; i < L::halfwords; ++i) s.q[i] = ahead.q[i];
    } else {
        s.template load_raw<0, L::halfwords>(s.q, s.raw, b.rows == L::group);
    }
    // Where there are registers all of this has been asked for a while ago, and nobody waits.
    if constexpr (!L::ahead) ahead.load(t, words);
    s.feed.begin_at(ring, payload + 4 * u64(b.stream), length);
    s.feed.wait();
    if (ahead.head) {
        s.feed.skip_head();
        s.feed.template fetch_first<HEAD, RING>();
    } else {
        s.feed.template fetch_first<0, RING>();
        fetch_classes(t, first_row, b_rows, first_col, fetched);
        s.feed.wait();
    }
    asm volatile("ld.shared.s8 %0, [%1];" : "=r"(s.class0) : "r"(fetched + CLASS_ROWS + 2 * lane));
    asm volatile("ld.shared.s8 %0, [%1];" : "=r"(s.class1) : "r"(fetched + CLASS_ROWS + 2 * lane + 1));
    s.class0 = t.col_classes != 0 ? s.class0 << tables.p : 0;
    s.class1 = t.col_classes != 0 ? s.class1 << tables.p : 0;
    s.classes = class_area;
    expand_classes(t, fetched, class_area, tables.p);
    s.row_stride = t.row_stride;
    s.out = t.out + u64(first_row) * t.row_stride + u64(first_col + 2 * lane) * L::element;
    s.low = payload + 4 * u64(b.low) + 4 * lane;

    const u32 stored0 = ahead.stored0, stored1 = ahead.stored1;
    const u32 base = packed ? (1u << 31) - (u32(b.base) << 23) : 0;
    s.x0 = packed ? base + (stored0 & 0x7fffffff) : stored0;
    s.x1 = packed ? base + (stored1 & 0x7fffffff) : stored1;
    // The states' top bits, in bits 31 and 30; in the low bits, what is wrong.
    u32 tops = (stored0 & 0x80000000u) | (stored1 >> 1 & 0x40000000u);
    if (s.x0 < STATE_LOW || s.x1 < STATE_LOW) tops |= CORRUPT;

    u32 position = 0, staged = 0, next = NONE, next_words = 0;
#pragma unroll 1
    for (u32 row = 0; row < b.rows; row += L::group) {
        const bool last = row + L::group >= b.rows;
        if (row % CLASS_ROWS == 0 && row != 0) {
            __syncwarp();
            fetch_classes(t, first_row + row, b_rows - row, first_col, fetched);
            s.feed.wait();
            expand_classes(t, fetched, class_area, tables.p);
            s.classes = class_area;
        }
        // What later groups read from memory.
        if constexpr (L::element == 4) {
            if (!last && lane < L::group) prefetch(s.low - 4 * lane + 128 * (L::group + lane));
        }
        const bool next_last = row + 2 * L::group >= b.rows;
        s.template rows<0>(tables, below, last, next_last, [&] {
            // As late as a load before the last group can be, so that the last superblocks go to warps that are free.
            if (last ? row == 0 : next_last) {
                next = claim();
                if (next != NONE) next_words = load_block_words(t, next);
            }
            if (!last) {
                if constexpr (doubled) {
                    s.template load_raw<0, L::halfwords>(ahead.q, s.raw + 128 * L::halfwords, next_last);
                } else if constexpr (Superblock<L>::late_inside) {
                    if (row != 0) s.template load_raw<Superblock<L>::early, L::halfwords>(s.q, s.raw, false);
                }
                return;
            }
            if constexpr (!doubled && Superblock<L>::late_inside) {
                if (row != 0) s.template load_raw<Superblock<L>::early, L::halfwords>(s.q, s.raw, true);
            }
            if (next == NONE) return;
            ahead.head = L::ahead && s.feed.whole && s.feed.at >= ring + HEAD;
            prefetch_block<L>(t, next_words, !ahead.head);
            if constexpr (!L::ahead) return;
            ahead.load(t, next_words);
            if (ahead.head) {
                __syncwarp();  // all threads have read what is overwritten
                fetch_head(t, next_words, ring);
            }
        });

        if (last) {
            position = s.feed.position(length);
            staged = s.feed.at;
            if (position > length) tops |= TRUNCATED;
            if (!packed && (s.x0 != STATE_LOW || s.x1 != STATE_LOW)) tops |= CORRUPT;
            if constexpr (L::carries) {
                u32 tail0, tail1, bits;
                if (packed) {
                    const u32 missing0 = __clz(s.x0), missing1 = __clz(s.x1);
                    // Overflow bits before this thread's, lanes below 32 in the lower half of the word.
                    u32 sum = missing0 | missing1 << 16;
#pragma unroll
                    for (u32 by = 1; by < WARP; by *= 2) {
                        const u32 other = __shfl_up_sync(FULL_WARP, sum, by);
                        if (lane >= by) sum += other;
                    }
                    const u32 total = __shfl_sync(FULL_WARP, sum, 31);
                    const u32 at0 = (sum & 0xffff) - missing0, at1 = (total & 0xffff) + (sum >> 16) - missing1;
                    bits = (total & 0xffff) + (total >> 16);
                    const u32 low0 = shared_bits(s.feed.at, at0 & 1023) & ((1u << missing0) - 1);
                    const u32 low1 = shared_bits(s.feed.at, at1 & 1023) & ((1u << missing1) - 1);
                    tail0 = (tops & 0x80000000u) | (s.x0 << missing0 & 0x7fffffff) | low0;
                    tail1 = (tops << 1 & 0x80000000u) | (s.x1 << missing1 & 0x7fffffff) | low1;
                } else {
                    const u32 at = s.feed.at + 4 * lane;
                    bits = 64 * 32;
                    tail0 = shared_half(at) | shared_half(at + 2) << 16;
                    tail1 = shared_half(at + 128) | shared_half(at + 130) << 16;
                }
                if (bits > 8 * (length - min(position, length))) tops |= TRUNCATED;
                position += (bits + 15) / 16 * 2;
                staged += (bits + 15) / 16 * 2;
                s.q[L::halfwords - 2] = __byte_perm(tail0, tail1, 0x5410);
                s.q[L::halfwords - 1] = __byte_perm(tail0, tail1, 0x7632);
            }
        }
        s.template finish<L::ready>();
        s.classes += 4 * L::group;
        s.low += 128 * L::group;
        s.raw += 128 * L::halfwords;
        if constexpr (doubled) {
#pragma unroll
            for (u32 i = 0; i < L::halfwords; ++i) s.q[i] = ahead.q[i];
        } else if constexpr (!Superblock<L>::late_inside) {
            if (!last) s.template load_raw<Superblock<L>::early, L::halfwords>(s.q, s.raw, next_last);
        }
    }
    // Once more from its words, so that it takes no registers in between.
    const Block again = to_block(words);
    if ((tops & 3) != 0) fail(t, again, tops & TRUNCATED ? TRUNCATED : CORRUPT);
    finish_stream<L>(t, again, position, length, staged);
    words = next_words;
    return next != NONE;
}

// The tables of the fast path.
template <class L>
__device__ __forceinline__ void load_tables(const Tensor& t) {
    if (t.entries == 0) {
        return expand_tables(t, reinterpret_cast<u32*>(shared + tables_offset()), 32 - L::value_bit, L::value_bit);
    }
    // Copied, so that all of them are under way at once.
    const u32 to = shared_base() + tables_offset(), bytes = t.contexts << t.table_bits << 2;
    for (u32 at = 16 * threadIdx.x; at < bytes; at += 16 * blockDim.x) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + at), "l"(t.entries + at) : "memory");
    }
}

template <class L>
__device__ __forceinline__ void decode_batch(const Batch& batch) {
    const u32 below = lanes_below();
    Ahead<L> ahead;
    for_each_block(
        batch,
        [&](const Tensor& t, u32 words) {
            prefetch_block<L>(t, words, false);
            if constexpr (L::ahead) ahead.load(t, words);
            fetch_head(t, words, warp_memory());
            ahead.head = true;
        },
        [](const Tensor& t) { load_tables<L>(t); },
        [&](const Tensor& t, u32& words, auto claim) {
            const u32 p = t.table_bits;
            const Tables tables = {__shfl_sync(FULL_WARP, shared_base() + tables_offset(), 0), p, (1u << p) - 1, int((t.contexts - 1) << p)};
            return decode_full<L>(t, words, claim, ahead, tables, below, warp_memory());
        });
}

// With 64 registers per thread there is no room to load ahead: for launches that 32 warps per multiprocessor take in one round.
constexpr u32 LANES_MORE_THREADS = 1024;

// Both kernels of a split of a head.
#define WCODEC_LANES(name, head, shift, sign, element)                                        \
    extern "C" __global__ void __launch_bounds__(WARP * Layout<head, shift, sign, element, true>::warps, 1) \
    wcodec_lanes_##name(const __grid_constant__ Batch batch) {                                \
        decode_batch<Layout<head, shift, sign, element, true>>(batch);                        \
    }                                                                                         \
    extern "C" __global__ void __launch_bounds__(LANES_MORE_THREADS, 1)                       \
    wcodec_lanes_##name##_more(const __grid_constant__ Batch batch) {                         \
        decode_batch<Layout<head, shift, sign, element, false>>(batch);                       \
    }
