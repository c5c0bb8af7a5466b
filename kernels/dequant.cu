// wcodec: arch=80
// Dequantisation: codes of 4 or 8 bits to BF16, F16 or F32 by the formula of docs/dequantisation.md,
//
//     out = round_to_type(round_to_f32((q - z) · s)),
//
// both roundings to nearest even, subnormals kept, every NaN the type's with all bits below the sign set (what the hardware makes).
// Where zstd mode left byte planes, they are joined in the same pass: a code's bytes are gathered from their planes.
//
// Thread to data: a thread makes 16 bytes of output at a time, V = 8 or 4 elements of a row, so a warp stores 512 consecutive bytes and
// loads V (or V/2) bytes per thread beside each other. Three forms: ONE scale for a vector (per tensor, per row, groups of a multiple of V),
// where a block takes a tile of 256 × 4 vectors; EACH element its own (per column), where a thread takes four rows; ROWS for words that hold 8
// rows of a column. A thread loads its four vectors before it works on the first. Anything else goes element by element.
//
// Budget, INT8 to BF16: 3 bytes an element, so 80 % of an H100's memory leaves 35 instructions for each; this takes about 12.
#include "framed.cuh"

constexpr u32 THREADS = 256;
constexpr u32 UNROLL = 4;

// What a code is once it is a byte; `kind` of Job.
enum Kind : u32 { INTEGER, E4M3, E5M2 };
// How codes lie in memory; `order`.
enum Order : u32 { BYTES, PAIRS, INTERLEAVED, ROW_WORDS };
enum Form : u32 { ANY, ONE, EACH, ROWS };

// Division of numbers below 2^31 by one that the host knows: (n · factor) >> 32 >> shift with factor = ⌈2^(31 + l) / d⌉, l = ⌈log2 d⌉ and
// shift = l - 1 (Granlund and Montgomery, "Division by invariant integers using multiplication", 1994). A factor of 0 stands for d = 1.
struct Divisor {
    u32 factor, shift;
};

__device__ __forceinline__ u32 operator/(u32 n, Divisor d) { return d.factor == 0 ? n : __umulhi(n, d.factor) >> d.shift; }

// launch/dequant.rs has the same layout.
struct Job {
    Framed codes;
    u64 out;
    u64 scales;        // f32, one for each block of the grid, row by row
    u64 zeros;         // f32 integers, or 0
    u64 row_groups;    // u32: the grid's row for each row; or 0: row / block_rows
    u32 rows, cols;
    u32 block_rows, block_cols;
    u32 scale_cols;    // blocks side by side
    u32 kind, order, form;
    u32 flip;          // XOR that makes integer codes unsigned, in every byte
    float origin;      // 2^23 + what the flip added
    u64 items;         // vectors for ONE, strips of four rows × V columns for EACH, of eight × 4 for ROWS, else elements
    Divisor by_row;    // items side by side; not for ANY
    Divisor by_block_rows, by_block_cols;
};
static_assert(sizeof(Job) == 136, "the host writes 34 words");

struct Bf16 {
    static constexpr u32 BYTES = 2;
    __device__ static u32 pair(float low, float high) {
        u32 d;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
        return d;
    }
};
struct F16 {
    static constexpr u32 BYTES = 2;
    __device__ static u32 pair(float low, float high) {
        u32 d;
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
        return d;
    }
};
struct F32 {
    static constexpr u32 BYTES = 4;
};

// Byte `k` of four codes, as what it stands for before the scale.
__device__ __forceinline__ float value(const Job& job, u32 codes, u32 k, float origin) {
    if (job.kind == INTEGER) {
        // 2^23 + u is exact in its own bits, and so is the difference of two such integers.
        return __fsub_rn(__uint_as_float(__byte_perm(codes, 0x4b000000u, 0x7440 + k)), origin);
    }
    const u32 code = codes >> (8 * k) & 0xff;
    if (job.kind == E4M3) {
        // Exponents differ by 120 in bias; a power of two changes no digit, subnormal codes included.
        const float magnitude = __fmul_rn(__uint_as_float((code & 0x7f) << 20), 0x1p120f);
        const u32 bits = (code & 0x7f) == 0x7f ? 0x7fffffffu : __float_as_uint(magnitude);
        return __uint_as_float(bits | (code & 0x80) << 24);
    }
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(u16(code << 8)));
    return f;
}

