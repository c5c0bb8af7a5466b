//! What is decoded together.

use std::ops::Range;

use crate::crc;
use crate::launch::crc32_segments;
use crate::launch::integer::Resident as IntegerResident;
use crate::launch::lanes::Resident as LanesResident;
use crate::launch::memory::{DeviceSlice, DeviceSliceMut};
use crate::launch::plain::Resident as PlainResident;
use crate::{CudaContext, CudaError, PreparedInteger, PreparedPlain, PreparedTensor};

/// Bytes that a warp of the CRC kernel takes: a group has a few dozen mebibytes, and there are thousands of warps.
const CRC_SEGMENT: u64 = 64 << 10;

/// What is decoded together: tensors, or parts of them that are whole chunks, each with the number of its output and its place there.
#[derive(Debug, Default)]
pub struct LoadGroup {
    /// Of tensors in lanes mode.
    pub lanes: Vec<(Target, PreparedTensor)>,
    /// Of tensors in integer mode.
    pub integer: Vec<(Target, PreparedInteger)>,
    /// Of tensors in plain mode.
    pub plain: Vec<(Target, PreparedPlain)>,
    /// Bytes of the slot that are bytes of an output, and where they go.
    pub copies: Vec<(Range<usize>, Target)>,
    /// Parts of outputs whose CRC-32 is wanted.
    pub checks: Vec<(usize, Range<usize>)>,
}

impl LoadGroup {
    /// Lays out what stands beside the compressed bytes. Work for the host alone.
    ///
    /// # Errors
    /// [`CudaError::OutOfRange`] for parts to check that are not in their output; [`CudaError::TooLarge`], [`CudaError::OtherDevice`].
    pub fn lay_out(self, outs: LoadOutputs<'_>) -> Result<ReadyGroup, CudaError> {
        let (context, mut side) = (outs.context, Vec::new());
        let (mut targets, uploads): (Vec<_>, Vec<_>) = self.lanes.into_iter().map(|(n, t)| (n, t.into_parts())).unzip();
        let lanes = LanesResident::lay_out(context, uploads, &mut side)?;
        let (others, uploads): (Vec<_>, Vec<_>) = self.integer.into_iter().map(|(n, t)| (n, t.into_parts())).unzip();
        let integer = IntegerResident::lay_out(context, uploads, &mut side)?;
        targets.extend(others);
        let (others, uploads): (Vec<_>, Vec<_>) = self.plain.into_iter().map(|(n, t)| (n, t.into_parts())).unzip();
        let plain = PlainResident::lay_out(context, uploads, &mut side)?;
        targets.extend(others);
        let mut checked = Vec::with_capacity(self.checks.len());
        for (number, range) in &self.checks {
            checked.push(outs.get(*number)?.sub_slice(range.start, range.len())?);
        }
        let plan = crc::plan_of(&checked, CRC_SEGMENT);
        side.resize(side.len().next_multiple_of(16), 0);
        let segments = (side.len(), plan.segments.len());
        side.extend(crc32_segments(context, &checked, &plan)?);
        let crc = (side.len(), checked.len());
        side.extend(plan.presets.iter().flat_map(|preset| preset.to_ne_bytes()));
        Ok(ReadyGroup { lanes, integer, plain, targets, copies: self.copies, side, segments, crc })
    }
}

/// A group and what stands beside its compressed bytes.
#[derive(Debug)]
pub struct ReadyGroup {
    pub(super) lanes: Vec<LanesResident>,
    pub(super) integer: Vec<IntegerResident>,
    pub(super) plain: Vec<PlainResident>,
    /// Of these tensors, in this order.
    pub(super) targets: Vec<Target>,
    pub(super) copies: Vec<(Range<usize>, Target)>,
    pub(super) side: Vec<u8>,
    /// Where the segments of the checksums begin in it, and their number; the same of their results.
    pub(super) segments: (usize, usize),
    pub(super) crc: (usize, usize),
}

/// The outputs of a load, to lay out groups for.
#[derive(Clone, Copy, Debug)]
pub struct LoadOutputs<'l> {
    pub(super) context: &'l CudaContext,
    pub(super) outs: &'l [DeviceSliceMut<'l>],
}

impl<'l> LoadOutputs<'l> {
    pub(super) fn get(self, number: usize) -> Result<DeviceSlice<'l>, CudaError> {
        let out = self.outs.get(number).ok_or(CudaError::Inconsistent { what: "an output for every tensor" })?;
        // SAFETY: the same memory, borrowed from its owner.
        Ok(unsafe { DeviceSlice::from_raw(out.context(), out.address(), out.len()) })
    }
}

/// A place in an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The output's number.
    pub output: usize,
    /// The first byte in it.
    pub offset: usize,
}
