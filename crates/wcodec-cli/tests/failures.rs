//! Whatever goes wrong: exit code 1, a reason on stderr, and nothing half-written.

mod common;

use std::fs;
use std::path::Path;

use common::*;

/// Compressing `input` must fail, say `reason`, and leave the folder as it was.
#[track_caller]
fn refuses(folder: &Path, input: &Path, reason: &str) {
    let before = tree(folder);
    let said = fail(args!["compress", input, "-o", folder.join("out.wcodec")]);
    assert!(said.contains(reason), "{said}");
    assert!(tree(folder) == before, "something was left behind");
}

#[test]
fn inputs_that_are_no_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let entry = |name: &str, start: usize, end: usize| {
        format!(r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{start},{end}]}}"#, end - start)
    };
    let overlap = format!("{{{},{}}}", entry("a", 0, 6), entry("b", 4, 8));
    let short = format!("{{{}}}", entry("a", 0, 100));
    for (name, bytes) in [
        ("noise", (0..=255u8).cycle().take(5000).collect::<Vec<u8>>()),
        ("empty", Vec::new()),
        ("huge-header", u64::MAX.to_le_bytes().to_vec()),
        ("no-json", safetensors("not json", b"")),
        ("overlap", safetensors(&overlap, &[1; 8])),
        ("short-data", safetensors(&short, &[1; 8])),
    ] {
        let path = at(&format!("{name}.safetensors"));
        fs::write(&path, bytes).unwrap();
        refuses(folder.path(), &path, &format!("{name}.safetensors"));
    }
    refuses(folder.path(), &at("missing.safetensors"), "No such file");
    fs::write(at("model.bin"), b"pickle").unwrap();
    refuses(folder.path(), &at("model.bin"), "not a .safetensors file");
}

#[test]
fn a_missing_shard() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    fs::copy(fixture(SMALL), model.join("model-00001-of-00002.safetensors")).unwrap();
    let index = r#"{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#;
    fs::write(model.join("model.safetensors.index.json"), index).unwrap();
    refuses(folder.path(), &model, "model-00002-of-00002.safetensors");
}

#[test]
fn an_empty_folder() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    refuses(folder.path(), &model, "no files");
}

#[test]
fn truncated_archives() {
    let (folder, archive) = folder_with_archive();
    let whole = fs::read(&archive).unwrap();
    let cut = folder.path().join("cut.wcodec");
    for len in [0, 1, 8, 63, 64, whole.len() / 3, whole.len() / 2, whole.len() - 40, whole.len() - 1] {
        fs::write(&cut, &whole[..len]).unwrap();
        let before = tree(folder.path());
        let out = folder.path().join("out.safetensors");
        for command in [&args!["inspect", &cut][..], &args!["verify", &cut], &args!["decompress", &cut, "-o", &out]] {
            fail(command);
        }
        assert!(tree(folder.path()) == before, "{len}");
    }
}

#[test]
fn flipped_bits() {
    let (folder, archive) = folder_with_archive();
    let whole = fs::read(&archive).unwrap();
    let original = fs::read(fixture(SMALL)).unwrap();
    let (bad, out) = (folder.path().join("bad.wcodec"), folder.path().join("out.safetensors"));
    // Header, trailer, and places all over payload and directory.
    let spread = (0..40).map(|i| i * whole.len() / 40 + i);
    let places = [0, 8, 12].into_iter().chain(spread).chain((1..=40).step_by(7).map(|i| whole.len() - i));
    let mut found = 0;
    for (number, place) in places.enumerate() {
        let mut damaged = whole.clone();
        damaged[place] ^= 1 << (number % 8);
        fs::write(&bad, damaged).unwrap();
        let before = tree(folder.path());
        if wcodec(args!["verify", &bad]).status.success() {
            // A byte that means nothing, between tensors: then nothing may differ.
            succeed(args!["decompress", &bad, "-o", &out]);
            assert!(fs::read(&out).unwrap() == original, "byte {place}");
            fs::remove_file(&out).unwrap();
        } else {
            found += 1;
            fail(args!["verify", &bad]);
            if !wcodec(args!["decompress", &bad, "-o", &out]).status.success() {
                assert!(tree(folder.path()) == before, "byte {place}: something was left behind");
            } else {
                // Only bytes that no decoder reads, such as padding inside a payload.
                assert!(fs::read(&out).unwrap() == original, "byte {place}");
                fs::remove_file(&out).unwrap();
            }
        }
    }
    assert!(found > 40, "{found}");
}

