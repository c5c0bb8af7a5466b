//! Quantised tensors: found by their names, dequantised, made.

use std::path::Path;

use wcodec::quant::{
    Code, DequantizeOptions, FloatType, Order, QuantizeOptions, QuantizedType, ScaleBlock, Scheme, quantize,
};
use wcodec::{Archive, DtypeCode, EncodeOptions, Error, ModeChoice, TensorData};

const F32: DequantizeOptions = DequantizeOptions {
    float: Some(FloatType::F32),
    code: None,
    scales: None,
    zeros: None,
    block: None,
    zeros_as_stored: false,
};

fn archive(tensors: &[(&str, DtypeCode, &[u64], Vec<u8>)]) -> Archive {
    let tensors: Vec<TensorData<'_>> =
        tensors.iter().map(|(name, dtype, shape, data)| TensorData { name, dtype: *dtype, shape, data }).collect();
    let bytes = wcodec::compress_tensors_to_vec(&tensors, &Default::default(), &EncodeOptions::default(), &()).unwrap();
    Archive::from_bytes(bytes).unwrap()
}

fn f32s(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn words(values: impl IntoIterator<Item = u32>) -> Vec<u8> {
    values.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

#[test]
fn scales_are_found_by_name_and_shape() {
    let codes: Vec<u8> = (0..48).map(|i| (i * 5 - 100) as i8 as u8).collect();
    let value = |i: usize| f32::from((i as i32 * 5 - 100) as i8);
    for (name, shape, count) in [
        ("up.weight_scale", &[1u64][..], 1usize),
        ("up.weight_scale_inv", &[], 1),
        ("up.weight_scales", &[6], 6),
        ("up.weight.scale", &[6, 1], 6),
        ("up.scales", &[1, 8], 8),
        ("up.scale", &[6, 2], 12),
        ("up.weight_scale", &[2, 2], 4),
    ] {
        let scales = (0..count).map(|i| 0.5 + i as f32);
        let archive = archive(&[
            ("up.weight", DtypeCode::I8, &[6, 8], codes.clone()),
            (name, DtypeCode::F32, shape, f32s(scales)),
        ]);
        let found = floats(&archive.dequantize("up.weight", &F32).unwrap());
        let group = |row: usize, col: usize| match (count, shape.len()) {
            (1, _) => 0,
            (6, _) => row,
            (8, _) => col,
            (12, _) => row * 2 + col / 4,
            _ => row / 3 * 2 + col / 4,
        };
        let expected: Vec<f32> = (0..48).map(|i| value(i) * (0.5 + group(i / 8, i % 8) as f32)).collect();
        assert_eq!(found, expected, "{name} {shape:?}");
    }
}

#[test]
fn zero_points_and_narrow_scales() {
    let archive = archive(&[
        ("w", DtypeCode::U8, &[2, 2], vec![10, 20, 30, 40]),
        ("w_scale", DtypeCode::BF16, &[2], vec![0x00, 0x3f, 0x00, 0x40]), // 0.5, 2
        ("w_zero_point", DtypeCode::I64, &[2], [8i64, 35].iter().flat_map(|z| z.to_le_bytes()).collect()),
        ("mx", DtypeCode::F8_E4M3, &[1, 2], vec![0x38, 0xb8]), // 1, -1
        ("mx_scale", DtypeCode::F8_E8M0, &[1, 2], vec![128, 0]),
        ("named", DtypeCode::U8, &[2, 1], vec![0x21, 0xf3]),
        ("elsewhere", DtypeCode::F16, &[1], vec![0x00, 0x3c]),
    ]);
    let get = |name, options: &DequantizeOptions| floats(&archive.dequantize(name, options).unwrap());
    assert_eq!(get("w", &F32), [1.0, 6.0, -10.0, 10.0]);
    assert_eq!(get("mx", &F32), [2.0, -f32::from_bits(1 << 22)]);
    let options = DequantizeOptions { code: Some(Code::I4(Order::Pairs)), scales: Some("elsewhere".into()), ..F32 };
    assert_eq!(get("named", &options), [1.0, 2.0, 3.0, -1.0]);
    assert!(matches!(archive.dequantize("named", &F32), Err(Error::BadArgument(_))));
    assert!(matches!(archive.dequantize("elsewhere", &F32), Err(Error::BadArgument(_))));
    assert!(matches!(archive.dequantize("nothing", &F32), Err(Error::NoSuchTensor(_))));
}

/// Codes, zero points and scales of a matrix of 16 × 16 with groups of 8 rows.
fn q(row: usize, col: usize) -> u32 {
    ((row * 7 + col * 3) % 16) as u32
}
fn z(group: usize, col: usize) -> u32 {
    ((group * 5 + col) % 15) as u32
}
fn s(group: usize, col: usize) -> f32 {
    0.25 + (group * 16 + col) as f32
}

#[test]
fn gptq() {
    let qweight = (0..2).flat_map(|word| (0..16).map(move |col| (0..8).map(|i| q(word * 8 + i, col) << (4 * i)).sum()));
    let qzeros =
        (0..2).flat_map(|group| (0..2).map(move |word| (0..8).map(|i| z(group, word * 8 + i) << (4 * i)).sum()));
    let scales = (0..2).flat_map(|group| (0..16).map(move |col| s(group, col)));
    let g_idx: Vec<u32> = (0..16).map(|row| row % 2).collect();
    let mut tensors = vec![
        ("l.qweight", DtypeCode::I32, &[2u64, 16][..], words(qweight)),
        ("l.qzeros", DtypeCode::I32, &[2, 2], words(qzeros)),
        ("l.scales", DtypeCode::F32, &[2, 16], f32s(scales)),
    ];
    let value = |row: usize, col: usize, group: usize, more: u32| {
        (q(row, col) as f32 - (z(group, col) + more) as f32) * s(group, col)
    };
    let each = || (0..16).flat_map(|row| (0..16).map(move |col| (row, col)));
    let plain = archive(&tensors);
    let found = floats(&plain.dequantize("l.qweight", &F32).unwrap());
    assert_eq!(found, each().map(|(row, col)| value(row, col, row / 8, 1)).collect::<Vec<_>>());
    let second = DequantizeOptions { zeros_as_stored: true, ..F32 };
    let found = floats(&plain.dequantize("l.qweight", &second).unwrap());
    assert_eq!(found, each().map(|(row, col)| value(row, col, row / 8, 0)).collect::<Vec<_>>());
    tensors.push(("l.g_idx", DtypeCode::I32, &[16], words(g_idx)));
    let found = floats(&archive(&tensors).dequantize("l.qweight", &F32).unwrap());
    assert_eq!(found, each().map(|(row, col)| value(row, col, row % 2, 1)).collect::<Vec<_>>());
    tensors[3].3 = words([7; 16]);
    assert!(matches!(archive(&tensors).dequantize("l.qweight", &F32), Err(Error::Quant(_))));
}

#[test]
fn awq() {
    const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];
    let pack = |of: &dyn Fn(usize) -> u32| -> Vec<u32> {
        (0..2).map(|word| (0..8).map(|i| of(word * 8 + ORDER[i]) << (4 * i)).sum()).collect()
    };
    let archive = archive(&[
        ("l.qweight", DtypeCode::I32, &[16, 2], words((0..16).flat_map(|row| pack(&|col| q(row, col))))),
        ("l.qzeros", DtypeCode::I32, &[2, 2], words((0..2).flat_map(|group| pack(&|col| z(group, col))))),
        ("l.scales", DtypeCode::F32, &[2, 16], f32s((0..2).flat_map(|g| (0..16).map(move |col| s(g, col))))),
    ]);
    let found = floats(&archive.dequantize("l.qweight", &F32).unwrap());
    let expected = |i: usize| (q(i / 16, i % 16) as f32 - z(i / 128, i % 16) as f32) * s(i / 128, i % 16);
    assert_eq!(found, (0..256).map(expected).collect::<Vec<_>>());
}

#[test]
fn packed_with_offset() {
    let codes = |row: usize, col: usize| q(row, col) as i32 - 8;
    let packed = (0..16).flat_map(|row| (0..2).map(move |word| (0..8).map(|i| q(row, word * 8 + i) << (4 * i)).sum()));
    let scales = (0..16).flat_map(|row| (0..2).map(move |group| s(group, row)));
    let shape = [16i64, 16].iter().flat_map(|n| n.to_le_bytes()).collect();
    let mut tensors = vec![
        ("l.weight_packed", DtypeCode::I32, &[16u64, 2][..], words(packed)),
        ("l.weight_scale", DtypeCode::F32, &[16, 2], f32s(scales)),
        ("l.weight_shape", DtypeCode::I64, &[2], shape),
    ];
    let found = floats(&archive(&tensors).dequantize("l.weight_packed", &F32).unwrap());
    let expected = |i: usize| codes(i / 16, i % 16) as f32 * s(i % 16 / 8, i / 16);
    assert_eq!(found, (0..256).map(expected).collect::<Vec<_>>());
    // Zero points go down the rows, 8 too large as the codes are.
    let zero = |row: usize, group: usize| ((row + group) % 16) as u32;
    let zeros =
        (0..2).flat_map(|word| (0..2).map(move |group| (0..8).map(|i| zero(word * 8 + i, group) << (4 * i)).sum()));
    tensors.push(("l.weight_zero_point", DtypeCode::I32, &[2, 2], words(zeros)));
    let found = floats(&archive(&tensors).dequantize("l.weight_packed", &F32).unwrap());
    let expected = |i: usize| {
        let (row, col) = (i / 16, i % 16);
        (codes(row, col) - (zero(row, col / 8) as i32 - 8)) as f32 * s(col / 8, row)
    };
    assert_eq!(found, (0..256).map(expected).collect::<Vec<_>>());
}

#[test]
fn a_checkpoint_is_quantised_compressed_and_comes_back_within_its_error() {
    let folder = tempfile::tempdir().unwrap();
    let input = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/minilm-layer-bf16.safetensors");
    let before = folder.path().join("before.wcodec");
    wcodec::compress(&input, &before, &EncodeOptions::default(), &()).unwrap();
    let before = Archive::open(before).unwrap();
    for (number, (to, scales, mode)) in [
        (QuantizedType::I8, ScaleBlock::Row, ModeChoice::Zstd),
        (QuantizedType::I8, ScaleBlock::Tensor, ModeChoice::Auto),
        (QuantizedType::I8, ScaleBlock::Group(96), ModeChoice::Auto),
        (QuantizedType::F8E4M3, ScaleBlock::Tensor, ModeChoice::Auto),
    ]
    .into_iter()
    .enumerate()
    {
        let quantised = folder.path().join(format!("{number}.safetensors"));
        let options = QuantizeOptions { to, scales, skip: vec!["query".into()], overwrite: false };
        let told = quantize(&input, &quantised, &options, &()).unwrap();
        assert!(matches!(quantize(&input, &quantised, &options, &()), Err(Error::AlreadyExists(_))));
        let archive = folder.path().join(format!("{number}.wcodec"));
        let encode = EncodeOptions { mode, ..EncodeOptions::default() };
        wcodec::compress(&quantised, &archive, &encode, &()).unwrap();
        let archive = Archive::open(archive).unwrap();
        let mut quantised = 0;
        for tensor in &told {
            let matrix = tensor.shape.len() >= 2 && tensor.dtype == DtypeCode::BF16;
            assert_eq!(tensor.loss.is_some(), matrix && !tensor.name.contains("query"), "{}", tensor.name);
            let weights = before.tensor(&tensor.name).unwrap().decode().unwrap();
            let Some(loss) = tensor.loss else {
                assert_eq!(archive.tensor(&tensor.name).unwrap().decode().unwrap(), weights);
                continue;
            };
            quantised += 1;
            let weights: Vec<f32> = weights
                .chunks_exact(2)
                .map(|b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16))
                .collect();
            let after = floats(&archive.dequantize(&tensor.name, &F32).unwrap());
            let worst = weights
                .iter()
                .zip(&after)
                .map(|(a, b)| f64::from(*a) - f64::from(*b))
                .fold(0f64, |m, d| m.max(d.abs()));
            assert_eq!(worst, loss.max, "{}", tensor.name);
            let (cosine, rms) = (loss.cosine(), loss.rms());
            assert!(cosine > 0.98 && cosine <= 1.0 + 1e-9 && rms <= loss.max, "{}: {cosine}, {rms}", tensor.name);
            let scheme: Scheme = archive.scheme(&tensor.name, &F32).unwrap();
            if to == QuantizedType::I8 {
                // Half a step, and the rounding of the product.
                let most = scheme.scales().iter().fold(0f32, |m, s| m.max(*s));
                assert!(loss.max <= 0.501 * f64::from(most));
            }
        }
        assert!(quantised > 0);
    }
}

