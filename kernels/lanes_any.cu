// wcodec: arch=80
// Superblocks of any shape, any split of a head and any element: what the fast kernels of lanes.cuh leave. Ragged superblocks stand
// at a tensor's right and lower edges, so this one is written for legibility: it follows the scalar decoder of wcodec-rans
// step by step, reads streams and raw fields straight from device memory, and writes byte by byte. It also takes superblocks of
// which only a part is wanted, at the edges of a range of rows.
//
// Thread to data: one warp per superblock, thread t holds columns 2t and 2t + 1. Shared memory: tables.
#include "lanes_batch.cuh"

// Reads a superblock's stream; beyond its end are zeros.
struct Stream {
    const u8* bytes;
    u32 length;

    __device__ u32 byte(u32 at) const { return at < length ? __ldg(bytes + at) : 0; }
    __device__ u32 half(u32 at) const { return byte(at) | byte(at + 1) << 8; }

    // At most 32 bits.
    __device__ u32 bits(u64 at, u32 count) const {
        u64 window = 0;
        const u32 first = u32(at / 8);
        for (u32 i = 0; i < 5; ++i) window |= u64(byte(first + i)) << (8 * i);
        return u32(window >> (at % 8) & ((u64(1) << count) - 1));
    }
};

constexpr u32 GROUP = 16;

__device__ __forceinline__ u64 element_address(const Tensor& t, const Block& b, u32 row, u32 col) {
    return t.out + (b.first_row + u64(row)) * t.row_stride + (u64(b.first_col) + col) * t.element_bytes;
}

struct Any {
    const Tensor& t;
    const Block& b;
    u32 raw_bits, coded_bits, cols, pairs, lane, low_bytes;
    u32 stored;       // halfwords of the raw field that are stored as such
    u32 tails[2];     // the others
    u64 low;          // this row's low bits

    __device__ u32 raw_word(u32 k) const {
        if (k >= stored) return tails[min(k - stored, 1u)];
        return __ldg(reinterpret_cast<const u32*>(t.payload + 4 * u64(b.raw)) + k * pairs + lane);
    }

    __device__ u32 stored_low_bits(u32 row) const {
        return t.low_bits == 0 ? 8 * low_bytes : reinterpret_cast<const u8*>(t.low_bits)[b.first_row + row];
    }

    __device__ void write(u32 row, u32 side, u32 value, u32 code) const {
        const u32 col = 2 * lane + side, bits = stored_low_bits(row);
        const u64 address = element_address(t, b, row, col);
        if (address < t.clip_begin || address >= t.clip_end) return;
        u8* element = reinterpret_cast<u8*>(address);
        u32 head = value << t.shift;
        if (t.sign) head |= (code >> 1 & ((1u << t.shift) - 1)) | (code & 1) << (t.head_bits - 1);
        else head |= code;
        u64 field = 0;
        const u64 at = u64(col) * bits;
        const u8* packed = reinterpret_cast<const u8*>(low) + at / 8;
        for (u32 i = 0; 8 * i < u32(at % 8) + bits; ++i) {
            // Seven bytes and seven bits at most: the last byte's upper bits do not fit, nor are they wanted.
            const u64 byte = __ldg(packed + i);
            field |= i == 0 ? byte >> (at % 8) : byte << (8 * i - at % 8);
        }
        if (bits != 0) field = (field & (~u64(0) >> (64 - bits))) << (8 * low_bytes - bits);
        for (u32 i = 0; i < low_bytes; ++i) element[i] = u8(field >> (8 * i));
        element[low_bytes] = u8(head);
        if (t.head_bits == 16) element[low_bytes + 1] = u8(head >> 8);
    }

    // Joins the values of a row (even column's low) with their raw codes.
    __device__ void finish_row(u32 row, u32 values) const {
        if (lane >= pairs) return;
        const bool both = 2 * lane + 1 < cols;
        const u32 at = raw_bits * (row % GROUP), bit = at % 16, k = raw_bits * (row / GROUP) + at / 16;
        const u32 first = raw_bits == 0 ? 0 : raw_word(k);
        const u32 second = bit + raw_bits > 16 ? raw_word(k + 1) : 0;
        const u32 mask = (1u << raw_bits) - 1;
        const u32 even = ((first & 0xffff) | second << 16) >> bit & mask;
        const u32 odd = (first >> 16 | (second & 0xffff0000u)) >> bit & mask;
        const u32 traded = t.sign && both ? (even ^ odd) & 1 : 0;
        write(row, 0, values & 0xffff, even ^ traded);
        if (both) write(row, 1, values >> 16, odd ^ traded);
    }
};

