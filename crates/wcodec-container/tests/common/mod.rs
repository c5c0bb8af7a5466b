//! A small archive with everything in it, and ways to damage it.

#![allow(dead_code, reason = "every test binary uses a part of this")]

use wcodec_container::*;

/// Three tensors (the last shares the first one's payload, one is empty), two files, stored and compressed literals,
/// pool and metadata.
pub(crate) fn small_archive() -> Vec<u8> {
    let mut sink = ArchiveSink::new(Vec::new()).unwrap();
    let directory = small_payload(&mut sink);
    sink.finish(&directory).unwrap().0
}

/// Writes the payload of [`small_archive`] and returns its directory.
pub(crate) fn small_payload<W: std::io::Write>(sink: &mut ArchiveSink<W>) -> Directory {
    let json = br#"{"wte":{"dtype":"BF16","shape":[3,5],"data_offsets":[0,30]}}"#.repeat(4);
    let header = sink.write_blob(&json, BlobPolicy::Zstd { level: 3 }).unwrap();
    let odd = sink.write_blob(b"odd", BlobPolicy::Zstd { level: 3 }).unwrap();
    assert_eq!((header.coding, odd.coding), (BlobCoding::Zstd, BlobCoding::Stored));

    let raw: Vec<u8> = (0u8..30).collect();
    let mut wte = tensor("wte", DtypeCode::BF16, &[3, 5]);
    wte.mode = 1;
    wte.params = vec![1, 2, 3];
    let mut payload = TensorPayload::new();
    for part in raw.chunks(12) {
        let stored: Vec<u8> = part.iter().map(|byte| byte ^ 0x55).collect();
        let extent = sink.append_chunk(&mut payload, &stored, part.len() as u64, crc32(part)).unwrap();
        assert_eq!(extent.offset % CHUNK_ALIGN, 0);
    }
    payload.store_in(&mut wte);
    wte.index = sink.write_bytes(b"index").unwrap();
    wte.index_crc32 = crc32(b"index");
    let twin = TensorEntry { name: "lm_head".to_owned(), ..wte.clone() };
    let empty = tensor("empty", DtypeCode::F32, &[0, 7]);
    assert_eq!(wte.crc32_decoded, crc32(&raw));

    let shard = FileEntry {
        path: "sub/model.safetensors".to_owned(),
        len: (json.len() + 60) as u64,
        crc32: crc32(&[&json, &raw[..], &raw[..]].concat()),
        segments: [vec![Segment::Literal(header)], [0, 1, 2].map(|index| Segment::Tensor { index }).to_vec()].concat(),
    };
    let text =
        FileEntry { path: "note.txt".to_owned(), len: 3, crc32: crc32(b"odd"), segments: vec![Segment::Literal(odd)] };
    Directory {
        tensors: vec![wte, empty, twin],
        files: vec![shard, text],
        pool: vec![b"table".to_vec(), Vec::new()],
        metadata: [("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())].into(),
    }
}

pub(crate) fn tensor(name: &str, dtype: DtypeCode, shape: &[u64]) -> TensorEntry {
    TensorEntry { name: name.to_owned(), dtype, shape: shape.to_vec(), ..TensorEntry::default() }
}

/// The payload of `archive` with other directory bytes, stored as they are, and correct checksums.
pub(crate) fn with_directory(archive: &[u8], decoded: &[u8]) -> Vec<u8> {
    let trailer = Trailer::parse(archive).unwrap();
    let payload_end = trailer.directory.offset as usize;
    let mut out = archive[..payload_end].to_vec();
    out.extend_from_slice(decoded);
    let trailer = Trailer {
        directory: Extent { offset: payload_end as u64, len: decoded.len() as u64 },
        decoded_len: decoded.len() as u64,
        directory_crc32: crc32(decoded),
    };
    out.extend_from_slice(&trailer.encode(archive.first_chunk().unwrap()));
    out
}

/// Everything that an archive gives, read through every public way in.
pub(crate) fn read_all(bytes: &[u8]) -> Result<(Directory, Vec<Vec<u8>>)> {
    let archive = ArchiveReader::from_bytes(bytes.to_vec())?;
    let mut pieces = Vec::new();
    for entry in &archive.directory().tensors {
        archive.verify_stored(entry)?;
        for chunk in 0..entry.chunks.len() {
            pieces.push(archive.verify_chunk(entry, chunk)?.to_vec());
        }
        pieces.push(archive.index_bytes(entry)?.to_vec());
        assert!(archive.find(&entry.name).is_some());
    }
    for file in &archive.directory().files {
        for segment in &file.segments {
            if let Segment::Literal(blob) = segment {
                pieces.push(archive.read_blob(blob)?);
            }
        }
    }
    Ok((archive.directory().clone(), pieces))
}