#[test]
fn not_an_archive() {
    let input = fixture(SMALL);
    for command in ["inspect", "verify", "decompress"] {
        let said = fail(args![command, &input]);
        assert!(said.contains(SMALL), "{said}");
    }
    let (_folder, archive) = folder_with_archive();
    let said = fail(args!["inspect", &archive, "--tensor", "nonsense"]);
    assert!(said.contains("nonsense"), "{said}");
}

#[test]
fn existing_targets_are_kept() {
    let (folder, input) = folder_with(SMALL);
    let archive = folder.path().join("m.wcodec");
    fs::write(&archive, "old").unwrap();
    let before = tree(folder.path());
    assert!(fail(args!["compress", &input, "-o", &archive]).contains("already exists"));
    assert!(fail(args!["synth", &input]).contains("already exists"));
    assert!(tree(folder.path()) == before);

    succeed(args!["compress", &input, "-o", &archive, "--force"]);
    let before = tree(folder.path());
    assert!(fail(args!["decompress", &archive, "-o", &input]).contains("already exists"));
    assert!(tree(folder.path()) == before);
}

#[test]
fn output_over_the_input() {
    let (folder, input) = folder_with(SMALL);
    succeed(args!["compress", &input]);
    let archive = input.with_extension("wcodec");
    let before = tree(folder.path());
    assert!(fail(args!["compress", &input, "-o", &input, "--force"]).contains("the same"));
    assert!(fail(args!["decompress", &archive, "-o", &archive, "--force"]).contains("the same"));
    assert!(tree(folder.path()) == before);
}

#[test]
fn targets_that_cannot_be_written() {
    let (folder, input) = folder_with(SMALL);
    let archive = input.with_extension("wcodec");
    succeed(args!["compress", &input]);
    let sub = folder.path().join("sub");
    fs::create_dir(&sub).unwrap();
    let before = tree(folder.path());
    // No such folder; a file in place of a folder; a folder in place of a file.
    for target in [folder.path().join("none/out"), input.join("out"), sub.clone()] {
        fail(args!["compress", &input, "-o", &target, "--force"]);
        fail(args!["decompress", &archive, "-o", &target, "--force"]);
        fail(args!["synth", &target, "--shape", "8x8", "--force"]);
    }
    assert!(tree(folder.path()) == before);

    let mut permissions = fs::metadata(&sub).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&sub, permissions).unwrap();
    if fs::write(sub.join("probe"), "").is_ok() {
        println!("skipped: this user may write to read-only folders");
        return;
    }
    fail(args!["compress", &input, "-o", sub.join("out")]);
    fail(args!["decompress", &archive, "-o", sub.join("out")]);
    assert!(tree(folder.path()) == before);
}

