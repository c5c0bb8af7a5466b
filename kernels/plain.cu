// wcodec: arch=80
// Plain mode: byte planes of small tensors, each stored or coded by the single-state rANS coder, and the rotation of floats undone.
//
// Thread to data: one block per tensor, one warp per plane. A coded plane is one chain of states, so one thread of its warp walks it, a
// piece of 1,024 symbols at a time, into shared memory; then all threads of the block join the planes and write the elements. Shared
// memory: per plane its slots (4 * 2^P bytes) and a piece. Budget: about 12 instructions and one load from shared memory per symbol,
// in a chain of about 70 clocks: 40 ns. That is a hundred times slower than a lane of a superblock, and fine for tensors of some
// kilobytes, many of which go side by side.
#include "common.cuh"

struct Plane {
    u32 bytes;       // offset from the tensor's base; a multiple of 4
    u32 length;      // of the stored bytes, or of state and words
    u32 symbols;     // offset of its symbols, a multiple of 4; with a table
    u32 count;       // of these; 0: stored
};
static_assert(sizeof(Plane) == 16, "the host writes planes as 16 bytes");

constexpr u32 MAX_PLANES = 8;

struct Tensor {
    u64 base;
    u64 out;         // of the first element, which may lie before the memory that is written: only bytes within the clip are
    u64 clip_begin, clip_end;
    u64 planes;      // const Plane*
    u64 status;      // u32*, lowest failure: code; all ones: none
    u32 elements;
    u8 element_bytes, rotated, table_bits, reserved;  // P of all planes' tables at most
};
static_assert(sizeof(Tensor) == 56, "the host writes tensors as 56 bytes");

constexpr u32 MAX_TENSORS = 64;

struct Batch {
    u32 count;
    u32 slot_bytes;  // of a plane's shared memory: its slots
    Tensor tensors[MAX_TENSORS];
};
static_assert(sizeof(Batch) == 8 + 64 * 56, "the host writes batches so");

constexpr u32 STATE_LOW = 1u << 16;
constexpr u32 TRUNCATED = 1, CORRUPT = 2;
constexpr u32 PIECE = 1024;

extern __shared__ __align__(16) u8 shared[];

// A plane on its way: what its first thread keeps from piece to piece.
struct Chain {
    const u8* bytes;
    const u32* slots;
    u32 length, position, x, next, p;

    __device__ __forceinline__ u32 word(u32 at) const {
        return at < length ? __ldg(reinterpret_cast<const u16*>(bytes + at)) : 0;
    }

    __device__ __forceinline__ void begin() {
        x = length >= 4 ? __ldg(reinterpret_cast<const u32*>(bytes)) : 0;
        position = 4;
        next = word(position);
    }

    // Slots are freq << 20 | value << 12 | bias.
    __device__ __forceinline__ void decode(u32 count, u8* to) {
        const u32 mask = (1u << p) - 1;
        for (u32 i = 0; i < count; ++i) {
            const u32 slot = slots[x & mask];
            to[i] = u8(slot >> 12);
            x = (slot >> 20) * (x >> p) + (slot & 0xfff);
            if (x < STATE_LOW) {
                x = x << 16 | next;
                position += 2;
                next = word(position);
            }
        }
    }
};

extern "C" __global__ void __launch_bounds__(256, 1)
wcodec_plain(const __grid_constant__ Batch batch) {
    const Tensor& t = batch.tensors[blockIdx.x];
    const u32 warp = threadIdx.x / WARP, lane = lane_index(), n = t.element_bytes;
    u8* mine = shared + warp * (batch.slot_bytes + PIECE);
    u32* slots = reinterpret_cast<u32*>(mine);
    u8* piece = mine + batch.slot_bytes;
    Plane plane = {0, 0, 0, 0};
    Chain chain = {nullptr, slots, 0, 0, 0, 0, 0};
    bool sound = true;
    if (warp < n) {
        plane = reinterpret_cast<const Plane*>(t.planes)[warp];
        chain.bytes = reinterpret_cast<const u8*>(t.base + plane.bytes);
        chain.length = plane.length;
        chain.p = t.table_bits;
        if (plane.count != 0) {
            // Symbols are freq | value << 16; P of this plane is in the upper bits of the first one's.
            const u32* symbols = reinterpret_cast<const u32*>(t.base + plane.symbols);
            chain.p = __ldg(symbols) >> 24;
            u32 start = 0;
            for (u32 i = 0; i < plane.count; ++i) {
                const u32 symbol = __ldg(symbols + i), freq = symbol & 0xffff, value = symbol >> 16 & 0xff;
                for (u32 bias = lane; bias < freq; bias += WARP) slots[start + bias] = freq << 20 | value << 12 | bias;
                start += freq;
            }
            __syncwarp();
            chain.begin();
            sound = chain.x >= STATE_LOW;
        }
    }
    for (u32 first = 0; first < t.elements; first += PIECE) {
        const u32 count = min(PIECE, t.elements - first);
        if (warp < n) {
            if (plane.count == 0) {
                for (u32 i = lane; i < count; i += WARP) piece[i] = __ldg(chain.bytes + first + i);
            } else if (lane == 0) chain.decode(count, piece);
        }
        __syncthreads();
        const u32 stride = batch.slot_bytes + PIECE;
        const u8* pieces = shared + batch.slot_bytes;
        for (u32 i = threadIdx.x; i < count; i += blockDim.x) {
            u8 element[MAX_PLANES];
            for (u32 k = 0; k < MAX_PLANES; ++k) element[k] = k < n ? pieces[k * stride + i] : 0;
            if (t.rotated) {
                // The upper two bytes, rotated right by one bit.
                u32 head = 0;
                for (u32 k = 0; k < MAX_PLANES; ++k) {
                    if (k + 2 == n) head |= element[k];
                    if (k + 1 == n) head |= u32(element[k]) << 8;
                }
                head = (head >> 1 | head << 15) & 0xffff;
                for (u32 k = 0; k < MAX_PLANES; ++k) {
                    if (k + 2 == n) element[k] = u8(head);
                    if (k + 1 == n) element[k] = u8(head >> 8);
                }
            }
            const u64 at = t.out + u64(first + i) * n;
            for (u32 k = 0; k < MAX_PLANES; ++k) {
                if (k < n && at + k >= t.clip_begin && at + k < t.clip_end) *reinterpret_cast<u8*>(at + k) = element[k];
            }
        }
        __syncthreads();
    }
    if (warp < n && lane == 0 && plane.count != 0) {
        u32 code = 0;
        if (!sound || chain.x != STATE_LOW || chain.position != chain.length) code = CORRUPT;
        if (chain.position > chain.length) code = TRUNCATED;
        if (code != 0) atomicMin(reinterpret_cast<u32*>(t.status), code);
    }
}
