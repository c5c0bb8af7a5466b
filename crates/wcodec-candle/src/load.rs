//! Weights decoded once: a backend for candle's `VarBuilder`.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Error, Result, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use wcodec::Scratch;

use crate::ahead::{Ahead, Plan};
#[cfg(feature = "cuda")]
use crate::cuda::DeviceLoader;
use crate::{Shards, convert};

/// How [`var_builder_with`] loads.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Threads that decode, the caller's included. By default as many as candle computes with (`RAYON_NUM_THREADS`). For a CUDA device
    /// the current rayon pool prepares what the device decodes.
    pub threads: usize,
    /// Decoded bytes, as stored, that may wait for a model to ask for them. They are those next in the order of names, where `layers.9`
    /// comes before `layers.10`. Has no effect with one thread.
    pub read_ahead: usize,
    /// The same on a CUDA device, whose memory the model will take anyway: as much is decoded at a time.
    pub device_read_ahead: usize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { threads: candle_core::utils::get_num_threads(), read_ahead: 64 << 20, device_read_ahead: 512 << 20 }
    }
}

/// A `VarBuilder` that reads the archive at `path`, or all `.wcodec` files of that folder, as candle's own read safetensors: every
/// tensor when it is asked for, converted to the dtype and moved to the device of the builder. Maps the files, as [`Shards::open`].
/// For a CUDA device (feature `cuda`) it is decoded there; element types that candle has no like of come by way of the CPU.
///
/// # Errors
/// As [`Shards::open`]. The builder's own errors are those of candle's safetensors backend; damaged bytes are an error of the tensor
/// that they belong to, which names it and its shard.
pub fn var_builder(path: impl AsRef<Path>, dtype: DType, device: &Device) -> Result<VarBuilder<'static>> {
    var_builder_with(Shards::open(path)?, dtype, device, &LoadOptions::default())
}

/// As [`var_builder`], of open shards and with options.
///
/// # Errors
/// candle's `Error` when threads cannot be started.
pub fn var_builder_with(
    shards: Shards,
    dtype: DType,
    device: &Device,
    options: &LoadOptions,
) -> Result<VarBuilder<'static>> {
    let mut names: Vec<String> = shards.names().map(str::to_owned).collect();
    names.sort_by(|a, b| natural_order(a, b));
    let places = names.iter().enumerate().map(|(place, name)| (name.clone(), place)).collect();
    let delivered = names.iter().map(|_| AtomicBool::new(false)).collect();
    let plan = Names { shards, names, delivered, dtype: Mutex::new(dtype) };
    let ahead = Ahead::new(plan, options.threads.saturating_sub(1), options.read_ahead, 3)?;
    let loader = Loader {
        ahead,
        places,
        #[cfg(feature = "cuda")]
        on_device: Mutex::default(),
        #[cfg(feature = "cuda")]
        read_ahead: options.device_read_ahead,
    };
    Ok(VarBuilder::from_backend(Box::new(loader), dtype, device.clone()))
}

/// Numbers within names count as numbers, so that layers stand in the order in which models ask for them.
fn natural_order(a: &str, b: &str) -> Ordering {
    let digits = |rest: &[u8]| rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let ([x, ..], [y, ..]) = (a, b) else { return a.len().cmp(&b.len()) };
        let (m, n) = (digits(a), digits(b));
        let (order, taken) = if m > 0 && n > 0 {
            let [number_a, number_b] = [&a[..m], &b[..n]].map(|n| &n[n.iter().take_while(|&&d| d == b'0').count()..]);
            // Equal numbers written differently still differ.
            let order = number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b)).then(m.cmp(&n));
            (order, (m, n))
        } else {
            (x.cmp(y), (1, 1))
        };
        if order.is_ne() {
            return order;
        }
        (a, b) = (&a[taken.0..], &b[taken.1..]);
    }
}

/// All tensors in the order of their names.
struct Names {
    shards: Shards,
    names: Vec<String>,
    /// Which have been asked for: models rarely ask twice.
    delivered: Vec<AtomicBool>,
    /// What was last asked for; most models ask for one dtype.
    dtype: Mutex<DType>,
}

impl Plan for Names {
    type Key = usize;
    /// In the dtype that was last asked for.
    type Value = Result<Tensor>;

