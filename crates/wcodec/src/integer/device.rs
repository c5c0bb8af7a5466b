//! The parts of a tensor as a GPU kernel takes them.

use std::ops::Range;

use wcodec_container::Extent;
use wcodec_cuda::IntegerBlock;

use super::decode::IntegerDecoder;
use crate::error::Result;

/// What stands in the side information of all chunks, and where the other sections are. Offsets count from the first chunk.
pub(crate) struct DeviceParts {
    pub(crate) blocks: Vec<IntegerBlock>,
    /// Codes of all tiles.
    pub(crate) tiles: Vec<u8>,
    /// Classes of all runs.
    pub(crate) classes: Vec<u8>,
    /// The elements that fill no row of the view.
    pub(crate) rest: Range<usize>,
}

impl IntegerDecoder {
    /// The parts of chunks `chunks`; `bytes` begins with the first of them, `extents` are those of all chunks. Everything is checked as
    /// for decoding.
    pub(crate) fn device_parts(&self, chunks: Range<usize>, bytes: &[u8], extents: &[Extent]) -> Result<DeviceParts> {
        let mut parts = DeviceParts { blocks: Vec::new(), tiles: Vec::new(), classes: Vec::new(), rest: 0..0 };
        let first = extents[chunks.start].offset;
        for chunk in chunks {
            let extent = extents[chunk];
            let start = (extent.offset - first) as usize;
            let bytes = &bytes[start..start + extent.len as usize];
            let (side, [mut states_at, mut stream_at]) = self.side(chunk, bytes, extent.offset)?;
            let sections = [states_at, stream_at];
            let blocks = &mut parts.blocks;
            let end = self.blocks(chunk, bytes, &side, sections, |block| {
                blocks.push(IntegerBlock {
                    states: start + states_at,
                    stream: start + stream_at,
                    stream_words: (block.coded.stream.len() / 4) as u16,
                    patches: block.coded.patches,
                    planes: block.form.planes() as u8,
                });
                states_at += block.coded.states.len();
                stream_at += block.coded.stream.len();
                Ok(())
            })?;
            parts.tiles.extend_from_slice(&side.tiles);
            parts.classes.extend_from_slice(&side.classes);
            parts.rest = start + end..start + bytes.len();
        }
        Ok(parts)
    }
}
