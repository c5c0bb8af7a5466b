// wcodec: arch=80
// Zstd mode around nvCOMP: the lists of frames that it wants, its results, and byte planes, which are joined after frames are decoded
// and split before they are encoded.
//
// Thread to data: lists and results, a thread per frame. Planes: a thread joins or splits 16 consecutive bytes, 16/n of each plane, so a warp touches 512 consecutive bytes on one
// side and 512/n in each plane. Framed whose length is no multiple of 16, and addresses that are none, go byte by byte.
//
// Budget: every byte is read and written once; 16 bytes take n loads, one store and at most 8 byte permutations.
#include "framed.cuh"

constexpr u32 THREADS = 256;
constexpr u32 GRANULE = 16;    // bytes of a thread

// Columns of a 4 × 4 matrix of bytes, whose rows are a, b, c, d.
__device__ __forceinline__ uint4 transpose4(u32 a, u32 b, u32 c, u32 d) {
    const u32 ab0 = __byte_perm(a, b, 0x5140), ab1 = __byte_perm(a, b, 0x7362);
    const u32 cd0 = __byte_perm(c, d, 0x5140), cd1 = __byte_perm(c, d, 0x7362);
    return make_uint4(__byte_perm(ab0, cd0, 0x5410), __byte_perm(ab0, cd0, 0x7632), __byte_perm(ab1, cd1, 0x5410),
                      __byte_perm(ab1, cd1, 0x7632));
}

template <class T>
__device__ __forceinline__ T& at(u64 address) { return *reinterpret_cast<T*>(address); }

// 16 bytes whose parts lie `whole` bytes apart from `from` on.
template <u32 N>
__device__ __forceinline__ uint4 join16(u64 from, u32 whole) {
    if constexpr (N == 1) {
        return at<const uint4>(from);
    } else if constexpr (N == 2) {
        const uint2 a = at<const uint2>(from), b = at<const uint2>(from + whole);
        return make_uint4(__byte_perm(a.x, b.x, 0x5140), __byte_perm(a.x, b.x, 0x7362), __byte_perm(a.y, b.y, 0x5140),
                          __byte_perm(a.y, b.y, 0x7362));
    } else if constexpr (N == 4) {
        const u64 w = whole;
        return transpose4(at<const u32>(from), at<const u32>(from + w), at<const u32>(from + 2 * w), at<const u32>(from + 3 * w));
    } else {
        const u64 w = whole;
        u32 x[8];
#pragma unroll
        for (u32 i = 0; i < 8; ++i) x[i] = at<const u16>(from + i * w);
        const uint4 low = transpose4(x[0], x[1], x[2], x[3]), high = transpose4(x[4], x[5], x[6], x[7]);
        return make_uint4(low.x, high.x, low.y, high.y);
    }
}

template <u32 N>
__device__ __forceinline__ void split16(u64 to, u32 whole, uint4 v) {
    const u64 w = whole;
    if constexpr (N == 1) {
        at<uint4>(to) = v;
    } else if constexpr (N == 2) {
        at<uint2>(to) = make_uint2(__byte_perm(v.x, v.y, 0x6420), __byte_perm(v.z, v.w, 0x6420));
        at<uint2>(to + w) = make_uint2(__byte_perm(v.x, v.y, 0x7531), __byte_perm(v.z, v.w, 0x7531));
    } else if constexpr (N == 4) {
        const uint4 planes = transpose4(v.x, v.y, v.z, v.w);
        at<u32>(to) = planes.x;
        at<u32>(to + w) = planes.y;
        at<u32>(to + 2 * w) = planes.z;
        at<u32>(to + 3 * w) = planes.w;
    } else {
        const uint4 low = transpose4(v.x, v.z, 0, 0), high = transpose4(v.y, v.w, 0, 0);
        at<u16>(to) = u16(low.x);
        at<u16>(to + w) = u16(low.y);
        at<u16>(to + 2 * w) = u16(low.z);
        at<u16>(to + 3 * w) = u16(low.w);
        at<u16>(to + 4 * w) = u16(high.x);
        at<u16>(to + 5 * w) = u16(high.y);
        at<u16>(to + 6 * w) = u16(high.z);
        at<u16>(to + 7 * w) = u16(high.w);
    }
}

