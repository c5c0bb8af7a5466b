//! Tensors whose dtype, shape and bytes have occurred: they share the earlier one's chunks.

use wcodec_container::{Crc32, TensorEntry};

use super::assembly::Assembly;
use crate::checkpoint::input::{InputFile, InputTensor};
use crate::tensor::Source;

/// A tensor that was met: its file, its place in the file, its entry in the directory.
pub(super) type Seen = (usize, usize, u32);

impl Assembly<'_> {
    /// The earlier tensor of the same type, shape and bytes, if there is one.
    pub(super) fn original(
        &mut self,
        files: &[InputFile<'_>],
        file: usize,
        number: usize,
        source: &Source<'_>,
    ) -> Option<u32> {
        // Small ones are not worth the look-up table's growth.
        if source.data.len() < 4096 {
            return None;
        }
        let key = (source.data.len(), fingerprint(source.data));
        let same = self.seen.entry(key).or_default();
        for &(f, t, entry) in same.iter() {
            let other = &files[f].tensors[t];
            if other.dtype == source.dtype && other.shape == source.shape && files[f].tensor(t) == source.data {
                return Some(entry);
            }
        }
        // Entries follow the tensors of all files in order.
        let entry = files[..file].iter().map(|f| f.tensors.len()).sum::<usize>() + number;
        same.push((file, number, entry as u32));
        None
    }

    pub(super) fn alias(&mut self, original: u32, tensor: &InputTensor) -> TensorEntry {
        let mut entry = self.directory.tensors[original as usize].clone();
        entry.name.clone_from(&tensor.name);
        self.progress.advance(entry.decoded_len);
        let mode = self.report.tensors[original as usize].mode;
        self.tell(&entry, mode, 0);
        entry
    }
}

/// A checksum of samples, to find candidates for equality.
fn fingerprint(data: &[u8]) -> u32 {
    let mut crc = Crc32::new();
    let step = (data.len() / 16).max(1);
    for start in (0..data.len()).step_by(step) {
        crc.update(&data[start..(start + 256).min(data.len())]);
    }
    crc.value()
}
