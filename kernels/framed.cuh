// Bytes that lie in memory as zstd mode cuts them: pieces of `frame` bytes, each as byte planes (docs/format.md, "zstd mode").
#pragma once
#include "common.cuh"

// A piece of n planes holds the bytes 0, n, 2n, ... of its part, then 1, n + 1, ..., and so on. The last piece may be shorter and
// need not be a multiple of n. `launch/framed.rs` has the same layout.
struct Framed {
    u64 base;        // device address of the first piece
    u64 bytes;       // of all pieces together
    u32 frame;       // bytes of a piece; 0: the bytes lie one behind the other, and nothing below counts
    u32 stride;      // from a piece's begin to the next one's, at least `frame`
    u32 log2_n;      // 0 to 3
    u32 reserved;
};
static_assert(sizeof(Framed) == 32, "the host writes eight words");

// The address of byte `i` of piece `piece`, which holds `length` bytes.
__device__ __forceinline__ u64 byte_of_piece(const Framed& p, u32 piece, u32 length, u32 i) {
    const u32 plane = i & ((1u << p.log2_n) - 1);
    const u32 whole = length >> p.log2_n, rest = length & ((1u << p.log2_n) - 1);
    return p.base + u64(piece) * p.stride + plane * whole + min(plane, rest) + (i >> p.log2_n);
}

__device__ __forceinline__ u32 length_of_piece(const Framed& p, u32 piece) {
    const u64 left = p.bytes - u64(piece) * p.frame;
    return left < p.frame ? u32(left) : p.frame;
}

// The address of byte `i` of all.
__device__ __forceinline__ u64 byte_address(const Framed& p, u64 i) {
    if (p.frame == 0) return p.base + i;
    const u32 piece = u32(i / p.frame);
    return byte_of_piece(p, piece, length_of_piece(p, piece), u32(i - u64(piece) * p.frame));
}