// 2, 4 or 8 bytes from byte `v`·BYTES of the codes.
template <u32 BYTES>
__device__ __forceinline__ uint2 load(const Framed& p, u64 v) {
    uint2 w = make_uint2(0, 0);
    if (p.frame == 0) {
        const u64 from = p.base + v * BYTES;
        if constexpr (BYTES == 8) asm volatile("ld.global.cs.v2.u32 {%0, %1}, [%2];" : "=r"(w.x), "=r"(w.y) : "l"(from));
        if constexpr (BYTES == 4) asm volatile("ld.global.cs.u32 %0, [%1];" : "=r"(w.x) : "l"(from));
        if constexpr (BYTES == 2) {
            u16 h;
            asm volatile("ld.global.cs.u16 %0, [%1];" : "=h"(h) : "l"(from));
            w.x = h;
        }
        return w;
    }
    // The host takes this way only for frames of whole vectors, so no vector crosses a piece.
    const u32 per_piece = p.frame / BYTES;
    const u32 piece = u32(v) / per_piece, length = length_of_piece(p, piece), i = (u32(v) - piece * per_piece) * BYTES;
#pragma unroll
    for (u32 k = 0; k < BYTES; ++k) {
        const u32 byte = *reinterpret_cast<const u8*>(byte_of_piece(p, piece, length, i + k));
        (k < 4 ? w.x : w.y) |= byte << (8 * (k % 4));
    }
    return w;
}

// The codes of vector `v` as one byte each.
template <u32 V>
__device__ __forceinline__ uint2 load_codes(const Job& job, u32 v) {
    if (job.order == BYTES) return load<V>(job.codes, v);
    if (job.order == PAIRS) {
        const u32 w = load<V / 2>(job.codes, v).x;
        const u32 low = w & 0x0f0f0f0f, high = w >> 4 & 0x0f0f0f0f;
        return make_uint2(__byte_perm(low, high, 0x5140), __byte_perm(low, high, 0x7362));
    }
    // Nibbles 0 to 3 of a word are its even columns, 4 to 7 its odd ones.
    const u32 w = load<4>(job.codes, V == 8 ? v : v / 2).x;
    const u32 low = w & 0x0f0f0f0f, high = w >> 4 & 0x0f0f0f0f;
    const u32 first = __byte_perm(low, high, 0x6420), second = __byte_perm(low, high, 0x7531);
    return V == 8 ? make_uint2(first, second) : make_uint2(v % 2 == 0 ? first : second, 0);
}

__device__ __forceinline__ u32 grid_row(const Job& job, u32 row) {
    return job.row_groups != 0 ? __ldg(reinterpret_cast<const u32*>(job.row_groups) + row) : row / job.by_block_rows;
}

__device__ __forceinline__ float number(u64 array, u64 i) { return __ldg(reinterpret_cast<const float*>(array) + i); }

__device__ __forceinline__ float4 numbers(u64 array, u64 i) {
    return __ldg(reinterpret_cast<const float4*>(reinterpret_cast<const float*>(array) + i));
}

// Four scaled values.
__device__ __forceinline__ float4 scaled(const Job& job, u32 codes, float4 zero, float4 scale) {
    codes ^= job.flip;
    return make_float4(__fmul_rn(value(job, codes, 0, __fadd_rn(job.origin, zero.x)), scale.x),
                       __fmul_rn(value(job, codes, 1, __fadd_rn(job.origin, zero.y)), scale.y),
                       __fmul_rn(value(job, codes, 2, __fadd_rn(job.origin, zero.z)), scale.z),
                       __fmul_rn(value(job, codes, 3, __fadd_rn(job.origin, zero.w)), scale.w));
}

