//! What the commands print, for people and for programs.

mod common;

use std::fs;

use common::*;
use serde_json::Value;

/// The sum of a number over all groups of a summary.
fn sum(report: &Value, field: &str) -> u64 {
    report["groups"].as_array().unwrap().iter().map(|group| group[field].as_u64().unwrap()).sum()
}

#[test]
fn compress_and_decompress_report_what_they_did() {
    let (folder, input) = folder_with(SMALL);
    let archive = folder.path().join("a.wcodec");
    let compressed = json(args!["compress", &input, "-o", &archive, "--json", "--threads", "2"]);
    assert_eq!(compressed["command"], "compress");
    assert_eq!(compressed["threads"], 2);
    assert_eq!(compressed["decoded_bytes"], fs::metadata(&input).unwrap().len());
    assert_eq!(compressed["archive_bytes"], fs::metadata(&archive).unwrap().len());
    assert_eq!(sum(&compressed, "tensors"), compressed["tensors"].as_u64().unwrap());
    assert!(sum(&compressed, "decoded_bytes") < compressed["decoded_bytes"].as_u64().unwrap());
    assert!(compressed["seconds"].as_f64().unwrap() > 0.0);

    let back = folder.path().join("back.safetensors");
    let restored = json(args!["decompress", &archive, "-o", &back, "--json"]);
    let verified = json(args!["verify", &archive, "--json"]);
    for report in [&restored, &verified] {
        for field in ["files", "tensors", "decoded_bytes", "archive_bytes", "ratio"] {
            assert_eq!(report[field], compressed[field], "{field}");
        }
    }
}

#[test]
fn tables_name_dtypes_modes_and_totals() {
    let (_folder, input) = folder_with(SMALL);
    let compressed = succeed(args!["compress", &input]);
    let verified = succeed(args!["verify", input.with_extension("wcodec")]);
    for text in [compressed, verified] {
        for word in ["dtype", "ratio", "I8", "BF16", "F32", "total", "GB/s"] {
            assert!(text.contains(word), "{word} in {text}");
        }
    }
    let quiet = succeed(args!["compress", &input, "--force", "--quiet"]);
    assert!(quiet.is_empty());
}

#[test]
fn inspect_shows_the_archive_and_every_tensor() {
    let (_folder, archive) = folder_with_archive();
    let whole = json(args!["inspect", &archive, "--all", "--json"]);
    assert_eq!(whole["archive_bytes"], fs::metadata(&archive).unwrap().len());
    assert_eq!(whole["file_list"][0]["path"], SMALL);
    // As fixtures/README.md says.
    assert_eq!(whole["file_list"][0]["crc32"], "dcc3355a");
    assert!(whole["directory_bytes"].as_u64().unwrap() > 0);
    let tensors = whole["tensor_list"].as_array().unwrap();
    assert_eq!(tensors.len() as u64, whole["tensors"].as_u64().unwrap());
    let text = succeed(args!["inspect", &archive, "--all"]);
    for tensor in tensors {
        let name = tensor["name"].as_str().unwrap();
        assert!(text.contains(name));
        let one = json(args!["inspect", &archive, "--tensor", name, "--json"]);
        for field in ["name", "dtype", "shape", "mode", "decoded_bytes"] {
            assert_eq!(one[field], tensor[field], "{name}: {field}");
        }
        let chunks = one["chunks"].as_array().unwrap();
        let total = |field: &str| chunks.iter().map(|chunk| chunk[field].as_u64().unwrap()).sum::<u64>();
        if !chunks.is_empty() {
            assert_eq!(total("decoded_bytes"), one["decoded_bytes"].as_u64().unwrap(), "{name}");
            assert!(total("stored_bytes") <= one["payload_bytes"].as_u64().unwrap(), "{name}");
            assert!(one["bits_per_weight"].as_f64().unwrap() > 0.0);
        }
        let shown = succeed(args!["inspect", &archive, "--tensor", name]);
        assert!(shown.starts_with(name) && shown.contains(one["crc32_decoded"].as_str().unwrap()));
    }
}

