//! Table sets, plain and adaptive data from any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wcodec_rans::{TableSet, adaptive, plain};

fuzz_target!(|input: (u16, &[u8])| {
    let (len, bytes) = input;
    let len = usize::from(len);
    let _ = plain::decompress(bytes, len);
    let _ = adaptive::decode_bytes(bytes, len);
    if let Ok(set) = TableSet::from_bytes(bytes) {
        assert_eq!(TableSet::from_bytes(&set.to_bytes()).as_ref(), Ok(&set));
    }
    // What was packed comes back.
    assert_eq!(plain::decompress(&plain::compress(bytes), bytes.len()).as_deref(), Ok(bytes));
});
