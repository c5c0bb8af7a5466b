//! What is written is what is read.

mod common;

use common::*;
use proptest::prelude::*;
use std::sync::Arc;
use wcodec_container::*;

#[test]
fn small_archive_reads_back() {
    let mut sink = ArchiveSink::new(Vec::new()).unwrap();
    let directory = small_payload(&mut sink);
    let position = sink.position();
    let (bytes, len) = sink.finish(&directory).unwrap();
    assert_eq!(len, bytes.len() as u64);

    let archive = ArchiveReader::from_bytes(Arc::<[u8]>::from(bytes)).unwrap();
    assert_eq!(archive.directory(), &directory);
    assert_eq!((archive.file_len(), archive.trailer().directory.offset), (len, position));
    assert_eq!(archive.version(), FormatVersion::CURRENT);
    assert_eq!(archive.find("lm_head"), Some(2));
    assert_eq!(archive.find("absent"), None);
    assert_eq!(archive.find_in("sub/model.safetensors", "wte"), Some(0));
    assert_eq!(archive.find_in("note.txt", "wte"), None);

    let wte = &archive.directory().tensors[0];
    let decoded: Vec<u8> =
        (0..3).flat_map(|chunk| archive.verify_chunk(wte, chunk).unwrap().iter().map(|byte| byte ^ 0x55)).collect();
    assert_eq!(decoded, (0u8..30).collect::<Vec<_>>());
    assert_eq!(archive.index_bytes(wte).unwrap(), b"index");
    assert!(matches!(archive.verify_chunk(wte, 3), Err(ContainerError::BadArgument { .. })));
    assert!(matches!(archive.bytes(Extent { offset: len, len: 1 }), Err(ContainerError::Truncated { .. })));
    assert!(matches!(archive.bytes(Extent { offset: 1, len: u64::MAX }), Err(ContainerError::Truncated { .. })));
}

#[test]
fn every_flipped_bit_of_the_payload_is_noticed_or_harmless() {
    let archive = small_archive();
    let directory = ArchiveReader::from_bytes(archive.clone()).unwrap().directory().clone();
    let whole = read_all(&archive).unwrap();
    let inside = |extent: Extent, at: u64| (extent.offset..extent.end().unwrap()).contains(&at);
    let summed = |at| directory.tensors.iter().any(|t| inside(t.payload, at) || inside(t.index, at));
    let end = Trailer::parse(&archive).unwrap().directory.offset;
    let mut checked = 0;
    for at in HEADER_LEN..end {
        for bit in 0..8 {
            let mut damaged = archive.clone();
            damaged[at as usize] ^= 1 << bit;
            match read_all(&damaged) {
                Err(error) => assert!(
                    matches!(error, ContainerError::ChecksumMismatch { .. } | ContainerError::Corrupt { .. }),
                    "byte {at} bit {bit}: {error}"
                ),
                // Padding in front of a tensor, and a bit of zstd's frame header that its decoders ignore.
                Ok(read) => assert!(read == whole && !summed(at), "byte {at} bit {bit}"),
            }
            checked += 1;
        }
    }
    assert!(checked > 1000);
}

#[test]
fn same_names_in_two_files_are_told_apart() {
    let mut sink = ArchiveSink::new(Vec::new()).unwrap();
    let mut tensors = Vec::new();
    let mut files = Vec::new();
    for (index, path) in (0u32..).zip(["a.safetensors", "b.safetensors"]) {
        let raw = [index as u8; 4];
        let mut entry = tensor("w", DtypeCode::F32, &[1]);
        let mut payload = TensorPayload::new();
        sink.append_chunk(&mut payload, &raw, 4, crc32(&raw)).unwrap();
        payload.store_in(&mut entry);
        tensors.push(entry);
        let segments = vec![Segment::Tensor { index }];
        files.push(FileEntry { path: path.to_owned(), len: 4, crc32: crc32(&raw), segments });
    }
    let (bytes, _) = sink.finish(&Directory { tensors, files, ..Directory::default() }).unwrap();
    let archive = ArchiveReader::from_bytes(bytes).unwrap();
    assert_eq!(archive.find("w"), Some(0));
    assert_eq!(archive.find_in("a.safetensors", "w"), Some(0));
    assert_eq!(archive.find_in("b.safetensors", "w"), Some(1));
}

