use proptest::prelude::*;
use wcodec_container::{CHUNK_ALIGN, ChunkEntry, Extent, TensorEntry};
use wcodec_predict::TileSize;

use super::symbols::SymbolForm;
use super::*;
use crate::error::{Error, Result};
use crate::lanes::{BlockIndex, Geometry};
use crate::options::Level;
use crate::wire::put_varint;

/// An encoded tensor, as the façade would store it.
struct Stored {
    entry: TensorEntry,
    index: Vec<u8>,
    pool: Vec<Vec<u8>>,
    chunks: Vec<Vec<u8>>,
    forms: Vec<SymbolForm>,
}

impl Stored {
    fn new(data: &[u8], geometry: Geometry, options: IntegerOptions) -> Self {
        let IntegerPlan { params, tables, analyses } = plan(data, geometry, options, u64::MAX).unwrap().unwrap();
        let encoder = IntegerEncoder::new(params, &tables, options).unwrap();
        let (mut chunks, mut blocks, mut entries, mut at) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for chunk in 0..geometry.chunks() {
            let len = geometry.chunk_bytes(chunk);
            let (bytes, index) = encoder.encode_chunk(chunk, &data[at..at + len], &analyses).unwrap();
            assert_eq!(encoder.encode_chunk(chunk, &data[at..at + len], &[]).unwrap().0, bytes);
            at += len;
            entries.push(ChunkEntry { len: bytes.len() as u64, decoded_len: len as u64, ..ChunkEntry::default() });
            chunks.push(bytes);
            blocks.extend(index);
        }
        assert_eq!(at, data.len());
        let mut entry_params = Vec::new();
        put_varint(&mut entry_params, 1);
        entry_params.extend(params.to_bytes());
        let payload = chunks.iter().map(|c| (c.len() as u64).next_multiple_of(CHUNK_ALIGN)).sum();
        let entry = TensorEntry {
            name: "t".into(),
            params: entry_params,
            decoded_len: data.len() as u64,
            payload: Extent { offset: 64, len: payload },
            chunks: entries,
            ..TensorEntry::default()
        };
        let mut stored = Self {
            entry,
            index: BlockIndex::pack(&blocks),
            pool: vec![vec![], tables.to_bytes()],
            chunks,
            forms: Vec::new(),
        };
        let (decoder, mut forms) = (stored.decoder().unwrap(), Vec::new());
        for (chunk, bytes) in stored.chunks.iter().enumerate() {
            let mut out = vec![0; geometry.chunk_bytes(chunk)];
            let visit = |block: decode::Block<'_>, _: &mut [u8]| {
                forms.push(block.form);
                Ok(())
            };
            decoder.for_each_block(chunk, bytes, 0, &mut out, visit).unwrap();
        }
        stored.forms = forms;
        stored
    }

    fn decoder(&self) -> Result<IntegerDecoder> {
        IntegerDecoder::new(&self.entry, &self.index, &self.pool, 0)
    }

    fn decode(&self) -> Result<Vec<u8>> {
        let decoder = self.decoder()?;
        let (mut out, mut scratch) = (vec![0xa5; self.entry.decoded_len as usize], Scratch::default());
        let mut at = 0;
        for (chunk, bytes) in self.chunks.iter().enumerate() {
            let len = decoder.params.geometry.chunk_bytes(chunk);
            decoder.decode_chunk(chunk, bytes, 64, &mut out[at..at + len], &mut scratch)?;
            at += len;
        }
        Ok(out)
    }

    /// The tensor from the first `planes` planes, and the bound.
    fn decode_planes(&self, planes: u32) -> Result<(Vec<u8>, u8)> {
        let decoder = self.decoder()?;
        let (mut out, mut scratch) = (vec![0; self.entry.decoded_len as usize], Scratch::default());
        let (mut at, mut bound) = (0, 0);
        for (chunk, bytes) in self.chunks.iter().enumerate() {
            let len = decoder.params.geometry.chunk_bytes(chunk);
            let out = &mut out[at..at + len];
            bound = bound.max(decoder.decode_progressive(chunk, bytes, 64, planes, out, &mut scratch)?);
            at += len;
        }
        Ok((out, bound))
    }

    fn len(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum::<usize>()
            + self.index.len()
            + self.pool[1].len()
            + self.entry.params.len()
    }
}

/// Numbers that repeat nowhere soon.
fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut x = seed | 1;
    move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Noise,
    Weights,
    Ramp,
    Waves,
    Constant,
    Patchwork,
}

const KINDS: [Kind; 6] = [Kind::Noise, Kind::Weights, Kind::Ramp, Kind::Waves, Kind::Constant, Kind::Patchwork];

