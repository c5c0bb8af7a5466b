//! Inputs that are damaged, targets that cannot be written, checkpoints of many files.

mod common;

use std::fs;
use std::path::Path;

use common::*;
use wcodec::{Archive, EncodeOptions, Error};

fn compress(input: &Path, output: &Path) -> wcodec::Result<wcodec::Report> {
    wcodec::compress(input, output, &EncodeOptions::default(), &())
}

/// A file that compresses, to damage.
fn whole() -> Vec<u8> {
    safetensors(&[Raw::new("w", "U8", &[2, 3], vec![1, 2, 3, 4, 5, 6]), Raw::new("b", "BF16", &[2], vec![7, 8, 9, 10])])
}

#[test]
fn damaged_safetensors_are_refused_and_leave_nothing() {
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    let one = |dtype: &str, shape: &str, offsets: &str| format!(r#"{{"a":{}}}"#, entry(dtype, shape, offsets));
    let two = |a: &str, b: &str| format!(r#"{{"a":{},"b":{}}}"#, entry("U8", "[4]", a), entry("U8", "[4]", b));
    let huge = u64::MAX.to_string();
    let mut cases: Vec<(String, Vec<u8>)> = vec![
        ("no length".into(), b"1234567".to_vec()),
        ("header beyond the file".into(), [&1000u64.to_le_bytes()[..], b"{}"].concat()),
        ("header length of 2^64 - 1".into(), [&u64::MAX.to_le_bytes()[..], b"{}"].concat()),
        ("header length that wraps".into(), [&(u64::MAX - 7).to_le_bytes()[..], b"{}"].concat()),
        ("no JSON".into(), with_header("hello", b"")),
        ("no object".into(), with_header("[1,2]", b"")),
        ("no UTF-8".into(), [&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat()),
        ("tensor without offsets".into(), with_header(r#"{"a":{"dtype":"U8","shape":[4]}}"#, &[0; 4])),
        ("unknown dtype".into(), with_header(&one("U7", "[4]", "[0,4]"), &[0; 4])),
        ("negative dimension".into(), with_header(&one("U8", "[-4]", "[0,4]"), &[0; 4])),
        ("shape of another size".into(), with_header(&one("U8", "[5]", "[0,4]"), &[0; 4])),
        ("shape that overflows".into(), with_header(&one("U8", &format!("[{huge},{huge}]"), "[0,4]"), &[0; 4])),
        ("half a byte".into(), with_header(&one("F4", "[3]", "[0,2]"), &[0; 2])),
        ("ends behind the file".into(), with_header(&one("U8", "[40]", "[0,40]"), &[0; 4])),
        ("far behind the file".into(), with_header(&one("U8", &format!("[{huge}]"), &format!("[0,{huge}]")), &[0; 4])),
        ("offsets backwards".into(), with_header(&one("U8", "[4]", "[4,0]"), &[0; 4])),
        ("overlap".into(), with_header(&two("[0,4]", "[2,6]"), &[0; 6])),
        ("the same bytes twice".into(), with_header(&two("[0,4]", "[0,4]"), &[0; 4])),
        ("a gap".into(), with_header(&two("[0,4]", "[6,10]"), &[0; 10])),
        ("bytes behind the last tensor".into(), with_header(&two("[0,4]", "[4,8]"), &[0; 9])),
    ];
    let file = whole();
    cases.extend((0..file.len()).map(|len| (format!("cut at {len}"), file[..len].to_vec())));
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("m.safetensors"), folder.path().join("m.wcodec"));
    for (what, bytes) in cases {
        fs::write(&input, &bytes).unwrap();
        match compress(&input, &output) {
            Err(Error::Safetensors { file, .. }) => assert_eq!(file, input),
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(listing(folder.path()), ["m.safetensors"], "{what}");
        assert_eq!(fs::read(&input).unwrap(), bytes);
    }
    fs::write(&input, file).unwrap();
    compress(&input, &output).unwrap();
}

#[test]
fn a_damaged_shard_of_a_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("model");
    fs::create_dir(&input).unwrap();
    fs::write(input.join("a.safetensors"), whole()).unwrap();
    fs::write(input.join("b.safetensors"), &whole()[..50]).unwrap();
    let error = compress(&input, &folder.path().join("m.wcodec")).unwrap_err();
    assert!(matches!(&error, Error::Safetensors { file, .. } if file.ends_with("b.safetensors")), "{error}");
    assert!(error.to_string().contains("b.safetensors"));
    assert!(!folder.path().join("m.wcodec").exists());
}

#[test]
fn inputs_that_are_no_checkpoint_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("m.wcodec");
    assert!(matches!(compress(&folder.path().join("absent.safetensors"), &output), Err(Error::Io { .. })));
    let text = folder.path().join("model.txt");
    fs::write(&text, "hello").unwrap();
    assert!(matches!(compress(&text, &output), Err(Error::BadArgument(_))));
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(matches!(compress(&empty, &output), Err(Error::BadArgument(_))));
    let input = folder.path().join("m.safetensors");
    fs::write(&input, whole()).unwrap();
    for superblock_rows in [0, 8, 17, 528, usize::MAX] {
        let options = EncodeOptions { superblock_rows, ..EncodeOptions::default() };
        let result = wcodec::compress(&input, &output, &options, &());
        assert!(matches!(result, Err(Error::BadArgument(_))), "{superblock_rows}");
    }
    assert!(!output.exists());
}

#[test]
fn targets_that_exist_are_kept_unless_told_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("m.safetensors"), folder.path().join("m.wcodec"));
    fs::write(&input, whole()).unwrap();
    fs::write(&output, "precious").unwrap();
    assert!(matches!(
        compress(&input, &output),
        Err(Error::Container(wcodec_container::ContainerError::AlreadyExists { .. }))
    ));
    assert_eq!(fs::read(&output).unwrap(), b"precious");
    let options = EncodeOptions { overwrite: true, ..EncodeOptions::default() };
    wcodec::compress(&input, &output, &options, &()).unwrap();

    let archive = Archive::open(&output).unwrap();
    let target = folder.path().join("back.safetensors");
    fs::write(&target, "precious").unwrap();
    assert!(
        matches!(wcodec::decompress(&archive, &target, false, &()), Err(Error::AlreadyExists(path)) if path == target)
    );
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    wcodec::decompress(&archive, &target, true, &()).unwrap();
    assert_eq!(fs::read(&target).unwrap(), whole());
    let full = folder.path().join("folder");
    fs::create_dir(&full).unwrap();
    assert!(matches!(wcodec::decompress(&archive, &full, true, &()), Err(Error::AlreadyExists(_))));
    assert_eq!(listing(folder.path()), ["back.safetensors", "folder", "m.safetensors", "m.wcodec"]);
}

#[test]
fn targets_that_cannot_be_written_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("m.safetensors"), folder.path().join("m.wcodec"));
    fs::write(&input, whole()).unwrap();
    compress(&input, &output).unwrap();
    let archive = Archive::open(&output).unwrap();
    // A folder that is not there, and a file in a folder's place: refused to every user, root included.
    for target in ["absent/target", "m.safetensors/target"] {
        let target = folder.path().join(target);
        let error = compress(&input, &target).unwrap_err();
        assert!(
            matches!(error, Error::Io { .. } | Error::Container(wcodec_container::ContainerError::Io { .. })),
            "{error}"
        );
        assert!(matches!(wcodec::decompress(&archive, &target, false, &()), Err(Error::Io { .. })));
    }
    // A folder in the archive's place.
    fs::create_dir(folder.path().join("taken")).unwrap();
    let options = EncodeOptions { overwrite: true, ..EncodeOptions::default() };
    assert!(wcodec::compress(&input, folder.path().join("taken"), &options, &()).is_err());
    assert_eq!(listing(folder.path()), ["m.safetensors", "m.wcodec", "taken"]);
    assert_eq!(fs::read(&input).unwrap(), whole());
}

