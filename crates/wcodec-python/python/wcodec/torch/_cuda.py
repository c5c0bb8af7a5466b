"""Decoding on CUDA devices."""

from __future__ import annotations

import functools

import torch

from .. import _native

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
    """Decodes tensors on the device, in groups that are copied while earlier ones are decoded."""
    from ._io import empty, region

    device, cuda = device_of(device)
    tensors = {name: empty(name, dtype, shape, nbytes, device) for _, name, dtype, shape, nbytes in infos}
    targets = [(index, region(tensors[name])) for index, name, *_ in infos]
    cuda.load(archive, targets, stream_of(device))
    return tensors
