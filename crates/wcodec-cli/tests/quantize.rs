//! `wcodec quantize`.

mod common;

use common::{FIXTURES, fail, fixture, folder_with_archive, json, succeed};

#[test]
fn a_model_is_quantised_and_its_loss_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (input, output) = (fixture(FIXTURES[0]), folder.path().join("q.safetensors"));
    let told = json(args!["quantize", &input, "-o", &output, "--scales", "group:64", "--skip", "query", "--json"]);
    assert_eq!(told["lossy"], true);
    let tensors = told["tensors"].as_array().expect("a list");
    let of = |part: &str| tensors.iter().find(|t| t["name"].as_str().is_some_and(|n| n.contains(part))).expect("it");
    assert!(of("query.weight")["error"].is_null());
    let error = &of("intermediate.dense.weight")["error"];
    assert!(error["cosine"].as_f64().is_some_and(|c| c > 0.999 && c < 1.0));
    assert!(error["max"].as_f64().is_some_and(|max| max > error["rms"].as_f64().unwrap_or(1e9)));
    // What comes out is a file that compresses and comes back.
    let archive = folder.path().join("q.wcodec");
    succeed(args!["compress", &output, "-o", &archive, "--quiet"]);
    succeed(args!["verify", &archive, "--quiet"]);

    let said = fail(args!["quantize", &input, "-o", &output]);
    assert!(said.contains("exists"), "{said}");
    let table =
        succeed(args!["quantize", &input, "-o", &output, "--force", "--to", "fp8-e4m3", "--scales", "tensor", "-q"]);
    assert!(table.is_empty());
}

#[test]
fn what_is_no_model_is_refused() {
    let (folder, archive) = folder_with_archive();
    let output = folder.path().join("q.safetensors");
    fail(args!["quantize", &archive, "-o", &output]);
    fail(args!["quantize", folder.path(), "-o", &output]);
    assert!(!output.exists());
}