#[test]
fn damage_found_while_restoring_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = archive_of(&safetensors(&sampler()), &EncodeOptions::default());
    let (offset, len) = {
        let archive = Archive::from_bytes(bytes.clone()).unwrap();
        let payload = archive.tensor("lanes").unwrap().entry().payload;
        (payload.offset as usize, payload.len as usize)
    };
    for at in [offset, offset + len / 2, offset + len - 1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let archive = Archive::from_bytes(damaged).unwrap();
        wcodec::decompress(&archive, folder.path().join("back"), false, &()).unwrap_err();
        wcodec::verify(&archive, &()).unwrap_err();
        assert!(listing(folder.path()).is_empty());
    }
}

/// A checkpoint of shards, an index, a subfolder and other files.
fn checkpoint(folder: &Path) {
    fs::create_dir_all(folder.join("sub/deep")).unwrap();
    let embedding = weights(80, 128, 1);
    let shard = |i: u64| {
        safetensors(&[
            Raw::new(&format!("layer.{i}.weight"), "BF16", &[70, 66], weights(70, 66, 10 + i)),
            Raw::new("embedding", "BF16", &[80, 128], embedding.clone()),
        ])
    };
    fs::write(folder.join("model-00001-of-00002.safetensors"), shard(1)).unwrap();
    fs::write(folder.join("model-00002-of-00002.safetensors"), shard(2)).unwrap();
    fs::write(folder.join("sub/deep/adapter.safetensors"), shard(3)).unwrap();
    let index = r#"{"metadata":{},"weight_map":{"layer.1.weight":"model-00001-of-00002.safetensors",
        "layer.2.weight":"model-00002-of-00002.safetensors"}}"#;
    fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    fs::write(folder.join("config.json"), r#"{"model_type":"test"}"#).unwrap();
    fs::write(folder.join("empty.txt"), "").unwrap();
    fs::write(folder.join("sub/tokenizer.bin"), weights(1000, 1100, 7)).unwrap();
}

