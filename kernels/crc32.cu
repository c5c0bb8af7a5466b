// wcodec: arch=80
// CRC-32 (IEEE 802.3, reflected, as in zlib) of many buffers in device memory, without copying them to the host.
//
// A CRC is the remainder of the message, seen as a polynomial over GF(2), modulo P. Remainders of parts add up by XOR when each is
// multiplied by x^(8 * bytes that follow it) (Kadatch and Jenkins, "Everything we know about CRC but afraid to forget", 2010).
// So the host cuts every buffer into segments and gives each one its factor; one warp reduces a segment to its
// remainder, multiplies, and XORs the product into the buffer's result, which the host has preset with what the initial
// value and the final inversion contribute.
//
// Thread to data: a segment is read in rows of 512 bytes, 16 bytes per lane. Each lane keeps four remainders, one per
// word, and steps each by one row: s = s * x^4096 + word. Leading zeros do not change a remainder, so bytes before the segment in
// its first 16-byte granule count as zero; trailing zeros multiply it by a power of x, which the host takes back in the factor.
//
// Budget: the multiplication by the constant x^4096 is six table lookups of 6, 6, 5, 5, 5, 5 bits. Tables are replicated per
// lane (256 entries * 32 lanes * 4 bytes = 32 KiB of shared memory), so lookups never conflict: per word 6 LDS and about
// 15 other instructions, on an H100 more than its memory delivers.
#include "common.cuh"

constexpr u32 THREADS = 512;
constexpr u32 BLOCKS_PER_SM = 3;
constexpr u32 ROW = 512;            // bytes
constexpr u32 POLYNOMIAL = 0xedb88320u;
constexpr u32 ONE = 0x80000000u;    // x^0: reflected, the highest bit is the lowest power

// Product modulo P.
__host__ __device__ constexpr u32 multiply(u32 a, u32 b) {
    u32 product = 0;
    for (int i = 0; i < 32; ++i) {
        product ^= b & (0u - (a >> 31));
        a <<= 1;
        b = (b >> 1) ^ (POLYNOMIAL & (0u - (b & 1)));
    }
    return product;
}

// x^n modulo P.
__host__ __device__ constexpr u32 power(u32 n) {
    u32 result = ONE, square = ONE >> 1;
    for (; n != 0; n >>= 1) {
        if (n & 1) result = multiply(result, square);
        square = multiply(square, square);
    }
    return result;
}

struct Words32 {
    u32 at[32];
};

// Bit i of a remainder times x^(8 * ROW).
constexpr Words32 row_step_of_bits() {
    Words32 words = {};
    for (u32 i = 0; i < 32; ++i) words.at[i] = multiply(1u << i, power(8 * ROW));
    return words;
}

// Lane l's last word is followed by 31 - l lanes of 16 bytes, and the CRC's definition appends 32 zero bits.
constexpr Words32 lane_weights() {
    Words32 words = {};
    for (u32 l = 0; l < 32; ++l) words.at[l] = power(128 * (31 - l) + 32);
    return words;
}

__constant__ constexpr Words32 ROW_STEP_OF_BITS = row_step_of_bits();
__constant__ constexpr Words32 LANE_WEIGHTS = lane_weights();
constexpr u32 ONE_WORD = power(32);

// The tables' first bits, widths and first entries; one entry is a row of 32 words, one for each lane.
constexpr u32 TABLES = 6;
constexpr u32 ENTRIES = 256;
constexpr u32 ENTRY_SHIFT = 7;      // 128 bytes
__host__ __device__ constexpr u32 first_bit(u32 table) { return table < 2 ? 6 * table : 12 + 5 * (table - 2); }
__host__ __device__ constexpr u32 width(u32 table) { return table < 2 ? 6 : 5; }
__host__ __device__ constexpr u32 first_entry(u32 table) { return table < 2 ? 64 * table : 128 + 32 * (table - 2); }

// What the host prepares for each segment (launch.rs has the same layout).
struct Segment {
    u64 data;      // device address of the first byte
    u32 bytes;     // at least 1
    u32 factor;    // x^(8 * (bytes of the buffer after the segment - padding of its last row)) modulo P
    u32 buffer;    // index of the buffer's result
    u32 reserved;  // 0
};
static_assert(sizeof(Segment) == 24, "the host writes segments as six words");

__device__ void build_tables(u32* tables) {
    for (u32 entry = threadIdx.x; entry < ENTRIES; entry += THREADS) {
        u32 table = TABLES - 1;
        while (entry < first_entry(table)) --table;
        const u32 index = entry - first_entry(table);
        u32 value = 0;
        for (u32 bit = 0; bit < width(table); ++bit) {
            if (index >> bit & 1) value ^= ROW_STEP_OF_BITS.at[first_bit(table) + bit];
        }
        // Each thread starts at another bank.
        for (u32 i = 0; i < WARP; ++i) tables[entry * WARP + (i + threadIdx.x) % WARP] = value;
    }
}

