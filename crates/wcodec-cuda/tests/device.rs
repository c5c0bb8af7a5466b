//! What the crate does on a real device. Each test says why it does nothing where there is none.

#![expect(unsafe_code, reason = "tests of functions whose contract the caller keeps")]

use proptest::prelude::*;
use wcodec_cuda::{
    CudaContext, CudaError, DeviceBuffer, DeviceSlice, DriverError, Event, PinnedBuffer, Stream, copy_floor,
    crc32_device, devices,
};

/// A stream on the first device, or the reason printed.
fn stream() -> Option<Stream> {
    match CudaContext::new(0).and_then(|context| Stream::new(&context)) {
        Ok(stream) => Some(stream),
        Err(reason @ (CudaError::Driver(_) | CudaError::NoSuchDevice { .. })) => {
            println!("skipped: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Bytes without a pattern that a wrong offset could hit by accident.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    });
    words.flat_map(u32::to_le_bytes).take(bytes).collect()
}

#[test]
fn without_a_driver_every_entry_point_says_so() {
    if wcodec_driver::available().is_ok() {
        return println!("skipped: there is a driver");
    }
    let missing = |error: CudaError| matches!(error, CudaError::Driver(DriverError::Missing { .. }));
    assert!(missing(devices().expect_err("no driver")));
    assert!(missing(CudaContext::new(0).expect_err("no driver")));
}

#[test]
fn devices_are_described() {
    let Some(stream) = stream() else { return };
    let devices = devices().expect("a list");
    assert_eq!(&devices[0], stream.context().device());
    for device in &devices {
        println!("{device:?}");
        assert!(!device.name.is_empty() && device.multiprocessors > 0 && device.total_memory > 1 << 28);
        assert!(device.compute_capability >= (3, 0));
    }
    let beyond = devices.len() as u32;
    let error = CudaContext::new(beyond).expect_err("no such device");
    assert_eq!(error, CudaError::NoSuchDevice { ordinal: beyond, available: beyond });
}

#[test]
fn bytes_come_back_as_they_went() {
    let Some(stream) = stream() else { return };
    let bytes = noise(100_003, 1);
    let mut buffer = DeviceBuffer::from_host(&stream, &bytes).expect("a buffer");
    let mut back = vec![0; bytes.len()];
    buffer.copy_to_host(&stream, 0, &mut back).expect("a copy");
    assert_eq!(back, bytes);

    buffer.copy_from_host(&stream, 17, &[1, 2, 3]).expect("a copy");
    let mut part = [0; 5];
    buffer.copy_to_host(&stream, 16, &mut part).expect("a copy");
    assert_eq!(part, [bytes[16], 1, 2, 3, bytes[20]]);

    let zeros = DeviceBuffer::zeroed(&stream, 1000).expect("a buffer");
    let mut back = vec![9; 1000];
    zeros.copy_to_host(&stream, 0, &mut back).expect("a copy");
    assert_eq!(back, [0; 1000]);
}

#[test]
fn ranges_outside_a_buffer_are_refused() {
    let Some(stream) = stream() else { return };
    let mut buffer = DeviceBuffer::zeroed(&stream, 64).expect("a buffer");
    let refused = |error| matches!(error, Err(CudaError::OutOfRange { size: 64, .. }));
    assert!(refused(buffer.sub_slice(60, 5).map(drop)));
    assert!(refused(buffer.sub_slice(usize::MAX, 2).map(drop)));
    assert!(refused(buffer.copy_from_host(&stream, 1, &[0; 64])));
    assert!(refused(buffer.copy_to_host(&stream, 65, &mut [])));
    assert!(buffer.sub_slice(64, 0).is_ok());
    let too_much = DeviceBuffer::new(stream.context(), 1 << 45);
    assert_eq!(too_much.map(drop), Err(CudaError::OutOfDeviceMemory { bytes: 1 << 45 }));
}

#[test]
fn pinned_memory_moves_without_the_host() {
    let Some(stream) = stream() else { return };
    let bytes = noise(1 << 20, 2);
    let mut up = PinnedBuffer::new(stream.context(), bytes.len()).expect("locked memory");
    let mut down = PinnedBuffer::new(stream.context(), bytes.len()).expect("locked memory");
    assert!(down.iter().all(|&byte| byte == 0));
    up.copy_from_slice(&bytes);
    let mut buffer = DeviceBuffer::new(stream.context(), bytes.len()).expect("a buffer");
    // SAFETY: neither buffer is touched before the stream is done.
    unsafe {
        buffer.queue_from_host(&stream, 0, &up).expect("a copy");
        buffer.as_slice().queue_to_host(&stream, 0, &mut down).expect("a copy");
    }
    stream.synchronize().expect("both copies");
    assert!(down[..] == bytes);
    assert!(PinnedBuffer::new(stream.context(), 0).expect("nothing").is_empty());
}

#[test]
fn crc32_agrees_with_the_cpu_at_every_short_length_and_alignment() {
    let Some(stream) = stream() else { return };
    let bytes = noise(3000, 3);
    let buffer = DeviceBuffer::from_host(&stream, &bytes).expect("a buffer");
    let mut slices = Vec::new();
    let mut expected = Vec::new();
    for offset in 0..33 {
        for length in (0..100).chain(480..560).chain([1023, 1024, 1025, 2048, 2900]) {
            slices.push(buffer.sub_slice(offset, length).expect("a range"));
            expected.push(crc32fast::hash(&bytes[offset..offset + length]));
        }
    }
    assert_eq!(crc32_device(&stream, &slices).expect("CRCs"), expected);
    assert_eq!(crc32_device(&stream, &[]).expect("no CRCs"), [0; 0]);
}

#[test]
fn crc32_agrees_with_the_cpu_on_large_buffers() {
    let Some(stream) = stream() else { return };
    let bytes = noise((96 << 20) + 5, 4);
    let buffer = DeviceBuffer::from_host(&stream, &bytes).expect("a buffer");
    let cuts = [0, 1, 4096, 70_001, 1 << 20, (64 << 20) + 3, bytes.len()];
    let slices: Vec<DeviceSlice<'_>> =
        cuts.windows(2).map(|cut| buffer.sub_slice(cut[0], cut[1] - cut[0]).expect("a range")).collect();
    let expected: Vec<u32> = cuts.windows(2).map(|cut| crc32fast::hash(&bytes[cut[0]..cut[1]])).collect();
    assert_eq!(crc32_device(&stream, &slices).expect("CRCs"), expected);
    assert_eq!(crc32_device(&stream, &[buffer.as_slice()]).expect("a CRC"), [crc32fast::hash(&bytes)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn crc32_agrees_with_the_cpu_on_any_ranges(
        ranges in prop::collection::vec((0usize..1 << 20, 0usize..1 << 20), 1..40),
        seed in any::<u64>(),
    ) {
        let Some(stream) = stream() else { return Ok(()) };
        let bytes = noise(1 << 21, seed);
        let buffer = DeviceBuffer::from_host(&stream, &bytes).expect("a buffer");
        let slices: Vec<_> = ranges.iter().map(|&(at, length)| buffer.sub_slice(at, length).expect("a range")).collect();
        let expected: Vec<u32> = ranges.iter().map(|&(at, length)| crc32fast::hash(&bytes[at..at + length])).collect();
        prop_assert_eq!(crc32_device(&stream, &slices).expect("CRCs"), expected);
    }
}

#[test]
fn copy_floor_with_equal_sizes_copies() {
    let Some(stream) = stream() else { return };
    for length in [0, 16, 4096, 16_384, 16_400, (3 << 20) + 16] {
        let bytes = noise(length, 5);
        let input = DeviceBuffer::from_host(&stream, &bytes).expect("a buffer");
        let mut output = DeviceBuffer::zeroed(&stream, length).expect("a buffer");
        copy_floor(&stream, input.as_slice(), output.as_slice_mut()).expect("a launch");
        let mut back = vec![0; length];
        output.copy_to_host(&stream, 0, &mut back).expect("a copy");
        assert!(back == bytes, "{length}");
    }
}

#[test]
fn copy_floor_writes_all_of_a_longer_output_and_nothing_beyond() {
    let Some(stream) = stream() else { return };
    let input = DeviceBuffer::from_host(&stream, &[7; 32_000]).expect("a buffer");
    let mut output = DeviceBuffer::zeroed(&stream, 48_016).expect("a buffer");
    copy_floor(&stream, input.as_slice(), output.sub_slice_mut(0, 48_000).expect("a range")).expect("a launch");
    let mut back = vec![0; 48_016];
    output.copy_to_host(&stream, 0, &mut back).expect("a copy");
    assert!(back[..48_000].iter().all(|&byte| byte == 7) && back[48_000..] == [0; 16]);

    let odd = input.sub_slice(8, 16).expect("a range");
    let refused = copy_floor(&stream, odd, output.as_slice_mut());
    assert!(matches!(refused, Err(CudaError::Misaligned { multiple: 16, .. })), "{refused:?}");
}

#[test]
fn foreign_streams_and_foreign_memory_work() {
    let Some(owner) = stream() else { return };
    // SAFETY: `owner` lives longer than its alias.
    let alias = unsafe { Stream::from_raw(owner.context(), owner.as_raw()) };
    let bytes = noise(5000, 6);
    let buffer = DeviceBuffer::from_host(&alias, &bytes).expect("a buffer");
    // SAFETY: the range is the buffer's, which lives longer.
    let slice = unsafe { DeviceSlice::from_raw(owner.context(), buffer.address(), buffer.len()) };
    let legacy = Stream::legacy_default(owner.context());
    for stream in [&owner, &alias, &legacy] {
        assert_eq!(crc32_device(stream, &[slice]).expect("a CRC"), [crc32fast::hash(&bytes)]);
    }
    drop(alias);
    owner.synchronize().expect("the owner's stream is still there");
}

#[test]
fn events_order_streams_and_measure_time() {
    let Some(first) = stream() else { return };
    let context = first.context().clone();
    let second = Stream::new(&context).expect("a stream");
    let (start, end) = (Event::new(&context).expect("an event"), Event::new(&context).expect("an event"));
    let input = DeviceBuffer::zeroed(&first, 64 << 20).expect("a buffer");
    let mut output = DeviceBuffer::zeroed(&first, 64 << 20).expect("a buffer");
    start.record(&first).expect("a mark");
    copy_floor(&first, input.as_slice(), output.as_slice_mut()).expect("a launch");
    end.record(&first).expect("a mark");
    second.wait(&end).expect("an order");
    second.synchronize().expect("the second stream");
    let milliseconds = end.elapsed_ms(&start).expect("a time");
    assert!(milliseconds > 0.0 && milliseconds.is_finite());
}

#[test]
fn handles_work_from_other_threads_and_leave_their_context_alone() {
    let Some(stream) = stream() else { return };
    let bytes = noise(10_000, 7);
    let buffer = DeviceBuffer::from_host(&stream, &bytes).expect("a buffer");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                assert_eq!(crc32_device(&stream, &[buffer.as_slice()]).expect("a CRC"), [crc32fast::hash(&bytes)]);
                // No context was current on this thread, so none is now.
                assert!(cust::context::CurrentContext::get_device().is_err());
            });
        }
    });
}
