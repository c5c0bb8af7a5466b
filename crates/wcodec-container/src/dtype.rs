//! Element types, as numbers.

use std::fmt;

/// The element type of a tensor, as the number that stands in the directory.
///
/// The names are those of the safetensors format (`Dtype`). A number that this version does not know is kept and has no
/// name: the container needs none of it to find and check a tensor's bytes.
///
/// ```
/// use wcodec_container::DtypeCode;
/// assert_eq!(DtypeCode::from_name("BF16"), Some(DtypeCode::BF16));
/// assert_eq!((DtypeCode::F8_E4M3.name(), DtypeCode::F6_E2M3.bits()), (Some("F8_E4M3"), Some(6)));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DtypeCode(pub u8);

macro_rules! dtypes {
    ($($code:literal $name:ident $bits:literal;)*) => {
        impl DtypeCode {
            $(#[doc = concat!("`", stringify!($name), "`, ", $bits, " bits.")]
            pub const $name: Self = Self($code);)*

            /// All named types, by number.
            pub const NAMED: &'static [Self] = &[$(Self::$name),*];

            /// The safetensors name, `None` for an unknown type.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// Bits of one element, `None` for an unknown type.
            pub const fn bits(self) -> Option<u32> {
                match self.0 {
                    $($code => Some($bits),)*
                    _ => None,
                }
            }
        }
    };
}

// Numbers are part of the format: add, never renumber.
dtypes! {
    1 BOOL 8;
    2 U8 8;
    3 I8 8;
    4 F8_E5M2 8;
    5 F8_E4M3 8;
    6 F8_E8M0 8;
    7 I16 16;
    8 U16 16;
    9 F16 16;
    10 BF16 16;
    11 I32 32;
    12 U32 32;
    13 F32 32;
    14 F64 64;
    15 I64 64;
    16 U64 64;
    17 C64 64;
    18 F4 4;
    19 F6_E2M3 6;
    20 F6_E3M2 6;
}

impl DtypeCode {
    /// Bytes of no known element type; the shape then says nothing of the length.
    pub const UNKNOWN: Self = Self(0);

    /// The type of a safetensors name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMED.iter().copied().find(|code| code.name() == Some(name))
    }

    /// Bytes of a tensor of `shape`: `Ok(None)` for an unknown type, `Err(())` where there is no such length.
    pub(crate) fn byte_len(self, shape: &[u64]) -> Result<Option<u64>, ()> {
        let elements = if shape.contains(&0) {
            0
        } else {
            shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim)).ok_or(())?
        };
        let Some(bits) = self.bits() else { return Ok(None) };
        let bits = elements.checked_mul(u64::from(bits)).ok_or(())?;
        if bits % 8 == 0 { Ok(Some(bits / 8)) } else { Err(()) }
    }
}

impl fmt::Display for DtypeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "unknown({})", self.0),
        }
    }
}
