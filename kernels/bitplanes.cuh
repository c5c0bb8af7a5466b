// Step 2 of integer mode: a coefficient from its bitplanes, the sign first, then the magnitude from its most significant bit down.
//
// Planes are bytes in shared memory, one behind the other; a thread gathers one coefficient at a time. Budget: 4 instructions and one
// byte of shared memory per plane.
#pragma once
#include "integer.cuh"

struct Bitplanes {
    const u8* bytes;
    u32 planes;       // 1 to 32
    u32 plane_bytes;

    // Coefficient `index`, which is below 8 * plane_bytes. A negative zero is zero.
    __device__ __forceinline__ int coefficient(u32 index) const {
        const u8* at = bytes + index / 8;
        const u32 bit = index % 8;
        const u32 negative = *at >> bit & 1;
        u32 magnitude = 0;
        for (u32 plane = 1; plane < planes; ++plane) {
            at += plane_bytes;
            magnitude = magnitude << 1 | (*at >> bit & 1);
        }
        return int(negative ? 0 - magnitude : magnitude);
    }
};
