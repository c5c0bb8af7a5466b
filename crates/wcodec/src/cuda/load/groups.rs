//! What is copied and decoded together.

use std::ops::Range;

use wcodec_container::ChunkEntry;

use super::supply::Supply;

/// Stored bytes of a group. Between the copies of two groups the bus rests for some 13 µs; the last group is decoded when all bytes have
/// arrived, at twenty times the speed of the bus.
const GROUP_BYTES: u64 = 32 << 20;
/// Parts of a group: what one launch takes.
const GROUP_PARTS: usize = 32;
/// What the parts of a group are aligned to in its slot.
const ALIGN: usize = 256;

/// Chunks of a tensor that are copied and decoded together, and their place in the group's slot and in the tensor.
pub(super) struct Part {
    pub(super) tensor: usize,
    pub(super) chunks: Range<usize>,
    pub(super) slot: Range<usize>,
    pub(super) decoded: Range<usize>,
}

/// Parts that share a slot.
#[derive(Default)]
pub(super) struct Group {
    pub(super) parts: Vec<Part>,
    pub(super) bytes: usize,
}

/// Cuts tensors into runs of chunks, and gathers these. `as_stored`: which tensors go to the device as they are stored.
pub(super) fn groups(supplies: &[Supply<'_>], as_stored: &[bool]) -> Vec<Group> {
    let sizes: Vec<_> = supplies.iter().zip(as_stored).map(|(supply, &as_stored)| sizes(supply, as_stored)).collect();
    let mut groups = vec![Group::default()];
    for (number, (supply, sizes)) in supplies.iter().zip(&sizes).enumerate() {
        let (mut chunk, mut decoded) = (0, 0u64);
        while let Some(&(needed, _)) = sizes.get(chunk) {
            let last = groups.last().map_or((0, 0), |group| (group.parts.len(), group.bytes as u64));
            if last.0 == GROUP_PARTS || (last.0 > 0 && last.1 + needed > GROUP_BYTES) {
                groups.push(Group::default());
            }
            let Some(group) = groups.last_mut() else { break };
            let (start, first, begin) = (group.bytes, chunk, decoded);
            let mut end = start as u64;
            while let Some(&(bytes, len)) = sizes.get(chunk)
                && (chunk == first || end + bytes <= GROUP_BYTES)
            {
                (end, decoded, chunk) = (end + bytes, decoded + len, chunk + 1);
            }
            let chunks = first..chunk.min(supply.entry().chunks.len());
            let (slot, decoded) = (start..end as usize, begin as usize..decoded as usize);
            group.bytes = slot.end.next_multiple_of(ALIGN);
            group.parts.push(Part { tensor: number, chunks, slot, decoded });
        }
    }
    groups
}

/// What each chunk of a tensor takes in a slot, gaps included, and decoded. A pooled tensor is one without a number.
fn sizes(supply: &Supply<'_>, as_stored: bool) -> Vec<(u64, u64)> {
    let (entry, plain) = (supply.entry(), supply.is_plain());
    let size = |chunk: &ChunkEntry| match () {
        () if as_stored => chunk.len.next_multiple_of(64),
        () if plain => 0,
        () => chunk.decoded_len,
    };
    let mut sizes: Vec<(u64, u64)> = entry.chunks.iter().map(|chunk| (size(chunk), chunk.decoded_len)).collect();
    if sizes.is_empty() && entry.decoded_len > 0 {
        sizes.push((entry.decoded_len, entry.decoded_len));
    }
    sizes
}
