//! A tensor's decoder, prepared from its parameters, its index and the pool.

use std::ops::Range;

use wcodec_container::TensorEntry;

use super::Archive;
use crate::error::{Error, Result};
use crate::frames::FrameDecoder;
use crate::integer::IntegerDecoder;
use crate::lanes::LanesDecoder;
use crate::mode::Mode;
use crate::small::{self, PooledParams};

pub(crate) enum Decoder {
    /// Of a blob in the pool, decoded and kept by the archive.
    Pooled {
        blob: usize,
        bytes: Range<usize>,
    },
    Integer(Box<IntegerDecoder>),
    Store,
    Plain,
    Frames(FrameDecoder),
    Lanes(Box<LanesDecoder>),
}

impl Archive {
    pub(super) fn decoder(&self, entry: &TensorEntry) -> Result<(Mode, Decoder)> {
        let directory = self.reader.directory();
        let offset = self.reader.trailer().directory.offset;
        let mode = Mode::from_code(entry.mode)
            .ok_or_else(|| Error::corrupt(&entry.name, offset, format!("unknown mode {}", entry.mode)))?;
        let index = self.reader.index_bytes(entry)?;
        let decoder = match mode {
            Mode::Lanes => Decoder::Lanes(Box::new(LanesDecoder::new(entry, index, &directory.pool, offset)?)),
            Mode::Zstd => Decoder::Frames(FrameDecoder::new(entry, index, offset)?),
            Mode::Plain => Decoder::Plain,
            Mode::Store => Decoder::Store,
            Mode::Integer => Decoder::Integer(Box::new(IntegerDecoder::new(entry, index, &directory.pool, offset)?)),
            Mode::Pooled => self.pooled(entry, offset)?,
        };
        if entry.chunks.is_empty() && entry.decoded_len > 0 && mode != Mode::Pooled {
            return Err(Error::corrupt(&entry.name, offset, "no chunks"));
        }
        // Buffers are sized by what the directory says; lanes and integer mode hold that against their own parameters.
        let possible = entry.chunks.iter().all(|chunk| match mode {
            Mode::Store => chunk.decoded_len == chunk.len,
            Mode::Plain => chunk.decoded_len <= small::MAX_BYTES as u64,
            Mode::Zstd => chunk.decoded_len <= wcodec_container::max_decoded_len(chunk.len),
            _ => true,
        });
        if !possible {
            return Err(Error::corrupt(&entry.name, offset, "chunk with an impossible decoded length"));
        }
        Ok((mode, decoder))
    }

    /// Where the bytes of a pooled tensor are. Its blob is decoded once and kept.
    fn pooled(&self, entry: &TensorEntry, offset: u64) -> Result<Decoder> {
        if !entry.chunks.is_empty() {
            return Err(Error::corrupt(&entry.name, offset, "pooled tensor with chunks"));
        }
        let params = PooledParams::parse(&entry.params, &entry.name, offset)?;
        let pool = &self.reader.directory().pool;
        let place = usize::try_from(params.blob).ok().filter(|&i| i < pool.len());
        let Some(place) = place else { return Err(Error::corrupt(&entry.name, offset, "no such blob in the pool")) };
        let blob = match self.blobs[place].get() {
            Some((dtype, blob)) if *dtype == entry.dtype => blob,
            Some(_) => return Err(Error::corrupt(&entry.name, offset, "pooled tensors of one blob differ in dtype")),
            None => {
                let blob = small::decode_blob(&entry.name, entry.dtype, &pool[place], offset)?;
                &self.blobs[place].get_or_init(|| (entry.dtype, blob)).1
            }
        };
        let bytes = params.range(blob, entry.decoded_len, &entry.name, offset)?;
        Ok(Decoder::Pooled { blob: place, bytes })
    }
}
