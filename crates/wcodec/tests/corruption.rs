//! Damaged archives: a typed error or an identical result, never a panic, a hang or an allocation out of proportion.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::LazyLock;

use common::*;
use proptest::prelude::*;
use wcodec::{Archive, EncodeOptions, Result};
use wcodec_container::Trailer;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// Notes the largest allocation of each thread.
struct Noting;

#[expect(unsafe_code, reason = "a global allocator is an unsafe trait")]
// SAFETY: every call goes to the system allocator unchanged; a thread-local `Cell` without destructor allocates nothing.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(layout.size())));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Noting = Noting;

/// The largest single allocation that the sampler's archive and its damaged forms may cause.
const ENOUGH: usize = 4 << 20;

/// Archives of the sampler in which every mode occurs, and what their tensors are.
struct Sample {
    bytes: Vec<u8>,
    tensors: Vec<Vec<u8>>,
}

static SAMPLES: LazyLock<Vec<Sample>> = LazyLock::new(|| {
    let file = safetensors(&sampler());
    [EncodeOptions::default(), EncodeOptions { progressive: true, superblock_rows: 16, ..EncodeOptions::default() }]
        .into_iter()
        .map(|options| {
            let bytes = archive_of(&file, &options);
            let tensors = read(&bytes).unwrap();
            Sample { bytes, tensors }
        })
        .collect()
});

/// Decodes everything in every way, on this thread, and fails if that allocates out of proportion.
fn read(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    thread_local! {
        static POOL: rayon::ThreadPool =
            rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().unwrap();
    }
    LARGEST.set(0);
    let result = POOL.with(|pool| pool.install(|| read_all(bytes)));
    assert!(LARGEST.get() <= ENOUGH, "allocated {} bytes at once", LARGEST.get());
    result
}