// The four values that make up a vector's half (or all of it, for F32), as bits.
template <class Out>
__device__ __forceinline__ uint4 pack(float4 a, float4 b) {
    if constexpr (Out::BYTES == 4) {
        return make_uint4(__float_as_uint(a.x), __float_as_uint(a.y), __float_as_uint(a.z), __float_as_uint(a.w));
    } else {
        return make_uint4(Out::pair(a.x, a.y), Out::pair(a.z, a.w), Out::pair(b.x, b.y), Out::pair(b.z, b.w));
    }
}

template <class Out>
__device__ __forceinline__ void vectors(const Job& job) {
    constexpr u32 V = 16 / Out::BYTES;
    const u32 first = blockIdx.x * (THREADS * UNROLL) + threadIdx.x, count = u32(job.items), row_vectors = job.cols / V;
    uint2 codes[UNROLL];
#pragma unroll
    for (u32 k = 0; k < UNROLL; ++k) {
        const u32 v = first + k * THREADS;
        if (v < count) codes[k] = load_codes<V>(job, v);
    }
#pragma unroll
    for (u32 k = 0; k < UNROLL; ++k) {
        const u32 v = first + k * THREADS;
        if (v >= count) return;
        const u32 row = v / job.by_row, col = (v - row * row_vectors) * V;
        const u64 i = u64(grid_row(job, row)) * job.scale_cols + (job.scale_cols == 1 ? 0 : col / job.by_block_cols);
        const float s = number(job.scales, i), z = job.zeros != 0 ? number(job.zeros, i) : 0.0f;
        const float4 scale = make_float4(s, s, s, s), zero = make_float4(z, z, z, z);
        const float4 a = scaled(job, codes[k].x, zero, scale);
        const float4 b = V == 8 ? scaled(job, codes[k].y, zero, scale) : a;
        store16_stream(reinterpret_cast<void*>(job.out + u64(v) * 16), pack<Out>(a, b));
    }
}

// A scale for each column: a thread takes the same columns of four rows, whose scales are mostly the same.
template <class Out>
__device__ __forceinline__ void columns(const Job& job) {
    constexpr u32 V = 16 / Out::BYTES;
    const u32 item = blockIdx.x * THREADS + threadIdx.x, row_vectors = job.cols / V;
    if (item >= u32(job.items)) return;
    const u32 strip = item / job.by_row, at = item - strip * row_vectors, col = at * V, first = strip * UNROLL;
    uint2 codes[UNROLL];
#pragma unroll
    for (u32 k = 0; k < UNROLL; ++k) {
        if (first + k < job.rows) codes[k] = load_codes<V>(job, (first + k) * row_vectors + at);
    }
    u32 before = ~0u;
    float4 s0, s1, z0 = make_float4(0, 0, 0, 0), z1 = z0;
#pragma unroll
    for (u32 k = 0; k < UNROLL; ++k) {
        const u32 row = first + k;
        if (row >= job.rows) return;
        const u32 group = grid_row(job, row);
        if (group != before) {
            const u64 from = u64(group) * job.scale_cols + col;
            s0 = numbers(job.scales, from);
            if (V == 8) s1 = numbers(job.scales, from + 4);
            if (job.zeros != 0) {
                z0 = numbers(job.zeros, from);
                if (V == 8) z1 = numbers(job.zeros, from + 4);
            }
            before = group;
        }
        const float4 a = scaled(job, codes[k].x, z0, s0);
        const float4 b = V == 8 ? scaled(job, codes[k].y, z1, s1) : a;
        store16_stream(reinterpret_cast<void*>(job.out + (u64(row) * row_vectors + at) * 16), pack<Out>(a, b));
    }
}

