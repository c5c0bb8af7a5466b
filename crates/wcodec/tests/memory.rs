//! Tensors compressed from memory, and single files of an archive.

use std::collections::BTreeMap;

use wcodec::{Archive, DtypeCode, EncodeOptions, Error, TensorData};

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * i / 7) as u8).collect()
}

#[test]
fn an_archive_from_memory_is_that_of_the_safetensors_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.wcodec");
    let (wide, narrow) = (bytes(2 * 96 * 80), bytes(33));
    let tensors = [
        TensorData { name: "b", dtype: DtypeCode::U8, shape: &[33], data: &narrow },
        TensorData { name: "a", dtype: DtypeCode::BF16, shape: &[96, 80], data: &wide },
        TensorData { name: "scalar", dtype: DtypeCode::F32, shape: &[], data: &[0, 0, 128, 63] },
        TensorData { name: "none", dtype: DtypeCode::F32, shape: &[0, 7], data: &[] },
    ];
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let options = EncodeOptions::default();
    let report = wcodec::compress_tensors(&tensors, &metadata, &path, &options, &()).unwrap();
    assert_eq!(report.tensors.len(), 4);
    let archive = Archive::open(&path).unwrap();
    for tensor in &tensors {
        assert_eq!(archive.tensor(tensor.name).unwrap().decode().unwrap(), tensor.data, "{}", tensor.name);
    }
    assert_eq!(archive.file_metadata("m.safetensors").unwrap(), metadata);

    let restored = folder.path().join("m.safetensors");
    wcodec::decompress(&archive, &restored, false, &()).unwrap();
    assert_eq!(std::fs::read(&restored).unwrap(), archive.read_file("m.safetensors").unwrap());
    let again = folder.path().join("again.wcodec");
    wcodec::compress(&restored, &again, &options, &()).unwrap();
    assert_eq!(std::fs::read(&again).unwrap(), std::fs::read(&path).unwrap());
}

#[test]
fn data_that_do_not_fit_are_refused() {
    let refused = |tensors: &[TensorData<'_>]| {
        let made = wcodec::compress_tensors_to_vec(tensors, &BTreeMap::new(), &EncodeOptions::default(), &());
        assert!(matches!(made, Err(Error::BadArgument(_))));
    };
    let good = TensorData { name: "w", dtype: DtypeCode::U8, shape: &[3], data: &[1, 2, 3] };
    refused(&[TensorData { shape: &[4], ..good }]);
    refused(&[TensorData { shape: &[u64::MAX, 8], ..good }]);
    refused(&[TensorData { dtype: DtypeCode::UNKNOWN, ..good }]);
    refused(&[TensorData { name: "__metadata__", ..good }]);
    refused(&[good, good]);
}

#[test]
fn files_that_are_not_there_are_named() {
    let made = wcodec::compress_tensors_to_vec(&[], &BTreeMap::new(), &EncodeOptions::default(), &()).unwrap();
    let archive = Archive::from_bytes(made).unwrap();
    let error = archive.read_file("config.json").unwrap_err();
    assert!(error.to_string().contains("config.json"));
    assert!(archive.file_metadata("model.safetensors").unwrap().is_empty());
}
