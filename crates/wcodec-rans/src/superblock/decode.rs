//! Decoding tables, batches of superblocks, and the choice of decoder.

use std::sync::OnceLock;

use super::{Classes, PLAIN_STATES, Shape};
use crate::LANES;
use crate::alias::AliasTable;
use crate::arch::{Backend, Done, Full, Isa, Plan, Registers, Slots};
use crate::crc::{self, TargetSum};
use crate::error::{RansError, Result};
use crate::layout::HeadLayout;
use crate::table_set::TableSet;

/// The bytes of one superblock.
#[derive(Debug, Clone, Copy)]
pub struct Superblock<'a> {
    /// State base, or [`PLAIN_STATES`].
    pub base: u8,
    /// Number of patches at the end of `stream`.
    pub patches: u16,
    /// States, [`Shape::state_bytes`] bytes.
    pub states: &'a [u8],
    /// Raw field, [`Shape::raw_bytes`] bytes.
    pub raw: &'a [u8],
    /// Words, overflow, patches.
    pub stream: &'a [u8],
}

/// Where decoded heads go: head (i, j) to `bytes[i·row_stride + j·element_bytes + head_offset ..]`, little-endian.
#[derive(Debug)]
pub struct Target<'a> {
    /// Destination, starting at the superblock's first element.
    pub bytes: &'a mut [u8],
    /// Bytes from one row to the next.
    pub row_stride: usize,
    /// Bytes from one element to the next.
    pub element_bytes: usize,
    /// First byte of the head inside an element.
    pub head_offset: usize,
    /// The `head_offset` bytes below every head, row by row without gaps, to be written along; or empty, to leave those
    /// bytes as they are.
    pub low: &'a [u8],
}

/// One superblock of a batch: what [`DecodeTables::decode`] takes, and where in the common target it belongs.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// Rows and columns.
    pub shape: Shape,
    /// Classes of its rows and columns.
    pub classes: Classes<'a>,
    /// Its bytes.
    pub block: Superblock<'a>,
    /// Where in [`Target::bytes`] its first element begins.
    pub offset: usize,
    /// As [`Target::low`].
    pub low: &'a [u8],
    /// `block.stream` and whatever lies behind it in the same memory, or empty. Vector decoders read words ahead of need: only near the
    /// end of what is readable do they have to be careful. What lies behind a stream is read but never used.
    pub readable: &'a [u8],
}

impl Target<'_> {
    fn check(&self, shape: Shape, layout: HeadLayout, offset: usize, low: &[u8]) -> Result<()> {
        let end = (shape.rows() - 1)
            .checked_mul(self.row_stride)
            .and_then(|r| r.checked_add(shape.cols().checked_mul(self.element_bytes)?))
            .and_then(|r| r.checked_add(offset));
        let head_end = self.head_offset.checked_add(layout.bytes());
        if head_end.is_none_or(|e| e > self.element_bytes) || end.is_none_or(|e| e > self.bytes.len()) {
            return Err(RansError::BadArgument("target smaller than the superblock"));
        }
        if !low.is_empty() && low.len() != shape.elements() * self.head_offset {
            return Err(RansError::BadArgument("low bytes of another size than the superblock's"));
        }
        Ok(())
    }
}

/// A table set laid out for decoding.
#[derive(Debug, Clone)]
pub struct DecodeTables {
    layout: HeadLayout,
    table_bits: u32,
    contexts: usize,
    set: TableSet,
    /// Every table's buckets.
    alias: Vec<AliasTable>,
    /// The buckets as byte tables for vector registers, if they are few enough and the backend uses them.
    registers: Option<Box<Registers>>,
    /// K·2^P entries for the decoders that look a slot up; made when the first one does, since many tensors are never seen by one.
    entries: OnceLock<Vec<u32>>,
    /// Likewise for those that look a slot up in its table.
    slots: OnceLock<Box<Slots>>,
    backend: Backend,
}

impl DecodeTables {
    /// Tables for heads of `layout`. K·2^P·4 bytes.
    ///
    /// # Errors
    /// [`RansError::BadArgument`] when an alphabet value does not fit the coded field.
    pub fn new(layout: HeadLayout, tables: &TableSet) -> Result<Self> {
        let p = tables.table_bits();
        // Values ascend, shifted or not.
        let widest = tables.values().last().copied().unwrap_or(0);
        if tables.context_tables().any(|(_, c)| u32::from(c.value(widest)) >> layout.coded_bits() != 0) {
            return Err(RansError::BadArgument("alphabet value wider than the coded field"));
        }
        Ok(Self {
            layout,
            table_bits: p,
            contexts: tables.contexts(),
            set: tables.clone(),
            alias: tables.tables().iter().map(AliasTable::new).collect(),
            registers: None,
            entries: OnceLock::new(),
            slots: OnceLock::new(),
            backend: Backend::Scalar,
        }
        .with_backend(Backend::auto()))
    }