#[test]
fn extremely_compressible_blobs_are_within_the_bound() {
    let mut sink = ArchiveSink::new(Vec::new()).unwrap();
    let small = sink.write_blob(&vec![0; 1 << 20], BlobPolicy::Zstd { level: 1 }).unwrap();
    let large = sink.write_blob(&vec![0; 9 << 20], BlobPolicy::Zstd { level: 1 }).unwrap();
    let mixed: Vec<u8> = (0..9u32 << 18).flat_map(|i| (i / 64).wrapping_mul(0x9E37_79B1).to_le_bytes()).collect();
    let streamed = sink.write_blob(&mixed, BlobPolicy::Zstd { level: 1 }).unwrap();
    let none = sink.write_blob(&[], BlobPolicy::Zstd { level: 19 }).unwrap();
    assert_eq!(small.coding, BlobCoding::Zstd);
    assert_eq!(large.coding, BlobCoding::Stored);
    assert_eq!(streamed.coding, BlobCoding::Zstd);
    let directory = Directory { pool: vec![vec![0; 8 << 20]], ..Directory::default() };
    let archive = ArchiveReader::from_bytes(sink.finish(&directory).unwrap().0).unwrap();
    assert_eq!(archive.read_blob(&small).unwrap(), vec![0; 1 << 20]);
    assert_eq!(archive.read_blob(&large).unwrap().len(), 9 << 20);
    assert_eq!(archive.read_blob(&streamed).unwrap(), mixed);
    assert_eq!(archive.read_blob(&none).unwrap(), []);
    assert_eq!(archive.directory(), &directory);
}

#[test]
fn interleaved_chunks_are_refused() {
    let mut sink = ArchiveSink::new(Vec::new()).unwrap();
    let mut payload = TensorPayload::new();
    sink.append_chunk(&mut payload, b"one", 3, 0).unwrap();
    sink.write_bytes(b"other").unwrap();
    let error = sink.append_chunk(&mut payload, b"two", 3, 0).unwrap_err();
    assert!(matches!(error, ContainerError::BadArgument { .. }));
}

#[test]
fn a_stream_that_failed_stays_failed() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut sink = ArchiveSink::new(Full(100)).unwrap();
    assert!(matches!(sink.write_bytes(&[0; 99]), Err(ContainerError::Io { path: None, .. })));
    assert!(matches!(sink.write_bytes(&[0; 1]), Err(ContainerError::BadArgument { .. })));
    assert!(sink.finish(&Directory::default()).is_err());
}

#[test]
fn dtype_names_and_numbers_are_one_to_one() {
    for (number, &code) in (1u8..).zip(DtypeCode::NAMED) {
        assert_eq!(code.0, number);
        assert_eq!(DtypeCode::from_name(code.name().unwrap()), Some(code));
        assert!(code.bits().is_some());
    }
    assert_eq!((DtypeCode::UNKNOWN.name(), DtypeCode(200).bits()), (None, None));
}

prop_compose! {
    fn arbitrary_chunk()(stored in prop::collection::vec(any::<u8>(), 0..200), decoded_len in 0u64..500, crc: u32)
        -> (Vec<u8>, u64, u32) { (stored, decoded_len, crc) }
}

proptest! {
    #[test]
    fn any_payload_reads_back(
        tensors in prop::collection::vec((".{0,12}", any::<u8>(), prop::collection::vec(arbitrary_chunk(), 0..6)), 0..6),
        pool in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..4),
        metadata in prop::collection::btree_map(".{0,8}", ".{0,8}", 0..4),
        literal in prop::collection::vec(0u8..4, 0..2000),
    ) {
        let mut sink = ArchiveSink::new(Vec::new()).unwrap();
        let mut directory = Directory { pool, metadata, ..Directory::default() };
        for (index, (name, mode, chunks)) in tensors.iter().enumerate() {
            let mut payload = TensorPayload::new();
            for (stored, decoded_len, crc) in chunks {
                sink.append_chunk(&mut payload, stored, *decoded_len, *crc).unwrap();
            }
            let mut entry = tensor(&format!("{index}{name}"), DtypeCode(100), &[*mode as u64, 3]);
            entry.mode = *mode;
            payload.store_in(&mut entry);
            directory.tensors.push(entry);
        }
        let blob = sink.write_blob(&literal, BlobPolicy::Zstd { level: 5 }).unwrap();
        directory.files.push(FileEntry {
            path: "f".to_owned(),
            len: blob.decoded_len,
            crc32: blob.crc32_decoded,
            segments: vec![Segment::Literal(blob)],
        });
        let (bytes, _) = sink.finish(&directory).unwrap();
        let archive = ArchiveReader::from_bytes(bytes).unwrap();
        prop_assert_eq!(archive.directory(), &directory);
        prop_assert_eq!(archive.read_blob(&blob).unwrap(), literal);
        for (entry, (_, _, chunks)) in archive.directory().tensors.iter().zip(&tensors) {
            archive.verify_stored(entry).unwrap();
            for (at, (stored, _, _)) in chunks.iter().enumerate() {
                prop_assert_eq!(archive.chunk_bytes(entry, at).unwrap(), &stored[..]);
            }
        }
    }

    #[test]
    fn crc_of_parts_is_crc_of_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..300), cut: prop::sample::Index) {
        let cut = cut.index(bytes.len() + 1);
        let (a, b) = bytes.split_at(cut);
        prop_assert_eq!(crc32_combine(crc32(a), crc32(b), b.len() as u64), crc32(&bytes));
        let mut sum = Crc32::new();
        sum.combine(crc32(a), a.len() as u64);
        sum.update(b);
        prop_assert_eq!((sum.value(), sum.len()), (crc32(&bytes), bytes.len() as u64));
    }
}
