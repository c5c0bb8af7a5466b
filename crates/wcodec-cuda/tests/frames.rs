//! Zstd mode on the device against libzstd, and dequantisation against the CPU. Tests return early without a device or without nvCOMP.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use wcodec_cuda::{
    CudaContext, CudaError, DeviceBuffer, DeviceFrames, DeviceScheme, FrameDecoder, FrameEncoder, FrameTarget,
    FramesTensor, Nvcomp, NvcompError, Stream, dequantize,
};
use wcodec_quant::{Code, FloatType, Isa, Order, Scheme};
use zstd_safe::{CCtx, CParameter};

fn stream() -> Option<Stream> {
    match CudaContext::new(0) {
        Ok(context) => Some(Stream::new(&context).unwrap()),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

fn nvcomp() -> Option<(Stream, Nvcomp)> {
    let stream = stream()?;
    match Nvcomp::find() {
        Ok(found) => Some((stream, found)),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

fn noise(seed: u64, len: usize) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ (z >> 31)
    })
    .take(len)
}

/// Bytes of weights, of text, of nothing, of noise.
fn bytes(kind: u8, seed: u64, len: usize) -> Vec<u8> {
    match kind % 4 {
        0 => noise(seed, len.div_ceil(2))
            .flat_map(|n| {
                let x = ((n & 0xffff) as f32 - 32768.0) * ((n >> 16 & 0xffff) as f32) * 1e-11;
                ((x.to_bits() >> 16) as u16).to_le_bytes()
            })
            .take(len)
            .collect(),
        1 => noise(seed, len).map(|n| b"the weights of a network, once more "[(n % 36) as usize & 0x1f]).collect(),
        2 => vec![seed as u8; len],
        _ => noise(seed, len).map(|n| n as u8).collect(),
    }
}

fn planar(piece: &[u8], planes: usize) -> Vec<u8> {
    (0..planes).flat_map(|plane| piece.iter().skip(plane).step_by(planes).copied()).collect()
}

fn frames(data: &[u8], frame: usize, planes: usize, level: i32) -> Vec<Vec<u8>> {
    let mut context = CCtx::create();
    for parameter in [CParameter::CompressionLevel(level), CParameter::ChecksumFlag(true)] {
        context.set_parameter(parameter).unwrap();
    }
    data.chunks(frame)
        .map(|piece| {
            let piece = planar(piece, planes);
            let mut out = Vec::with_capacity(zstd_safe::compress_bound(piece.len()));
            context.compress2(&mut out, &piece).unwrap();
            out
        })
        .collect()
}

fn upload(
    stream: &Stream,
    data: &[u8],
    frame: usize,
    planes: usize,
    frames: &[Vec<u8>],
) -> Result<DeviceFrames, CudaError> {
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    DeviceFrames::upload(stream, &FramesTensor { frame, planes, decoded_bytes: data.len(), frames: &frames })
}

fn back(stream: &Stream, buffer: &DeviceBuffer) -> Vec<u8> {
    let mut out = vec![0; buffer.len()];
    buffer.copy_to_host(stream, 0, &mut out).unwrap();
    out
}

#[test]
fn frames_decode_to_what_libzstd_made_them_of() {
    let Some((stream, nvcomp)) = nvcomp() else { return };
    let decoder = FrameDecoder::new(&nvcomp, stream.context()).unwrap();
    let strategy = (
        0..4u8,
        any::<u64>(),
        prop::sample::select(vec![1usize, 2, 4, 8]),
        prop::sample::select(vec![4096usize, 5008, 65_536, 70_000, 1 << 20]),
        1usize..600_000,
        prop::sample::select(vec![1, 3, 9, 19]),
        0usize..3,
        (0usize..1000, 0usize..1000),
    );
    let mut runner = TestRunner::new(ProptestConfig::with_cases(60));
    runner
        .run(&strategy, |(kind, seed, planes, frame, len, level, shift, part)| {
            let frame = frame / planes * planes - if planes == 1 && frame == 70_000 { 1 } else { 0 };
            let data = bytes(kind, seed, len);
            let tensor = upload(&stream, &data, frame, planes, &frames(&data, frame, planes, level)).unwrap();
            // Whole, at any address, with canaries.
            let mut out = DeviceBuffer::from_host(&stream, &vec![0xa5; len + 64]).unwrap();
            let to = out.sub_slice_mut(16 + 8 * shift + shift / 2, len).unwrap();
            decoder.decode([(&tensor, FrameTarget::Bytes(0..len, to))], &stream).unwrap();
            tensor.check(&stream).unwrap();
            let found = back(&stream, &out);
            let begin = 16 + 8 * shift + shift / 2;
            prop_assert!(found[begin..begin + len] == data);
            prop_assert!(found[..begin].iter().chain(&found[begin + len..]).all(|&b| b == 0xa5));
            // A range.
            let (a, b) = (len * part.0 / 1000, len * part.1 / 1000);
            let range = a.min(b)..a.max(b);
            let mut out = DeviceBuffer::from_host(&stream, &vec![0xa5; range.len()]).unwrap();
            decoder.decode([(&tensor, FrameTarget::Bytes(range.clone(), out.as_slice_mut()))], &stream).unwrap();
            tensor.check(&stream).unwrap();
            prop_assert!(back(&stream, &out) == data[range]);
            Ok(())
        })
        .unwrap();
}

#[test]
fn many_tensors_in_one_batch() {
    let Some((stream, nvcomp)) = nvcomp() else { return };
    let decoder = FrameDecoder::new(&nvcomp, stream.context()).unwrap();
    let data: Vec<Vec<u8>> = (0..50).map(|i| bytes(i as u8, i, 3000 * i as usize)).collect();
    let tensors: Vec<DeviceFrames> = data
        .iter()
        .enumerate()
        .map(|(i, data)| {
            let planes = 1 << (i % 4);
            upload(&stream, data, 8192, planes, &frames(data, 8192, planes, 3)).unwrap()
        })
        .collect();
    let mut outs: Vec<DeviceBuffer> =
        data.iter().map(|data| DeviceBuffer::new(stream.context(), data.len()).unwrap()).collect();
    let other = Stream::new(stream.context()).unwrap();
    for stream in [&stream, &other, &stream] {
        let items = tensors.iter().zip(&mut outs);
        let items = items.map(|(t, out)| (t, FrameTarget::Bytes(0..t.decoded_bytes(), out.as_slice_mut())));
        decoder.decode(items, stream).unwrap();
    }
    for ((tensor, data), out) in tensors.iter().zip(&data).zip(&outs) {
        tensor.check(&stream).unwrap();
        assert!(back(&stream, out) == *data);
    }
}

#[test]
fn frames_made_on_the_device_are_read_by_libzstd() {
    let Some((stream, nvcomp)) = nvcomp() else { return };
    let (decoder, encoder) =
        (FrameDecoder::new(&nvcomp, stream.context()).unwrap(), FrameEncoder::new(&nvcomp, stream.context()).unwrap());
    // With this variable set, frames are also written there, for the zstd command to read.
    let folder = std::env::var_os("WCODEC_TEST_FRAMES").map(std::path::PathBuf::from);
    for (case, (kind, len, frame, planes)) in [
        (0, 1_000_000, 65_536, 2),
        (0, 1_000_001, 65_536, 1),
        (1, 300_000, 4096, 1),
        (2, 300_000, 65_536, 4),
        (3, 200_001, 65_536, 8),
        (3, 10, 4096, 2),
        (1, 1_500_000, 1 << 20, 1),
        (0, 100_000, 5001, 1),
        (2, 1, 4096, 1),
    ]
    .into_iter()
    .enumerate()
    {
        let data = bytes(kind, 7, len);
        let encoded = encoder.encode(&data, frame, planes, &stream).unwrap();
        let made: Vec<Vec<u8>> =
            data.chunks(frame).enumerate().map(|(number, piece)| encoded.seal(number, piece).unwrap()).collect();
        for (number, (piece, frame)) in data.chunks(frame).zip(&made).enumerate() {
            assert_eq!(zstd_safe::get_frame_content_size(frame).unwrap(), Some(piece.len() as u64));
            let mut out = Vec::with_capacity(piece.len());
            zstd_safe::decompress(&mut out, frame).map_err(zstd_safe::get_error_name).unwrap();
            assert!(out == planar(piece, planes));
            if let (Some(folder), 0..8) = (&folder, number) {
                std::fs::write(folder.join(format!("{case}-{number}.zst")), frame).unwrap();
                std::fs::write(folder.join(format!("{case}-{number}.bin")), &out).unwrap();
            }
        }
        let tensor = upload(&stream, &data, frame, planes, &made).unwrap();
        let mut out = DeviceBuffer::new(stream.context(), len).unwrap();
        decoder.decode([(&tensor, FrameTarget::Bytes(0..len, out.as_slice_mut()))], &stream).unwrap();
        tensor.check(&stream).unwrap();
        assert!(back(&stream, &out) == data);
    }
}

#[test]
fn what_is_no_frame_of_its_piece_does_not_reach_nvcomp() {
    let Some(stream) = stream() else { return };
    let data = bytes(0, 3, 150_000);
    let good = frames(&data, 65_536, 2, 3);
    upload(&stream, &data, 65_536, 2, &good).unwrap();
    let refused = |frames: &[Vec<u8>]| upload(&stream, &data, 65_536, 2, frames).unwrap_err();
    let mut cut = good.clone();
    cut[1].pop();
    assert!(matches!(refused(&cut), CudaError::Nvcomp(NvcompError::Frame { frame: 1, .. })));
    let mut swapped = good.clone();
    swapped.swap(1, 2);
    assert!(matches!(refused(&swapped), CudaError::Nvcomp(NvcompError::Frame { frame: 1, .. })));
    let mut magic = good.clone();
    magic[2][0] ^= 1;
    assert!(matches!(refused(&magic), CudaError::Nvcomp(NvcompError::Frame { frame: 2, .. })));
    assert!(matches!(refused(&good[..2]), CudaError::Inconsistent { .. }));
    assert!(matches!(upload(&stream, &data, 65_535, 2, &good), Err(CudaError::Inconsistent { .. })));
}

const CODES: [Code; 10] = [
    Code::I8,
    Code::U8,
    Code::F8E4M3,
    Code::F8E5M2,
    Code::I4(Order::Pairs),
    Code::U4(Order::Pairs),
    Code::I4(Order::RowWords),
    Code::U4(Order::RowWords),
    Code::I4(Order::Interleaved),
    Code::U4(Order::Interleaved),
];

#[derive(Debug, Clone)]
struct Case {
    scheme: Scheme,
    codes: Vec<u8>,
    float: FloatType,
    shift: usize,
}

fn case() -> impl Strategy<Value = Case> {
    (
        (1usize..40, 1usize..70),
        (prop::sample::select(vec![1usize, 8, 32, 1000]), prop::sample::select(vec![1usize, 16, 32, 24, 10_000])),
        prop::sample::select(CODES.to_vec()),
        any::<bool>(),
        any::<u64>(),
        prop::sample::select(vec![FloatType::BF16, FloatType::F16, FloatType::F32]),
        (0usize..2, 0usize..2, 0usize..3),
    )
        .prop_map(|(size, block, code, groups, seed, float, (ragged, zeros, shift))| {
            let (rows, cols) = match code.order() {
                None => (size.0, size.1 * 8 - ragged),
                Some(Order::Pairs) => (size.0, size.1 * 8 - 2 * ragged),
                Some(Order::RowWords) => (size.0.div_ceil(8) * 8, size.1 * 4 - ragged),
                Some(Order::Interleaved) => (size.0, size.1 * 8),
            };
            let block = [block.0.min(rows), block.1.min(cols)];
            let count = rows.div_ceil(block[0]) * cols.div_ceil(block[1]);
            let scales = noise(seed, count)
                .map(|n| match n % 16 {
                    0 => f32::from_bits(n as u32),
                    1 => [0.0, -0.0, f32::INFINITY, f32::NAN, 1e-40, 3e38, 1e-7, 1.0][(n >> 8) as usize % 8],
                    _ => ((n >> 40) as f32 - 8e6) * 1e-9,
                })
                .collect();
            let mut scheme = Scheme::new([rows, cols], code, block, scales).unwrap();
            if code.is_integer() && zeros == 1 {
                let zeros: Vec<i32> = noise(seed ^ 1, count).map(|n| (n % 601) as i32 - 300).collect();
                scheme = scheme.with_zeros(&zeros).unwrap();
            }
            if groups {
                let of = rows.div_ceil(block[0]);
                scheme = scheme.with_row_groups((0..rows).map(|r| (r * 7 % of) as u32).collect()).unwrap();
            }
            let codes = noise(seed ^ 2, scheme.code_bytes()).map(|n| n as u8).collect();
            Case { scheme, codes, float, shift }
        })
}

fn on_cpu(case: &Case) -> Vec<u8> {
    let [rows, cols] = case.scheme.shape();
    let mut out = vec![0; rows * cols * case.float.bytes()];
    case.scheme.dequantize_rows(&case.codes, 0..rows, case.float, Isa::Scalar, &mut out).unwrap();
    out
}

#[test]
fn dequantised_as_on_the_cpu() {
    let Some(stream) = stream() else { return };
    let mut runner = TestRunner::new(ProptestConfig::with_cases(400));
    runner
        .run(&case(), |case| {
            let expected = on_cpu(&case);
            let scheme = DeviceScheme::upload(&stream, &case.scheme).unwrap();
            // At aligned and at odd addresses.
            let (at, to) = ([0, 4, 1][case.shift], [0, 16, case.float.bytes()][case.shift]);
            let mut codes = vec![0; at];
            codes.extend_from_slice(&case.codes);
            let codes = DeviceBuffer::from_host(&stream, &codes).unwrap();
            let mut out = DeviceBuffer::from_host(&stream, &vec![0xa5; to + expected.len() + 16]).unwrap();
            let (from, target) =
                (codes.sub_slice(at, case.codes.len()).unwrap(), out.sub_slice_mut(to, expected.len()).unwrap());
            dequantize(&stream, &scheme, from, case.float, target).unwrap();
            let found = back(&stream, &out);
            prop_assert!(found[to..to + expected.len()] == expected);
            prop_assert!(found[..to].iter().chain(&found[to + expected.len()..]).all(|&b| b == 0xa5));
            Ok(())
        })
        .unwrap();
}

#[test]
fn dequantised_out_of_frames_as_on_the_cpu() {
    let Some((stream, nvcomp)) = nvcomp() else { return };
    let decoder = FrameDecoder::new(&nvcomp, stream.context()).unwrap();
    let strategy =
        (case(), prop::sample::select(vec![1usize, 2, 4, 8]), prop::sample::select(vec![256usize, 4096, 5008]));
    let mut runner = TestRunner::new(ProptestConfig::with_cases(100));
    runner
        .run(&strategy, |(case, planes, frame)| {
            let expected = on_cpu(&case);
            let scheme = DeviceScheme::upload(&stream, &case.scheme).unwrap();
            let made = frames(&case.codes, frame, planes, 3);
            let tensor = upload(&stream, &case.codes, frame, planes, &made).unwrap();
            let mut out = DeviceBuffer::from_host(&stream, &vec![0xa5; expected.len()]).unwrap();
            let target = FrameTarget::Dequantized(&scheme, case.float, out.as_slice_mut());
            decoder.decode([(&tensor, target)], &stream).unwrap();
            tensor.check(&stream).unwrap();
            prop_assert!(back(&stream, &out) == expected);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_library_that_is_none_is_told() {
    let error = Nvcomp::open(std::path::Path::new("/nonexistent/libnvcomp.so.6")).unwrap_err();
    assert!(matches!(&error, NvcompError::Missing { tried } if tried.len() == 1));
    assert!(error.to_string().contains("nvidia-libnvcomp-cu13"));
}

/// What nvCOMP does with forged frames: sound structure, damaged content. Its documentation promises nothing, and a fault takes the whole
/// context with it, so this runs alone: `cargo test -p wcodec-cuda --test frames -- --ignored --nocapture`.
#[test]
#[ignore = "may end the process's use of the device"]
fn forged_frames() {
    let Some((stream, nvcomp)) = nvcomp() else { return };
    let decoder = FrameDecoder::new(&nvcomp, stream.context()).unwrap();
    let data = bytes(0, 5, 1 << 20);
    let good = frames(&data, 65_536, 1, 3);
    let (mut refused, mut told, mut wrong, mut right) = (0, 0, 0, 0);
    for (round, place) in noise(11, 400).enumerate() {
        let mut forged = good.clone();
        let frame = &mut forged[round % good.len()];
        let bit = place as usize % (8 * frame.len());
        frame[bit / 8] ^= 1 << (bit % 8);
        let Ok(tensor) = upload(&stream, &data, 65_536, 1, &forged) else {
            refused += 1;
            continue;
        };
        let mut out = DeviceBuffer::new(stream.context(), data.len()).unwrap();
        let target = FrameTarget::Bytes(0..data.len(), out.as_slice_mut());
        let decoded = decoder.decode([(&tensor, target)], &stream).and_then(|()| stream.synchronize());
        if let Err(error) = decoded {
            println!("round {round}, bit {bit}: {error}; refused {refused}, told {told}, wrong {wrong}, right {right}");
            return;
        }
        match tensor.check(&stream) {
            Err(_) => told += 1,
            Ok(()) if back(&stream, &out) == data => right += 1,
            Ok(()) => wrong += 1,
        }
    }
    println!("refused {refused}, told by nvCOMP {told}, wrong bytes {wrong}, right bytes {right}");
}