    pub(crate) fn with_backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self.registers = backend.registers(self.layout, &self.set, &self.alias).map(Box::new);
        self
    }

    /// The same tables, decoding with `isa` only. For tests and comparisons; [`DecodeTables::new`] takes [`Isa::Auto`].
    ///
    /// # Errors
    /// [`RansError::BadArgument`] when the CPU lacks it.
    pub fn with_isa(self, isa: Isa) -> Result<Self> {
        let backend = Backend::new(isa).ok_or(RansError::BadArgument("this CPU lacks the instruction set"))?;
        Ok(self.with_backend(backend))
    }

    /// The instruction set that full superblocks are decoded with, never [`Isa::Auto`].
    pub fn isa(&self) -> Isa {
        self.backend.isa()
    }

    /// The split of heads that these tables decode.
    pub fn layout(&self) -> HeadLayout {
        self.layout
    }

    /// Precision P.
    pub fn table_bits(&self) -> u32 {
        self.table_bits
    }

    /// Contexts K.
    pub fn contexts(&self) -> usize {
        self.contexts
    }

    /// The table set that they decode.
    pub fn set(&self) -> &TableSet {
        &self.set
    }

    /// Decoding entries, K·2^P: `freq << (32 − P) | value << P | bias` at `context << P | slot`. Made on the first call.
    pub fn entries(&self) -> &[u32] {
        self.entries.get_or_init(|| {
            let p = self.table_bits;
            let mut entries = Vec::with_capacity(self.contexts << p);
            for (table, context) in self.set.context_tables() {
                for run in self.alias[usize::from(context.table)].runs() {
                    let symbol = usize::from(run.symbol);
                    let value = u32::from(context.value(self.set.values()[symbol]));
                    let freq = u32::from(table.freqs()[symbol]);
                    let first = (freq << (32 - p)) | (value << p) | u32::from(run.bias);
                    entries.extend(first..first + u32::from(run.len));
                }
            }
            entries
        })
    }

    /// See [`Slots`]. Made on the first call.
    pub(crate) fn slots(&self) -> &Slots {
        self.slots.get_or_init(|| Box::new(Slots::new(self.layout, &self.set, &self.alias)))
    }

    /// See [`Registers`].
    pub(crate) fn registers(&self) -> Option<&Registers> {
        self.registers.as_deref()
    }

    /// Decodes one superblock into `target`. Elements of `target` outside the superblock, and bytes of elements outside
    /// the head, are left as they are.
    ///
    /// # Errors
    /// [`RansError::BadArgument`] when the parts, classes or target do not fit `shape`; truncated or corrupt when the
    /// stream is too short, too long, or patches an element that is not there. `target` may then hold anything.
    pub fn decode(
        &self,
        shape: Shape,
        classes: Classes<'_>,
        block: Superblock<'_>,
        mut target: Target<'_>,
    ) -> Result<()> {
        let job = Job { shape, classes, block, offset: 0, low: target.low, readable: &[] };
        self.check(&job, &target)?;
        self.decode_one(&job, &mut target, None)?;
        Ok(())
    }

    /// Decodes superblocks into one target. [`Target::low`] is not looked at; every job has its own.
    ///
    /// Neighbours in `jobs` with equally many rows are decoded together where they are full and there are vectors: each one's steps run while the others' wait. They may overlap in the target's
    /// rows (as superblocks side by side do), but no two should share an element.
    ///
    /// # Errors
    /// As [`DecodeTables::decode`], of the first job that has one.
    pub fn decode_batch(&self, jobs: &[Job<'_>], mut target: Target<'_>) -> Result<()> {
        self.batch(jobs, &mut target, None, |_, _, _| {})
    }

    /// Decodes superblocks that make up all of the target, no byte of it outside of them and none in two, and gives the CRC-32 (as in zip) of
    /// its bytes. With vectors that takes no second pass: rows are summed while they are in registers.
    ///
    /// # Errors
    /// As [`DecodeTables::decode_batch`], and [`RansError::BadArgument`] where the superblocks have not as many bytes as the target.
    pub fn decode_batch_crc32(&self, jobs: &[Job<'_>], mut target: Target<'_>) -> Result<u32> {
        let len = target.bytes.len();
        if jobs.iter().map(|job| job.shape.elements() * target.element_bytes).sum::<usize>() != len {
            return Err(RansError::BadArgument("superblocks do not make up the target"));
        }
        let summed = self.backend.sums() && target.row_stride >= LANES;
        let bits = 8 * target.row_stride as u64;
        let sums = summed.then(|| crc::carriers(self.backend.power(bits + 32), self.backend.power(bits - 32)));
        let mut sum = TargetSum::new(self.backend);
        self.batch(jobs, &mut target, sums, |job, target, part| {
            if summed {
                sum.add(job, target, part);
            }
        })?;
        Ok(if summed { sum.finish(len) } else { crc32fast::hash(target.bytes) })
    }

    /// Decodes all jobs, and tells `each` of every one when it is decoded.
    fn batch(
        &self,
        jobs: &[Job<'_>],
        target: &mut Target<'_>,
        sums: Option<[u64; 2]>,
        mut each: impl FnMut(&Job<'_>, &Target<'_>, Option<u32>),
    ) -> Result<()> {
        let mut rest = jobs;
        while let [first, ..] = rest {
            self.check(first, target)?;
            let together = self.backend.together();
            let mut count = 0;
            if together >= 4
                && let Some(sums) = self.decode_together::<4>(rest, target, sums)?
            {
                rest.iter().zip(sums).for_each(|(job, sum)| each(job, target, sum));
                count = 4;
            }
            if count == 0
                && together >= 2
                && let Some(sums) = self.decode_together::<2>(rest, target, sums)?
            {
                rest.iter().zip(sums).for_each(|(job, sum)| each(job, target, sum));
                count = 2;
            }
            if count == 0 {
                let sum = self.decode_one(first, target, sums)?;
                each(first, target, sum);
                count = 1;
            }
            rest = &rest[count..];
        }
        Ok(())
    }

    fn check(&self, job: &Job<'_>, target: &Target<'_>) -> Result<()> {
        let (shape, block) = (job.shape, &job.block);
        job.classes.check(shape)?;
        if block.states.len() != shape.state_bytes() || block.raw.len() != shape.raw_bytes(self.layout) {
            return Err(RansError::BadArgument("states or raw field of another size than the superblock's"));
        }
        target.check(shape, self.layout, job.offset, job.low)
    }

    fn decode_one(&self, job: &Job<'_>, target: &mut Target<'_>, sums: Option<[u64; 2]>) -> Result<Option<u32>> {
        if let Some(full) = self.full(job) {
            let plan = Plan::new(job.shape, self.layout, target, !job.low.is_empty(), sums);
            if let Some([done]) = self.backend.decode(self, &plan, &[full], target) {
                return self.finish(job, done, target);
            }
        }
        self.decode_scalar(job, target)?;
        Ok(None)
    }

    /// Decodes the first N jobs together and gives their sums; `None` when they do not go together or one of them is damaged.
    fn decode_together<const N: usize>(
        &self,
        jobs: &[Job<'_>],
        target: &mut Target<'_>,
        sums: Option<[u64; 2]>,
    ) -> Result<Option<[Option<u32>; N]>> {
        let Some((jobs, later)) = jobs.split_first_chunk::<N>() else { return Ok(None) };
        let first = &jobs[0];
        let alike = |job: &Job<'_>| job.shape == first.shape && job.low.is_empty() == first.low.is_empty();
        if !jobs[1..].iter().all(|job| alike(job) && self.check(job, target).is_ok()) {
            return Ok(None);
        }
        let full: [Option<Full<'_>>; N] = jobs.each_ref().map(|job| self.full(job));
        if full.iter().any(Option::is_none) {
            return Ok(None);
        }
        let full = full.map(|f| f.expect("none is missing"));
        later.iter().take(N).for_each(|job| self.backend.expect(job));
        let plan = Plan::new(first.shape, self.layout, target, !first.low.is_empty(), sums);
        let Some(done) = self.backend.decode(self, &plan, &full, target) else { return Ok(None) };
        let mut sums = [None; N];
        for ((sum, job), done) in sums.iter_mut().zip(jobs).zip(done) {
            *sum = self.finish(job, done, target)?;
        }
        Ok(Some(sums))
    }

    /// Applies patches where the backend has not; gives the superblock's sum.
    fn finish(&self, job: &Job<'_>, done: Done, target: &mut Target<'_>) -> Result<Option<u32>> {
        if let Some(position) = done.patches {
            self.patch(job, position, target)?;
        }
        Ok(done.sum)
    }

    fn full<'a>(&self, job: &Job<'a>) -> Option<Full<'a>> {
        if !job.shape.carries(self.layout) && job.block.base != PLAIN_STATES {
            return None;
        }
        Full::new(job)
    }
}
