//! The directory's encoding, byte by byte, and what it refuses.

mod common;

use common::*;
use wcodec_container::*;

/// A record of the format: a length below 128, then the body.
fn record(body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128);
    [&[body.len() as u8], body].concat()
}

/// One tensor `t` of 2 × U8 at 64 in one chunk of 3 bytes, with `extra` behind its entry's known fields.
fn tensor_entry(extra: &[u8]) -> Vec<u8> {
    [
        &[1, b't', 2, 1, 2, 7, 1, 9, 2][..], // name, dtype U8, shape [2], mode 7, params [9], decoded_len 2
        &[64, 3, 0, 0],                      // payload, index
        &[0xA0, 0, 0, 0, 0xA1, 0, 0, 0, 0xA2, 0, 0, 0],
        &[1, 3, 0xA3, 0, 0, 0, 2, 0xA4, 0, 0, 0],
        extra,
    ]
    .concat()
}

/// A directory of that tensor, a file of it, a pool and metadata.
fn directory_bytes(in_tensor: &[u8], in_section: &[u8], in_directory: &[u8]) -> Vec<u8> {
    let tensors = [&[1][..], &record(&tensor_entry(in_tensor)), in_section].concat();
    let file = [&[1, b'f', 2, 0xA5, 0, 0, 0][..], &[1, 2, 0]].concat();
    let files = [&[1][..], &record(&file), in_section].concat();
    let pool = [&[2, 0, 1, 5][..], in_section].concat();
    let metadata = [&[1, 1, b'k', 1, b'v'][..], in_section].concat();
    [record(&tensors), record(&files), record(&pool), record(&metadata), in_directory.to_vec()].concat()
}

fn directory() -> Directory {
    let chunk = ChunkEntry { len: 3, crc32_compressed: 0xA3, decoded_len: 2, crc32_decoded: 0xA4 };
    let entry = TensorEntry {
        mode: 7,
        params: vec![9],
        decoded_len: 2,
        payload: Extent { offset: 64, len: 3 },
        index_crc32: 0xA0,
        crc32_compressed: 0xA1,
        crc32_decoded: 0xA2,
        chunks: vec![chunk],
        ..tensor("t", DtypeCode::U8, &[2])
    };
    let segments = vec![Segment::Tensor { index: 0 }];
    Directory {
        tensors: vec![entry],
        files: vec![FileEntry { path: "f".to_owned(), len: 2, crc32: 0xA5, segments }],
        pool: vec![vec![], vec![5]],
        metadata: [("k".to_owned(), "v".to_owned())].into(),
    }
}

#[test]
fn the_bytes_are_those_of_the_specification() {
    assert_eq!(directory().encode(67).unwrap(), directory_bytes(&[], &[], &[]));
    assert_eq!(Directory::parse(&directory_bytes(&[], &[], &[]), 67).unwrap(), directory());
}

#[test]
fn unknown_optional_fields_are_ignored() {
    let fields = [1, 0, 2, 0xEE, 0xEE, 0xFF, 0x7F, 0];
    for [a, b, c] in [[true, false, false], [false, true, false], [false, false, true], [true, true, true]] {
        let part = |wanted: bool| if wanted { &fields[..] } else { &[] };
        assert_eq!(Directory::parse(&directory_bytes(part(a), part(b), part(c)), 67).unwrap(), directory());
    }
}

#[test]
fn unknown_fields_that_must_be_understood_are_refused() {
    let field = [1, 0x80, 1, 0xEE];
    for bytes in
        [directory_bytes(&field, &[], &[]), directory_bytes(&[], &field, &[]), directory_bytes(&[], &[], &field)]
    {
        let error = Directory::parse(&bytes, 67).unwrap_err();
        assert!(matches!(error, ContainerError::UnsupportedFeature { .. }), "{error}");
    }
}

#[test]
fn malformed_fields_are_refused() {
    let fields: [&[u8]; 4] = [&[1], &[1, 0], &[1, 0, 2, 0], &[2, 0, 0, 1, 0, 0]];
    for field in fields {
        for bytes in
            [directory_bytes(field, &[], &[]), directory_bytes(&[], field, &[]), directory_bytes(&[], &[], field)]
        {
            assert!(matches!(Directory::parse(&bytes, 67), Err(ContainerError::Corrupt { .. })), "{field:?}");
        }
    }
}

/// The reader must refuse what the writer refuses; each damage is named in the error.
fn refused(what: &str, damage: impl FnOnce(&mut Directory)) {
    let mut damaged = directory();
    damage(&mut damaged);
    let error = damaged.encode(67).unwrap_err();
    assert!(matches!(&error, ContainerError::BadArgument { what: said } if said.contains(what)), "{error}");
}

