// Step 4 of integer mode: samples of a tile from its residuals, in place. `wcodec-predict` defines the modes.
//
// Thread to data: for modes that look at the border alone, threads take the tile's samples in raster order; for the running differences,
// one row or one column each. Budget: about 20 instructions per sample for the planar mode, 6 for the others.
#pragma once
#include "integer.cuh"

constexpr u32 MODES = 7;
constexpr u32 NONE = 0, LEFT = 1, TOP = 2, AVG = 3, PLANAR = 4, LEFT_DELTA = 5, TOP_DELTA = 6;

// A tile of a superblock.
struct Tile {
    u32 row, col, height, width;
};

// `samples` is the superblock, LANES to a row; what lies outside it counts as 0. All threads of the warp call it together.
__device__ __forceinline__ void predict_tile(u32 mode, const Tile& tile, u32 tile_bits, u8* samples) {
    if (mode == NONE) return;
    const u32 lane = lane_index();
    u8* first = samples + LANES * tile.row + tile.col;
    const auto left = [&](u32 y) -> u32 { return tile.col == 0 ? 0 : first[LANES * y - 1]; };
    const auto top = [&](u32 x) -> u32 { return tile.row == 0 ? 0 : *(first + x - LANES); };
    if (mode == LEFT_DELTA) {
        for (u32 y = lane; y < tile.height; y += WARP) {
            u32 sum = left(y);
            for (u32 x = 0; x < tile.width; ++x) first[LANES * y + x] = u8(sum += first[LANES * y + x]);
        }
    } else if (mode == TOP_DELTA) {
        for (u32 x = lane; x < tile.width; x += WARP) {
            u32 sum = top(x);
            for (u32 y = 0; y < tile.height; ++y) first[LANES * y + x] = u8(sum += first[LANES * y + x]);
        }
    } else {
        const u32 n = 1u << tile_bits;
        const u32 right = top(tile.width - 1), bottom = left(tile.height - 1);
        // The border is outside the tile, so samples can be written as they are found.
        for (u32 i = lane; i < tile.height * tile.width; i += WARP) {
            const u32 y = i / tile.width, x = i % tile.width;
            u32 prediction;
            if (mode == LEFT) prediction = left(y);
            else if (mode == TOP) prediction = top(x);
            else if (mode == AVG) prediction = (left(y) + top(x) + 1) >> 1;
            else prediction = ((n - 1 - x) * left(y) + (x + 1) * right + (n - 1 - y) * top(x) + (y + 1) * bottom + n) >> (tile_bits + 1);
            first[LANES * y + x] = u8(first[LANES * y + x] + prediction);
        }
    }
}
