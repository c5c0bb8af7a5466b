// Shared by all kernels: integer types, 16-byte streaming accesses, warp constants.
//
// Everything here is for sm_80 and newer.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;
static_assert(sizeof(u32) == 4 && sizeof(u64) == 8 && sizeof(s64) == 8, "the integer types carry their width in their name");

constexpr u32 WARP = 32;
constexpr u32 FULL_WARP = 0xffffffffu;

__device__ __forceinline__ u32 lane_index() { return threadIdx.x % WARP; }

// Loads 16 bytes that are read once: they shall not displace data that is read again. Volatile, so that a load whose value
// goes nowhere still happens (copy_floor depends on it).
__device__ __forceinline__ uint4 load16_stream(const void* at) {
    uint4 v;
    asm volatile("ld.global.cs.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at));
    return v;
}

// Stores 16 bytes that this kernel does not read again.
__device__ __forceinline__ void store16_stream(void* at, uint4 v) {
    asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(at), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}
