//! Damaged archives: a typed error or an identical result, never a panic, a hang or an allocation out of proportion.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::*;
use proptest::prelude::*;
use wcodec_container::*;

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

/// The largest single allocation that the small archive and its damaged forms may cause.
const ENOUGH: usize = 256 << 10;

/// Reads an archive in every way, and fails if that allocates out of proportion.
fn read_frugally(bytes: &[u8]) -> Result<(Directory, Vec<Vec<u8>>)> {
    LARGEST.set(0);
    let result = read_all(bytes);
    assert!(LARGEST.get() <= ENOUGH.max(bytes.len()), "allocated {} bytes at once", LARGEST.get());
    result
}

#[test]
fn truncation_at_every_byte_is_recognised() {
    let archive = small_archive();
    for len in 0..archive.len() {
        match read_frugally(&archive[..len]) {
            Err(ContainerError::Truncated { offset, .. }) => assert_eq!(offset, len as u64),
            other => panic!("cut at {len}: {other:?}"),
        }
    }
}

#[test]
fn bytes_behind_the_archive_are_noticed() {
    let archive = small_archive();
    for more in 1..100 {
        let longer = [&archive[..], &vec![0; more]].concat();
        assert!(read_frugally(&longer).is_err());
    }
    assert!(read_frugally(&[&archive[..], &archive[..]].concat()).is_err());
}

#[test]
fn every_flipped_bit_outside_the_payload_is_noticed() {
    let archive = small_archive();
    let end = Trailer::parse(&archive).unwrap().directory.offset as usize;
    for at in (0..HEADER_LEN as usize).chain(end..archive.len()) {
        for bit in 0..8 {
            let mut damaged = archive.clone();
            damaged[at] ^= 1 << bit;
            let error = read_frugally(&damaged).expect_err("a flipped bit");
            let typed = match at {
                0..8 => matches!(error, ContainerError::Corrupt { offset: 0, .. }),
                8..12 => matches!(error, ContainerError::UnsupportedVersion { .. }),
                12..14 => matches!(error, ContainerError::UnsupportedFeature { offset: 12, .. }),
                // Ignorable flags: only the trailer's checksum notices.
                14..16 => matches!(error, ContainerError::ChecksumMismatch { .. }),
                _ if at >= archive.len() - 8 => matches!(error, ContainerError::Corrupt { .. }),
                _ => matches!(error, ContainerError::ChecksumMismatch { .. }),
            };
            assert!(typed, "byte {at} bit {bit}: {error}");
        }
    }
}

#[test]
fn every_flipped_bit_under_correct_checksums_is_harmless() {
    let archive = small_archive();
    let (whole, _) = read_all(&archive).unwrap();
    let end = Trailer::parse(&archive).unwrap().directory.offset;
    let decoded = whole.encode(end).unwrap();
    assert_eq!(read_all(&with_directory(&archive, &decoded)).unwrap().0, whole);
    let mut accepted = 0;
    for at in 0..decoded.len() {
        for bit in 0..8 {
            let mut damaged = decoded.clone();
            damaged[at] ^= 1 << bit;
            // Names and opaque fields may change, and a smaller count may turn entries into an unknown optional field;
            // what was read is then still a directory that can be written.
            if let Ok(directory) = Directory::parse(&damaged, end) {
                assert_eq!(Directory::parse(&directory.encode(end).unwrap(), end).unwrap(), directory);
                accepted += 1;
            }
            let _ = read_frugally(&with_directory(&archive, &damaged));
        }
        assert!(Directory::parse(&decoded[..at], end).is_err());
    }
    assert!(accepted > 0);
}

