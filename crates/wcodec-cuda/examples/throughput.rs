//! How fast the first device runs this crate's own kernels: `cargo run --release -p wcodec-cuda --example throughput`.
//!
//! The CRC counts host time for everything that `crc32_device` does; the floor is device time of a kernel that only moves
//! as many bytes as a decoder of ratio 2/3 would.

use std::time::Instant;

use wcodec_cuda::{CudaContext, CudaError, DeviceBuffer, Event, Stream, copy_floor, crc32_device};

const REPEAT: usize = 10;

fn main() -> Result<(), CudaError> {
    let context = match CudaContext::new(0) {
        Ok(context) => context,
        Err(reason) => {
            println!("no measurement: {reason}");
            return Ok(());
        }
    };
    println!("{}", context.device().name);
    let stream = Stream::new(&context)?;
    let (start, end) = (Event::new(&context)?, Event::new(&context)?);
    for bytes in [16 << 20, 256 << 20, 3 << 30] {
        let mut output = DeviceBuffer::zeroed(&stream, bytes)?;
        let input = DeviceBuffer::zeroed(&stream, (bytes / 3 * 2) & !15)?;

        // The first call loads the kernel.
        crc32_device(&stream, &[output.as_slice()])?;
        let begin = Instant::now();
        for _ in 0..REPEAT {
            crc32_device(&stream, &[output.as_slice()])?;
        }
        let crc = bytes as f64 * REPEAT as f64 / begin.elapsed().as_secs_f64() / 1e9;

        copy_floor(&stream, input.as_slice(), output.as_slice_mut())?;
        start.record(&stream)?;
        for _ in 0..REPEAT {
            copy_floor(&stream, input.as_slice(), output.as_slice_mut())?;
        }
        end.record(&stream)?;
        let floor = bytes as f64 * REPEAT as f64 / f64::from(end.elapsed_ms(&start)?) / 1e6;
        println!("{:>6} MiB: crc32 {crc:.0} GB/s, floor {floor:.0} GB/s of output", bytes >> 20);
    }
    Ok(())
}
