// Step 1 of integer mode: the symbols of a superblock, from 64 rANS lanes.
//
// Thread to data: thread t holds lanes t and t + 32, which are columns 2t and 2t + 1. Budget: per row of 64 symbols about 60
// instructions; 4 bytes of table per symbol from shared memory, the stream straight from device memory, where the words of a row
// stand side by side.
#pragma once
#include "integer.cuh"

__device__ __forceinline__ u32 lanes_below() {
    u32 mask;
    asm("mov.u32 %0, %%lanemask_lt;" : "=r"(mask));
    return mask;
}

// Word `position / 2` of a stream of `length` bytes; behind its end are zeros.
__device__ __forceinline__ u32 stream_word(const u8* stream, u32 length, u32 position) {
    return position < length ? __ldg(reinterpret_cast<const u16*>(stream + position)) : 0;
}

// Decodes `rows` rows of `cols` symbols to `symbols`, LANES to a row. Rows have contexts in runs of `run` rows, which begin anew
// every `plane_rows` rows. Returns whether the superblock was in order; reports it if not.
__device__ __forceinline__ bool decode_symbols(
    const Tensor& t, const Block& b, u32 rows, u32 cols, u32 plane_rows, u32 run, u8* symbols) {
    const u32 lane = lane_index(), below = lanes_below(), p = t.table_bits, pairs = (cols + 1) / 2;
    const u32 slot_mask = (1u << p) - 1, value_mask = (1u << (32 - 2 * p)) - 1;
    const u32* tables = reinterpret_cast<const u32*>(shared);
    const u32* states = reinterpret_cast<const u32*>(t.payload + 4 * u64(b.states));
    const u8* stream = reinterpret_cast<const u8*>(t.payload + 4 * u64(b.stream));
    const u32 length = 4u * b.stream_words;
    const bool active[2] = {lane < pairs, 2 * lane + 1 < cols};
    u32 x[2] = {STATE_LOW, STATE_LOW};
    bool ok = true;
    for (u32 side = 0; side < 2; ++side) {
        if (active[side]) x[side] = __ldg(states + side * pairs + lane);
        ok = ok && x[side] >= STATE_LOW;
    }
    const u8* classes = reinterpret_cast<const u8*>(t.classes);
    u32 position = 0, next_class = b.classes, in_plane = 0, in_run = 0, table = 0;
    for (u32 row = 0; row < rows; ++row) {
        if (in_run == 0) {
            table = (__ldg(classes + next_class / 2) >> (4 * (next_class & 1)) & 15) << p;
            ++next_class;
        }
        u32 values = 0;
        for (u32 side = 0; side < 2; ++side) {
            const u32 entry = tables[table | (x[side] & slot_mask)];
            if (active[side]) {
                values |= (entry >> p & value_mask & 0xff) << (8 * side);
                x[side] = (entry >> (32 - p)) * (x[side] >> p) + (entry & slot_mask);
            }
        }
        for (u32 side = 0; side < 2; ++side) {
            const bool need = active[side] && x[side] < STATE_LOW;
            const u32 mask = __ballot_sync(FULL_WARP, need);
            if (need) x[side] = x[side] << 16 | stream_word(stream, length, position + 2 * __popc(mask & below));
            position += 2 * __popc(mask);
        }
        *reinterpret_cast<u16*>(symbols + LANES * row + 2 * lane) = u16(values);
        if (++in_plane == plane_rows) in_plane = in_run = 0;
        else if (++in_run == run) in_run = 0;
    }
    __syncwarp();
    for (u32 side = 0; side < 2; ++side) ok = ok && x[side] == STATE_LOW;
    u32 code = __all_sync(FULL_WARP, ok) ? 0 : CORRUPT;
    // No bits are carried in states of 8-bit symbols, so patches follow the words.
    const u32 end = position + 4 * b.patches;
    if (end > length) code = TRUNCATED;
    else if (code == 0 && ((end + 3) & ~3u) != length) code = CORRUPT;
    if (code == 0) {
        for (u32 i = lane; i < b.patches; i += WARP) {
            const u32 at = stream_word(stream, length, position + 4 * i), value = stream_word(stream, length, position + 4 * i + 2);
            if (at / LANES >= rows || at % LANES >= cols || value > 0xff) code = CORRUPT;
        }
        code = __any_sync(FULL_WARP, code != 0) ? CORRUPT : 0;
        // Patches of one element follow one another: the last one counts, so they are applied in order.
        if (code == 0 && lane == 0) {
            for (u32 i = 0; i < b.patches; ++i)
                symbols[stream_word(stream, length, position + 4 * i)] = u8(stream_word(stream, length, position + 4 * i + 2));
        }
        __syncwarp();
    }
    if (code != 0 && lane == 0) fail(t, b, code);
    return code == 0;
}
