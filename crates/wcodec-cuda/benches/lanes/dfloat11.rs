//! DFloat11's decoding kernel, from the PTX of its Python package (`dfloat11/decode.ptx`, version 0.5.0), named by
//! `WCODEC_DFLOAT11`. Its data is made here, as `dfloat11_utils.py` of the same package describes it: exponents in a Huffman code of
//! up to 32 bits, decoded byte by byte through tables, and for every 8 bytes the bit at which a code begins.
#![expect(unsafe_code, reason = "calls the driver; every call's SAFETY line names what makes it sound")]

use std::error::Error;
use std::ffi::{CString, c_void};

use cust::sys;
use wcodec_cuda::{CudaError, DeviceBuffer, Stream};

use crate::timing::Clock;

const THREADS: usize = 512;
const BYTES_PER_THREAD: usize = 8;

/// The kernel.
pub(crate) struct Dfloat11 {
    function: sys::CUfunction,
}

impl Dfloat11 {
    /// The kernel that `WCODEC_DFLOAT11` names, if it does, in the stream's context.
    pub(crate) fn from_env(stream: &Stream) -> Result<Option<Self>, Box<dyn Error>> {
        let Some(path) = std::env::var_os("WCODEC_DFLOAT11") else { return Ok(None) };
        let text = CString::new(std::fs::read(path)?)?;
        let _current = stream.context().enter()?;
        let (mut module, mut function) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the image is a C string. The module stays loaded until the process ends.
        check("cuModuleLoadData", unsafe { sys::cuModuleLoadData(&mut module, text.as_ptr().cast()) })?;
        // SAFETY: the module was just loaded, the name is a C string.
        check("cuModuleGetFunction", unsafe { sys::cuModuleGetFunction(&mut function, module, c"decode".as_ptr()) })?;
        Ok(Some(Self { function }))
    }

    /// Encodes BF16, times decoding, and compares its result with `original`. Compressed bytes and milliseconds.
    pub(crate) fn measure(
        &self,
        stream: &Stream,
        clock: &mut Clock<'_>,
        original: &[u8],
    ) -> Result<(usize, f32), Box<dyn Error>> {
        let packed = Packed::new(original);
        let compressed = packed.exponents.len() + packed.others.len() + packed.gaps.len() + 4 * packed.positions.len();
        let steps = packed.positions.windows(2).map(|pair| pair[1] - pair[0]);
        let shared = 4 * THREADS as u32 + 4 + 2 * steps.max().unwrap_or(0);
        let positions: Vec<u8> = packed.positions.iter().flat_map(|n| n.to_ne_bytes()).collect();
        let buffers = [&packed.tables, &packed.exponents, &packed.others, &positions, &packed.gaps]
            .map(|bytes| DeviceBuffer::from_host(stream, bytes));
        let out = DeviceBuffer::zeroed(stream, original.len())?;
        let mut addresses = Vec::new();
        let mut owners = Vec::new();
        for buffer in buffers {
            let buffer = buffer?;
            addresses.push(buffer.address());
            owners.push(buffer);
        }
        addresses.push(out.address());
        let mut counts = [packed.tables.len() / 256, packed.exponents.len(), original.len() / 2]
            .map(|n| i32::try_from(n).unwrap_or(0));
        let blocks = packed.exponents.len().div_ceil(THREADS * BYTES_PER_THREAD) as u32;
        let mut parameters: Vec<*mut c_void> = addresses.iter_mut().map(|a| std::ptr::from_mut(a).cast()).collect();
        parameters.extend(counts.iter_mut().map(|n| std::ptr::from_mut(n).cast::<c_void>()));
        let _current = stream.context().enter()?;
        // SAFETY: the function is loaded in the current context.
        check("cuFuncSetAttribute", unsafe {
            let most = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            sys::cuFuncSetAttribute(self.function, most, shared as i32)
        })?;
        let ms = clock.median(|_| {
            // SAFETY: parameters as the kernel declares them: tables, exponents, other bits, positions, gaps, output, and the
            // numbers of tables, bytes and elements. The buffers live until the clock has waited for the kernel.
            let code = unsafe {
                sys::cuLaunchKernel(
                    self.function,
                    blocks,
                    1,
                    1,
                    THREADS as u32,
                    1,
                    1,
                    shared,
                    stream.as_raw().cast(),
                    parameters.as_mut_ptr(),
                    std::ptr::null_mut(),
                )
            };
            check("cuLaunchKernel", code)
        })?;
        let mut back = vec![0; original.len()];
        out.copy_to_host(stream, 0, &mut back)?;
        if back != original {
            return Err("DFloat11 did not restore the data".into());
        }
        Ok((compressed, ms))
    }
}

struct Packed {
    /// 256 bytes per table, the last one of code lengths.
    tables: Vec<u8>,
    exponents: Vec<u8>,
    /// Sign and mantissa of every element.
    others: Vec<u8>,
    /// Five bits per thread: where, in its 8 bytes, the first code begins.
    gaps: Vec<u8>,
    /// For every block of threads the first element that begins in its bytes, then the number of elements.
    positions: Vec<u32>,
}

