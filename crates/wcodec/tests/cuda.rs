//! The GPU against the CPU: equal bytes from equal archives, and errors where the CPU has them. Skipped, with the reason printed,
//! where there is no device.

mod common;

use std::fs;

use common::{Raw, archive_of, directory, fixtures, mend, safetensors, sampler, settings, weights, with_directory};
use wcodec::cuda::{CudaDevice, CudaError, DecodedBy, DeviceBuffer, DeviceTensor, Stream};
use wcodec::{Archive, Backend, EncodeOptions, Error, Mode};

/// The first device and a stream on it, or the reason printed.
fn device() -> Option<(CudaDevice, Stream)> {
    match CudaDevice::open(0) {
        Ok(device) => {
            let stream = Stream::new(device.context()).expect("a stream");
            Some((device, stream))
        }
        Err(Error::Cuda(reason @ (CudaError::Driver(_) | CudaError::NoSuchDevice { .. }))) => {
            println!("skipped: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Memory full of a pattern that no kernel writes by chance, `before` bytes and some behind those wanted.
struct Guarded {
    buffer: DeviceBuffer,
    before: usize,
    bytes: usize,
}

const PATTERN: u8 = 0xa5;
const BEHIND: usize = 96;

impl Guarded {
    fn new(stream: &Stream, before: usize, bytes: usize) -> Self {
        let pattern = vec![PATTERN; before + bytes + BEHIND];
        Self { buffer: DeviceBuffer::from_host(stream, &pattern).expect("memory"), before, bytes }
    }

    /// The bytes, after a look at what lies around them.
    fn read(&self, stream: &Stream) -> Vec<u8> {
        let mut all = vec![0; self.before + self.bytes + BEHIND];
        self.buffer.copy_to_host(stream, 0, &mut all).expect("a copy");
        let inside = self.before..self.before + self.bytes;
        assert!(all[..inside.start].iter().chain(&all[inside.end..]).all(|&b| b == PATTERN), "wrote outside");
        all[inside].to_vec()
    }
}

/// Decodes all tensors of an archive on the device, whole and in rows, and compares them with what the CPU decodes.
fn compare(device: &CudaDevice, stream: &Stream, archive: &Archive, what: &str) -> Vec<DeviceTensor> {
    let tensors: Vec<_> = (0..archive.len()).map(|i| archive.tensor_at(i).expect("a tensor")).collect();
    let expected: Vec<Vec<u8>> = tensors.iter().map(|t| t.decode().expect("a whole tensor")).collect();
    let resident = device.upload(&tensors, stream).unwrap_or_else(|e| panic!("{what}: {e}"));
    for before in [0, 2, 16] {
        let mut outputs: Vec<Guarded> =
            expected.iter().map(|bytes| Guarded::new(stream, before, bytes.len())).collect();
        let items = resident
            .iter()
            .zip(&mut outputs)
            .map(|(t, out)| (t, out.buffer.sub_slice_mut(before, out.bytes).expect("the inside")));
        device.decode(items, stream).expect("a batch");
        device.check(&resident, stream).unwrap_or_else(|e| panic!("{what}: {e}"));
        for ((tensor, output), expected) in resident.iter().zip(&outputs).zip(&expected) {
            assert!(output.read(stream) == *expected, "{what}: {} by {:?}", tensor.name(), tensor.decoded_by());
        }
        let items = resident.iter().zip(&outputs);
        let items = items.map(|(t, out)| (t, out.buffer.sub_slice(before, out.bytes).expect("the inside")));
        device.verify(items, stream).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    for ((tensor, cpu), expected) in resident.iter().zip(&tensors).zip(&expected) {
        let Some(row_bytes) = tensor.row_bytes().filter(|&bytes| bytes > 0) else { continue };
        let rows = tensor.row_count();
        let ranges =
            [0..1, rows / 3..rows.min(rows / 3 + 2), rows - 1..rows, rows / 2..rows, 0..rows, rows / 2..rows / 2];
        let mut outputs: Vec<Guarded> =
            ranges.iter().map(|r| Guarded::new(stream, 16, ((r.end - r.start) * row_bytes) as usize)).collect();
        let items = ranges
            .iter()
            .zip(&mut outputs)
            .map(|(r, out)| (tensor, r.clone(), out.buffer.sub_slice_mut(16, out.bytes).expect("the inside")));
        let queued = device.decode_rows(items, stream);
        queued.unwrap_or_else(|e| panic!("{what}: rows of {}: {e}", tensor.name()));
        device.check([tensor], stream).expect("no damage");
        for (range, output) in ranges.iter().zip(&outputs) {
            let bytes = (range.start * row_bytes) as usize..(range.end * row_bytes) as usize;
            assert!(output.read(stream) == expected[bytes], "{what}: rows {range:?} of {}", cpu.name());
        }
    }
    resident
}

#[test]
fn every_mode_and_level_decodes_to_the_same_bytes() {
    let Some((device, stream)) = device() else { return };
    let file = safetensors(&sampler());
    for options in settings() {
        let archive = Archive::from_bytes(archive_of(&file, &options)).expect("an archive");
        let what = format!("{:?} {:?}", options.mode, options.level);
        for tensor in compare(&device, &stream, &archive, &what) {
            let by = tensor.decoded_by();
            match tensor.mode() {
                // No kernel widens heads that were coded without idle bits.
                Mode::Lanes if tensor.name() == "widened" => assert_eq!(by, DecodedBy::Host),
                Mode::Lanes | Mode::Integer | Mode::Plain => assert_eq!(by, DecodedBy::Kernel),
                Mode::Store => assert_eq!(by, DecodedBy::Copy),
                _ => {}
            }
        }
    }
}

#[test]
fn fixtures_decode_to_the_same_bytes() {
    let Some((device, stream)) = device() else { return };
    for path in fixtures() {
        let file = fs::read(&path).expect("a fixture");
        for level in [wcodec::Level::Fast, wcodec::Level::Default, wcodec::Level::Max] {
            let options = EncodeOptions { level, ..EncodeOptions::default() };
            let archive = Archive::from_bytes(archive_of(&file, &options)).expect("an archive");
            compare(&device, &stream, &archive, &format!("{} {level:?}", path.display()));
        }
    }
}

#[test]
fn every_dtype_and_odd_shapes_decode_to_the_same_bytes() {
    let Some((device, stream)) = device() else { return };
    let sizes = [
        ("BF16", 2),
        ("F16", 2),
        ("F32", 4),
        ("F64", 8),
        ("F8_E4M3", 1),
        ("F8_E5M2", 1),
        ("I8", 1),
        ("U8", 1),
        ("BOOL", 1),
        ("I16", 2),
        ("U16", 2),
        ("I32", 4),
        ("U32", 4),
        ("I64", 8),
        ("U64", 8),
    ];
    let shapes: [&[usize]; 12] = [
        &[1, 1],
        &[3, 5],
        &[64, 64],
        &[65, 64],
        &[64, 65],
        &[17, 1000],
        &[1000, 17],
        &[130, 48],
        &[4000],
        &[2, 3, 5, 7, 11],
        &[1, 7000],
        &[513, 129],
    ];
    for (dtype, bytes) in sizes {
        let tensors: Vec<Raw> = shapes
            .iter()
            .enumerate()
            .map(|(i, shape)| {
                let len = shape.iter().product::<usize>() * bytes;
                // Bits of BF16 weights at the top of every element, so that wide floats have a head worth coding.
                let noise = weights(len.div_ceil(128), 64, i as u64);
                let data = (0..len)
                    .map(|at| match (bytes, at % bytes) {
                        (1, _) => (i32::from(noise[at] as i8) / 5) as u8,
                        (_, byte) if byte + 2 >= bytes => noise[at / bytes * 2 + byte + 2 - bytes],
                        (_, byte) => {
                            if at / bytes / 40 % 3 == 0 {
                                0
                            } else {
                                noise[at] ^ byte as u8
                            }
                        }
                    })
                    .collect();
                Raw::new(&format!("t{i}"), dtype, shape, data)
            })
            .collect();
        let file = safetensors(&tensors);
        for options in settings().into_iter().step_by(2) {
            let archive = Archive::from_bytes(archive_of(&file, &options)).expect("an archive");
            compare(&device, &stream, &archive, &format!("{dtype} {:?} {:?}", options.mode, options.level));
        }
    }
}

#[test]
fn files_come_back_and_verify_on_the_device() {
    let Some((device, _)) = device() else { return };
    let device = wcodec::Device::Cuda(device);
    let folder = tempfile::tempdir().expect("a folder");
    let mut files = fixtures().iter().map(|path| fs::read(path).expect("a fixture")).collect::<Vec<_>>();
    // Larger than what goes to the host at a time.
    files.push(safetensors(&[Raw::new("w", "BF16", &[9000, 2048], weights(9000, 2048, 4))]));
    for (number, file) in files.iter().enumerate() {
        let archive = Archive::from_bytes(archive_of(file, &EncodeOptions::default())).expect("an archive");
        let output = folder.path().join(format!("{number}"));
        let report = wcodec::decompress_on(&device, &archive, &output, false, &()).expect("a file");
        assert!(fs::read(&output).expect("the file") == *file);
        let used = report.device.expect("a device");
        assert_eq!(used.by_kernel + used.by_nvcomp + used.by_copy + used.by_host, archive.len());
        assert_eq!(wcodec::verify_on(&device, &archive, &()).expect("no damage").device, Some(used));
    }
}

#[test]
fn loading_gives_the_same_bytes_from_every_kind_of_host_memory() {
    let Some((device, stream)) = device() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let mut tensors = sampler();
    // More than the slots hold, in tensors of one group and in groups of their own.
    tensors.extend(
        (0..40).map(|i| Raw::new(&format!("small{i}"), "BF16", &[64 + i, 200], weights(64 + i, 200, i as u64))),
    );
    tensors
        .extend((0..4).map(|i| Raw::new(&format!("large{i}"), "BF16", &[9000 + i, 2048], weights(9000 + i, 2048, 9))));
    let path = folder.path().join("m.wcodec");
    fs::write(&path, archive_of(&safetensors(&tensors), &EncodeOptions::default())).expect("an archive");
    for archive in [
        device.read_pinned(&path).expect("locked memory"),
        Archive::open(&path).expect("a map"),
        Archive::read(&path).expect("memory"),
    ] {
        let prepared: Vec<_> = (0..archive.len()).map(|i| archive.tensor_at(i).expect("a tensor")).collect();
        // Opened before, and while they are loaded.
        for opened in [true, false] {
            let mut outputs: Vec<Guarded> =
                prepared.iter().map(|t| Guarded::new(&stream, 16, t.byte_len() as usize)).collect();
            let outs =
                outputs.iter_mut().map(|out| out.buffer.sub_slice_mut(16, out.bytes).expect("the inside")).collect();
            let report = match opened {
                true => device.load(&prepared, outs, &stream),
                false => device.load_from(&archive, &(0..archive.len()).collect::<Vec<_>>(), outs, &stream),
            };
            let report = report.expect("no damage");
            assert_eq!(report.by_kernel + report.by_copy + report.by_host, archive.len());
            for (tensor, output) in prepared.iter().zip(&outputs) {
                assert!(output.read(&stream) == tensor.decode().expect("a tensor"), "{}", tensor.name());
            }
        }
    }
    assert!(device.load(&[], Vec::new(), &stream).is_ok());
}

/// What the CPU and the device make of the same bytes: equal tensors, or errors of one kind that name the same place.
fn same_fate(device: &CudaDevice, stream: &Stream, archive: &[u8], number: usize, what: &str) -> bool {
    let on_cpu = Archive::from_bytes(archive.to_vec()).and_then(|a| a.tensor_at(number)?.decode());
    let on_device = || {
        let archive = Archive::from_bytes(archive.to_vec())?;
        let tensor = archive.tensor_at(number)?;
        let resident = device.upload(&[tensor], stream)?;
        let mut output = Guarded::new(stream, 16, resident[0].byte_len() as usize);
        device.decode([(&resident[0], output.buffer.sub_slice_mut(16, output.bytes)?)], stream)?;
        let checked = device.verify([(&resident[0], output.buffer.sub_slice(16, output.bytes)?)], stream);
        let bytes = output.read(stream);
        checked.map(|()| bytes)
    };
    match (on_cpu, on_device()) {
        (Ok(expected), Ok(found)) => assert!(expected == found, "{what}: other bytes"),
        (Err(Error::Rans { tensor, offset, .. }), Err(Error::Rans { tensor: t, offset: o, .. })) => {
            assert_eq!((tensor, offset), (t, o), "{what}");
            return true;
        }
        (Err(Error::Checksum { what: w, found, .. }), Err(Error::Checksum { what: v, found: f, .. })) => {
            assert_eq!((w, found), (v, f), "{what}: damage decodes to other bytes");
            return true;
        }
        (Err(expected), Err(found)) => {
            assert_eq!(
                std::mem::discriminant(&expected),
                std::mem::discriminant(&found),
                "{what}: {expected}; {found}"
            );
            return true;
        }
        (expected, found) => panic!("{what}: {:?}, {:?}", expected.map(|b| b.len()), found.map(|b| b.len())),
    }
    false
}

#[test]
fn damage_has_the_same_fate_as_on_the_cpu() {
    let Some((device, stream)) = device() else { return };
    let file = safetensors(&sampler());
    let (mut seen, mut cases, mut errors) = (0usize, 0, 0);
    // Under compute-sanitizer every case takes seconds: only each so many of them.
    let stride = std::env::var("WCODEC_DAMAGE_STRIDE").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for options in settings().into_iter().filter(|o| o.level != wcodec::Level::Fast) {
        let bytes = archive_of(&file, &options);
        let whole = directory(&bytes);
        for (number, tensor) in whole.tensors.iter().enumerate() {
            let mut meet = |damaged: Option<Vec<u8>>, what: String| {
                seen += 1;
                if let Some(damaged) = damaged
                    && seen % stride == 0
                {
                    cases += 1;
                    errors += usize::from(same_fate(&device, &stream, &damaged, number, &what));
                }
            };
            // Stored bytes and index, with checksums of stored bytes that hold.
            for extent in [tensor.payload, tensor.index] {
                let step = (extent.len / 40).max(1) as usize;
                for at in (extent.offset..extent.offset + extent.len).step_by(step) {
                    let value = [0x01, 0x80, 0xff][at as usize / step % 3];
                    let (mut damaged, mut directory) = (bytes.clone(), whole.clone());
                    damaged[at as usize] ^= value;
                    mend(&mut damaged, &mut directory);
                    meet(
                        with_directory(&damaged, &directory),
                        format!("{:?} tensor {number}, byte {at}", options.mode),
                    );
                }
            }
            // Parameters.
            for at in 0..tensor.params.len().min(24) {
                let mut directory = whole.clone();
                directory.tensors[number].params[at] ^= [0x01, 0x40, 0xff][at % 3];
                meet(with_directory(&bytes, &directory), format!("{:?} tensor {number}, parameter {at}", options.mode));
                let mut directory = whole.clone();
                directory.tensors[number].params.truncate(at);
                meet(with_directory(&bytes, &directory), format!("{:?} tensor {number}, cut at {at}", options.mode));
            }
            // Tables.
            for blob in 0..whole.pool.len() {
                for at in (0..whole.pool[blob].len()).step_by(29) {
                    let mut directory = whole.clone();
                    directory.pool[blob][at] ^= 0x10;
                    meet(
                        with_directory(&bytes, &directory),
                        format!("{:?} tensor {number}, blob {blob} byte {at}", options.mode),
                    );
                }
            }
        }
    }
    println!("{cases} damaged tensors, {errors} errors, the same on both");
    assert!(cases * stride > 1000 && errors > cases / 2);
}

#[test]
fn wrong_arguments_name_the_tensor() {
    let Some((device, stream)) = device() else { return };
    let archive =
        Archive::from_bytes(archive_of(&safetensors(&sampler()), &EncodeOptions::default())).expect("an archive");
    let resident = device.upload(&[archive.tensor("lanes").expect("a tensor")], &stream).expect("a tensor");
    let mut short = DeviceBuffer::zeroed(&stream, 100).expect("memory");
    let refused = device.decode([(&resident[0], short.as_slice_mut())], &stream);
    assert!(matches!(refused, Err(Error::BadArgument(text)) if text.contains("`lanes`")));
    let refused = device.decode_rows([(&resident[0], 150..161, short.as_slice_mut())], &stream);
    assert!(matches!(refused, Err(Error::BadArgument(text)) if text.contains("`lanes`")));
}

#[test]
fn auto_is_whatever_there_is() {
    let opened = Backend::Auto.open().expect("the CPU at least").backend();
    match Backend::Cuda(0).open() {
        Ok(device) => assert_eq!(opened, device.backend()),
        Err(_) => assert_eq!(opened, Backend::Cpu),
    }
    assert!(matches!(Backend::Cuda(4_000_000).open(), Err(Error::Cuda(_))));
}