fn tensor(kind: Kind, len: usize, cols: usize, seed: u64) -> Vec<u8> {
    let mut next = noise(seed);
    let phase = (seed % 100) as f64;
    (0..len)
        .map(|i| {
            let (y, x) = (i / cols, i % cols);
            let wave = |fy: f64, fx: f64| ((y as f64 * fy + x as f64 * fx + phase).sin() * 100.0) as i32 as u8;
            let random = next();
            match kind {
                Kind::Noise => random as u8,
                Kind::Weights => {
                    (0..6).map(|k| (random >> (6 * k) & 31) as u8).fold(163, |sum: u8, v| sum.wrapping_add(v))
                }
                Kind::Ramp => (y * 3 + x / 2) as u8,
                Kind::Waves => wave(0.11, 0.05).wrapping_add((random & 3) as u8),
                Kind::Constant => 17,
                Kind::Patchwork => match (y / 64 + x / 64) % 3 {
                    0 => random as u8,
                    1 => wave(0.3, 0.9),
                    _ => 0,
                },
            }
        })
        .collect()
}

fn options(level: Level, tile: u32, progressive: bool) -> IntegerOptions {
    IntegerOptions { level, tile: TileSize::new(tile).unwrap(), progressive, plain: false }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn tensors_come_back(
        kind in prop::sample::select(&KINDS[..]), rows in 1usize..400, cols in 1usize..200, rest in 0usize..63,
        block_rows in prop::sample::select(vec![64usize, 256, 512]), tile in prop::sample::select(vec![4u32, 8, 16, 32, 64]),
        level in prop::sample::select(vec![Level::Fast, Level::Default, Level::Max]), progressive: bool, strips in 1usize..4, seed: u64,
    ) {
        let len = rows * cols + rest.min(cols - 1);
        let data = tensor(kind, len, cols, seed);
        let Some(geometry) = Geometry::choose(len as u64, cols as u64, 1, block_rows) else { return Ok(()) };
        let geometry = Geometry { strips_per_chunk: strips, ..geometry };
        let stored = Stored::new(&data, geometry, options(level, tile, progressive));
        prop_assert!(stored.decode().unwrap() == data);
        let (all, bound) = stored.decode_planes(u32::MAX).unwrap();
        prop_assert!(all == data && bound == 0);
    }

    #[test]
    fn views_of_odd_width_come_back(kind in prop::sample::select(&KINDS[..]), rows in 1usize..80, cols in 1024usize..1100, seed: u64) {
        let data = tensor(kind, rows * cols, cols, seed);
        let geometry = Geometry::choose(data.len() as u64, cols as u64, 1, 64).unwrap();
        prop_assert_eq!(geometry.cols, cols);
        let stored = Stored::new(&data, geometry, IntegerOptions::default());
        prop_assert!(stored.decode().unwrap() == data);

        let decoder = stored.decoder().unwrap();
        let (rect_rows, rect_cols) = (rows / 3..rows, 60..cols - 3);
        let mut out = vec![0; rect_rows.len() * rect_cols.len()];
        decoder.decode_rect(0, &stored.chunks[0], 64, [rect_rows.clone(), rect_cols.clone()], &mut out, &mut Scratch::default()).unwrap();
        for (row, part) in rect_rows.zip(out.chunks(rect_cols.len())) {
            prop_assert_eq!(part, &data[row * cols..][rect_cols.clone()]);
        }
    }

    #[test]
    fn prefixes_of_planes_keep_their_bound(kind in prop::sample::select(&KINDS[..]), seed: u64, progressive: bool) {
        let data = tensor(kind, 300 * 128, 128, seed);
        let geometry = Geometry::choose(data.len() as u64, 128, 1, 256).unwrap();
        let stored = Stored::new(&data, geometry, options(Level::Fast, 16, progressive));
        for planes in 0..14 {
            let (out, bound) = stored.decode_planes(planes).unwrap();
            let distance = |a: u8, b: u8| a.wrapping_sub(b).min(b.wrapping_sub(a));
            let worst = data.iter().zip(&out).map(|(&a, &b)| distance(a, b)).max().unwrap();
            prop_assert!(worst <= bound, "{} planes: {} > {}", planes, worst, bound);
            if progressive {
                let worst = data.iter().zip(&out).map(|(&a, &b)| (a as i8).abs_diff(b as i8)).max().unwrap();
                prop_assert!(worst <= bound, "{} planes, as I8: {} > {}", planes, worst, bound);
            }
        }
    }

    #[test]
    fn a_changed_byte_is_an_error_or_data(
        kind in prop::sample::select(&KINDS[..]), at in any::<prop::sample::Index>(), part in 0usize..4, flip in 1u8.., seed: u64,
    ) {
        let data = tensor(kind, 90 * 128 + 3, 128, seed);
        let geometry = Geometry::choose(data.len() as u64, 128, 1, 64).unwrap();
        let mut stored = Stored::new(&data, geometry, options(Level::Fast, 16, seed % 2 == 0));
        let bytes = match part {
            0 => &mut stored.chunks[0],
            1 => &mut stored.index,
            2 => &mut stored.pool[1],
            _ => &mut stored.entry.params,
        };
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = stored.decode();
        let _ = stored.decode_planes(3);
    }
}

