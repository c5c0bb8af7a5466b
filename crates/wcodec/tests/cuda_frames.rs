//! Zstd mode and dequantisation on a device, against the CPU. Skipped, with the reason printed, where there is no device or no nvCOMP.

use std::path::Path;

use wcodec::cuda::{CudaDevice, DecodedBy, DeviceBuffer, DeviceScheme, Stream};
use wcodec::quant::{DequantizeOptions, FloatType, QuantizeOptions, QuantizedType, ScaleBlock, quantize};
use wcodec::{Archive, Device, EncodeOptions, Error, Mode, ModeChoice};

fn device() -> Option<(CudaDevice, Stream)> {
    let device = match CudaDevice::open(0) {
        Ok(device) => device,
        Err(reason) => {
            println!("skipped: {reason}");
            return None;
        }
    };
    let stream = Stream::new(device.context()).unwrap();
    Some((device, stream))
}

fn with_nvcomp() -> Option<(CudaDevice, Stream)> {
    let (device, stream) = device()?;
    match device.nvcomp() {
        Ok(nvcomp) => println!("nvCOMP {} ({})", nvcomp.version(), nvcomp.path().display()),
        Err(reason) => {
            println!("skipped: {reason}");
            return None;
        }
    }
    Some((device, stream))
}

fn fixture(name: &str) -> std::path::PathBuf {
    // Where the crate is now, or where it was built.
    let here = Path::new("fixtures").join(name);
    if here.exists() { here } else { Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name) }
}

fn back(stream: &Stream, buffer: &DeviceBuffer) -> Vec<u8> {
    let mut out = vec![0; buffer.len()];
    buffer.copy_to_host(stream, 0, &mut out).unwrap();
    out
}

fn zstd(frame: usize) -> EncodeOptions {
    EncodeOptions {
        mode: ModeChoice::Zstd,
        zstd_frame: frame,
        zstd_level: 3,
        overwrite: true,
        ..EncodeOptions::default()
    }
}