    fn next(&self, &key: &usize) -> Option<usize> {
        (key + 1..self.names.len()).find(|&place| !self.delivered[place].load(Relaxed))
    }

    fn weight(&self, &key: &usize) -> usize {
        self.shards.byte_len_of(&self.names[key])
    }

    fn make(&self, &key: &usize) -> Result<Tensor> {
        let dtype = *self.dtype.lock().unwrap_or_else(PoisonError::into_inner);
        decode(&self.shards, &self.names[key], dtype)
    }
}

/// Tensors of more chunks than this are decoded by the rayon pool rather than by one thread.
const CHUNKS_FOR_ONE: usize = 16;

/// The whole tensor on the CPU, as `dtype`.
fn decode(shards: &Shards, name: &str, dtype: DType) -> Result<Tensor> {
    let tensor = shards.tensor(name)?;
    let shape = convert::shape(tensor.shape())?;
    convert::tensor_as(dtype, tensor.dtype(), &shape, usize::try_from(tensor.byte_len())?, |out| {
        let decoded = if tensor.boundaries().len() > CHUNKS_FOR_ONE {
            tensor.decode_into(out)
        } else {
            tensor.decode_range(0..tensor.byte_len(), out, &mut Scratch::default())
        };
        decoded.map_err(|error| shards.blame(name, error))
    })
}

struct Loader {
    ahead: Ahead<Names>,
    places: HashMap<String, usize>,
    /// For the device that was last asked for.
    #[cfg(feature = "cuda")]
    on_device: Mutex<Option<DeviceLoader>>,
    #[cfg(feature = "cuda")]
    read_ahead: usize,
}

impl Loader {
    fn take(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let plan = self.ahead.plan();
        let place = *self.places.get(name).ok_or_else(|| Error::CannotFindTensor { path: name.to_owned() }.bt())?;
        *plan.dtype.lock().unwrap_or_else(PoisonError::into_inner) = dtype;
        plan.delivered[place].store(true, Relaxed);
        #[cfg(feature = "cuda")]
        if device.is_cuda() && DeviceLoader::decodes(&plan.shards, name) {
            return self.take_on_device(place, dtype, device);
        }
        let mut tensor = self.ahead.take(&place)?;
        if tensor.dtype() != dtype {
            // It was made for another dtype: what a conversion has cost cannot be had back from its result.
            tensor = decode(&plan.shards, name, dtype)?;
        }
        tensor.to_device(device)
    }

    /// Decodes on a GPU, and converts there, as candle converts what it has read from a file.
    #[cfg(feature = "cuda")]
    fn take_on_device(&self, place: usize, dtype: DType, device: &Device) -> Result<Tensor> {
        let plan = self.ahead.plan();
        let mut loader = self.on_device.lock().unwrap_or_else(PoisonError::into_inner);
        let loader = match &mut *loader {
            Some(loader) if loader.is_for(device) => loader,
            loader => loader.insert(DeviceLoader::new(device, &plan.shards)?),
        };
        let numbers = std::iter::successors(Some(place), |number| plan.next(number));
        let order = numbers.map(|number| (number, plan.names[number].as_str()));
        let tensor = loader.take(&plan.shards, place, order, self.read_ahead)?;
        convert::converted(&tensor, dtype)
    }
}

impl SimpleBackend for Loader {
    fn get(&self, shape: Shape, name: &str, _: candle_nn::Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let plan = self.ahead.plan();
        if let Some(stored) = plan.shards.shape_of(name) {
            let got = Shape::from(convert::shape(stored)?);
            if got != shape {
                let msg = format!("shape mismatch for {name}");
                return Err(Error::UnexpectedShape { msg, expected: shape, got }.bt());
            }
        }
        self.take(name, dtype, device)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        self.take(name, dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_stand_in_the_order_of_their_numbers() {
        let mut names = ["l.10.q", "l.9.q", "embed", "l.9.k", "l.09.q", "l.1.q", "l", "norm", "l.9", "l.10.k", "l.0.q"];
        names.sort_by(|a, b| natural_order(a, b));
        let sorted = ["embed", "l", "l.0.q", "l.1.q", "l.9", "l.9.k", "l.9.q", "l.09.q", "l.10.k", "l.10.q", "norm"];
        assert_eq!(names, sorted);
    }
}
