//! The scalar decoder. It is the definition that every other decoder is held against.

use super::encode::trade_signs;
use super::{Classes, PATCH_BYTES, PLAIN_STATES, Shape, raw_position, state_base};
use crate::bits::BitReader;
use crate::error::{RansError, Result, corrupt, truncated};
use crate::freq::{TableSet, max_value_bits};
use crate::layout::HeadLayout;
use crate::{LANES, STATE_LOW};

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

impl Target<'_> {
    fn check(&self, shape: Shape, layout: HeadLayout) -> Result<()> {
        let end = (shape.rows() - 1)
            .checked_mul(self.row_stride)
            .and_then(|r| r.checked_add(shape.cols().checked_mul(self.element_bytes)?));
        if self.head_offset + layout.bytes() > self.element_bytes || end.is_none_or(|e| e > self.bytes.len()) {
            return Err(RansError::BadArgument("target smaller than the superblock"));
        }
        if !self.low.is_empty() && self.low.len() != shape.elements() * self.head_offset {
            return Err(RansError::BadArgument("low bytes of another size than the superblock's"));
        }
        Ok(())
    }

    fn put(&mut self, i: usize, j: usize, layout: HeadLayout, head: u16) {
        let at = i * self.row_stride + j * self.element_bytes + self.head_offset;
        self.bytes[at..at + layout.bytes()].copy_from_slice(&head.to_le_bytes()[..layout.bytes()]);
    }
}

/// A table set laid out for decoding: K × 2^P entries.
#[derive(Debug, Clone)]
pub struct DecodeTables {
    layout: HeadLayout,
    table_bits: u32,
    contexts: usize,
    /// Entry of context k, slot s at `k << P | s`: `freq << (32 − P) | value << P | bias`, where bias = slot − start.
    entries: Vec<u32>,
}

