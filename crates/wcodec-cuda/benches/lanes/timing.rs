//! Device time of queued work.

use wcodec_cuda::{CudaError, DeviceBuffer, Event, Stream, copy_floor};

const REPEAT: usize = 15;

/// Measures on one stream.
pub(crate) struct Clock<'a> {
    stream: &'a Stream,
    start: Event,
    end: Event,
    /// Copying these keeps the device busy while the host queues what is timed, and empties the caches.
    idle: DeviceBuffer,
    busy: DeviceBuffer,
}

impl<'a> Clock<'a> {
    pub(crate) fn new(stream: &'a Stream) -> Result<Self, CudaError> {
        let buffer = || DeviceBuffer::zeroed(stream, 256 << 20);
        let (start, end) = (Event::new(stream.context())?, Event::new(stream.context())?);
        Ok(Self { stream, start, end, idle: buffer()?, busy: buffer()? })
    }

    /// Median milliseconds of `queue`, which gets the number of the round.
    pub(crate) fn median(&mut self, mut queue: impl FnMut(usize) -> Result<(), CudaError>) -> Result<f32, CudaError> {
        const WARM_UP: usize = 3;
        let mut times = Vec::with_capacity(REPEAT);
        for round in 0..WARM_UP + REPEAT {
            copy_floor(self.stream, self.idle.as_slice(), self.busy.as_slice_mut())?;
            self.start.record(self.stream)?;
            queue(round)?;
            self.end.record(self.stream)?;
            let time = self.end.elapsed_ms(&self.start)?;
            if round >= WARM_UP {
                times.push(time);
            }
        }
        times.sort_by(f32::total_cmp);
        Ok(times[times.len() / 2])
    }

    /// Milliseconds of a kernel that reads and writes so many bytes and does nothing else.
    pub(crate) fn floor(&mut self, read: usize, written: usize) -> Result<f32, CudaError> {
        let input = DeviceBuffer::zeroed(self.stream, read & !15)?;
        let mut output = DeviceBuffer::zeroed(self.stream, written & !15)?;
        let stream = self.stream;
        self.median(|_| copy_floor(stream, input.as_slice(), output.as_slice_mut()))
    }
}
