//! The scalar decoder: the definition that every other one is held against.

use super::decode::{DecodeTables, Job, Target};
use super::encode::trade_signs;
use super::{GROUP_ROWS, PATCH_BYTES, PLAIN_STATES, Shape, raw_position, state_base};
use crate::bits::BitReader;
use crate::error::{Result, corrupt, truncated};
use crate::table_set::max_value_bits;
use crate::{LANES, STATE_LOW};

impl DecodeTables {
    /// Decodes one superblock, of any shape.
    pub(super) fn decode_scalar(&self, job: &Job<'_>, target: &mut Target<'_>) -> Result<()> {
        let &Job { shape, classes, block, .. } = job;
        let (p, cols, pairs) = (self.table_bits(), shape.cols(), shape.pairs());
        let carries = shape.carries(self.layout());
        let packed = carries && block.base != PLAIN_STATES;
        if !carries && block.base != PLAIN_STATES {
            return corrupt("superblock: base without carried bits", 0);
        }

        let (mut stored, mut states, mut lane_classes) = ([0u32; LANES], [0u32; LANES], [0i32; LANES]);
        for ((word, class), (bytes, j)) in
            stored.iter_mut().zip(&mut lane_classes).zip(block.states.chunks_exact(4).zip(shape.lane_columns()))
        {
            *word = le_u32(bytes);
            *class = i32::from(classes.cols[j]);
        }
        for (x, &w) in states[..cols].iter_mut().zip(&stored) {
            *x = if packed { state_base(block.base) + (w & 0x7fff_ffff) } else { w };
            if *x < STATE_LOW {
                return corrupt("superblock: state below its interval", 0);
            }
        }

        // Rows whose raw codes lie in the states wait for the last step: at most two halfwords, 32 rows.
        let mut waiting = [[0u16; LANES]; 2 * GROUP_ROWS];
        let ready = self.rows_without_tail(shape);
        let (slot_mask, value_mask) = ((1u32 << p) - 1, (1u32 << max_value_bits(p)) - 1);
        let entries = self.entries();
        let mut position = 0;
        for i in 0..shape.rows() {
            let mut symbols = [0u16; LANES]; // in lane order
            let row_class = i32::from(classes.rows[i]);
            let mut advance = |x: u32, lane: usize| {
                let context = (row_class + lane_classes[lane]).clamp(0, self.contexts() as i32 - 1) as usize;
                let entry = entries[(context << p) | (x & slot_mask) as usize];
                symbols[lane] = ((entry >> p) & value_mask) as u16;
                (entry >> (32 - p)) * (x >> p) + (entry & slot_mask)
            };
            if let Some(window) = block.stream.get(position..position + 2 * LANES) {
                // Enough words for any row: taking one is arithmetic, since nobody can foretell which lanes will.
                let (words, _) = window.as_chunks::<2>();
                let mut taken = 0;
                for (lane, x) in states[..cols].iter_mut().enumerate() {
                    let next = advance(*x, lane);
                    let refilled = (next << 16) | u32::from(u16::from_le_bytes(words[taken % LANES]));
                    let short = next < STATE_LOW;
                    *x = if short { refilled } else { next };
                    taken += usize::from(short);
                }
                position += 2 * taken;
            } else {
                for (lane, x) in states[..cols].iter_mut().enumerate() {
                    *x = advance(*x, lane);
                    if *x < STATE_LOW {
                        let Some(&word) = block.stream.get(position..).and_then(|s| s.first_chunk()) else {
                            return truncated("superblock stream", position);
                        };
                        *x = (*x << 16) | u32::from(u16::from_le_bytes(word));
                        position += 2;
                    }
                }
            }
            if i < ready {
                self.finish_row(job, i, &symbols, &[[0; LANES / 2]; 2], target);
            } else {
                waiting[i - ready] = symbols;
            }
        }

        // The last two halfwords of every column: from its final state, the overflow and the stored states' top bits.
        let mut overflow = BitReader::new(&block.stream[position..]);
        let mut tails = [[0u32; LANES / 2]; 2];
        for lane in 0..cols {
            let tail = if packed {
                let missing = states[lane].leading_zeros();
                let low = overflow.read(missing)?;
                (stored[lane] & 0x8000_0000) | ((states[lane] << missing) & 0x7fff_ffff) | low
            } else {
                if states[lane] != STATE_LOW {
                    return corrupt("superblock: final state", position);
                }
                if carries { overflow.read(32)? } else { 0 }
            };
            let (pair, half) = if lane < pairs { (lane, 0) } else { (lane - pairs, 16) };
            tails[0][pair] |= (tail & 0xffff) << half;
            tails[1][pair] |= (tail >> 16) << half;
        }
        position += overflow.bytes_read().next_multiple_of(2);

        for (i, symbols) in (ready..shape.rows()).zip(&waiting) {
            self.finish_row(job, i, symbols, &tails, target);
        }
        self.patch(job, position, target)
    }

