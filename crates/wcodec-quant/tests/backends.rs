//! Every instruction set against the definition, and that against arithmetic written out here.

use proptest::prelude::*;
use wcodec_quant::{Code, FloatType, Isa, Order, QuantError, Scheme, dequantize_one};

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
const FLOATS: [FloatType; 3] = [FloatType::BF16, FloatType::F16, FloatType::F32];

/// Scales of every kind: ordinary, subnormal, huge, infinite, none.
fn scale() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -2f32..2.0,
        2 => (any::<u32>()).prop_map(f32::from_bits),
        1 => prop::sample::select(vec![0.0, -0.0, 1e-40, 1e38, f32::INFINITY, f32::NAN, 1.0, 0.007_812_5]),
    ]
}

/// The code of one element, by the words of the documentation.
fn code_at(code: Code, codes: &[u8], cols: usize, row: usize, col: usize) -> u8 {
    let nibble = |i: usize| codes[i / 2] >> (4 * (i % 2)) & 15;
    match code.order() {
        None => codes[row * cols + col],
        Some(Order::Pairs) => nibble(row * cols + col),
        Some(Order::RowWords) => nibble((row / 8 * cols + col) * 8 + row % 8),
        Some(Order::Interleaved) => nibble((row * cols + col) / 8 * 8 + [0, 4, 1, 5, 2, 6, 3, 7][col % 8]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn all_backends_follow_the_definition(
        shape in (1usize..4, 1usize..9),
        block in (prop::sample::select(vec![1usize, 3, 8, 64]), prop::sample::select(vec![1usize, 5, 16, 32, 1000])),
        code in prop::sample::select(CODES.to_vec()),
        groups in any::<bool>(),
        numbers in prop::collection::vec((scale(), -300i32..300), 24 * 72),
        bytes in prop::collection::vec(any::<u8>(), 24 * 72),
        float in prop::sample::select(FLOATS.to_vec()),
    ) {
        let (rows, cols) = match code.order() {
            None => (shape.0 * 2 - 1, shape.1 * 8 - 5),
            Some(_) => (shape.0 * 8, shape.1 * 8),
        };
        let block = [block.0.min(rows), block.1.min(cols)];
        let across = cols.div_ceil(block[1]);
        let count = rows.div_ceil(block[0]) * across;
        let scales: Vec<f32> = numbers[..count].iter().map(|n| n.0).collect();
        let zeros: Vec<i32> = numbers[..count].iter().map(|n| if code.is_integer() { n.1 } else { 0 }).collect();
        let row_groups: Vec<u32> = (0..rows).map(|r| (r * 7 % rows.div_ceil(block[0])) as u32).collect();
        let mut scheme = Scheme::new([rows, cols], code, block, scales.clone()).unwrap();
        if code.is_integer() {
            scheme = scheme.with_zeros(&zeros).unwrap();
        }
        if groups {
            scheme = scheme.with_row_groups(row_groups.clone()).unwrap();
        }
        let codes = &bytes[..scheme.code_bytes()];
        let mut expected = Vec::new();
        for row in 0..rows {
            for col in 0..cols {
                let group = if groups { row_groups[row] as usize } else { row / block[0] };
                let at = group * across + col / block[1];
                let bits = dequantize_one(code, code_at(code, codes, cols, row, col), zeros[at] as f32, scales[at], float);
                expected.extend_from_slice(&bits.to_le_bytes()[..float.bytes()]);
            }
        }
        for isa in [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Auto] {
            let mut out = vec![0xa5; expected.len()];
            scheme.dequantize_rows(codes, 0..rows, float, isa, &mut out).unwrap();
            prop_assert!(out == expected, "{isa:?}");
        }
        // A part alone.
        let (half, row_bytes) = (rows / 2, cols * float.bytes());
        let mut out = vec![0xa5; (rows - half) * row_bytes];
        scheme.dequantize_rows(codes, half..rows, float, Isa::Auto, &mut out).unwrap();
        prop_assert!(out == expected[half * row_bytes..]);
    }

    /// The formula in double arithmetic, which holds a product of 24 and 22 bits exactly.
    #[test]
    fn the_definition_is_the_formula(byte: u8, zero in -(1i32 << 20)..=1 << 20, scale in scale()) {
        for (code, q) in [(Code::I8, f64::from(byte as i8)), (Code::U8, f64::from(byte))] {
            let expected = ((q - f64::from(zero)) * f64::from(scale)) as f32;
            let expected = if expected.is_nan() { 0x7fff_ffff } else { expected.to_bits() };
            prop_assert_eq!(dequantize_one(code, byte, zero as f32, scale, FloatType::F32), expected);
        }
    }
}

/// Every code with every output type, in vectors and alone.
#[test]
fn all_codes_in_vectors() {
    let codes: Vec<u8> = (0..=255).collect();
    for code in [Code::I8, Code::U8, Code::F8E4M3, Code::F8E5M2] {
        for scale in [1.0, 0.003_921_57, 1e-39, 3e38, f32::INFINITY] {
            let scheme = Scheme::new([1, 256], code, [1, 256], vec![scale]).unwrap();
            for float in FLOATS {
                let run = |isa| {
                    let mut out = vec![0; 256 * float.bytes()];
                    scheme.dequantize_rows(&codes, 0..1, float, isa, &mut out).unwrap();
                    out
                };
                let expected = run(Isa::Scalar);
                assert_eq!(run(Isa::Avx2), expected, "{code:?} {scale} {float:?}");
                assert_eq!(run(Isa::Avx512), expected, "{code:?} {scale} {float:?}");
            }
        }
    }
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let new = |shape, code, block, scales: usize| Scheme::new(shape, code, block, vec![1.0; scales]);
    assert!(matches!(new([2, 3], Code::I4(Order::Pairs), [2, 3], 1), Err(QuantError::Multiple { .. })));
    assert!(matches!(new([7, 8], Code::U4(Order::RowWords), [7, 1], 8), Err(QuantError::Multiple { .. })));
    assert!(matches!(new([2, 12], Code::U4(Order::Interleaved), [2, 1], 12), Err(QuantError::Multiple { .. })));
    assert!(matches!(new([2, 4], Code::I8, [1, 4], 1), Err(QuantError::Length { .. })));
    assert!(matches!(new([2, 4], Code::I8, [0, 4], 1), Err(QuantError::Unsupported(_))));
    assert!(matches!(new([usize::MAX, 2], Code::I8, [1, 1], 1), Err(QuantError::Unsupported(_))));
    let scheme = new([2, 4], Code::I8, [1, 4], 2).unwrap();
    assert!(matches!(scheme.clone().with_zeros(&[0]), Err(QuantError::Length { .. })));
    assert!(matches!(scheme.clone().with_zeros(&[0, i32::MIN]), Err(QuantError::Range { index: 1, .. })));
    assert!(matches!(scheme.clone().with_row_groups(vec![0, 2]), Err(QuantError::Range { index: 1, .. })));
    assert!(matches!(new([1, 1], Code::F8E5M2, [1, 1], 1).unwrap().with_zeros(&[0]), Err(QuantError::Unsupported(_))));
    let mut out = [0; 16];
    let go = |codes, rows, out: &mut [u8]| scheme.dequantize_rows(codes, rows, FloatType::BF16, Isa::Auto, out);
    assert!(go(&[0; 8], 0..2, &mut out).is_ok());
    assert!(matches!(go(&[0; 7], 0..2, &mut out), Err(QuantError::Length { .. })));
    assert!(matches!(go(&[0; 8], 0..1, &mut out), Err(QuantError::Length { .. })));
    assert!(matches!(go(&[0; 8], 1..3, &mut out), Err(QuantError::Range { .. })));
}

/// `numpy.bin` is what NumPy and ml_dtypes make of the same codes; `xtask/peers/dequant_reference.py` says how, and in which order.
#[test]
fn as_numpy_has_it() {
    let mut expected = &include_bytes!("numpy.bin")[..];
    let codes: Vec<u8> = (0..=255).collect();
    for code in [Code::I8, Code::U8, Code::F8E4M3, Code::F8E5M2] {
        for zero in if code.is_integer() { &[0, 37][..] } else { &[0] } {
            for scale in [0.003_921_569, -0.75, 1e-40, 2.5e36, f32::INFINITY, f32::MIN_POSITIVE] {
                let mut scheme = Scheme::new([1, 256], code, [1, 256], vec![scale]).unwrap();
                if code.is_integer() {
                    scheme = scheme.with_zeros(&[*zero]).unwrap();
                }
                for float in [FloatType::F32, FloatType::BF16, FloatType::F16] {
                    let (numpy, rest) = expected.split_at(256 * float.bytes());
                    expected = rest;
                    for isa in [Isa::Scalar, Isa::Avx2, Isa::Avx512] {
                        let mut out = vec![0; numpy.len()];
                        scheme.dequantize_rows(&codes, 0..1, float, isa, &mut out).unwrap();
                        assert!(out == numpy, "{code:?} - {zero} times {scale} as {float:?} by {isa:?}");
                    }
                }
            }
        }
    }
    assert!(expected.is_empty());
}
