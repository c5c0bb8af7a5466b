//! The structure of a zstd frame (RFC 8878, section 3.1.1), as far as it shows without decoding.

use xxhash_rust::xxh64::xxh64;

/// What a frame's header says, and where its blocks are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// The header's content size, if it has one.
    pub(super) content: Option<u64>,
    /// All blocks, headers included.
    blocks: &'a [u8],
}

const MAGIC: [u8; 4] = 0xFD2F_B528u32.to_le_bytes();
/// The greatest size of a block.
const MAX_BLOCK: usize = 128 << 10;

/// Reads the header and walks over the blocks. The frame must fill `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Result<Frame<'_>, &'static str> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or("no zstd frame")?;
    let (&descriptor, mut rest) = rest.split_first().ok_or("truncated header")?;
    let single_segment = descriptor & 0x20 != 0;
    let checksum = descriptor & 4 != 0;
    if descriptor & 8 != 0 {
        return Err("reserved bit set");
    }
    if descriptor & 3 != 0 {
        return Err("needs a dictionary");
    }
    if !single_segment {
        rest = rest.get(1..).ok_or("truncated header")?;
    }
    let size_bytes = match descriptor >> 6 {
        0 => usize::from(single_segment),
        code => 1 << code,
    };
    let size = rest.get(..size_bytes).ok_or("truncated header")?;
    let number = size.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte));
    let content = (size_bytes > 0).then_some(if size_bytes == 2 { number + 256 } else { number });
    rest = &rest[size_bytes..];

    let blocks = rest;
    let mut at = 0;
    loop {
        let header = blocks.get(at..at + 3).ok_or("truncated block")?;
        let header = u32::from_le_bytes([header[0], header[1], header[2], 0]);
        let (last, size) = (header & 1 != 0, (header >> 3) as usize);
        if size > MAX_BLOCK {
            return Err("block too large");
        }
        at += 3;
        let stored = match header >> 1 & 3 {
            0 => size,
            1 => 1,
            2 => {
                sections(blocks.get(at..at + size).ok_or("truncated block")?)?;
                size
            }
            _ => return Err("reserved block type"),
        };
        at += stored;
        if at > blocks.len() {
            return Err("truncated block");
        }
        if last {
            break;
        }
    }
    match blocks.len() - at {
        4 if checksum => {}
        0 if !checksum => {}
        _ => return Err("the frame does not end where its last block does"),
    }
    Ok(Frame { content, blocks: &blocks[..at] })
}

/// Checks that the literals of a compressed block lie inside it, and that a sequence header follows (sections 3.1.1.3.1 and .2).
fn sections(block: &[u8]) -> Result<(), &'static str> {
    const WHAT: &str = "literals outside their block";
    let &first = block.first().ok_or(WHAT)?;
    let format = first >> 2 & 3;
    let (header, stored, decoded) = if first & 2 == 0 {
        // Raw or one byte repeated.
        let header = match format {
            0 | 2 => 1,
            1 => 2,
            _ => 3,
        };
        let word = little_endian(block, header).ok_or(WHAT)?;
        let decoded = word >> if header == 1 { 3 } else { 4 };
        (header, if first & 1 == 0 { decoded } else { 1 }, decoded)
    } else {
        let (header, bits) = match format {
            0 | 1 => (3, 10),
            2 => (4, 14),
            _ => (5, 18),
        };
        let word = little_endian(block, header).ok_or(WHAT)?;
        let mask = (1 << bits) - 1;
        (header, word >> (4 + bits) & mask, word >> 4 & mask)
    };
    if decoded > MAX_BLOCK as u64 || header as u64 + stored >= block.len() as u64 {
        return Err(WHAT);
    }
    Ok(())
}

fn little_endian(bytes: &[u8], len: usize) -> Option<u64> {
    Some(bytes.get(..len)?.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
}

/// Checks a frame that is to decode to `content` bytes.
pub(super) fn check(bytes: &[u8], content: usize) -> Result<(), &'static str> {
    match parse(bytes)?.content {
        Some(size) if size == content as u64 => Ok(()),
        Some(_) => Err("another content size than its piece"),
        None => Err("no content size"),
    }
}

/// The blocks of `frame`, in a frame that records the size and the checksum of `content` and asks for no more memory than that.
pub(super) fn seal(frame: &Frame<'_>, content: &[u8]) -> Vec<u8> {
    let size = content.len() as u64;
    let (code, size) = match content.len() {
        0..256 => (0, size.to_le_bytes()[..1].to_vec()),
        256..65_792 => (1, (size - 256).to_le_bytes()[..2].to_vec()),
        _ => (2, size.to_le_bytes()[..4].to_vec()),
    };
    const SINGLE_SEGMENT: u8 = 0x20;
    const CHECKSUM: u8 = 4;
    let mut out = MAGIC.to_vec();
    out.push(code << 6 | SINGLE_SEGMENT | CHECKSUM);
    out.extend_from_slice(&size);
    out.extend_from_slice(frame.blocks);
    out.extend_from_slice(&xxh64(content, 0).to_le_bytes()[..4]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(content: &[u8], level: i32, checksum: bool) -> Vec<u8> {
        use zstd_safe::{CCtx, CParameter};
        let mut context = CCtx::create();
        context.set_parameter(CParameter::CompressionLevel(level)).unwrap();
        context.set_parameter(CParameter::ChecksumFlag(checksum)).unwrap();
        let mut out = Vec::with_capacity(zstd_safe::compress_bound(content.len()));
        context.compress2(&mut out, content).unwrap();
        out
    }

    fn contents() -> Vec<Vec<u8>> {
        let mut state = 1u64;
        let mut noise = |n: usize, mask: u8| -> Vec<u8> {
            (0..n)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8 & mask
                })
                .collect()
        };
        vec![
            vec![],
            vec![7; 1],
            vec![7; 100_000],
            noise(255, 0xff),
            noise(256, 0x0f),
            noise(65_536, 0x3f),
            noise(300_000, 0x07),
            noise(65_791, 0xff),
            noise(65_792, 0x01),
        ]
    }

    #[test]
    fn frames_of_the_library_pass_and_others_do_not() {
        for content in contents() {
            for (level, checksum) in [(1, true), (3, false), (19, true)] {
                let bytes = frame(&content, level, checksum);
                assert_eq!(check(&bytes, content.len()), Ok(()));
                assert!(check(&bytes, content.len() + 1).is_err());
                let mut longer = bytes.clone();
                longer.push(0);
                assert!(check(&longer, content.len()).is_err());
                for end in (0..bytes.len()).step_by(1 + bytes.len() / 64) {
                    assert!(check(&bytes[..end], content.len()).is_err(), "{end}");
                }
            }
        }
    }

    #[test]
    fn damage_never_panics() {
        let content = contents().swap_remove(4);
        let bytes = frame(&content, 3, true);
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let _ = check(&damaged, content.len());
        }
    }

    #[test]
    fn a_sealed_frame_is_one_that_the_library_accepts() {
        for content in contents() {
            let bare = frame(&content, 3, false);
            let sealed = seal(&parse(&bare).unwrap(), &content);
            assert_eq!(check(&sealed, content.len()), Ok(()));
            let mut out = Vec::with_capacity(content.len());
            zstd_safe::decompress(&mut out, &sealed).unwrap();
            assert_eq!(out, content);
            // The checksum counts.
            let mut damaged = sealed.clone();
            *damaged.last_mut().unwrap() ^= 1;
            assert!(zstd_safe::decompress(&mut Vec::with_capacity(content.len()), &damaged).is_err());
        }
    }
}