    /// Rows before the first whose raw code lies in a carried halfword.
    fn rows_without_tail(&self, shape: Shape) -> usize {
        let (rows, r) = (shape.rows(), self.layout().raw_bits() as usize);
        let stored = shape.stored_halfwords(self.layout());
        if !shape.carries(self.layout()) {
            return rows;
        }
        (rows.saturating_sub(2 * GROUP_ROWS)..rows)
            .find(|&i| {
                let (k, bit) = raw_position(i, r);
                k + usize::from(bit + r > 16) >= stored
            })
            .unwrap_or(rows)
    }

    /// Joins one row's symbols, given in lane order, with their raw codes, and writes it with its low bytes.
    fn finish_row(
        &self,
        job: &Job<'_>,
        i: usize,
        symbols: &[u16; LANES],
        tails: &[[u32; LANES / 2]; 2],
        target: &mut Target<'_>,
    ) {
        let (layout, pairs, cols) = (self.layout(), job.shape.pairs(), job.shape.cols());
        let r = layout.raw_bits() as usize;
        let stored = job.shape.stored_halfwords(layout);
        let (k, bit) = raw_position(i, r);
        let raw_row = |k: usize| -> [u32; LANES / 2] {
            if k >= stored {
                return tails[(k - stored).min(1)];
            }
            let mut words = [0; LANES / 2];
            for (word, bytes) in words.iter_mut().zip(job.block.raw[4 * k * pairs..4 * (k + 1) * pairs].chunks_exact(4))
            {
                *word = le_u32(bytes);
            }
            words
        };
        let low = if r == 0 { [0; LANES / 2] } else { raw_row(k) };
        let high = if bit + r > 16 { raw_row(k + 1) } else { [0; LANES / 2] };

        let (size, below) = (target.element_bytes, target.head_offset);
        let at = job.offset + i * target.row_stride;
        let elements = &mut target.bytes[at..at + cols * size];
        let (even, odd) = symbols.split_at(pairs);
        let mask = (1u32 << r) - 1;
        for (s, elements) in elements.chunks_mut(2 * size).enumerate() {
            let wide = [(low[s] & 0xffff) | (high[s] << 16), (low[s] >> 16) | (high[s] & 0xffff_0000)];
            let mut codes = wide.map(|w| ((w >> bit) & mask) as u16);
            if layout.sign() && elements.len() > size {
                codes = trade_signs(codes);
            }
            for ((element, code), symbols) in elements.chunks_exact_mut(size).zip(codes).zip([even, odd]) {
                let head = layout.join(symbols[s], code).to_le_bytes();
                match layout.bytes() {
                    1 => element[below] = head[0],
                    _ => element[below..below + 2].copy_from_slice(&head),
                }
            }
        }
        if !job.low.is_empty() && below > 0 {
            let low = &job.low[i * cols * below..(i + 1) * cols * below];
            for (element, bytes) in elements.chunks_exact_mut(size).zip(low.chunks_exact(below)) {
                element[..below].copy_from_slice(bytes);
            }
        }
    }

    /// Applies the patches, which begin at `position` of the stream and end it.
    pub(super) fn patch(&self, job: &Job<'_>, mut position: usize, target: &mut Target<'_>) -> Result<()> {
        let (layout, stream) = (self.layout(), job.block.stream);
        for _ in 0..job.block.patches {
            let Some(&[p0, p1, v0, v1]) = stream.get(position..).and_then(|s| s.first_chunk::<PATCH_BYTES>()) else {
                return truncated("superblock patches", position);
            };
            let at = usize::from(u16::from_le_bytes([p0, p1]));
            let value = u16::from_le_bytes([v0, v1]);
            let (i, j) = (at / LANES, at % LANES);
            if i >= job.shape.rows() || j >= job.shape.cols() || u32::from(value) >> layout.coded_bits() != 0 {
                return corrupt("superblock patch", position);
            }
            let at = job.offset + i * target.row_stride + j * target.element_bytes + target.head_offset;
            let head = &mut target.bytes[at..at + layout.bytes()];
            let mut old = [0; 2];
            old[..head.len()].copy_from_slice(head);
            let new = layout.join(value, layout.raw(u16::from_le_bytes(old)));
            head.copy_from_slice(&new.to_le_bytes()[..head.len()]);
            position += PATCH_BYTES;
        }
        if position.next_multiple_of(4) != stream.len() {
            return corrupt("superblock stream: length", position);
        }
        Ok(())
    }
}

fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("4 bytes"))
}