#[test]
fn what_cannot_be_quantised_is_told_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [input, output, archive] = ["in.safetensors", "out.safetensors", "a.wcodec"].map(|n| folder.path().join(n));
    let write = |tensors: &[(&str, DtypeCode, &[u64], Vec<u8>)]| {
        let tensors: Vec<TensorData<'_>> =
            tensors.iter().map(|(name, dtype, shape, data)| TensorData { name, dtype: *dtype, shape, data }).collect();
        let options = EncodeOptions { overwrite: true, ..EncodeOptions::default() };
        wcodec::compress_tensors(&tensors, &Default::default(), &archive, &options, &()).unwrap();
        let _ = std::fs::remove_file(&input);
        wcodec::decompress(&Archive::open(&archive).unwrap(), &input, false, &()).unwrap();
    };
    let refused = |tensors: &[(&str, DtypeCode, &[u64], Vec<u8>)], options: &QuantizeOptions| {
        write(tensors);
        let error = quantize(&input, &output, options, &()).unwrap_err();
        assert!(!output.exists());
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 2, "only the input and its archive");
        error.to_string()
    };
    let default = QuantizeOptions::default();
    let nan = refused(&[("w", DtypeCode::F32, &[1, 2], f32s([1.0, f32::NAN]))], &default);
    assert!(nan.contains("tensor `w`: element 1 is NaN"), "{nan}");
    let taken =
        [("w", DtypeCode::F32, &[1u64, 2][..], f32s([1.0, 2.0])), ("w_scale", DtypeCode::F32, &[1], f32s([1.0]))];
    assert!(refused(&taken, &default).contains("w_scale"));
    let empty = QuantizeOptions { scales: ScaleBlock::Group(0), ..default.clone() };
    assert!(refused(&taken[..1], &empty).contains("group"));
    assert!(matches!(quantize(folder.path(), &output, &default, &()), Err(Error::BadArgument(_))));
}
