//! What goes in comes out: whole checkpoints, single tensors, parts of them.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use common::*;
use proptest::prelude::*;
use wcodec::{Archive, EncodeOptions, Error, Mode, ModeChoice, Scratch};

#[test]
fn fixtures_come_back_in_every_mode_and_level() {
    let folder = tempfile::tempdir().unwrap();
    let (output, restored) = (folder.path().join("m.wcodec"), folder.path().join("m.safetensors"));
    for input in fixtures() {
        let bytes = fs::read(&input).unwrap();
        for options in settings() {
            let report = wcodec::compress(&input, &output, &options, &()).unwrap();
            assert_eq!(report.decoded_bytes, bytes.len() as u64);
            assert_eq!(report.archive_bytes, fs::metadata(&output).unwrap().len());
            let archive = Archive::open(&output).unwrap();
            wcodec::decompress(&archive, &restored, true, &()).unwrap();
            assert!(fs::read(&restored).unwrap() == bytes, "{} {options:?}", input.display());
            assert_eq!(wcodec::verify(&archive, &()).unwrap().tensors.len(), archive.len());
            assert!(
                report.tensors.iter().all(|t| t.stored_bytes <= t.decoded_bytes),
                "{} {options:?}",
                input.display()
            );
        }
        assert_eq!(fs::read(&input).unwrap(), bytes, "the input is left as it was");
    }
}

#[test]
fn the_sampler_takes_every_mode() {
    let tensors = sampler();
    let bytes = archive_of(&safetensors(&tensors), &EncodeOptions::default());
    let archive = Archive::from_bytes(bytes).unwrap();
    let modes: BTreeSet<Mode> = archive.names().map(|name| archive.tensor(name).unwrap().mode()).collect();
    assert_eq!(modes, Mode::ALL.into(), "{:?}", archive.names().collect::<Vec<_>>());
    for raw in tensors {
        let tensor = archive.tensor(&raw.name).unwrap();
        assert_eq!(tensor.decode().unwrap(), raw.data, "{}", raw.name);
        assert_eq!(tensor.byte_len(), raw.data.len() as u64);
        assert_eq!(tensor.shape(), raw.shape.iter().map(|&d| d as u64).collect::<Vec<_>>());
        assert_eq!(tensor.dtype().name(), Some(raw.dtype));
        tensor.verify().unwrap();
    }
    assert!(matches!(archive.tensor("absent"), Err(Error::NoSuchTensor(name)) if name == "absent"));
    assert!(matches!(archive.tensor_at(99), Err(Error::NoSuchTensor(_))));
}

#[test]
fn a_buffer_of_another_length_is_refused() {
    let archive = Archive::from_bytes(archive_of(&safetensors(&sampler()), &EncodeOptions::default())).unwrap();
    for name in archive.names() {
        let tensor = archive.tensor(name).unwrap();
        let mut longer = vec![0; tensor.byte_len() as usize + 1];
        assert!(matches!(tensor.decode_into(&mut longer), Err(Error::BadArgument(_))));
    }
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "that is what is to be refused")]
fn a_shared_tensor_outlives_its_name_of_the_archive_and_decodes_between_boundaries() {
    let tensors = sampler();
    let archive = Arc::new(Archive::from_bytes(archive_of(&safetensors(&tensors), &EncodeOptions::default())).unwrap());
    let shared: Vec<_> = archive.names().map(|name| archive.shared_tensor(name).unwrap()).collect();
    assert!(matches!(archive.shared_tensor("absent"), Err(Error::NoSuchTensor(_))));
    drop(archive);
    let threads = shared.into_iter().map(|tensor| {
        std::thread::spawn(move || {
            let (boundaries, mut scratch) = (tensor.boundaries(), Scratch::default());
            let (mut decoded, len) = (Vec::new(), tensor.byte_len());
            assert_eq!((boundaries[0], *boundaries.last().unwrap()), (0, len));
            for pair in boundaries.windows(2) {
                let start = decoded.len();
                decoded.resize(start + (pair[1] - pair[0]) as usize, 0);
                tensor.decode_range(pair[0]..pair[1], &mut decoded[start..], &mut scratch).unwrap();
            }
            for range in [0..len + 1, len..len + 1, 1..0] {
                let out = &mut vec![0; range.end.saturating_sub(range.start) as usize];
                assert!(matches!(tensor.decode_range(range, out, &mut scratch), Err(Error::BadArgument(_))));
            }
            tensor.verify_stored().unwrap();
            (tensor.name().to_owned(), decoded)
        })
    });
    let decoded: BTreeMap<String, Vec<u8>> = threads.map(|thread| thread.join().unwrap()).collect();
    assert!(tensors.iter().all(|raw| decoded[&raw.name] == raw.data));
}