#[test]
fn wrong_command_lines() {
    for arguments in [
        &["compress"][..],
        &["compress", "x", "--level", "ultra"],
        &["compress", "x", "--mode", "mp3"],
        &["compress", "x", "--threads", "0"],
        &["compress", "x", "--superblock-rows", "17"],
        &["compress", "x", "--zstd-level", "23"],
        &["compress", "x", "--zstd-frame", "0"],
        &["bench", "x", "--runs", "0"],
        &["synth", "x", "--shape", "4by4"],
        &["synth", "x", "--tensors", "2", "--bytes", "1MB"],
        &["inspect", "x", "--all", "--tensor", "y"],
        &["explode"],
        &[],
    ] {
        let output = wcodec(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[cfg(unix)]
mod unix {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    /// Runs the command in a shell after `before`.
    fn after(before: &str, arguments: &[std::ffi::OsString]) -> std::process::Output {
        let script = format!("{before} && exec \"$0\" \"$@\"");
        Command::new("sh").args(["-c", &script]).arg(env!("CARGO_BIN_EXE_wcodec")).args(arguments).output().unwrap()
    }

    /// Like a full disk, for any user: files may not grow beyond a limit, and writing further is an error.
    #[test]
    fn files_that_cannot_grow() {
        let (folder, input) = folder_with(FIXTURES[0]);
        let archive = folder.path().join("m.wcodec");
        succeed(args!["compress", &input, "-o", &archive]);
        let out = folder.path().join("out");
        let before = tree(folder.path());
        for arguments in [
            args!["compress", &input, "-o", &out],
            args!["decompress", &archive, "-o", &out],
            args!["synth", &out, "--shape", "1024x1024"],
        ] {
            let output = after("trap '' XFSZ && ulimit -f 128", &arguments);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("File too large"), "{said}");
            assert!(tree(folder.path()) == before, "something was left behind");
        }
    }

    #[test]
    fn full_disk() {
        let (folder, input) = folder_with(FIXTURES[0]);
        let archive = folder.path().join("m.wcodec");
        succeed(args!["compress", &input, "-o", &archive]);
        let disk = folder.path().join("disk");
        fs::create_dir(&disk).unwrap();
        // A mount of a namespace goes with its process, whatever happens to the test.
        let mount = format!("mount -t tmpfs -o size=128k none '{}'", disk.display());
        let run = |script: &str, arguments: &[std::ffi::OsString]| {
            let mut command = Command::new("unshare");
            command.args(["-r", "-m", "sh", "-c", script]).arg(env!("CARGO_BIN_EXE_wcodec")).args(arguments).output()
        };
        match run(&mount, &[]) {
            Ok(output) if output.status.success() => {}
            other => return println!("skipped: no small disk can be mounted here: {other:?}"),
        }
        for arguments in [
            args!["compress", &input, "-o", disk.join("out")],
            args!["decompress", &archive, "-o", disk.join("out")],
            args!["synth", disk.join("out"), "--shape", "1024x1024"],
        ] {
            let script = format!("{mount} && \"$0\" \"$@\"; code=$?; ls -A '{}'; exit $code", disk.display());
            let output = run(&script, &arguments).unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("No space left"), "{said}");
            assert!(output.stdout.is_empty(), "left behind: {}", String::from_utf8_lossy(&output.stdout));
        }
    }

    /// However far it has come, an interrupted command leaves a complete output or none.
    #[test]
    fn interrupts_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out.safetensors");
        let mut child = command()
            .args(args!["synth", &out, "--bytes", "100GB", "--shape", "4096x4096"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The temporary file shows that writing has begun.
        while tree_is_empty(folder.path()) {
            assert!(child.try_wait().unwrap().is_none(), "ended before it began");
            std::thread::yield_now();
        }
        let killed = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
        assert!(killed.success());
        let status = child.wait().unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((status.code(), said.as_str()), (Some(130), "interrupted\n"));
        assert!(tree_is_empty(folder.path()));
    }

    fn tree_is_empty(folder: &Path) -> bool {
        fs::read_dir(folder).unwrap().next().is_none()
    }

    #[test]
    fn interrupted_compression_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("m.safetensors");
        succeed(args!["synth", &input, "--bytes", "32MB", "--shape", "256x1024"]);
        let before = tree(folder.path());
        let out = folder.path().join("out.wcodec");
        let mut child = command()
            .args(args!["compress", &input, "-o", &out, "--threads", "1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while fs::read_dir(folder.path()).unwrap().count() == 1 && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        // It may be done by now.
        let _ = Command::new("sh").args(["-c", &format!("kill -INT {} 2>&-", child.id())]).status().unwrap();
        match child.wait().unwrap().code() {
            Some(130) => assert!(tree(folder.path()) == before, "something was left behind"),
            Some(0) => drop(succeed(args!["verify", &out])),
            other => panic!("{other:?}"),
        }
    }
}
