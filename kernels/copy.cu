// wcodec: arch=80
// Copies many pieces of device memory in one launch: stored tensors, tensors kept decoded, what stands behind the rows of a view.
//
// Thread to data: a block takes tiles of 32 KiB of the pieces laid end to end, its threads vectors of 16 bytes side by side where
// source and target allow it, else words or bytes. Budget: 1 byte read and 1 written per byte; a tile costs a search in the list of
// at most 128 pieces.
#include "common.cuh"

struct Piece {
    u64 from, to, bytes;
    u32 end;  // tiles of all pieces up to and including this one
    u32 reserved;
};
static_assert(sizeof(Piece) == 32, "the host writes pieces as 32 bytes");

constexpr u32 MAX_PIECES = 120;

struct Pieces {
    u32 count;
    u32 tiles;
    Piece pieces[MAX_PIECES];
};
static_assert(sizeof(Pieces) == 8 + 32 * 120, "the host writes lists so");

constexpr u32 TILE = 32 << 10;

template <class T>
__device__ __forceinline__ void copy_as(u64 from, u64 to, u32 bytes) {
    const T* source = reinterpret_cast<const T*>(from);
    T* target = reinterpret_cast<T*>(to);
    for (u32 i = threadIdx.x; i < bytes / u32(sizeof(T)); i += blockDim.x) target[i] = __ldcs(source + i);
}

extern "C" __global__ void __launch_bounds__(256)
wcodec_copy(const __grid_constant__ Pieces list) {
    for (u32 tile = blockIdx.x; tile < list.tiles; tile += gridDim.x) {
        u32 begin = 0, index = 0;
        while (list.pieces[index].end <= tile) begin = list.pieces[index++].end;
        const Piece& piece = list.pieces[index];
        const u64 offset = u64(tile - begin) * TILE;
        const u32 bytes = u32(min(u64(TILE), piece.bytes - offset));
        const u64 from = piece.from + offset, to = piece.to + offset;
        // The widest access that both addresses and the length are multiples of; an odd tail goes byte by byte.
        const u32 bits = u32(from | to) & 15;
        u32 done = 0;
        if (bits == 0) copy_as<uint4>(from, to, bytes), done = bytes & ~15u;
        else if (bits % 4 == 0) copy_as<u32>(from, to, bytes), done = bytes & ~3u;
        else if (bits % 2 == 0) copy_as<u16>(from, to, bytes), done = bytes & ~1u;
        copy_as<u8>(from + done, to + done, bytes - done);
    }
}