#[test]
fn the_number_of_threads_does_not_show() {
    let file = safetensors(&sampler());
    for options in settings() {
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| archive_of(&file, &options))
        };
        let one = with(1);
        assert!(with(2) == one && with(4) == one, "{options:?}");
    }
}

#[test]
fn identical_tensors_are_stored_once() {
    let data = weights(100, 128, 1);
    let raw = |name: &str, shape: &[usize]| Raw::new(name, "BF16", shape, data.clone());
    let file = safetensors(&[raw("a", &[100, 128]), raw("b", &[100, 128]), raw("other.shape", &[128, 100])]);
    let once =
        archive_of(&safetensors(&[raw("a", &[100, 128]), raw("other.shape", &[128, 100])]), &EncodeOptions::default());
    for options in settings() {
        let archive = Archive::from_bytes(archive_of(&file, &options)).unwrap();
        for name in ["a", "b", "other.shape"] {
            assert_eq!(archive.tensor(name).unwrap().decode().unwrap(), data);
        }
        let [a, b] = ["a", "b"].map(|name| archive.tensor(name).unwrap().entry().payload);
        assert_eq!(a, b, "{options:?}");
        let report = wcodec::verify(&archive, &()).unwrap();
        let stored: Vec<bool> = report.tensors.iter().map(|t| t.stored_bytes > 0).collect();
        assert_eq!(stored, [true, false, true]);
    }
    let twice = archive_of(&file, &EncodeOptions::default());
    assert!(twice.len() < once.len() + 400, "{} {}", twice.len(), once.len());
}

#[test]
fn empty_tensors_of_any_shape_have_empty_parts() {
    let most = usize::MAX / 2;
    let shapes: [&[usize]; 4] = [&[0], &[0, 5], &[5, 0], &[0, most, 4]];
    let tensors: Vec<Raw> =
        shapes.iter().enumerate().map(|(i, shape)| Raw::new(&i.to_string(), "BF16", shape, Vec::new())).collect();
    for options in settings() {
        let archive = Archive::from_bytes(archive_of(&safetensors(&tensors), &options)).unwrap();
        for name in archive.names() {
            let tensor = archive.tensor(name).unwrap();
            assert!(tensor.decode().unwrap().is_empty());
            assert!(tensor.rows(0..tensor.row_count()).unwrap().is_empty());
            assert!(tensor.rows(0..tensor.row_count() + 1).is_err());
            tensor.verify().unwrap();
        }
    }
}