#[test]
fn contradictions_are_refused() {
    type D = Directory;
    refused("tensor `t`", |d: &mut D| d.tensors[0].payload.len = 4);
    refused("payload lies outside", |d| {
        d.tensors[0].payload.offset = 128;
    });
    refused("payload lies outside", |d| d.tensors[0].payload.offset = u64::MAX - 1);
    refused("payload is not aligned", |d| d.tensors[0].payload.offset = 63);
    refused("payload lies outside", |d| d.tensors[0].payload.offset = 0);
    refused("index lies outside", |d| d.tensors[0].index = Extent { offset: 60, len: 8 });
    refused("chunks do not fill", |d| d.tensors[0].payload.len = 2);
    refused("chunks do not fill", |d| d.tensors[0].chunks[0].len = u64::MAX);
    refused("chunks do not sum", |d| d.tensors[0].chunks[0].decoded_len = 1);
    refused("chunks do not sum", |d| {
        // The payload is where it was: a second chunk of no bytes would start at 128.
        d.tensors[0].chunks[0].decoded_len = u64::MAX;
    });
    refused("decoded length", |d| d.tensors[0].shape = vec![3]);
    refused("no whole number of bytes", |d| d.tensors[0].shape = vec![1 << 32, 1 << 32]);
    refused("no whole number of bytes", |d| {
        d.tensors[0].dtype = DtypeCode::F4;
        d.tensors[0].shape = vec![3];
    });
    refused("file `f`: there is no tensor 1", |d| d.files[0].segments = vec![Segment::Tensor { index: 1 }]);
    refused("`t` occurs twice", |d| d.files[0].segments.push(Segment::Tensor { index: 0 }));
    refused("do not sum to the file's length", |d| d.files[0].len = 3);
    refused("tensor `u` occurs twice", |d| {
        d.tensors.extend([tensor("u", DtypeCode::U8, &[0]), tensor("u", DtypeCode::U8, &[0])]);
    });
    refused("impossible decoded length", |d| {
        let blob = Blob { extent: Extent { offset: 16, len: 2 }, decoded_len: 3, ..Blob::default() };
        d.files[0].segments.push(Segment::Literal(blob));
    });
    refused("impossible decoded length", |d| {
        let extent = Extent { offset: 16, len: 2 };
        let blob = Blob { extent, decoded_len: 2 << 20, coding: BlobCoding::Zstd, crc32_decoded: 0 };
        d.files[0].segments.push(Segment::Literal(blob));
    });
    refused("literal lies outside", |d| {
        let blob = Blob { extent: Extent { offset: 15, len: 1 }, decoded_len: 1, ..Blob::default() };
        d.files[0].segments.push(Segment::Literal(blob));
    });
}

#[test]
fn unique_names_are_per_file() {
    let mut two = directory();
    two.tensors.push(two.tensors[0].clone());
    two.files.push(FileEntry {
        path: "g".to_owned(),
        segments: vec![Segment::Tensor { index: 1 }],
        ..two.files[0].clone()
    });
    assert!(two.encode(67).is_ok());
    // A tensor without a file has a name of its own.
    two.files.pop();
    assert!(two.encode(67).is_ok());
}

#[test]
fn paths_stay_inside_the_folder() {
    for good in ["a", "a/b.c", "a b/ü", "..a", "a..", "...", "ab:c"] {
        assert_eq!(validate_path(good), Ok(()), "{good}");
    }
    let long = "a".repeat(4097);
    for bad in [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/..",
        "../a",
        "a/./b",
        "a\\b",
        "a\0b",
        "c:/a",
        "C:a",
        "//server/share",
        &long,
    ] {
        assert!(validate_path(bad).is_err(), "{bad}");
        refused("path", |d| d.files[0].path = bad.to_owned());
    }
}

#[test]
fn paths_do_not_exclude_each_other() {
    let with = |paths: &[&str]| {
        let file = |path: &&str| FileEntry { path: (*path).to_owned(), ..FileEntry::default() };
        Directory { files: paths.iter().map(file).collect(), ..Directory::default() }.encode(16)
    };
    assert!(with(&["a", "b", "ab", "c/d", "c/e", "c-", "c.d"]).is_ok());
    assert!(with(&["a", "b", "a"]).is_err());
    assert!(with(&["a/b", "a-", "a", "a.c"]).is_err());
    assert!(with(&["x/y/z", "x/y.z", "x/y"]).is_err());
}

#[test]
fn numbers_have_one_encoding() {
    // An empty directory is four records of a count of zero.
    assert!(Directory::parse(&[1, 0, 1, 0, 1, 0, 1, 0], 16).is_ok());
    assert!(Directory::parse(&[1, 0, 1, 0, 1, 0, 2, 0x80, 0], 16).is_err());
    assert!(Directory::parse(&[0x81, 0, 0, 1, 0, 1, 0, 1, 0], 16).is_err());
    // Metadata keys ascend.
    let metadata = |keys: [u8; 2]| [&[1, 0, 1, 0, 1, 0, 7, 2][..], &[1, keys[0], 0, 1, keys[1], 0]].concat();
    assert!(Directory::parse(&metadata(*b"ab"), 16).is_ok());
    assert!(Directory::parse(&metadata(*b"ba"), 16).is_err());
    assert!(Directory::parse(&metadata(*b"aa"), 16).is_err());
    assert!(Directory::parse(&metadata([b'a', 0xFF]), 16).is_err());
}
