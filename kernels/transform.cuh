// Step 3 of integer mode: the reversible 8x8 DCT-II and ADST, undone. `wcodec-transform` defines them and explains the steps.
//
// Thread to data: eight threads per block, four blocks at a time. A thread undoes the transform of one column in registers, the block
// is turned in shared memory, and it undoes that of one row. Budget: per thread and direction 29 rotations or butterflies of at
// most 12 instructions, 8 words to and from shared memory. Arithmetic is modulo 2^32, as on the CPU, so damaged coefficients are harmless.
#pragma once
#include "integer.cuh"

// round(k * x / 2^14): the low 32 bits of the exact shifted product.
__device__ __forceinline__ u32 scaled(int k, u32 x) { return u32((s64(k) * int(x) + 8192) >> 14); }

// Undoes a rotation whose shears are tan(angle / 2) and sin(angle), in 1/2^14.
template <int TAN_HALF, int SIN>
__device__ __forceinline__ void unrotate(u32& a, u32& b) {
    a += scaled(TAN_HALF, b);
    b -= scaled(SIN, a);
    a += scaled(TAN_HALF, b);
}

__device__ __forceinline__ void unrotate_pi_4(u32& a, u32& b) { unrotate<6786, 11585>(a, b); }
__device__ __forceinline__ void unrotate_pi_8(u32& a, u32& b) { unrotate<3259, 6270>(a, b); }
__device__ __forceinline__ void unrotate_pi_16(u32& a, u32& b) { unrotate<1614, 3196>(a, b); }
__device__ __forceinline__ void unrotate_3pi_16(u32& a, u32& b) { unrotate<4970, 9102>(a, b); }

__device__ __forceinline__ void unbutterfly(u32& mean, u32& difference) {
    const u32 b = mean - u32(int(difference) >> 1);
    mean = b + difference;
    difference = b;
}

__device__ __forceinline__ void negate(u32& a) { a = 0 - a; }

__device__ __forceinline__ void inverse_dct(u32 (&x)[8]) {
    u32 s0 = x[0], d0 = x[1], s3 = x[2], d2 = x[3], s1 = x[4], d1 = x[5], s2 = x[6], d3 = x[7];
    unrotate_3pi_16(d2, d1);
    unrotate_pi_16(d0, d3);
    negate(d3);
    unbutterfly(d3, d1);
    unbutterfly(d0, d2);
    unrotate_pi_4(d1, d2);

    unrotate_pi_8(s3, s2);
    negate(s2);
    unbutterfly(s0, s1);
    unbutterfly(s1, s2);
    unbutterfly(s0, s3);

    unbutterfly(s0, d0);
    unbutterfly(s1, d1);
    unbutterfly(s2, d2);
    unbutterfly(s3, d3);
    x[0] = s0, x[1] = s1, x[2] = s2, x[3] = s3, x[4] = d3, x[5] = d2, x[6] = d1, x[7] = d0;
}

__device__ __forceinline__ void inverse_adst(u32 (&x)[8]) {
    u32 p0 = x[0], p2 = x[1], t3 = x[2], p1 = x[3], t1 = x[4], p3 = x[5], t2 = x[6], t0 = x[7];
    negate(t0), negate(p2), negate(p1), negate(p3);
    unrotate_pi_4(t3, p3);
    negate(p3);
    unrotate_pi_4(p1, t1);
    negate(t1);

    unbutterfly(t2, p3);
    unbutterfly(p2, t3);
    unbutterfly(t0, t1);
    unbutterfly(p0, p1);
    unrotate_pi_8(t3, p3);
    unrotate_pi_8(p2, t2);
    negate(t2);

    unbutterfly(t1, t3);
    unbutterfly(p1, p3);
    unbutterfly(t0, t2);
    unbutterfly(p0, p2);
    unrotate<805, 1606>(p0, t0);
    unrotate<4104, 7723>(p1, t1);
    unrotate<7749, 12665>(p2, t2);
    unrotate<12151, 15679>(p3, t3);
    negate(t0), negate(t1), negate(t2), negate(t3);
    x[7] = p0, x[0] = t0, x[5] = p1, x[2] = t1, x[3] = p2, x[4] = t2, x[1] = p3, x[6] = t3;
}

constexpr u32 DCT = 1, ADST = 2;

__device__ __forceinline__ void inverse_1d(u32 transform, u32 (&x)[8]) {
    if (transform == DCT) inverse_dct(x);
    else inverse_adst(x);
}

// Where a coefficient of a block stands in zigzag order, by its position 8u + v.
__constant__ u8 ZIGZAG_PLACE[64] = {
    0,  1,  5,  6,  14, 15, 27, 28, 2,  4,  7,  13, 16, 26, 29, 42, 3,  8,  12, 17, 25, 30, 41, 43, 9,  11, 18, 24, 31, 40, 44, 53,
    10, 19, 23, 32, 39, 45, 52, 54, 20, 22, 33, 38, 46, 51, 55, 60, 21, 34, 37, 47, 50, 56, 59, 61, 35, 36, 48, 49, 57, 58, 62, 63,
};

__device__ __forceinline__ u8 as_residual(int v) { return u8(max(-128, min(127, v))); }
