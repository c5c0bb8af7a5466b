//! Checksums of stored and of decoded bytes.

use rayon::prelude::*;
use wcodec_container::crc32;

use super::{Scratch, Tensor};
use crate::error::{Error, Result};

impl Tensor<'_> {
    ///
    /// # Errors
    /// [`Error::Container`], naming the tensor; [`Error::Checksum`].
    pub fn verify_stored(&self) -> Result<()> {
        match self.pooled_bytes() {
            Some(bytes) => self.check_whole(crc32(bytes)),
            None => Ok(self.reader().verify_stored(self.entry())?),
        }
    }

    /// Checks the stored bytes' CRC and that everything decodes to its recorded CRC.
    ///
    /// # Errors
    /// As [`Tensor::decode_into`], and [`Error::Container`] for a checksum of stored bytes.
    pub fn verify(&self) -> Result<()> {
        if let Some(bytes) = self.pooled_bytes() {
            return self.check_whole(crc32(bytes));
        }
        self.reader().verify_stored(self.entry())?;
        (0..self.chunks()).into_par_iter().try_for_each_init(
            || (Scratch::default(), Vec::new()),
            |(scratch, buffer), chunk| {
                buffer.resize(self.chunk_len(chunk) as usize, 0);
                self.decode_chunk(chunk, buffer, scratch)
            },
        )?;
        self.check_chunks()
    }

    /// Checks that the recorded CRCs of the chunks make up that of the tensor.
    pub(crate) fn check_chunks(&self) -> Result<()> {
        if self.pooled_bytes().is_some() {
            return Ok(());
        }
        let mut whole = wcodec_container::Crc32::new();
        self.entry().chunks.iter().for_each(|chunk| whole.combine(chunk.crc32_decoded, chunk.decoded_len));
        self.check_whole(whole.value())
    }

    pub(super) fn check_whole(&self, found: u32) -> Result<()> {
        let expected = self.entry().crc32_decoded;
        if found == expected {
            Ok(())
        } else {
            Err(Error::Checksum { what: format!("tensor `{}`", self.name()), expected, found })
        }
    }
}