#[test]
fn bench_measures_files_and_archives() {
    let report = json(args!["bench", fixture(SMALL), "--runs", "1", "--threads", "1", "--level", "fast", "--json"]);
    assert_eq!(report["bytes"], fs::metadata(fixture(SMALL)).unwrap().len());
    assert!(report["compressed_bytes"].as_u64().unwrap() < report["bytes"].as_u64().unwrap());
    assert_eq!((&report["threads"], &report["level"]), (&1.into(), &"fast".into()));
    let times = ["decode_seconds", "decode_seconds_min", "end_to_end_seconds", "memcpy_seconds"];
    for field in times.iter().chain(&["encode_seconds"]) {
        assert!(report[field].as_f64().unwrap() > 0.0, "{field}");
    }

    let (folder, archive) = folder_with_archive();
    let report = json(args!["bench", &archive, "--runs", "2", "--json"]);
    assert_eq!(report["compressed_bytes"], fs::metadata(&archive).unwrap().len());
    assert_eq!((&report["encode_seconds"], &report["level"]), (&Value::Null, &Value::Null));
    for field in times {
        assert!(report[field].as_f64().unwrap() > 0.0, "{field}");
    }
    assert!(succeed(args!["bench", folder.path(), "--runs", "1", "--level", "fast"]).contains("memcpy"));
}

#[test]
fn synth_makes_what_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for dtype in ["bf16", "f16", "f32", "f64", "fp8-e4m3", "i8", "u8"] {
        for distribution in ["gaussian", "student", "laplace", "uniform", "constant", "ramp", "column-scaled"] {
            let (input, archive, back) = (at("m.safetensors"), at("m.wcodec"), at("b.safetensors"));
            let shapes = args!["--shape", "96x130", "--shape", "7", "--tensors", "5"];
            let what = args!["synth", &input, "--dtype", dtype, "--distribution", distribution, "--json", "--force"];
            let report = json(what.iter().chain(&shapes));
            assert_eq!(report["tensors"], 5);
            assert_eq!(report["bytes"], fs::metadata(&input).unwrap().len());
            let compressed = json(args!["compress", &input, "-o", &archive, "--force", "--level", "fast", "--json"]);
            assert_eq!(compressed["tensors"], 5);
            succeed(args!["decompress", &archive, "-o", &back, "--force"]);
            assert!(fs::read(&input).unwrap() == fs::read(&back).unwrap(), "{dtype} {distribution}");
        }
    }
}

#[test]
fn synth_depends_on_the_seed_alone() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, options: &[&str]| {
        let path = folder.path().join(name);
        let what = args!["synth", &path, "--shape", "700x300", "--bytes", "1MB", "--distribution", "column-scaled"];
        succeed(what.into_iter().chain(options.iter().map(|&o| o.into())));
        fs::read(path).unwrap()
    };
    let first = make("1", &["--seed", "5", "--threads", "1"]);
    assert!(first.len() >= 1_000_000 && first.len() < 1_500_000);
    assert!(make("2", &["--seed", "5", "--threads", "4"]) == first);
    assert!(make("3", &["--seed", "6"]) != first);
}

#[test]
fn devices_are_listed_and_chosen() {
    let (folder, archive) = folder_with_archive();
    assert!(succeed(args!["devices"]).contains("cpu"));
    let listed = json(args!["devices", "--json"]);
    let count = listed["cuda"].as_array().unwrap().len();
    assert!(listed["cpu_threads"].as_u64().unwrap() > 0);
    assert_eq!(listed["reason"].is_string(), count == 0);
    let verified = json(args!["verify", &archive, "--device", "auto", "--json"]);
    assert_eq!(verified["device"] == "cpu", count == 0, "{verified}");
    assert_eq!(json(args!["verify", &archive, "--json"])["device"], "cpu");
    let target = folder.path().join("x");
    let text = fail(args!["decompress", &archive, "-o", &target, "--device", "cuda:4000000"]);
    assert!(text.contains("cuda:4000000") && !target.exists(), "{text}");
}
