// Decoding full superblocks of 64 rANS lanes: 64 columns, whole groups of rows.
// The format is defined by wcodec-rans (`superblock`); docs/cuda.md has the budgets.
//
// Thread to data: one warp per superblock. Thread t holds lanes t and t + 32, which are columns 2t and 2t + 1, so a row of 64
// elements leaves as one coalesced store. lanes_batch.cuh says which superblocks a warp takes, lanes_feed.cuh what is in shared memory.
#pragma once
#include "lanes_ahead.cuh"

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
    for (u32 first = 0; first < b.patches; first += WARP) {
        __syncwarp();  // all rows are written, and earlier patches
        const u32 i = first + lane_index(), there = __ballot_sync(FULL_WARP, i < b.patches);
        if (i >= b.patches) continue;
        const u16* patch = reinterpret_cast<const u16*>(t.payload + 4 * u64(b.stream) + position + 4 * i);
        const u32 at = i < STAGED ? shared_half(staged + 4 * i) : __ldg(patch);
        const u32 value = i < STAGED ? shared_half(staged + 4 * i + 2) : __ldg(patch + 1);
        const u32 row = at / 64, col = at % 64;
        const bool counts = last_of_its_element(there, at);
        if (row >= b.rows || value >> L::coded != 0) {
            fail(t, b, CORRUPT);
            continue;
        }
        if (!counts) continue;
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
    const u32 class_area = ring + L::ring + MIRROR, fetched = class_area + CLASS_BYTES;

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
        s.feed.template fetch_first<Feed<L>::HEAD, L::ring>();
    } else {
        s.feed.template fetch_first<0, L::ring>();
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
            ahead.head = L::ahead && s.feed.whole && s.feed.at >= ring + Feed<L>::HEAD;
            prefetch_block<L>(t, next_words, !ahead.head);
            if constexpr (!L::ahead) return;
            ahead.load(t, next_words);
            if (ahead.head) {
                __syncwarp();  // all threads have read what is overwritten
                fetch_head<L>(t, next_words, ring);
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
        return expand_tables(t, reinterpret_cast<u32*>(shared + tables_offset<L>()), 32 - L::value_bit, L::value_bit);
    }
    // Copied, so that all of them are under way at once.
    const u32 to = shared_base() + tables_offset<L>(), bytes = t.contexts << t.table_bits << 2;
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
            fetch_head<L>(t, words, warp_memory<L>());
            ahead.head = true;
        },
        [](const Tensor& t) { load_tables<L>(t); },
        [&](const Tensor& t, u32& words, auto claim) {
            const u32 p = t.table_bits;
            const Tables tables = {__shfl_sync(FULL_WARP, shared_base() + tables_offset<L>(), 0), p, (1u << p) - 1, int((t.contexts - 1) << p)};
            return decode_full<L>(t, words, claim, ahead, tables, below, warp_memory<L>());
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
