//! Any bytes as a container, and any bytes as a directory whose checksums hold: opened or refused, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wcodec::Archive;
use wcodec_container::{Extent, FileHeader, HEADER_LEN, Trailer, crc32};

fuzz_target!(|bytes: &[u8]| {
    open(bytes.to_vec());
    let header = FileHeader::default().encode();
    let (offset, len) = (HEADER_LEN, bytes.len() as u64);
    let trailer = Trailer { directory: Extent { offset, len }, decoded_len: len, directory_crc32: crc32(bytes) };
    open([&header[..], bytes, &trailer.encode(&header)].concat());
});

fn open(bytes: Vec<u8>) {
    let Ok(archive) = Archive::from_bytes(bytes) else { return };
    for i in 0..archive.len() {
        let _ = archive.tensor_at(i);
    }
}
