//! Small tensors, which are coded together by their kind.

use wcodec_container::{TensorEntry, crc32};

use super::assembly::Assembly;
use crate::mode::Mode;
use crate::small::{self, PooledParams};
use crate::tensor::Source;

/// A blob of pooled tensors that is being filled.
pub(super) struct Pending {
    blob: usize,
    bytes: Vec<u8>,
    reports: Vec<usize>,
}

impl Assembly<'_> {
    /// Adds a small tensor to the blob of its kind.
    pub(super) fn pooled(&mut self, source: Source<'_>) -> TensorEntry {
        let kind = source.name.rsplit('.').next().unwrap_or_default().to_owned();
        let pool = &mut self.directory.pool;
        let pending = self.pending.entry((source.dtype, kind)).or_insert_with(|| {
            pool.push(Vec::new());
            Pending { blob: pool.len() - 1, bytes: Vec::new(), reports: Vec::new() }
        });
        let params = PooledParams { blob: pending.blob as u64, start: pending.bytes.len() as u64 };
        pending.bytes.extend_from_slice(source.data);
        pending.reports.push(self.report.tensors.len());
        let entry = TensorEntry {
            name: source.name.to_owned(),
            dtype: source.dtype,
            shape: source.shape.to_vec(),
            mode: Mode::Pooled.code(),
            params: params.to_bytes(),
            decoded_len: source.data.len() as u64,
            crc32_decoded: crc32(source.data),
            ..TensorEntry::default()
        };
        self.progress.advance(entry.decoded_len);
        self.tell(&entry, Mode::Pooled, 0);
        self.close_blobs(small::BLOB_BYTES);
        entry
    }

    /// Encodes pending blobs of `from` bytes and more.
    pub(super) fn close_blobs(&mut self, from: usize) {
        let full: Vec<_> = self.pending.iter().filter(|(_, p)| p.bytes.len() >= from).map(|(k, _)| k.clone()).collect();
        for key in full {
            let Some(pending) = self.pending.remove(&key) else { continue };
            let blob = small::encode_blob(&pending.bytes, key.0);
            // Every tensor is told its share.
            let (mut done, mut told) = (0u64, 0u64);
            for report in pending.reports {
                let report = &mut self.report.tensors[report];
                done += report.decoded_bytes;
                let share = blob.len() as u64 * done / pending.bytes.len() as u64;
                report.stored_bytes = share - told;
                told = share;
            }
            self.directory.pool[pending.blob] = blob;
        }
    }
}