#[test]
fn every_changed_or_missing_byte_of_a_chunk_is_an_error_or_data() {
    for kind in [Kind::Waves, Kind::Patchwork] {
        let data = tensor(kind, 40 * 128 + 5, 128, 3);
        let geometry = Geometry::choose(data.len() as u64, 128, 1, 256).unwrap();
        let mut stored = Stored::new(&data, geometry, IntegerOptions::default());
        let decoder = stored.decoder().unwrap();
        let (mut out, mut scratch) = (vec![0; data.len()], Scratch::default());
        let chunk = &mut stored.chunks[0];
        for at in 0..chunk.len() {
            assert!(decoder.decode_chunk(0, &chunk[..at], 64, &mut out, &mut scratch).is_err(), "cut at {at}");
            for flip in [1, 0x80, 0xff] {
                chunk[at] ^= flip;
                let _ = decoder.decode_chunk(0, chunk, 64, &mut out, &mut scratch);
                let _ = decoder.decode_progressive(0, chunk, 64, 2, &mut out, &mut scratch);
                chunk[at] ^= flip;
            }
        }
        decoder.decode_chunk(0, chunk, 64, &mut out, &mut scratch).unwrap();
        assert!(out == data);
    }
}

#[test]
fn smooth_tensors_are_smaller_than_zstd_19_makes_them() {
    let (rows, cols) = (1024, 256);
    let smooth: Vec<u8> = (0..rows * cols)
        .map(|i| {
            let (y, x) = ((i / cols) as f64, (i % cols) as f64);
            ((y * 0.021).sin() * (x * 0.034).cos() * 90.0 + (x * 0.013 + y * 0.007).sin() * 30.0) as i8 as u8
        })
        .collect();
    let noisy = tensor(Kind::Waves, rows * cols, cols, 9);
    for (what, data, planes) in [("product of sines", smooth, false), ("noisy waves", noisy, true)] {
        let mut zstd = Vec::with_capacity(zstd_safe::compress_bound(data.len()));
        zstd_safe::compress(&mut zstd, &data, 19).unwrap();
        let geometry = Geometry::choose(data.len() as u64, cols as u64, 1, 256).unwrap();
        let stored = Stored::new(&data, geometry, IntegerOptions::default());
        assert!(
            stored.forms.iter().all(|&form| (form != SymbolForm::Residuals) == planes),
            "{what}: {:?}",
            stored.forms
        );
        let guess = estimate(&data, geometry, 256).bytes;
        assert!(10 * stored.len() < 9 * zstd.len(), "{what}: {} against {}", stored.len(), zstd.len());
        assert!(guess.abs_diff(stored.len() as u64) < stored.len() as u64 / 4, "{what}: estimate {guess}");
    }
}

#[test]
fn the_estimate_gives_up_on_noise() {
    let data = tensor(Kind::Noise, 1 << 18, 512, 5);
    let geometry = Geometry::choose(data.len() as u64, 512, 1, 256).unwrap();
    let guess = estimate(&data, geometry, 256);
    assert!(guess.bytes > data.len() as u64 * 97 / 100, "{guess:?}");
    // Of sums of noise around 0, as weights are, differences cost more than the values: nothing to predict.
    let sums: Vec<u8> = data
        .as_chunks::<4>()
        .0
        .iter()
        .map(|c| (c.iter().map(|&b| u16::from(b)).sum::<u16>() / 4) as u8 ^ 0x80)
        .collect();
    let geometry = Geometry::choose(sums.len() as u64, 512, 1, 256).unwrap();
    let guess = estimate(&sums, geometry, 256);
    assert!(!guess.predicted, "{guess:?}");
}

#[test]
fn data_of_another_length_is_a_bad_argument() {
    let data = tensor(Kind::Ramp, 128 * 64, 64, 0);
    let geometry = Geometry::choose(data.len() as u64, 64, 1, 64).unwrap();
    let options = IntegerOptions::default();
    assert!(matches!(plan(&data[1..], geometry, options, u64::MAX), Err(Error::BadArgument(_))));
    let wide = Geometry { element_bytes: 2, ..geometry };
    assert!(matches!(plan(&data, wide, options, u64::MAX), Err(Error::BadArgument(_))));
    assert!(plan(&data, geometry, options, 60).unwrap().is_none());
    let IntegerPlan { params, tables, .. } = plan(&data, geometry, options, u64::MAX).unwrap().unwrap();
    let encoder = IntegerEncoder::new(params, &tables, options).unwrap();
    assert!(matches!(encoder.encode_chunk(0, &data[1..], &[]), Err(Error::BadArgument(_))));
    let stored = Stored::new(&data, geometry, options);
    let (mut out, decoder) = (vec![0; data.len() - 1], stored.decoder().unwrap());
    let short = decoder.decode_chunk(0, &stored.chunks[0], 64, &mut out, &mut Scratch::default());
    assert!(matches!(short, Err(Error::BadArgument(_))));
}