fn read_all(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let archive = Archive::from_bytes(bytes.to_vec())?;
    let mut tensors = Vec::new();
    let mut first_error = wcodec::verify(&archive, &()).err();
    for i in 0..archive.len() {
        // A fault in one tensor must not hide what the next one does.
        match part_and_whole(&archive, i) {
            Ok(tensor) => tensors.push(tensor),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    first_error.map_or(Ok(tensors), Err)
}

fn part_and_whole(archive: &Archive, index: usize) -> Result<Vec<u8>> {
    let tensor = archive.tensor_at(index)?;
    let (rows, cols) = (tensor.row_count(), tensor.col_count());
    let part = tensor.rect(rows / 3..rows, cols / 4..cols);
    let coarse = tensor.decode_planes(3);
    let whole = tensor.decode()?;
    drop(coarse);
    if tensor.dtype().bits().is_some_and(|bits| bits % 8 == 0) {
        part?;
    }
    Ok(whole)
}

#[test]
fn truncation_at_every_byte_is_an_error() {
    for sample in SAMPLES.iter() {
        for len in 0..sample.bytes.len() {
            assert!(read(&sample.bytes[..len]).is_err(), "cut at {len}");
        }
    }
}

#[test]
fn flipped_bits_anywhere_are_errors_or_harmless() {
    for sample in SAMPLES.iter() {
        let payload_end = Trailer::parse(&sample.bytes).unwrap().directory.offset as usize;
        let outside = (0..64).chain(payload_end..sample.bytes.len());
        for at in outside.chain((64..payload_end).step_by(13)) {
            for bit in if at < payload_end { at % 8..at % 8 + 1 } else { 0..8 } {
                let mut damaged = sample.bytes.clone();
                damaged[at] ^= 1 << bit;
                if let Ok(tensors) = read(&damaged) {
                    assert!(tensors == sample.tensors, "byte {at}, bit {bit}");
                    assert!(at < payload_end, "byte {at}, bit {bit} went unnoticed");
                }
            }
        }
    }
}

/// Past the checksums: what decoders meet when the damage was there before the archive was made, or is meant.
#[test]
fn damage_behind_checksums_is_harmless() {
    for sample in SAMPLES.iter() {
        let whole = directory(&sample.bytes);
        for (t, tensor) in whole.tensors.iter().enumerate() {
            for extent in [tensor.payload, tensor.index] {
                let step = (extent.len / 150).max(1) as usize;
                for at in (extent.offset..extent.offset + extent.len).step_by(step) {
                    for value in [0x01, 0x80, 0xff] {
                        let (mut damaged, mut directory) = (sample.bytes.clone(), whole.clone());
                        damaged[at as usize] ^= value;
                        mend(&mut damaged, &mut directory);
                        let damaged = with_directory(&damaged, &directory).unwrap();
                        if let Ok(tensors) = read(&damaged) {
                            assert!(tensors == sample.tensors, "tensor {t}, byte {at}");
                        }
                    }
                }
            }
            for at in 0..tensor.params.len().min(400) {
                for value in [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff, 0x7f] {
                    let mut directory = whole.clone();
                    directory.tensors[t].params[at] ^= value;
                    let damaged = with_directory(&sample.bytes, &directory).unwrap();
                    if let Ok(tensors) = read(&damaged) {
                        assert!(tensors == sample.tensors, "tensor {t}, parameter byte {at}");
                    }
                }
            }
            for len in 0..tensor.params.len() {
                let mut directory = whole.clone();
                directory.tensors[t].params.truncate(len);
                assert!(read(&with_directory(&sample.bytes, &directory).unwrap()).is_err());
            }
        }
        for blob in 0..whole.pool.len() {
            for at in 0..whole.pool[blob].len() {
                for value in [0x01, 0x80, 0xff] {
                    let mut directory = whole.clone();
                    directory.pool[blob][at] ^= value;
                    if let Ok(tensors) = read(&with_directory(&sample.bytes, &directory).unwrap()) {
                        assert!(tensors == sample.tensors, "blob {blob}, byte {at}");
                    }
                }
                let mut directory = whole.clone();
                directory.pool[blob].truncate(at);
                let _ = read(&with_directory(&sample.bytes, &directory).unwrap());
            }
        }
    }
}

#[test]
fn modes_that_lie_are_harmless() {
    for sample in SAMPLES.iter() {
        let whole = directory(&sample.bytes);
        for t in 0..whole.tensors.len() {
            for mode in 0..=255 {
                let mut directory = whole.clone();
                directory.tensors[t].mode = mode;
                if let Ok(tensors) = read(&with_directory(&sample.bytes, &directory).unwrap()) {
                    assert!(tensors == sample.tensors, "tensor {t} in mode {mode}");
                }
            }
        }
    }
}

#[test]
fn lengths_that_lie_are_refused_before_allocating() {
    for sample in SAMPLES.iter() {
        let whole = directory(&sample.bytes);
        for t in 0..whole.tensors.len() {
            let bits = u64::from(whole.tensors[t].dtype.bits().unwrap());
            for elements in [1u64 << 24, 1 << 28, 1 << 31, 1 << 34, 1 << 40, 1 << 58] {
                for shape in [vec![elements], vec![elements / 64, 64], vec![64, elements / 64], vec![1, 1, elements]] {
                    let mut directory = whole.clone();
                    // No file: what the tensor says is no longer what its file says.
                    directory.files.clear();
                    for other in 0..whole.tensors.len() {
                        directory.tensors[other].name = format!("{other}");
                    }
                    let tensor = &mut directory.tensors[t];
                    tensor.shape = shape;
                    tensor.decoded_len = elements / 8 * bits;
                    match tensor.chunks.split_last_mut() {
                        Some((last, first)) => {
                            last.decoded_len = tensor.decoded_len - first.iter().map(|c| c.decoded_len).sum::<u64>();
                        }
                        None => tensor.params.push(0),
                    }
                    if let Some(damaged) = with_directory(&sample.bytes, &directory) {
                        assert!(read(&damaged).is_err(), "tensor {t} of {elements}");
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_damage_is_harmless(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        for sample in SAMPLES.iter() {
            let (mut damaged, mut directory) = (sample.bytes.clone(), directory(&sample.bytes));
            let end = Trailer::parse(&damaged).unwrap().directory.offset as usize;
            for (at, value) in &damage {
                damaged[16 + at.index(end - 16)] = *value;
            }
            if let Ok(tensors) = read(&damaged) {
                prop_assert!(tensors == sample.tensors);
            }
            mend(&mut damaged, &mut directory);
            if let Ok(tensors) = read(&with_directory(&damaged, &directory).unwrap()) {
                prop_assert!(tensors == sample.tensors);
            }
        }
    }

    #[test]
    fn random_parameters_are_harmless(
        tensor in any::<prop::sample::Index>(), params in prop::collection::vec(any::<u8>(), 0..40), mode in 0u8..6,
    ) {
        for sample in SAMPLES.iter() {
            let mut directory = directory(&sample.bytes);
            let t = tensor.index(directory.tensors.len());
            directory.tensors[t].params.clone_from(&params);
            directory.tensors[t].mode = mode;
            if let Ok(tensors) = read(&with_directory(&sample.bytes, &directory).unwrap()) {
                prop_assert!(tensors == sample.tensors);
            }
        }
    }
}
