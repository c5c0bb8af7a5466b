//! Decoders of [`crate::plain`]'s streams, run side by side: a state is a chain of a dozen cycles a symbol, beside which a processor has
//! room for more.

use crate::STATE_LOW;
use crate::error::{Result, corrupt, truncated};
use crate::freq::FrequencyTable;

/// Most chains that run together: their states and places fill the registers.
const TOGETHER: usize = 4;
/// Steps that are worth running together.
const FEW: usize = 16;
/// Most steps until it is seen whether words were missing.
const MOST: usize = 4096;

/// A stream, decoded up to some symbol.
pub(crate) struct Chain<'a> {
    x: u32,
    p: u32,
    /// Of every slot: `freq << 20 | bias << 8 | value`.
    entries: Vec<u32>,
    words: &'a [[u8; 2]],
    /// Words taken, some of which may not have been there.
    at: usize,
    /// Bytes of the stream.
    len: usize,
    out: Vec<u8>,
    count: usize,
}

impl<'a> Chain<'a> {
    /// The beginning of a stream of `count` symbols; symbol s comes out as `value(s)`.
    pub(crate) fn new(
        bytes: &'a [u8],
        count: usize,
        table: &FrequencyTable,
        value: impl Fn(usize) -> u8,
    ) -> Result<Self> {
        let Some((head, rest)) = bytes.split_first_chunk() else { return truncated("rANS state", bytes.len()) };
        let x = u32::from_le_bytes(*head);
        if x < STATE_LOW {
            return corrupt("rANS state below its interval", 0);
        }
        let mut entries = Vec::with_capacity(1 << table.table_bits());
        for (s, &f) in table.freqs().iter().enumerate() {
            let (freq, value) = (u32::from(f), u32::from(value(s)));
            entries.extend((0..freq).map(|bias| freq << 20 | bias << 8 | value));
        }
        // A symbol can cost next to nothing, so `count` is bounded by the caller, not by the bytes: reserve in step with them.
        let out = Vec::with_capacity(count.min(bytes.len().saturating_mul(64)));
        let words = rest.as_chunks().0;
        Ok(Self { x, p: table.table_bits(), entries, words, at: 0, len: bytes.len(), out, count })
    }

    /// Steps to be taken: none where words were missing.
    fn steps(&self) -> usize {
        if self.at > self.words.len() { 0 } else { (self.count - self.out.len()).min(MOST) }
    }

    /// Decodes what is left. All bytes must have been consumed then.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        while let steps @ 1.. = self.steps() {
            run([&mut self], steps);
        }
        if self.at > self.words.len() {
            return truncated("rANS words", self.len);
        }
        if self.x != STATE_LOW || 4 + 2 * self.at != self.len {
            return corrupt("rANS final state", 4 + 2 * self.at);
        }
        Ok(self.out)
    }
}

/// Brings all chains nearly to their ends.
pub(crate) fn advance<'c, 'a: 'c>(chains: impl Iterator<Item = &'c mut Chain<'a>>) {
    let mut waiting = chains.filter(|chain| chain.steps() >= FEW);
    let mut together: Vec<&mut Chain<'_>> = Vec::with_capacity(TOGETHER);
    loop {
        together.retain(|chain| chain.steps() >= FEW);
        let room = TOGETHER - together.len();
        together.extend(waiting.by_ref().take(room));
        let steps = together.iter().map(|chain| chain.steps()).min().unwrap_or(0);
        match together.as_mut_slice() {
            [a, b, c, d] => run([a, b, c, d], steps),
            [a, b, c] => run([a, b, c], steps),
            [a, b] => run([a, b], steps),
            _ => return,
        }
    }
}

/// Runs `steps` steps of all chains. Taking a word is arithmetic, since nobody can foretell when one is taken.
#[inline]
fn run<const N: usize>(mut chains: [&mut Chain<'_>; N], steps: usize) {
    let mut x = chains.each_ref().map(|chain| chain.x);
    let mut at = chains.each_ref().map(|chain| chain.at);
    let mut parts = chains.each_mut().map(|chain| {
        let from = chain.out.len();
        chain.out.resize(from + steps, 0);
        let words: &[[u8; 2]] = if chain.words.is_empty() { &[[0; 2]] } else { chain.words };
        (&chain.entries[..], chain.p, words, &mut chain.out[from..])
    });
    for i in 0..steps {
        for c in 0..N {
            let (entries, p, words, out) = &mut parts[c];
            let entry = entries[(x[c] & ((1 << *p) - 1)) as usize];
            let next = (entry >> 20) * (x[c] >> *p) + (entry >> 8 & 0xfff);
            // Behind the last word it is that one again: what is missing is seen afterwards.
            let word = words[at[c].min(words.len() - 1)];
            let short = next < STATE_LOW;
            x[c] = if short { (next << 16) | u32::from(u16::from_le_bytes(word)) } else { next };
            at[c] += usize::from(short);
            out[i] = entry as u8;
        }
    }
    for (c, chain) in chains.into_iter().enumerate() {
        (chain.x, chain.at) = (x[c], at[c]);
    }
}
