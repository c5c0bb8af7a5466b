// Steps of a superblock: a row of 64 elements each, out of 64 states.
#pragma once
#include "lanes_feed.cuh"

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
    Feed<L> feed;
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