#[test]
fn lengths_that_lie_are_refused_before_allocating() {
    let archive = small_archive();
    let trailer = Trailer::parse(&archive).unwrap();
    let end = trailer.directory.offset as usize;
    // A frame of zeros that decodes to more than a directory of its size may.
    let mut frame = Vec::with_capacity(1 << 16);
    zstd_safe::compress(&mut frame, &vec![0; 64 << 20], 1).unwrap();
    for (stored, decoded_len) in [
        (&frame[..], 64 << 20),
        (&frame[..], 1 << 19),
        (&frame[..], 10),
        (&frame[..], u64::MAX),
        (b"", 1),
        (b"not zstd", 20),
        (&archive[end..][..trailer.directory.len as usize], trailer.decoded_len + 1),
    ] {
        let directory = Extent { offset: end as u64, len: stored.len() as u64 };
        let lying = Trailer { directory, decoded_len, directory_crc32: crc32(stored) };
        let bytes = [&archive[..end], stored, &lying.encode(archive.first_chunk().unwrap())].concat();
        let error = read_frugally(&bytes).expect_err("a length that lies");
        assert!(matches!(error, ContainerError::Corrupt { .. }), "{error}");
    }
    // The same in front of the decoder that the tool chains share.
    LARGEST.set(0);
    assert!(decompress_frame(&frame, 64 << 20).is_err());
    assert!(decompress_frame(&frame, u64::MAX).is_err());
    assert!(decompress_frame(&[&frame[..], b"x"].concat(), 64 << 20).is_err());
    assert!(LARGEST.get() <= ENOUGH);
}

#[test]
fn counts_that_lie_are_refused_before_allocating() {
    let huge = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
    for prefix in [&[][..], &[11][..], &[1, 0, 11], &[1, 0, 1, 0, 11], &[1, 0, 1, 0, 1, 0, 11]] {
        let bytes = [prefix, &huge, &[0; 20]].concat();
        LARGEST.set(0);
        assert!(matches!(Directory::parse(&bytes, 1000), Err(ContainerError::Corrupt { .. })));
        assert!(LARGEST.get() <= ENOUGH);
    }
}

#[test]
fn a_long_name_in_many_files_is_read_once() {
    // 4000 references to two names of 100 kB: a reader that copied or compared names each time would touch 800 MB.
    let name = "n".repeat(100_000);
    let tensors =
        vec![tensor(&format!("{name}a"), DtypeCode::U8, &[0]), tensor(&format!("{name}b"), DtypeCode::U8, &[0])];
    let segments = vec![Segment::Tensor { index: 0 }, Segment::Tensor { index: 1 }];
    let file = |i| FileEntry { path: format!("f{i}"), segments: segments.clone(), ..FileEntry::default() };
    let directory = Directory { tensors, files: (0..4000).map(file).collect(), ..Directory::default() };
    let (bytes, _) = ArchiveSink::new(Vec::new()).unwrap().finish(&directory).unwrap();
    let archive = ArchiveReader::from_bytes(bytes).unwrap();
    assert_eq!(archive.find_in("f3999", &format!("{name}b")), Some(1));
}

proptest! {
    #[test]
    fn random_directories_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..200), end in 0u64..10_000) {
        if let Ok(directory) = Directory::parse(&bytes, end) {
            prop_assert!(directory.encode(end).is_ok());
        }
    }

    #[test]
    fn random_damage_is_harmless(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let archive = small_archive();
        let end = Trailer::parse(&archive).unwrap().directory.offset;
        let (whole, pieces) = read_all(&archive).unwrap();
        let mut decoded = whole.encode(end).unwrap();
        let mut file = archive.clone();
        for (at, byte) in &damage {
            let len = decoded.len();
            decoded[at.index(len)] = *byte;
            let len = file.len();
            file[at.index(len)] = *byte;
        }
        let _ = read_frugally(&with_directory(&archive, &decoded));
        if let Ok(read) = read_frugally(&file) {
            prop_assert_eq!(read, (whole, pieces));
        }
    }

    #[test]
    fn random_files_are_harmless(tail in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(read_frugally(&tail).is_err());
        prop_assert!(read_frugally(&[&FileHeader::default().encode()[..], &tail].concat()).is_err());
    }
}