// Bytes [GRANULE·t, GRANULE·(t + 1)) of `pieces` for thread t, and the same of `plain`.
template <bool JOIN>
__device__ __forceinline__ void run(const Framed& framed, u64 plain) {
    const u64 granules = (framed.bytes + GRANULE - 1) / GRANULE;
    const u64 t = u64(blockIdx.x) * THREADS + threadIdx.x;
    if (t >= granules) return;
    const u64 begin = t * GRANULE;
    const bool aligned = ((plain | framed.base | framed.frame | framed.stride) & (GRANULE - 1)) == 0;
    // Where frames are a multiple of 16 no granule crosses a piece.
    const u32 per_piece = framed.frame / GRANULE;
    if (aligned) {
        const u32 piece = granules >> 32 == 0 ? u32(t) / per_piece : u32(t / per_piece);
        const u32 length = length_of_piece(framed, piece);
        if (length % GRANULE == 0) {
            const u32 whole = length >> framed.log2_n;
            const u64 part = framed.base + u64(piece) * framed.stride + ((u32(begin - u64(piece) * framed.frame)) >> framed.log2_n);
            // A plane of a shorter last piece may begin anywhere.
            if (whole % GRANULE == 0 || framed.log2_n == 0 || whole % (GRANULE >> framed.log2_n) == 0) {
                if constexpr (JOIN) {
                    uint4 v;
                    switch (framed.log2_n) {
                        case 0: v = join16<1>(part, whole); break;
                        case 1: v = join16<2>(part, whole); break;
                        case 2: v = join16<4>(part, whole); break;
                        default: v = join16<8>(part, whole); break;
                    }
                    store16_stream(reinterpret_cast<void*>(plain + begin), v);
                } else {
                    const uint4 v = load16_stream(reinterpret_cast<const void*>(plain + begin));
                    switch (framed.log2_n) {
                        case 0: split16<1>(part, whole, v); break;
                        case 1: split16<2>(part, whole, v); break;
                        case 2: split16<4>(part, whole, v); break;
                        default: split16<8>(part, whole, v); break;
                    }
                }
                return;
            }
        }
    }
    const u64 end = min(begin + GRANULE, framed.bytes);
#pragma unroll 1
    for (u64 i = begin; i < end; ++i) {
        u8& there = at<u8>(byte_address(framed, i));
        u8& here = at<u8>(plain + i);
        if constexpr (JOIN) here = there;
        else there = here;
    }
}

// Framed to plain bytes.
extern "C" __global__ void __launch_bounds__(THREADS) wcodec_join_planes(Framed framed, u64 plain) { run<true>(framed, plain); }

// Plain bytes to framed.
extern "C" __global__ void __launch_bounds__(THREADS) wcodec_split_planes(Framed framed, u64 plain) { run<false>(framed, plain); }

// What nvCOMP wants to know of frames: arrays of addresses and lengths. `launch/frames.rs` has the same layout.
struct Lists {
    u64 from;        // u64 addresses of what is read
    u64 from_bytes;  // u64 lengths
    u64 to;          // u64 addresses of what is written
    u64 to_bytes;    // u64: room there
};
static_assert(sizeof(Lists) == 32, "the host writes eight words");

// Appends frames first.. of a tensor to the lists at position `at`: stored frames to be decoded into pieces.
extern "C" __global__ void __launch_bounds__(THREADS)
wcodec_list_frames(Lists lists, u32 at_index, const u64* addresses, const u64* lengths, u32 first, u32 count, Framed target) {
    const u32 i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) return;
    at<u64>(lists.from + 8 * u64(at_index + i)) = addresses[first + i];
    at<u64>(lists.from_bytes + 8 * u64(at_index + i)) = lengths[first + i];
    at<u64>(lists.to + 8 * u64(at_index + i)) = target.base + u64(i) * target.stride;
    at<u64>(lists.to_bytes + 8 * u64(at_index + i)) = length_of_piece(target, i);
}

// Pieces to be encoded, each with `room` bytes for its frame.
extern "C" __global__ void __launch_bounds__(THREADS)
wcodec_list_pieces(Lists lists, u32 count, Framed source, u64 target, u32 room) {
    const u32 i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) return;
    at<u64>(lists.from + 8 * u64(i)) = source.base + u64(i) * source.stride;
    at<u64>(lists.from_bytes + 8 * u64(i)) = length_of_piece(source, i);
    at<u64>(lists.to + 8 * u64(i)) = target + u64(i) * room;
    at<u64>(lists.to_bytes + 8 * u64(i)) = 0;
}

// Notes in `failed` the lowest of frames first.. that nvCOMP rejected or that has another length than its piece.
extern "C" __global__ void __launch_bounds__(THREADS)
wcodec_check_frames(const u32* statuses, const u64* decoded, const u64* expected, u32 at_index, u32 first, u32 count, u32* failed) {
    const u32 i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) return;
    if (statuses[at_index + i] != 0 || decoded[at_index + i] != expected[at_index + i]) atomicMin(failed, first + i);
}