// Where a table entry has its value, in the bits above the bias, and its frequency, in those above the value: as the fast path has
// them where its tables stand in memory, else with P bits for bias and frequency, which takes every split of a head.
struct EntryBits {
    u32 value, freq;

    __device__ explicit EntryBits(const Tensor& t) {
        const u32 coded = t.head_bits - t.shift - t.sign;
        value = t.entries == 0 ? t.table_bits : value_bit_of(coded);
        freq = 32 - value;
    }
};

__device__ __noinline__ void decode_any(const Tensor& t, const Block& b) {
    const u32 lane = lane_index(), below = lanes_below(), p = t.table_bits;
    const u32 cols = b.cols, rows = b.rows, pairs = (cols + 1) / 2;
    const u32 raw = t.shift + t.sign, coded = t.head_bits - raw;
    const EntryBits bits_of(t);
    const u32 all = raw * (rows / GROUP) + (raw * (rows % GROUP) + 15) / 16;
    const bool carries = all >= 2, packed = b.base != PLAIN_STATES;
    if (packed && !carries) return fail(t, b, CORRUPT);

    Any any = {t, b, raw, coded, cols, pairs, lane, t.element_bytes - t.head_bits / 8u, carries ? all - 2 : all, {0, 0}, 0};
    any.low = t.payload + 4 * u64(b.low);
    const Stream stream = {reinterpret_cast<const u8*>(t.payload + 4 * u64(b.stream)), 4u * b.stream_words};
    const u32* tables = reinterpret_cast<const u32*>(shared + SHARE_BYTES);

    u32 x[2] = {STATE_LOW, STATE_LOW}, stored[2] = {0, 0};
    int classes[2] = {0, 0};
    const bool active[2] = {lane < pairs, 2 * lane + 1 < cols};
    for (u32 side = 0; side < 2; ++side) {
        if (!active[side]) continue;
        stored[side] = __ldg(reinterpret_cast<const u32*>(t.payload + 4 * u64(b.states)) + side * pairs + lane);
        x[side] = packed ? (1u << 31) - (u32(b.base) << 23) + (stored[side] & 0x7fffffff) : stored[side];
        if (t.col_classes != 0) classes[side] = reinterpret_cast<const signed char*>(t.col_classes)[b.first_col + 2 * lane + side];
        if (x[side] < STATE_LOW) fail(t, b, CORRUPT);
    }

    // The first row with a raw code in the last two halfwords, among the last 32.
    u32 ready = rows;
    if (carries) {
        for (ready = rows < 2 * GROUP ? 0 : rows - 2 * GROUP; ready < rows; ++ready) {
            const u32 at = raw * (ready % GROUP), k = raw * (ready / GROUP) + at / 16;
            if (k + (at % 16 + raw > 16) >= any.stored) break;
        }
    }
    u32 waiting[2 * GROUP];
    u32 position = 0;
    u64 ready_low = any.low;
    for (u32 row = 0; row < rows; ++row) {
        const int row_class = t.row_classes != 0 ? reinterpret_cast<const u8*>(t.row_classes)[b.first_row + row] : 0;
        u32 values = 0;
        for (u32 side = 0; side < 2; ++side) {
            const u32 context = u32(max(min(row_class + classes[side], int(t.contexts) - 1), 0));
            const u32 entry = tables[context << p | (x[side] & ((1u << p) - 1))];
            if (active[side]) {
                values |= (entry >> bits_of.value & ((1u << (bits_of.freq - bits_of.value)) - 1)) << (16 * side);
                x[side] = (entry >> bits_of.freq) * (x[side] >> p) + (entry & ((1u << bits_of.value) - 1));
            }
        }
        for (u32 side = 0; side < 2; ++side) {
            const bool need = active[side] && x[side] < STATE_LOW;
            const u32 mask = __ballot_sync(FULL_WARP, need);
            if (need) x[side] = x[side] << 16 | stream.half(position + 2 * __popc(mask & below));
            position += 2 * __popc(mask);
        }
        if (row < ready) {
            any.finish_row(row, values);
            any.low += (cols * any.stored_low_bits(row) + 7) / 8;
            ready_low = any.low;
        } else waiting[row - ready] = values;
    }
    if (position > stream.length) return fail(t, b, TRUNCATED);

    // The last two halfwords of every column.
    u32 missing[2] = {0, 0};
    for (u32 side = 0; side < 2; ++side) {
        if (!active[side]) continue;
        if (packed) missing[side] = u32(__clz(int(x[side])));
        else {
            if (x[side] != STATE_LOW) fail(t, b, CORRUPT);
            missing[side] = carries ? 32 : 0;
        }
    }
    u32 sum = missing[0] | missing[1] << 16;
    for (u32 by = 1; by < WARP; by *= 2) {
        const u32 other = __shfl_up_sync(FULL_WARP, sum, by);
        if (lane >= by) sum += other;
    }
    const u32 total = __shfl_sync(FULL_WARP, sum, 31), bits = (total & 0xffff) + (total >> 16);
    if (bits > 8 * (stream.length - position)) return fail(t, b, TRUNCATED);
    if (carries) {
        for (u32 side = 0; side < 2; ++side) {
            const u32 before = side == 0 ? (sum & 0xffff) - missing[0] : (total & 0xffff) + (sum >> 16) - missing[1];
            u32 tail = stream.bits(8 * u64(position) + before, missing[side]);
            // A state of 0 exists in damaged superblocks only, and they are reported above.
            if (packed) tail |= (stored[side] & 0x80000000u) | (missing[side] < 32 ? x[side] << missing[side] & 0x7fffffff : 0);
            any.tails[0] |= (tail & 0xffff) << (16 * side);
            any.tails[1] |= tail >> 16 << (16 * side);
        }
    }
    position += (bits + 15) / 16 * 2;
    any.low = ready_low;
    for (u32 row = ready; row < rows; ++row) {
        any.finish_row(row, waiting[row - ready]);
        any.low += (cols * any.stored_low_bits(row) + 7) / 8;
    }

    if (position + 4 * b.patches > stream.length) return fail(t, b, TRUNCATED);
    if (((position + 4 * b.patches + 3) & ~3u) != stream.length) return fail(t, b, CORRUPT);
    for (u32 first = 0; first < b.patches; first += WARP) {
        __syncwarp();  // all rows are written, and earlier patches
        const u32 i = first + lane, there = __ballot_sync(FULL_WARP, i < b.patches);
        if (i >= b.patches) continue;
        const u32 at = stream.half(position + 4 * i), value = stream.half(position + 4 * i + 2), row = at / 64, col = at % 64;
        const bool counts = last_of_its_element(there, at);
        if (row >= rows || col >= cols || value >> coded != 0) {
            fail(t, b, CORRUPT);
            continue;
        }
        if (!counts) continue;
        const u64 address = element_address(t, b, row, col);
        if (address < t.clip_begin || address >= t.clip_end) continue;
        volatile u8* head = reinterpret_cast<volatile u8*>(address + any.low_bytes);
        const u32 mask = ((1u << coded) - 1) << t.shift, field = value << t.shift;
        head[0] = u8((head[0] & ~mask) | field);
        if (t.head_bits == 16) head[1] = u8((head[1] & ~(mask >> 8)) | field >> 8);
    }
}

extern "C" __global__ void __launch_bounds__(512, 1)
wcodec_lanes_any(const __grid_constant__ Batch batch) {
    for_each_block(
        batch, [](const Tensor&, u32) {},
        [](const Tensor& t) {
            u32* tables = reinterpret_cast<u32*>(shared + SHARE_BYTES);
            const EntryBits bits_of(t);
            if (t.entries == 0) return expand_tables(t, tables, bits_of.freq, bits_of.value);
            for (u32 slot = threadIdx.x; slot < t.contexts << t.table_bits; slot += blockDim.x) {
                tables[slot] = __ldg(reinterpret_cast<const u32*>(t.entries) + slot);
            }
        },
        [](const Tensor& t, u32& words, auto claim) {
            decode_any(t, to_block(words));
            const u32 next = claim();
            if (next != NONE) words = load_block_words(t, next);
            return next != NONE;
        });
}