// s * x^(8 * ROW) modulo P. `column` is the shared address of this lane's word in entry 0; the table's offset is an immediate. The
// field is added, not merged: on sm_90 shared memory begins 1 KiB into its window, whatever alignment a table asks for.
template <u32 TABLE>
__device__ __forceinline__ u32 look_up(u32 column, u32 s) {
    constexpr u32 low = first_bit(TABLE), mask = ((1u << width(TABLE)) - 1) << ENTRY_SHIFT;
    const u32 field = low < ENTRY_SHIFT ? s << (ENTRY_SHIFT - low) : s >> (low < ENTRY_SHIFT ? 0 : low - ENTRY_SHIFT);
    u32 value;
    // Volatile, so that no look-up moves above the barrier behind the tables' construction.
    asm volatile("ld.shared.u32 %0, [%1+%2];" : "=r"(value) : "r"((field & mask) + column), "n"(first_entry(TABLE) << ENTRY_SHIFT));
    return value;
}

__device__ __forceinline__ u32 step(u32 column, u32 s) {
    return look_up<0>(column, s) ^ look_up<1>(column, s) ^ look_up<2>(column, s) ^ look_up<3>(column, s) ^
           look_up<4>(column, s) ^ look_up<5>(column, s);
}

// The 16 bytes at `at`, with zeros for those outside [begin, end). Reads no byte outside. At most two lanes per segment come
// here, so it is kept small: a call or an unrolled loop would cost the main loop registers.
__device__ __forceinline__ uint4 load16_partial(u64 at, u64 begin, u64 end) {
    u64 low = 0, high = 0;
#pragma unroll 1
    for (u64 i = at; i < at + 16; ++i) {
        const u64 byte = i >= begin && i < end ? *reinterpret_cast<const u8*>(i) : 0;
        low = low >> 8 | high << 56;
        high = high >> 8 | byte << 56;
    }
    return make_uint4(u32(low), u32(low >> 32), u32(high), u32(high >> 32));
}

__device__ __forceinline__ uint4 load16_checked(u64 at, u64 begin, u64 end) {
    if (at >= begin && at + 16 <= end) return load16_stream(reinterpret_cast<const void*>(at));
    return load16_partial(at, begin, end);
}

__device__ __forceinline__ void absorb(u32 column, uint4& s, uint4 words) {
    s.x = step(column, s.x) ^ words.x;
    s.y = step(column, s.y) ^ words.y;
    s.z = step(column, s.z) ^ words.z;
    s.w = step(column, s.w) ^ words.w;
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
wcodec_crc32(const Segment* __restrict__ segments, u32 segment_count, u32* __restrict__ results) {
    __shared__ u32 tables[ENTRIES * WARP];
    build_tables(tables);
    __syncthreads();

    const u32 lane = lane_index();
    const u32 column = u32(__cvta_generic_to_shared(tables + lane));
    const u32 weight = LANE_WEIGHTS.at[lane];
    const u32 warps = gridDim.x * (THREADS / WARP);

    for (u32 index = (blockIdx.x * THREADS + threadIdx.x) / WARP; index < segment_count; index += warps) {
        const Segment segment = segments[index];
        const u64 begin = segment.data, end = begin + segment.bytes;
        const u64 base = begin & ~u64(15);
        const u32 full_rows = u32((end - base) / ROW);
        u64 at = base + 16 * lane;

        uint4 s = make_uint4(0, 0, 0, 0);
        u32 row = 0;
        // The first row begins before the segment unless that is aligned.
        if (begin != base && full_rows != 0) {
            s = load16_checked(at, begin, end);
            at += ROW;
            row = 1;
        }
        for (; row + 2 <= full_rows; row += 2, at += 2 * ROW) {
            const uint4 first = load16_stream(reinterpret_cast<const void*>(at));
            const uint4 second = load16_stream(reinterpret_cast<const void*>(at + ROW));
            absorb(column, s, first);
            absorb(column, s, second);
        }
        if (row < full_rows) {
            absorb(column, s, load16_stream(reinterpret_cast<const void*>(at)));
            at += ROW;
        }
        if (base + u64(full_rows) * ROW != end) absorb(column, s, load16_checked(at, begin, end));

        // Four words to one, then every lane to its place in the row.
        u32 remainder = multiply(s.x, ONE_WORD) ^ s.y;
        remainder = multiply(remainder, ONE_WORD) ^ s.z;
        remainder = multiply(remainder, ONE_WORD) ^ s.w;
        // Opaque to the compiler, which would keep all 32 multiples of the weight across the loop and spill them.
        u32 place = weight;
        asm volatile("" : "+r"(place));
        remainder = __reduce_xor_sync(FULL_WARP, multiply(remainder, place));
        if (lane == 0) atomicXor(results + segment.buffer, multiply(remainder, segment.factor));
    }
}