#[test]
fn a_file_without_tensors_comes_back() {
    for file in [with_header("{}", b""), with_header(r#"{"__metadata__":{"format":"pt"}}   "#, b"")] {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::from_bytes(archive_of(&file, &EncodeOptions::default())).unwrap();
        assert!(archive.is_empty());
        let restored = folder.path().join("back");
        wcodec::decompress(&archive, &restored, false, &()).unwrap();
        assert_eq!(fs::read(&restored).unwrap(), file);
    }
}

/// Archives of one matrix that is folded, cut into chunks and cut at the edges, in every mode that it can take.
fn matrices() -> Vec<(Raw, Archive)> {
    let raws = || {
        [
            Raw::new("wide", "BF16", &[70, 1030], weights(70, 1030, 1)),
            Raw::new("folded", "BF16", &[700, 48], weights(700, 48, 2)),
            Raw::new("square", "BF16", &[330, 192], weights(330, 192, 3)),
            Raw::new("bytes", "I8", &[300, 130], surface(300, 130)),
        ]
    };
    let modes = [ModeChoice::Auto, ModeChoice::Float, ModeChoice::Int, ModeChoice::Zstd, ModeChoice::Store];
    let archive = |raw: Raw, mode| {
        let options = EncodeOptions { mode, superblock_rows: 32, ..EncodeOptions::default() };
        let bytes = archive_of(&safetensors(std::slice::from_ref(&raw)), &options);
        (raw, Archive::from_bytes(bytes).unwrap())
    };
    modes.into_iter().flat_map(|mode| raws().map(|raw| archive(raw, mode))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn parts_are_slices_of_the_whole(corners in prop::collection::vec(any::<[prop::sample::Index; 4]>(), 4)) {
        thread_local! {
            static MATRICES: Vec<(Raw, Archive)> = matrices();
        }
        MATRICES.with(|matrices| -> Result<(), TestCaseError> {
            for (raw, archive) in matrices {
                let tensor = archive.tensor(&raw.name).unwrap();
                let [rows, cols] = [raw.shape[0], raw.shape[1]];
                let element = raw.data.len() / rows / cols;
                for corner in &corners {
                    let [a, b, c, d] = [(0, rows), (1, rows), (2, cols), (3, cols)].map(|(i, n)| corner[i].index(n + 1));
                    let (rows, within) = (a.min(b)..a.max(b), c.min(d)..c.max(d));
                    let expected: Vec<u8> = rows
                        .clone()
                        .flat_map(|row| &raw.data[(row * cols + within.start) * element..(row * cols + within.end) * element])
                        .copied()
                        .collect();
                    let range = |r: &std::ops::Range<usize>| r.start as u64..r.end as u64;
                    let part = tensor.rect(range(&rows), range(&within)).unwrap();
                    prop_assert!(part == expected, "{} in {}: {:?} × {:?}", raw.name, tensor.mode(), rows, within);
                    let all = rows.start * cols * element..rows.end * cols * element;
                    prop_assert!(tensor.rows(range(&rows)).unwrap() == raw.data[all.clone()]);
                    let mut bytes = vec![0; all.len()];
                    tensor.decode_range(range(&all), &mut bytes, &mut Scratch::default()).unwrap();
                    prop_assert!(bytes == raw.data[all]);
                }
            }
            Ok(())
        })?;
    }
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "that is what is to be refused")]
fn parts_that_are_not_there_are_refused() {
    for (raw, archive) in matrices() {
        let tensor = archive.tensor(&raw.name).unwrap();
        let (rows, cols) = (tensor.row_count(), tensor.col_count());
        for (r, c) in [(0..rows + 1, 0..1), (0..1, 0..cols + 1), (2..1, 0..1), (0..1, 2..1), (0..u64::MAX, 0..u64::MAX)]
        {
            assert!(matches!(tensor.rect(r, c), Err(Error::BadArgument(_))));
        }
        assert!(matches!(tensor.rows(rows..rows + 1), Err(Error::BadArgument(_))));
        assert!(tensor.rows(rows..rows).unwrap().is_empty());
    }
    let packed = Raw::new("packed", "F4", &[4, 8], vec![0x12; 16]);
    let archive = Archive::from_bytes(archive_of(&safetensors(&[packed]), &EncodeOptions::default())).unwrap();
    assert!(matches!(archive.tensor("packed").unwrap().rows(0..1), Err(Error::BadArgument(_))));
}

/// Checkpoints that were widened from a narrower type take about what the narrower one takes.
#[test]
fn zeros_of_widened_elements_take_nothing() {
    let (rows, cols) = (203, 192);
    let narrow = widened(rows, cols, 9);
    let f32_of = |bf16: &[u8]| bf16.as_chunks::<2>().0.iter().flat_map(|&[low, high]| [0, 0, low, high]).collect();
    let tensors = [
        Raw::new("bf16", "BF16", &[rows, cols], narrow.clone()),
        Raw::new("f32", "F32", &[rows, cols], f32_of(&narrow)),
        Raw::new("f32 of bf16", "F32", &[rows, cols], f32_of(&weights(rows, cols, 9))),
    ];
    let archive = Archive::from_bytes(archive_of(&safetensors(&tensors), &EncodeOptions::default())).unwrap();
    for (raw, (dropped, most)) in tensors.iter().zip([(4, 8), (4, 8), (0, 12)]) {
        let tensor = archive.tensor(&raw.name).unwrap();
        let lanes = tensor.lanes().unwrap();
        assert_eq!(lanes.dropped_bits, dropped, "{}", raw.name);
        // Sign, exponent of a known scale, mantissa.
        assert!(tensor.stored_len() * 8 < (rows * cols * most) as u64, "{}: {}", raw.name, tensor.stored_len());
        assert_eq!(tensor.decode().unwrap(), raw.data);
        let row_bytes = raw.data.len() / rows;
        assert_eq!(tensor.rows(77..150).unwrap(), raw.data[77 * row_bytes..150 * row_bytes]);
        tensor.verify().unwrap();
    }
}
