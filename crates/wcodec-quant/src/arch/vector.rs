//! What the vector backends have in common, stamped into each: the loops over whole vectors of codes.

/// `run` over the vectors of one instruction set, for a module that has `Signed`, `Unsigned`, `E4m3` and `E5m2` as [`Value`]s, `ToBf16`,
/// `ToF16` and `ToF32` as [`Store`]s. (A generic function would not be compiled for the features, nor inline what is.)
macro_rules! loops {
    (
        features: $features:literal, lanes: $lanes:literal, vector: $vector:ty,
        splat: $splat:ident, zero: $zero:ident, load: $load:ident, load_codes: $load_codes:ident, sub: $sub:ident, mul: $mul:ident $(,)?
    ) => {
        const LANES: usize = $lanes;

        #[target_feature(enable = $features)]
        fn run(span: Span<'_>, out: &mut [u8]) -> usize {
            // One loop per code, so that none branches on it.
            match span.code {
                Code::U8 | Code::U4(_) => each::<Unsigned>(span, out),
                Code::F8E4M3 => each::<E4m3>(span, out),
                Code::F8E5M2 => each::<E5m2>(span, out),
                _ => each::<Signed>(span, out),
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn each<V: Value>(span: Span<'_>, out: &mut [u8]) -> usize {
            match span.float {
                FloatType::BF16 => numbers::<V, ToBf16>(span, out),
                FloatType::F16 => numbers::<V, ToF16>(span, out),
                FloatType::F32 => numbers::<V, ToF32>(span, out),
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn numbers<V: Value, S: Store>(span: Span<'_>, out: &mut [u8]) -> usize {
            let integer = span.code.is_integer();
            let codes = span.codes.chunks_exact(LANES);
            let outs = out.chunks_exact_mut(LANES * span.float.bytes());
            let done = span.codes.len() / LANES * LANES;
            match span.numbers {
                Numbers::One(scale, zero) => {
                    let (scale, zero) = ($splat(scale), $splat(zero));
                    for (codes, out) in codes.zip(outs) {
                        // SAFETY: the slices hold a vector of codes and one of elements; all functions are compiled for what this
                        // one is.
                        unsafe {
                            S::store(out, product(V::value($load_codes(codes.as_ptr().cast())), zero, scale, integer))
                        }
                    }
                }
                Numbers::Each(scales, zeros) => {
                    for (i, (codes, out)) in codes.zip(outs).enumerate() {
                        let part = i * LANES..(i + 1) * LANES;
                        // SAFETY: as above; both parts hold a vector of numbers.
                        unsafe {
                            let scale = $load(scales[part.clone()].as_ptr());
                            let zero = zeros.map_or($zero(), |z| $load(z[part].as_ptr()));
                            S::store(out, product(V::value($load_codes(codes.as_ptr().cast())), zero, scale, integer));
                        }
                    }
                }
            }
            done
        }

        /// A code's value.
        trait Value {
            /// # Safety
            /// The CPU has what this module is compiled for.
            unsafe fn value(codes: __m128i) -> $vector;
        }

        /// Rounding to the output type.
        trait Store {
            /// # Safety
            /// The CPU has what this module is compiled for; `out` holds a vector of elements.
            unsafe fn store(out: &mut [u8], value: $vector);
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn product(value: $vector, zero: $vector, scale: $vector, integer: bool) -> $vector {
            let value = if integer { $sub(value, zero) } else { value };
            $mul(value, scale)
        }
    };
}

pub(super) use loops;
