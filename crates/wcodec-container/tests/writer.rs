//! Archives as files: they appear complete or not at all.

mod common;

use common::*;
use std::fs;
use wcodec_container::*;

#[test]
fn the_file_appears_when_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.wcodec");
    for (overwrite, sync) in [(false, false), (true, true)] {
        let mut writer = ArchiveWriter::create(&path, WriterOptions { overwrite, sync }).unwrap();
        let mut payload = TensorPayload::new();
        let mut entry = tensor("w", DtypeCode::U8, &[5000]);
        let raw = vec![u8::from(overwrite); 5000];
        writer.append_chunk(&mut payload, &raw, 5000, crc32(&raw)).unwrap();
        payload.store_in(&mut entry);
        let blob = writer.write_blob(b"text", BlobPolicy::Store).unwrap();
        let chunk = writer.write_chunk(b"more").unwrap();
        let index = writer.write_bytes(b"index").unwrap();
        assert_eq!((chunk.offset % CHUNK_ALIGN, index.end()), (0, Some(writer.position())));
        let before = fs::read(&path).ok();
        assert_eq!(before.is_some(), overwrite);
        let old = overwrite.then(|| ArchiveReader::open(&path).unwrap());
        let len = writer.finish(&Directory { tensors: vec![entry], ..Directory::default() }).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), len);
        for archive in [ArchiveReader::open(&path).unwrap(), ArchiveReader::read(&path).unwrap()] {
            assert_eq!(archive.verify_chunk(&archive.directory().tensors[0], 0).unwrap(), raw);
            assert_eq!(archive.read_blob(&blob).unwrap(), b"text");
        }
        // A reader of the replaced file still sees it.
        if let Some(old) = old {
            assert_eq!(old.verify_chunk(&old.directory().tensors[0], 0).unwrap(), vec![0; 5000]);
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn nothing_is_left_of_an_unfinished_archive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.wcodec");
    let mut writer = ArchiveWriter::create(&path, WriterOptions::default()).unwrap();
    writer.write_chunk(&[1; 1000]).unwrap();
    drop(writer);
    let writer = ArchiveWriter::create(&path, WriterOptions::default()).unwrap();
    let twice = Directory { tensors: vec![tensor("t", DtypeCode::U8, &[0]); 2], ..Directory::default() };
    assert!(matches!(writer.finish(&twice), Err(ContainerError::BadArgument { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_existing_file_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.wcodec");
    let writer = ArchiveWriter::create(&path, WriterOptions::default()).unwrap();
    fs::write(&path, "meanwhile").unwrap();
    let error = ArchiveWriter::create(&path, WriterOptions::default()).unwrap_err();
    assert!(matches!(error, ContainerError::AlreadyExists { .. }));
    let error = writer.finish(&Directory::default()).unwrap_err();
    assert!(matches!(error, ContainerError::AlreadyExists { .. }));
    assert_eq!(fs::read(&path).unwrap(), b"meanwhile");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn impossible_paths_are_typed_errors() {
    let folder = tempfile::tempdir().unwrap();
    let create = |path: &str| ArchiveWriter::create(folder.path().join(path), WriterOptions::default());
    assert!(matches!(create("no/such/folder.wcodec"), Err(ContainerError::Io { path: Some(_), .. })));
    assert!(matches!(create(""), Err(ContainerError::BadArgument { .. })));
    assert!(matches!(ArchiveReader::open(folder.path().join("absent")), Err(ContainerError::Io { path: Some(_), .. })));
    fs::write(folder.path().join("empty"), "").unwrap();
    let error = ArchiveReader::open(folder.path().join("empty")).unwrap_err();
    assert!(matches!(error, ContainerError::Truncated { offset: 0, .. }));
}

#[cfg(unix)]
#[test]
fn the_file_has_ordinary_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.wcodec");
    ArchiveWriter::create(&path, WriterOptions::default()).unwrap().finish(&Directory::default()).unwrap();
    fs::write(folder.path().join("b"), "").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(path), mode(folder.path().join("b")));
}
