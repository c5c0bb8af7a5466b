//! stub
use super::plan::{Full, Plan};
use crate::superblock::{DecodeTables, Target};
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());
impl Avx2 {
    pub(crate) fn new() -> Option<Self> { None }
    pub(crate) fn decode<const N: usize>(self, _: &DecodeTables, _: &Plan, _: &[Full<'_>; N], _: &mut Target<'_>) -> Option<[usize; N]> { None }
}