fn assert_same_folders(a: &Path, b: &Path) {
    assert_eq!(listing(a), listing(b));
    for name in listing(a) {
        if a.join(&name).is_file() {
            assert!(fs::read(a.join(&name)).unwrap() == fs::read(b.join(&name)).unwrap(), "{name}");
        }
    }
}

#[test]
fn a_folder_comes_back_with_everything_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let (input, copy) = (folder.path().join("model"), folder.path().join("copy"));
    checkpoint(&input);
    checkpoint(&copy);
    let mut sizes = Vec::new();
    for (i, options) in settings().iter().enumerate() {
        let (output, back) = (folder.path().join(format!("{i}.wcodec")), folder.path().join(format!("back-{i}")));
        let report = wcodec::compress(&input, &output, options, &()).unwrap();
        assert_eq!((report.files, report.tensors.len()), (7, 6));
        assert_same_folders(&input, &copy);
        let archive = Archive::open(&output).unwrap();
        wcodec::verify(&archive, &()).unwrap();
        wcodec::decompress(&archive, &back, false, &()).unwrap();
        assert_same_folders(&input, &back);
        // Names repeat over the files; the copies of one tensor share their payload.
        let index = archive.container().find_in("sub/deep/adapter.safetensors", "embedding").unwrap();
        let twin = archive.tensor_at(index).unwrap();
        assert_eq!(twin.decode().unwrap(), weights(80, 128, 1));
        assert_eq!(twin.entry().payload, archive.tensor("embedding").unwrap().entry().payload);
        sizes.push(report.archive_bytes);
        assert!(matches!(wcodec::decompress(&archive, &back, true, &()), Err(Error::AlreadyExists(_))));
    }
    assert!(sizes[1] < sizes[sizes.len() - 1], "{sizes:?}");
}

#[test]
fn a_missing_shard_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("model");
    checkpoint(&input);
    fs::remove_file(input.join("model-00002-of-00002.safetensors")).unwrap();
    let output = folder.path().join("m.wcodec");
    match compress(&input, &output) {
        Err(Error::MissingShard { index, shard }) => {
            assert!(index.ends_with("model.safetensors.index.json"));
            assert_eq!(shard, "model-00002-of-00002.safetensors");
        }
        other => panic!("{other:?}"),
    }
    fs::write(input.join("model.safetensors.index.json"), "{").unwrap();
    assert!(
        matches!(compress(&input, &output), Err(Error::Safetensors { file, .. }) if file.ends_with("model.safetensors.index.json"))
    );
    // An index that says nothing of shards names none.
    fs::write(input.join("model.safetensors.index.json"), r#"{"weight_map":[1]}"#).unwrap();
    compress(&input, &output).unwrap();
}

#[test]
#[cfg(unix)]
fn links_to_files_are_followed_and_links_to_folders_refused() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("model");
    fs::create_dir(&input).unwrap();
    fs::write(folder.path().join("blob"), whole()).unwrap();
    symlink("../blob", input.join("model.safetensors")).unwrap();
    let (output, back) = (folder.path().join("m.wcodec"), folder.path().join("back"));
    compress(&input, &output).unwrap();
    wcodec::decompress(&Archive::open(&output).unwrap(), &back, false, &()).unwrap();
    assert_eq!(fs::read(back.join("model.safetensors")).unwrap(), whole());
    symlink("..", input.join("loop")).unwrap();
    assert!(matches!(compress(&input, &folder.path().join("n.wcodec")), Err(Error::BadArgument(_))));
}