impl Packed {
    fn new(original: &[u8]) -> Self {
        let heads = || original.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        let exponent = |head: u16| (head >> 7) as u8;
        let mut counts = [0u64; 256];
        heads().for_each(|head| counts[usize::from(exponent(head))] += 1);
        let codes = huffman(&counts);

        let (mut exponents, mut positions, mut gap_list) = (Vec::new(), Vec::new(), Vec::new());
        let (mut pending, mut filled, mut at) = (0u64, 0u32, 0usize);
        for (i, head) in heads().enumerate() {
            let thread = at / (8 * BYTES_PER_THREAD);
            if thread + 1 > gap_list.len() {
                gap_list.push((at % (8 * BYTES_PER_THREAD)) as u8);
            }
            if thread / THREADS + 1 > positions.len() {
                positions.push(i as u32);
            }
            let (bits, code) = codes[usize::from(exponent(head))];
            pending = pending << bits | u64::from(code);
            filled += bits;
            at += bits as usize;
            while filled >= 8 {
                filled -= 8;
                exponents.push((pending >> filled) as u8);
            }
        }
        if filled > 0 {
            exponents.push((pending << (8 - filled)) as u8);
        }
        positions.push((original.len() / 2) as u32);
        let blocks = exponents.len().div_ceil(THREADS * BYTES_PER_THREAD);
        gap_list.resize(blocks * THREADS, 0);
        let mut gaps = vec![0u8; (5 * gap_list.len()).div_ceil(8)];
        for (i, gap) in gap_list.iter().enumerate() {
            for bit in 0..5 {
                gaps[(5 * i + bit) / 8] |= (gap >> (4 - bit) & 1) << (7 - (5 * i + bit) % 8);
            }
        }
        let others = heads().map(|head| (head >> 8 & 0x80 | head & 0x7f) as u8).collect();
        Self { tables: tables(&codes), exponents, others, gaps, positions }
    }
}

/// Length and code of every symbol that occurs; 0, 0 for the others. Canonical.
fn huffman(counts: &[u64; 256]) -> [(u32, u32); 256] {
    // Trees as lists of their symbols: merging two makes all their codes a bit longer.
    let mut trees: Vec<(u64, Vec<usize>)> = (0..256).filter(|&s| counts[s] > 0).map(|s| (counts[s], vec![s])).collect();
    let mut lengths = [0u32; 256];
    while trees.len() > 1 {
        trees.sort_by_key(|tree| std::cmp::Reverse(tree.0));
        let (Some(least), Some(next)) = (trees.pop(), trees.pop()) else { break };
        let symbols = [least.1, next.1].concat();
        symbols.iter().for_each(|&s| lengths[s] += 1);
        trees.push((least.0 + next.0, symbols));
    }
    let mut order: Vec<usize> = (0..256).filter(|&s| lengths[s] > 0).collect();
    order.sort_by_key(|&s| (lengths[s], s));
    let mut codes = [(0, 0); 256];
    let (mut code, mut length) = (0u32, 0);
    for s in order {
        code <<= lengths[s] - length;
        length = lengths[s];
        codes[s] = (length, code);
        code = code.wrapping_add(1);
    }
    codes
}

/// One table of 256 per prefix of whole bytes that codes go beyond: an exponent, or 256 - n for table n. Then the lengths.
fn tables(codes: &[(u32, u32); 256]) -> Vec<u8> {
    let mut prefixes = vec![(0u32, 0u32)];
    for &(bits, code) in codes.iter().filter(|(bits, _)| *bits > 8) {
        for bytes in 1..=(bits - 1) / 8 {
            let prefix = (bytes, code >> (bits - 8 * bytes));
            if !prefixes.contains(&prefix) {
                prefixes.push(prefix);
            }
        }
    }
    prefixes.sort_by_key(|prefix| prefix.0);
    let mut tables = Vec::new();
    for &(bytes, prefix) in &prefixes {
        let mut table = [None; 256];
        for (symbol, &(bits, code)) in codes.iter().enumerate() {
            if bits <= 8 * bytes || u64::from(code) >> (bits - 8 * bytes) != u64::from(prefix) {
                continue;
            }
            let rest = bits - 8 * bytes;
            if rest <= 8 {
                table[(code << (8 - rest) & 0xff) as usize] = Some(symbol as u8);
            } else {
                let byte = code >> (rest - 8) & 0xff;
                let next = prefixes.iter().position(|&p| p == (bytes + 1, code >> (rest - 8)));
                table[byte as usize] = next.map(|n| (256 - n) as u8);
            }
        }
        let mut value = 0;
        tables.extend(table.map(|entry| {
            value = entry.unwrap_or(value);
            value
        }));
    }
    tables.extend(codes.map(|(bits, _)| bits as u8));
    tables
}

fn check(call: &'static str, code: sys::CUresult) -> Result<(), CudaError> {
    match code {
        sys::CUresult::CUDA_SUCCESS => Ok(()),
        code => Err(CudaError::Call { call, code: code as i32 }),
    }
}
