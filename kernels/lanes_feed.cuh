// A warp's part of shared memory: a ring of stream bytes, its mirror, and the classes of a group of rows. Behind those of all warps
// lie the tables.
#pragma once
#include "lanes_head.cuh"

constexpr u32 CHUNK = 512;          // bytes: one 16-byte asynchronous copy per thread
constexpr u32 MIRROR = CHUNK;       // the ring's first chunk again: four rows read on without wrapping
constexpr u32 REFILL_ROWS = 4;      // 4 rows take at most 4 * 64 words = CHUNK bytes
constexpr u32 CLASS_ROWS = 64;      // rows whose classes are staged together
constexpr u32 CLASS_BYTES = 4 * CLASS_ROWS;
constexpr u32 FETCHED_CLASSES = 2 * CLASS_ROWS;  // bytes: classes of rows and of columns as they come
template <class L>
constexpr u32 WARP_BYTES = L::ring + MIRROR + CLASS_BYTES + FETCHED_CLASSES;
static_assert(SHARE_BYTES % 128 == 0 && WARP_BYTES<Layout<16, 6, true, 2, true>> % 128 == 0, "rings and tables begin at a line");

// The shared address of the calling warp's memory, and where in shared memory the tables lie, behind that of all warps.
__device__ __forceinline__ u32 shared_base() { return u32(__cvta_generic_to_shared(shared)); }
template <class L>
__device__ __forceinline__ u32 warp_memory() {
    return __shfl_sync(FULL_WARP, shared_base() + SHARE_BYTES + warp_index() * WARP_BYTES<L>, 0);
}
template <class L>
__device__ __forceinline__ u32 tables_offset() { return SHARE_BYTES + blockDim.x / WARP * WARP_BYTES<L>; }

__device__ __forceinline__ bool any_thread(bool mine) { return __any_sync(FULL_WARP, mine) != 0; }

// A superblock's stream, staged through shared memory. `ring`, `at` and `due` are shared addresses.
template <class L>
struct Feed {
    static constexpr u32 RING = L::ring;
    // So much of a stream may be fetched before its superblock begins: at least what 4 + 4 rows can take.
    static constexpr u32 HEAD = RING / 2;
    static_assert(RING % CHUNK == 0 && HEAD % CHUNK == 0 && HEAD >= 2 * CHUNK, "the ring is filled by chunks");

    u32 ring;      // first byte of the ring
    u32 at;        // the next word, in ring .. ring + RING + MIRROR
    u32 due;       // when `at` gets here, the next chunk is fetched: ring + 1 to RING / CHUNK chunks
    u64 source;    // this thread's 16 bytes of the next chunk
    int left;      // bytes from `source` to the end of the stream; what a reader finds beyond it does not matter
    bool whole;    // the ring holds all of the stream and a byte more: it leaves the ring's begin to the next one

    __device__ __forceinline__ void copy(u32 to) const {
        const u32 destination = to + 16 * lane_index();
        if (left <= 0) return;
        if constexpr (!L::forgets) {
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(destination), "l"(source), "r"(min(left, 16)) : "memory");
            return;
        }
        asm volatile(
            "{.reg .b64 once; createpolicy.fractional.L2::evict_first.b64 once, 1.0;"
            " cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, once;}" ::"r"(destination), "l"(source), "r"(min(left, 16))
            : "memory");
    }

    // Fetches the next chunk to `offset` in the ring. In its first round nobody reads the mirror.
    __device__ __forceinline__ void fetch(u32 offset, bool first_round) {
        copy(ring + offset);
        if (offset == 0 && !first_round) copy(ring + RING);
        asm volatile("cp.async.commit_group;" ::: "memory");
        source += CHUNK;
        left -= int(CHUNK);
    }

    // Before the first byte. `begin` is rounded down to 16 bytes: what lies before it is part of the payload.
    __device__ __forceinline__ void begin_at(u32 ring_address, u64 begin, u32 bytes) {
        const u32 skipped = u32(begin) & 15;
        ring = ring_address;
        at = ring + skipped;
        source = begin - skipped + 16 * lane_index();
        left = int(skipped + bytes) - int(16 * lane_index());
        whole = skipped + bytes < RING;
        due = ring + (whole ? HEAD - CHUNK : CHUNK);
    }

    // Fetches bytes FROM .. TO - 1 of the ring's first round, without waiting for them.
    template <u32 FROM, u32 TO>
    __device__ __forceinline__ void fetch_first() {
#pragma unroll
        for (u32 offset = FROM; offset < TO; offset += CHUNK) fetch(offset, true);
    }

    // As if bytes 0 .. HEAD - 1 had been fetched.
    __device__ __forceinline__ void skip_head() {
        source += HEAD;
        left -= int(HEAD);
    }

    // Until all that was fetched has arrived.
    __device__ __forceinline__ void wait() const {
        asm volatile("cp.async.wait_all;" ::: "memory");
        __syncwarp();
    }

    // Between two steps of REFILL_ROWS rows: makes sure that the next step finds its words.
    // After it more than RING - CHUNK bytes are ahead, all but the youngest CHUNK of them arrived; of a whole stream, all there is.
    __device__ __forceinline__ void refill() {
        if (any_thread(at >= due)) {  // all threads agree, and the compiler shall know
            if (whole) {
                // Once, for what came behind its head. Later only where a damaged stream goes on beyond its end, which the position
                // shows for good, since the ring's end is not the stream's: what it reads there does not matter.
                wait();
                due = ring + RING;
                at = min(at, due);
                return;
            }
            __syncwarp();  // all have read what is overwritten
            fetch(due - CHUNK - ring, false);
            asm volatile("cp.async.wait_group 1;" ::: "memory");
            due += CHUNK;
            // `due` gets to the ring's end when `at` does, and no earlier step went further than the mirror.
            if (due > ring + RING) at -= RING, due -= RING;
            __syncwarp();
        }
    }

    // Bytes from the begin of the stream to the next word; may lie beyond its end.
    __device__ __forceinline__ u32 position(u32 bytes) const {
        return bytes - u32(left + int(16 * lane_index())) - ((whole ? ring : due - CHUNK) + RING - at);
    }
};

__device__ __forceinline__ u32 shared_word(u32 address) {
    u32 word;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(address));
    return word;
}
// Not predicated by the compiler: threads that need no word load one all the same.
__device__ __forceinline__ u32 shared_half(u32 address) {
    u32 half;
    asm volatile("{.reg .u16 h; ld.shared.u16 h, [%1]; cvt.u32.u16 %0, h;}" : "=r"(half) : "r"(address));
    return half;
}
