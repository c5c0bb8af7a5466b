// What a warp asks for before its next superblock begins.
#pragma once
#include "lanes_step.cuh"

// Asks for what a superblock begins with and nobody has loaded yet, a cache line or two per thread. Much earlier would be too early: 4000
// warps' superblocks are more than the second-level cache holds beside what is written.
template <class L>
__device__ __forceinline__ void prefetch_block(const Tensor& t, u32 words, bool stream_too) {
    const u32 lane = lane_index();
    if constexpr (!L::doubled && L::halfwords > 0) {
        const u32 raw = __shfl_sync(FULL_WARP, words, 0);
        if (lane < min(L::halfwords, WARP)) prefetch(t.payload + 4 * u64(raw) + 128 * lane);
    }
    if constexpr (!L::ahead) {
        const u32 states = __shfl_sync(FULL_WARP, words, 1);
        if (lane < 2) prefetch(t.payload + 4 * u64(states) + 128 * lane);
    }
    if constexpr (L::element == 4) {
        const u32 low = __shfl_sync(FULL_WARP, words, 2);
        if (lane < L::group) prefetch(t.payload + 4 * u64(low) + 128 * lane);
    }
    if (stream_too) {
        const u32 stream = __shfl_sync(FULL_WARP, words, 3), lengths = __shfl_sync(FULL_WARP, words, 4);
        if (lane <= L::ring / 128 && 32 * lane < (lengths & 0xffff)) prefetch(t.payload + 4 * u64(stream) + 128 * lane);
    }
}

// Fetches the classes of up to CLASS_ROWS rows, a multiple of 16, and of a superblock's columns to shared memory, without waiting for
// them. All threads have used what was there. Registers would do, but then the compiler waits for these loads before others begin.
__device__ __forceinline__ void fetch_classes(const Tensor& t, u32 row, u32 rows, u32 col, u32 address) {
    const u32 at = 4 * (lane_index() % 16);
    const bool of_rows = lane_index() < 16;
    const u64 from = of_rows ? t.row_classes : t.col_classes;
    if (from != 0 && (!of_rows || at < rows)) {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(address + 4 * lane_index()), "l"(from + (of_rows ? row : col) + at)
                     : "memory");
    }
}

// Makes words of the fetched bytes of rows, as the step adds them.
__device__ __forceinline__ void expand_classes(const Tensor& t, u32 fetched, u32 address, u32 shift) {
#pragma unroll
    for (u32 i = 0; i < CLASS_ROWS; i += WARP) {
        u32 class_;
        asm volatile("ld.shared.u8 %0, [%1];" : "=r"(class_) : "r"(fetched + lane_index() + i));
        const u32 word = t.row_classes != 0 ? class_ << shift : 0;
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(address + 4 * (lane_index() + i)), "r"(word) : "memory");
    }
    __syncwarp();
}

// Fetches the first bytes of a superblock's stream to the begin of the warp's ring, and its classes, without waiting for them. All threads
// have used what was there.
template <class L>
__device__ __forceinline__ void fetch_head(const Tensor& t, u32 words, u32 ring) {
    const u32 begin = __shfl_sync(FULL_WARP, words, 3), bytes = 4 * (__shfl_sync(FULL_WARP, words, 4) & 0xffff);
    const u32 rows = __shfl_sync(FULL_WARP, words, 5) >> 16;
    const u32 row = __shfl_sync(FULL_WARP, words, 6), col = __shfl_sync(FULL_WARP, words, 7);
    Feed<L> feed;
    feed.begin_at(ring, t.payload + 4 * u64(begin), bytes);
    feed.template fetch_first<0, Feed<L>::HEAD>();
    fetch_classes(t, row, rows, col, ring + L::ring + MIRROR + CLASS_BYTES);
}

// What a warp has asked for of its next superblock.
template <class L>
struct Ahead {
    u32 q[L::halfwords ? L::halfwords : 1];  // words of the raw field, the first group's or the next group's
    u32 stored0, stored1;                    // states
    bool head;                               // the stream's first bytes are in the ring, the classes beside it

    __device__ __forceinline__ void load(const Tensor& t, u32 words) {
        const u32 raw = __shfl_sync(FULL_WARP, words, 0), states = __shfl_sync(FULL_WARP, words, 1);
        const u32 rows = __shfl_sync(FULL_WARP, words, 5) >> 16;
        const u64 mine = t.payload + 4 * lane_index();
        stored0 = load_stream(mine + 4 * u64(states));
        stored1 = load_stream(mine + 4 * u64(states) + 128);
        if constexpr (L::doubled) {
            Superblock<L>::template load_raw<0, L::halfwords>(q, mine + 4 * u64(raw), rows == L::group);
        }
    }
};
