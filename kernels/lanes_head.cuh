// The split of a head at compile time, and how a row's values and raw bits are joined and stored.
#pragma once
#include "lanes_batch.cuh"

// The split of a head at compile time, see `HeadLayout`; and whether there are registers for what comes after this group and this
// superblock.
template <u32 HEAD, u32 SHIFT, bool SIGN, u32 ELEMENT, bool AHEAD>
struct Layout {
    static constexpr u32 head = HEAD, shift = SHIFT, element = ELEMENT;
    static constexpr bool sign = SIGN;
    static constexpr u32 raw = SHIFT + SIGN;          // bits of a raw code
    static constexpr u32 coded = HEAD - raw;
    static constexpr u32 value_bit = value_bit_of(coded);
    // Rows of a group: as many as fill whole halfwords, at least the two that travel in the states.
    static constexpr u32 group = raw == 1 ? 32 : 16;
    static constexpr u32 halfwords = raw * group / 16;
    static constexpr bool carries = raw != 0;
    static constexpr bool ahead = AHEAD;
    // Warps of a block that loads ahead. Memory does best with few superblocks in progress, and more registers hold more that was asked
    // for; but one-byte elements are bound by instructions.
    static constexpr u32 warps = element == 1 ? 28 : halfwords > 8 ? 24 : 20;
    // Bytes of stream that a warp has in shared memory: one-byte elements have longer streams. A multiple of 512.
    static constexpr u32 ring = element == 1 && ahead ? 3072 : 2048;
    // Whether the second-level cache forgets streams once they are read, so that it keeps what was written until neighbouring rows of it
    // are there. Long streams are fetched piece by piece, and pieces share lines.
    static constexpr bool forgets = !(element == 1 && ahead);
    static constexpr bool doubled = ahead && halfwords > 0 && halfwords <= 8;  // the next group's raw words have their own
    // First row of a group with bits in its last two halfwords. In every group such rows are finished at its end, so that the
    // last group, whose last two halfwords come out of the final states, needs no code of its own.
    static constexpr u32 ready = carries ? 16 * (halfwords - 2) / raw : group;
};

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

    // Where a row's 8-bit heads lie in the halves of a word: two rows wait in one word, one in the lower bytes and one in the upper.
    template <u32 J>
    static constexpr u32 side = L::head == 8 && L::raw != 0 ? 8 * (J % 2) : 0;

    // Both values of a row at their places in the halves of a word, among other bits; of 8-bit heads with raw bits, among zeros.
    template <u32 J>
    static __device__ __forceinline__ u32 values(u32 even, u32 odd) {
        // Bytes 1 and 2 hold a value whatever the layout, see `value_bit`.
        const u32 both = shifted<int(L::shift + side<J> + 8) - int(L::value_bit)>(__byte_perm(even, odd, 0x6521));
        constexpr u32 mask = (((1u << L::coded) - 1) << (L::shift + side<J>)) * 0x10001u;
        return L::head == 8 && L::raw != 0 ? both & mask : both;
    }

    template <u32 J>
    static __device__ __forceinline__ void store(u64 at, u32 values, u32 raw, u32 low) {
        if constexpr (L::head == 16) {
            const u32 heads = select(raw_mask, raw, values);
            if constexpr (L::element == 2) __stcs(reinterpret_cast<u32*>(at), heads);
            else __stcs(reinterpret_cast<uint2*>(at), make_uint2(__byte_perm(low, heads, 0x5410), __byte_perm(low, heads, 0x7632)));
        } else {
            // Raw bits go where the values are; of the word that both make, the bytes of this row's heads are taken.
            u32 heads = values;
            if constexpr (L::shift != 0) heads = select(low_mask << side<J>, raw << side<J>, heads);
            if constexpr (L::sign) heads |= raw >> (8 - side<J>) & (0x00800080u << side<J>);
            const u32 packed = __byte_perm(heads, 0, side<J> == 8 ? 0x4431 : 0x4420);
            asm volatile("st.global.cs.u16 [%0], %1;" ::"l"(at), "h"(u16(packed)) : "memory");
        }
    }
};
