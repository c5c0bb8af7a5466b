//! What goes in comes out, whatever the options.

mod common;

use std::fs;
use std::path::Path;

use common::*;

/// Compresses, verifies and restores `input`; the bytes must be the same.
#[track_caller]
fn round_trip(input: &Path, options: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let (archive, back) = (folder.path().join("m.wcodec"), folder.path().join("m.safetensors"));
    let mut compress = args!["compress", input, "-o", &archive].to_vec();
    compress.extend(options.iter().map(|&o| o.into()));
    succeed(compress);
    succeed(args!["verify", &archive]);
    succeed(args!["decompress", &archive, "-o", &back]);
    assert!(fs::read(input).unwrap() == fs::read(&back).unwrap(), "{input:?} {options:?}");
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    // Nothing makes a file larger than itself and a directory.
    assert!(size(&archive) < size(input) + 16_384, "{input:?} {options:?}");
}

#[test]
fn every_mode_of_every_fixture() {
    for name in FIXTURES {
        for mode in ["auto", "float", "int", "zstd", "store"] {
            round_trip(&fixture(name), &["--mode", mode, "--level", "fast"]);
        }
    }
}

#[test]
fn every_level_of_every_fixture() {
    for name in FIXTURES {
        for level in ["default", "max"] {
            round_trip(&fixture(name), &["--level", level]);
        }
    }
}

#[test]
fn every_mode_and_level() {
    for mode in ["float", "int", "zstd", "store"] {
        for level in ["default", "max"] {
            round_trip(&fixture(SMALL), &["--mode", mode, "--level", level]);
        }
    }
}

#[test]
fn every_option() {
    for options in [
        &["--superblock-rows", "16"][..],
        &["--superblock-rows", "512", "--level", "fast"],
        &["--mode", "zstd", "--zstd-level", "1", "--zstd-frame", "4KiB"],
        &["--mode", "zstd", "--zstd-level", "22", "--zstd-frame", "1MiB"],
        &["--threads", "3", "--quiet"],
    ] {
        round_trip(&fixture(SMALL), options);
    }
}

#[test]
fn weights_get_smaller() {
    let (_folder, input) = folder_with(FIXTURES[0]);
    let report = json(args!["compress", &input, "--json"]);
    assert!(report["ratio"].as_f64().unwrap() < 0.67, "{report}");
}

#[test]
fn default_names_lie_beside_the_input() {
    let (folder, input) = folder_with(SMALL);
    let original = fs::read(&input).unwrap();
    succeed(args!["compress", &input]);
    let archive = input.with_extension("wcodec");
    assert_eq!(tree(folder.path()).len(), 2);
    fs::remove_file(&input).unwrap();
    // The original name is in the archive, whatever the archive is called.
    let renamed = folder.path().join("other.wcodec");
    fs::rename(archive, &renamed).unwrap();
    succeed(args!["decompress", &renamed]);
    assert!(fs::read(&input).unwrap() == original);
}

#[test]
fn threads_do_not_change_the_archive() {
    for name in FIXTURES {
        let folder = tempfile::tempdir().unwrap();
        let archives = ["1", "2", "4"].map(|threads| {
            let path = folder.path().join(threads);
            succeed(args!["compress", fixture(name), "-o", &path, "--threads", threads, "--level", "fast"]);
            fs::read(path).unwrap()
        });
        assert!(archives[0] == archives[1] && archives[0] == archives[2], "{name}");
    }
}

#[test]
fn input_is_left_alone() {
    let (_folder, input) = folder_with(SMALL);
    let state = |path: &Path| (fs::read(path).unwrap(), fs::metadata(path).unwrap().modified().unwrap());
    let before = state(&input);
    succeed(args!["compress", &input]);
    assert!(state(&input) == before);
    let archive = input.with_extension("wcodec");
    let before = state(&archive);
    for command in ["inspect", "verify", "bench"] {
        succeed(args![command, &archive]);
    }
    succeed(args!["decompress", &archive, "--force"]);
    assert!(state(&archive) == before);
}

#[test]
fn a_folder_comes_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("llm-1.0");
    fs::create_dir_all(model.join("tokenizer/deep")).unwrap();
    fs::copy(fixture(FIXTURES[0]), model.join("model-00001-of-00002.safetensors")).unwrap();
    fs::copy(fixture(FIXTURES[2]), model.join("model-00002-of-00002.safetensors")).unwrap();
    let index = r#"{"metadata":{},"weight_map":{
        "a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#;
    fs::write(model.join("model.safetensors.index.json"), index).unwrap();
    fs::write(model.join("config.json"), "{\n  \"hidden_size\": 384\n}\n").unwrap();
    fs::write(model.join("tokenizer/deep/vocab.txt"), "a\nb\n".repeat(1000)).unwrap();
    fs::write(model.join("empty"), "").unwrap();
    let before = tree(&model);

    let report = json(args!["compress", &model, "--json"]);
    assert_eq!(report["files"], 6);
    let archive = folder.path().join("llm-1.0.wcodec");
    succeed(args!["verify", &archive]);

    // A folder is never replaced, not even with --force.
    let said = fail(args!["decompress", &archive, "--force"]);
    assert!(said.contains("already exists"), "{said}");
    assert!(tree(&model) == before);

    fs::rename(&model, folder.path().join("original")).unwrap();
    succeed(args!["decompress", &archive]);
    assert!(tree(&model) == before);
    let other = folder.path().join("other");
    succeed(args!["decompress", &archive, "-o", &other]);
    assert!(tree(&other) == before);
}

#[test]
fn force_replaces_a_file() {
    let (_folder, input) = folder_with(SMALL);
    let archive = input.with_extension("wcodec");
    fs::write(&archive, "old").unwrap();
    succeed(args!["compress", &input, "--force"]);
    fs::write(&input, "old").unwrap();
    succeed(args!["decompress", &archive, "--force"]);
    assert!(fs::read(&input).unwrap() == fs::read(fixture(SMALL)).unwrap());
}