impl DecodeTables {
    /// Tables for heads of `layout`. K·2^P·4 bytes.
    ///
    /// # Errors
    /// [`RansError::BadArgument`] when an alphabet value does not fit the coded field.
    pub fn new(layout: HeadLayout, tables: &TableSet) -> Result<Self> {
        let p = tables.table_bits();
        debug_assert!(tables.values().iter().all(|&v| u32::from(v) >> max_value_bits(p) == 0));
        if tables.values().iter().any(|&v| u32::from(v) >> layout.coded_bits() != 0) {
            return Err(RansError::BadArgument("alphabet value wider than the coded field"));
        }
        let mut entries = Vec::with_capacity(tables.contexts() << p);
        for table in tables.tables() {
            for (&freq, &value) in table.freqs().iter().zip(tables.values()) {
                entries.extend(
                    (0..u32::from(freq)).map(|bias| (u32::from(freq) << (32 - p)) | (u32::from(value) << p) | bias),
                );
            }
        }
        Ok(Self { layout, table_bits: p, contexts: tables.contexts(), entries })
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

    /// Decoding entries, K·2^P: `freq << (32 − P) | value << P | bias` at `context << P | slot`.
    pub fn entries(&self) -> &[u32] {
        &self.entries
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
        self.check(shape, classes, block)?;
        target.check(shape, self.layout)?;
        self.decode_scalar(shape, classes, block, &mut target)
    }

    fn check(&self, shape: Shape, classes: Classes<'_>, block: Superblock<'_>) -> Result<()> {
        classes.check(shape)?;
        if block.states.len() != shape.state_bytes() || block.raw.len() != shape.raw_bytes(self.layout) {
            return Err(RansError::BadArgument("states or raw field of another size than the superblock's"));
        }
        Ok(())
    }

    fn decode_scalar(
        &self,
        shape: Shape,
        classes: Classes<'_>,
        block: Superblock<'_>,
        target: &mut Target<'_>,
    ) -> Result<()> {
        let (layout, p, cols) = (self.layout, self.table_bits, shape.cols());
        let carries = shape.carries(layout);
        let packed = carries && block.base != PLAIN_STATES;
        if !carries && block.base != PLAIN_STATES {
            return corrupt("superblock: base without carried bits", 0);
        }

        let stored: Vec<u32> = block.states.chunks_exact(4).map(le_u32).collect();
        let mut states: Vec<u32> =
            stored.iter().map(|&w| if packed { state_base(block.base) + (w & 0x7fff_ffff) } else { w }).collect();
        if states.iter().any(|&x| x < STATE_LOW) {
            return corrupt("superblock: state below its interval", 0);
        }

        let columns: Vec<usize> = shape.lane_columns().collect();
        let mut values = vec![0u16; shape.elements()];
        let mut position = 0;
        for (i, row) in values.chunks_exact_mut(cols).enumerate() {
            for (x, &j) in states.iter_mut().zip(&columns) {
                let context = classes.context(i, j, self.contexts);
                let entry = self.entries[(context << p) | (*x as usize & ((1 << p) - 1))];
                row[j] = ((entry >> p) & ((1 << max_value_bits(p)) - 1)) as u16;
                *x = (entry >> (32 - p)) * (*x >> p) + (entry & ((1 << p) - 1));
                if *x < STATE_LOW {
                    let Some(w) = block.stream.get(position..position + 2) else {
                        return truncated("superblock stream", position);
                    };
                    *x = (*x << 16) | u32::from(u16::from_le_bytes([w[0], w[1]]));
                    position += 2;
                }
            }
        }

        // The last two halfwords of every column: from its final state, the overflow and the stored states' top bits.
        let mut overflow = BitReader::new(&block.stream[position..]);
        let mut tails = vec![0u32; cols];
        for (lane, &j) in columns.iter().enumerate() {
            tails[j] = if packed {
                let missing = states[lane].leading_zeros();
                let low = overflow.read(missing)?;
                (stored[lane] & 0x8000_0000) | ((states[lane] << missing) & 0x7fff_ffff) | low
            } else {
                if states[lane] != STATE_LOW {
                    return corrupt("superblock: final state", position);
                }
                if carries { overflow.read(32)? } else { 0 }
            };
        }
        position += overflow.bytes_read().next_multiple_of(2);

        self.merge_raw(shape, block.raw, &tails, &values, target);
        if !target.low.is_empty() {
            let low = target.head_offset;
            for (n, bytes) in target.low.chunks_exact(low).enumerate() {
                let at = (n / cols) * target.row_stride + (n % cols) * target.element_bytes;
                target.bytes[at..at + low].copy_from_slice(bytes);
            }
        }

        for _ in 0..block.patches {
            let Some(patch) = block.stream.get(position..position + PATCH_BYTES) else {
                return truncated("superblock patches", position);
            };
            let at = usize::from(u16::from_le_bytes([patch[0], patch[1]]));
            let value = u16::from_le_bytes([patch[2], patch[3]]);
            let (i, j) = (at / LANES, at % LANES);
            if i >= shape.rows() || j >= cols || u32::from(value) >> layout.coded_bits() != 0 {
                return corrupt("superblock patch", position);
            }
            let at = i * target.row_stride + j * target.element_bytes + target.head_offset;
            let old = match layout.bytes() {
                1 => u16::from(target.bytes[at]),
                _ => u16::from_le_bytes([target.bytes[at], target.bytes[at + 1]]),
            };
            target.put(i, j, layout, layout.join(value, layout.raw(old)));
            position += PATCH_BYTES;
        }
        if position.next_multiple_of(4) != block.stream.len() {
            return corrupt("superblock stream: length", position);
        }
        Ok(())
    }

    /// Joins decoded values with their raw codes.
    fn merge_raw(&self, shape: Shape, raw: &[u8], tails: &[u32], values: &[u16], target: &mut Target<'_>) {
        let (layout, pairs) = (self.layout, shape.pairs());
        let r = layout.raw_bits() as usize;
        let stored = shape.stored_halfwords(layout);
        let half = |k: usize, j: usize| -> u32 {
            if k < stored {
                let at = 4 * (k * pairs + j / 2) + 2 * (j % 2);
                u32::from(u16::from_le_bytes([raw[at], raw[at + 1]]))
            } else {
                (tails[j] >> (16 * (k - stored))) & 0xffff
            }
        };
        for (i, row) in values.chunks_exact(shape.cols()).enumerate() {
            let (k, bit) = raw_position(i, r);
            let code = |j: usize| -> u16 {
                if r == 0 {
                    return 0;
                }
                let wide = half(k, j) | if bit + r > 16 { half(k + 1, j) << 16 } else { 0 };
                ((wide >> bit) & ((1 << r) - 1)) as u16
            };
            for (p, pair) in row.chunks(2).enumerate() {
                let j = 2 * p;
                if let &[a, b] = pair {
                    let mut codes = [code(j), code(j + 1)];
                    if layout.sign() {
                        codes = trade_signs(codes);
                    }
                    target.put(i, j, layout, layout.join(a, codes[0]));
                    target.put(i, j + 1, layout, layout.join(b, codes[1]));
                } else {
                    target.put(i, j, layout, layout.join(pair[0], code(j)));
                }
            }
        }
    }
}

fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("4 bytes"))
}
