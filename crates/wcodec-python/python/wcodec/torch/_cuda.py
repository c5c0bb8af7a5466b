"""Decoding on CUDA devices."""

from __future__ import annotations

import functools

import torch

from .. import _native

# Decoded bytes of the tensors whose compressed form is on the device at a time while an archive is loaded.
_BATCH_BYTES = 256 << 20


def device_of(device: torch.device) -> tuple[torch.device, _native.Cuda]:
    """The device with its number, and what decodes on it."""
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.device("cuda", index), _opened(index)


@functools.cache
def _opened(index: int) -> _native.Cuda:
    # PyTorch makes the primary context, with its own flags; then both work in it.
    torch.cuda.init()
    with torch.cuda.device(index):
        torch.cuda.current_stream()
    return _native.Cuda(index)


def stream_of(device: torch.device) -> int:
    """The handle of PyTorch's current stream."""
    return torch.cuda.current_stream(device).cuda_stream


def load(archive: _native.Archive, infos: list, device: torch.device) -> dict[str, torch.Tensor]:
    """Decodes tensors on the device, some at a time, so that no more than a part of the archive is there in compressed form."""
    from ._io import empty, region

    device, cuda = device_of(device)
    stream = stream_of(device)
    tensors: dict[str, torch.Tensor] = {}
    for batch in _batches(infos):
        held = cuda.upload(archive, [index for index, *_ in batch], stream)
        targets = []
        for tensor, (_, name, dtype, shape, nbytes) in zip(held, batch):
            tensors[name] = empty(name, dtype, shape, nbytes, device)
            targets.append((tensor, region(tensors[name])))
        cuda.decode(targets, stream)
        cuda.check(held, stream)
    return tensors


def _batches(infos: list):
    batch, size = [], 0
    for info in infos:
        batch.append(info)
        size += info[-1]
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
