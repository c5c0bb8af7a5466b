//! Large tensors, encoded while they are written.

use rayon::prelude::*;
use wcodec_container::{TensorEntry, TensorPayload};

use super::assembly::Assembly;
use super::batch::{BATCH_BYTES, shares_tables};
use crate::error::{Error, Result};
use crate::tensor::{self, EncodedChunk, Source};

/// Decoded bytes that a device encodes at a time: frames enough to keep it busy.
const DEVICE_BATCH_BYTES: usize = 256 << 20;

impl Assembly<'_> {
    /// Encodes and writes a large tensor, a few chunks at a time.
    pub(super) fn stream(&mut self, source: Source<'_>) -> Result<TensorEntry> {
        let mut prepared = tensor::prepare(source, self.options)?;
        if shares_tables(self.options) {
            prepared.share_tables(&mut self.known);
        }
        let encoder = prepared.encoder()?;
        let ranges = prepared.chunks(source.data.len());
        let budget = match self.maker {
            Some(_) => DEVICE_BATCH_BYTES,
            None => BATCH_BYTES * rayon::current_num_threads(),
        };
        let (mut payload, mut parts) = (TensorPayload::new(), Vec::with_capacity(ranges.len()));
        let mut waiting: Vec<EncodedChunk> = Vec::new();
        let (mut first, maker) = (0, self.maker);
        while first < ranges.len() || !waiting.is_empty() {
            let rest = &ranges[first..];
            let start = rest.first().map_or(0, |r| r.start);
            let count = rest.iter().take_while(|r| r.end - start <= budget).count().max(1).min(rest.len());
            let encode = || {
                let chunks = rest[..count].par_iter().enumerate();
                chunks
                    .map(|(i, range)| encoder.encode(first + i, &source.data[range.clone()], source.name))
                    .collect::<Result<Vec<EncodedChunk>>>()
            };
            let made = || {
                let last = rest[..count].last()?;
                prepared.encode_with(maker?, &source.data[start..last.end])
            };
            // Some chunks are encoded while those before them are written.
            let (written, batch) = rayon::join(
                || {
                    waiting.drain(..).try_for_each(|chunk| {
                        parts.push(self.append(&mut payload, chunk)?);
                        Ok::<(), Error>(())
                    })
                },
                || made().unwrap_or_else(encode),
            );
            written?;
            waiting = batch?;
            first += count;
        }
        drop(encoder);
        self.entry(source, &prepared, payload, parts)
    }
}