#[test]
fn frames_are_decoded_by_nvcomp_and_damage_is_found_before() {
    let Some((device, stream)) = with_nvcomp() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (file, frame) in [
        ("minilm-layer-bf16.safetensors", 64 << 10),
        ("minilm-layer-f32.safetensors", 5000),
        ("minilm-layer-int8.safetensors", 1 << 20),
    ] {
        let path = folder.path().join("a.wcodec");
        wcodec::compress(fixture(file), &path, &zstd(frame), &()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let archive = Archive::from_bytes(bytes.clone()).unwrap();
        let tensors: Vec<_> = (0..archive.len()).map(|i| archive.tensor_at(i).unwrap()).collect();
        let resident = device.upload(&tensors, &stream).unwrap();
        let mut outs: Vec<DeviceBuffer> = resident
            .iter()
            .map(|tensor| DeviceBuffer::new(device.context(), tensor.byte_len() as usize).unwrap())
            .collect();
        device.decode(resident.iter().zip(outs.iter_mut().map(|out| out.as_slice_mut())), &stream).unwrap();
        device.verify(resident.iter().zip(outs.iter().map(|out| out.as_slice())), &stream).unwrap();
        let mut by_nvcomp = 0;
        for ((tensor, on_device), out) in tensors.iter().zip(&resident).zip(&outs) {
            assert_eq!(on_device.decoded_by() == DecodedBy::Nvcomp, tensor.mode() == Mode::Zstd);
            by_nvcomp += usize::from(tensor.mode() == Mode::Zstd);
            assert!(back(&stream, out) == tensor.decode().unwrap());
            if on_device.decoded_by() == DecodedBy::Nvcomp {
                assert!(on_device.device_bytes() < on_device.byte_len() + 4096);
            }
        }
        assert!(by_nvcomp > 0);
        // Every 211th bit of a payload.
        let entry = tensors.iter().find(|tensor| tensor.mode() == Mode::Zstd).unwrap().entry();
        let (name, at) = (entry.name.clone(), entry.payload.offset as usize);
        for bit in (0..8 * entry.payload.len.min(4000) as usize).step_by(211) {
            let mut damaged = bytes.clone();
            damaged[at + bit / 8] ^= 1 << (bit % 8);
            let damaged = Archive::from_bytes(damaged).unwrap();
            let damaged = [damaged.tensor(&name).unwrap()];
            for device in [&device, &device.clone().trusting_frames()] {
                let error = device.upload(&damaged, &stream).unwrap_err();
                assert!(matches!(error, Error::Container(_) | Error::Checksum { .. }), "{error}");
            }
        }
    }
}

#[test]
fn archives_made_on_the_device_are_read_by_the_cpu() {
    let Some((device, _)) = with_nvcomp() else { return };
    let folder = tempfile::tempdir().unwrap();
    let [archive, restored] = ["a.wcodec", "a.safetensors"].map(|name| folder.path().join(name));
    for file in ["minilm-layer-bf16.safetensors", "minilm-layer-int8.safetensors", "silero.safetensors"] {
        let on = Device::Cuda(device.clone());
        let report = wcodec::compress_on(&on, fixture(file), &archive, &zstd(64 << 10), &()).unwrap();
        assert!(report.tensors.iter().any(|tensor| tensor.mode == Mode::Zstd));
        assert!(report.device.is_some_and(|used| used.by_nvcomp > 0));
        let opened = Archive::open(&archive).unwrap();
        wcodec::verify(&opened, &()).unwrap();
        wcodec::decompress_on(&on, &opened, &restored, true, &()).unwrap();
        assert!(std::fs::read(&restored).unwrap() == std::fs::read(fixture(file)).unwrap());
        let auto = EncodeOptions { mode: ModeChoice::Auto, ..zstd(64 << 10) };
        let refused = wcodec::compress_on(&on, fixture(file), &archive, &auto, &());
        assert!(matches!(refused, Err(Error::BadArgument(_))));
    }
}

#[test]
fn quantised_tensors_come_out_as_on_the_cpu() {
    let Some((device, stream)) = device() else { return };
    let folder = tempfile::tempdir().unwrap();
    let [codes, archive] = ["q.safetensors", "q.wcodec"].map(|name| folder.path().join(name));
    for (to, scales) in [
        (QuantizedType::I8, ScaleBlock::Row),
        (QuantizedType::I8, ScaleBlock::Group(48)),
        (QuantizedType::F8E4M3, ScaleBlock::Tensor),
    ] {
        let options = QuantizeOptions { to, scales, overwrite: true, ..QuantizeOptions::default() };
        let told = quantize(fixture("minilm-layer-bf16.safetensors"), &codes, &options, &()).unwrap();
        for mode in [ModeChoice::Auto, ModeChoice::Zstd, ModeChoice::Store] {
            let encode = EncodeOptions { mode, ..zstd(64 << 10) };
            wcodec::compress(&codes, &archive, &encode, &()).unwrap();
            let archive = Archive::open(&archive).unwrap();
            let names: Vec<_> = told.iter().filter(|t| t.loss.is_some()).map(|t| t.name.as_str()).collect();
            let tensors: Vec<_> = names.iter().map(|name| archive.tensor(name).unwrap()).collect();
            let resident = device.upload(&tensors, &stream).unwrap();
            for float in [FloatType::BF16, FloatType::F16, FloatType::F32] {
                let options = DequantizeOptions { float: Some(float), ..DequantizeOptions::default() };
                let schemes: Vec<DeviceScheme> = names
                    .iter()
                    .map(|name| DeviceScheme::upload(&stream, &archive.scheme(name, &options).unwrap()).unwrap())
                    .collect();
                let mut outs: Vec<DeviceBuffer> = schemes
                    .iter()
                    .map(|scheme| DeviceBuffer::new(device.context(), scheme.out_bytes(float)).unwrap())
                    .collect();
                let items = resident.iter().zip(&schemes).zip(&mut outs);
                let items = items.map(|((tensor, scheme), out)| (tensor, scheme, float, out.as_slice_mut()));
                device.dequantize(items, &stream).unwrap();
                device.check(&resident, &stream).unwrap();
                for (name, out) in names.iter().zip(&outs) {
                    assert!(
                        back(&stream, out) == archive.dequantize(name, &options).unwrap(),
                        "{name} {mode:?} {float:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn without_nvcomp_the_cpu_decodes_or_an_error_says_what_to_install() {
    let Some((device, stream)) = device() else { return };
    if device.nvcomp().is_ok() {
        return println!("skipped: nvCOMP is there");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.wcodec");
    wcodec::compress(fixture("minilm-layer-int8.safetensors"), &path, &zstd(64 << 10), &()).unwrap();
    let archive = Archive::open(&path).unwrap();
    let tensors: Vec<_> = (0..archive.len()).map(|i| archive.tensor_at(i).unwrap()).collect();
    let zstd_mode = tensors.iter().position(|tensor| tensor.mode() == Mode::Zstd).unwrap();
    let resident = device.upload(&tensors, &stream).unwrap();
    assert_eq!(resident[zstd_mode].decoded_by(), DecodedBy::Host);
    let error = device.requiring_nvcomp().upload(&tensors, &stream).unwrap_err();
    assert!(matches!(error, Error::Cuda(_)) && error.to_string().contains("nvidia-libnvcomp-cu13"), "{error}");
}