// Words of 8 rows: a thread takes four of them side by side, and makes four columns of eight rows.
template <class Out>
__device__ __forceinline__ void row_words(const Job& job) {
    const u32 item = blockIdx.x * THREADS + threadIdx.x, quads = job.cols / 4;
    if (item >= u32(job.items)) return;
    const u32 word_row = item / job.by_row, col = (item - word_row * quads) * 4;
    u32 w[4];
    const u64 first = u64(word_row) * job.cols + col;
    if (job.codes.frame == 0) {
        const uint4 v = load16_stream(reinterpret_cast<const void*>(job.codes.base + first * 4));
        w[0] = v.x, w[1] = v.y, w[2] = v.z, w[3] = v.w;
    } else {
#pragma unroll
        for (u32 k = 0; k < 4; ++k) w[k] = load<4>(job.codes, first + k).x;
    }
    u32 before = ~0u;
    float4 scale, zero = make_float4(0, 0, 0, 0);
#pragma unroll
    for (u32 k = 0; k < 8; ++k) {
        const u32 row = word_row * 8 + k, group = grid_row(job, row);
        if (group != before) {
            scale = numbers(job.scales, u64(group) * job.scale_cols + col);
            if (job.zeros != 0) zero = numbers(job.zeros, u64(group) * job.scale_cols + col);
            before = group;
        }
        const u32 codes = (w[0] >> (4 * k) & 15) | (w[1] >> (4 * k) & 15) << 8 | (w[2] >> (4 * k) & 15) << 16 |
                          (w[3] >> (4 * k) & 15) << 24;
        const float4 a = scaled(job, codes, zero, scale);
        const u64 to = job.out + (u64(row) * job.cols + col) * Out::BYTES;
        const uint4 bits = pack<Out>(a, a);
        if constexpr (Out::BYTES == 4) store16_stream(reinterpret_cast<void*>(to), bits);
        else asm volatile("st.global.cs.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(bits.x), "r"(bits.y) : "memory");
    }
}

// One element, whatever its scheme.
template <class Out>
__device__ __noinline__ void element(const Job& job, u64 i) {
    const u32 row = u32(i / job.cols), col = u32(i - u64(row) * job.cols);
    u64 byte = i;
    u32 shift = 0;
    if (job.order == PAIRS) {
        byte = i / 2, shift = 4 * (i % 2);
    } else if (job.order == INTERLEAVED) {
        const u32 within = i % 8, nibble = within / 2 + 4 * (within % 2);
        byte = i / 8 * 4 + nibble / 2, shift = 4 * (nibble % 2);
    } else if (job.order == ROW_WORDS) {
        byte = (u64(row / 8) * job.cols + col) * 4 + row % 8 / 2, shift = 4 * (row % 2);
    }
    u32 code = *reinterpret_cast<const u8*>(byte_address(job.codes, byte));
    if (job.order != BYTES) code = code >> shift & 15;
    const u64 at = u64(grid_row(job, row)) * job.scale_cols + col / job.by_block_cols;
    const float zero = job.zeros != 0 ? number(job.zeros, at) : 0.0f;
    const float f = __fmul_rn(value(job, code ^ (job.flip & 0xff), 0, __fadd_rn(job.origin, zero)), number(job.scales, at));
    const u64 to = job.out + i * Out::BYTES;
    if constexpr (Out::BYTES == 4) *reinterpret_cast<float*>(to) = f;
    else *reinterpret_cast<u16*>(to) = u16(Out::pair(f, f));
}

template <class Out>
__device__ __forceinline__ void dequantise(const Job& job) {
    if (job.form == ROWS) {
        row_words<Out>(job);
    } else if (job.form == EACH) {
        columns<Out>(job);
    } else if (job.form == ONE) {
        vectors<Out>(job);
    } else {
        const u64 step = u64(gridDim.x) * THREADS;
        for (u64 i = u64(blockIdx.x) * THREADS + threadIdx.x; i < job.items; i += step) element<Out>(job, i);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) wcodec_dequant_bf16(const __grid_constant__ Job job) { dequantise<Bf16>(job); }
extern "C" __global__ void __launch_bounds__(THREADS) wcodec_dequant_f16(const __grid_constant__ Job job) { dequantise<F16>(job); }
extern "C" __global__ void __launch_bounds__(THREADS) wcodec_dequant_f32(const __grid_constant__ Job job) { dequantise<F32>(job); }
