"""Loading and saving dictionaries of tensors."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import torch

from .. import _files, _native
from ..errors import BadArgumentError
from . import _cuda
from ._types import code_of, torch_dtype


def load_file(filename: str | os.PathLike, device: Any = "cpu") -> dict[str, torch.Tensor]:
    """All tensors of an archive.

    On the CPU they are decoded by SIMD, in parallel, straight into the tensors' memory. On a CUDA device the compressed bytes
    go to the device and are decoded there, into memory of PyTorch's allocator, on PyTorch's current stream.

    Args:
        device: "cpu", "cuda", "cuda:1", a `torch.device`; any other device gets copies of what the CPU decodes.

    Raises:
        WcodecError: `CorruptError` for a damaged archive, `DeviceError`, `BadArgumentError` for a type PyTorch does not have.
    """
    return _load(_native.Archive.open(os.fspath(filename)), torch.device(device))


def load(data: bytes, device: Any = "cpu") -> dict[str, torch.Tensor]:
    """All tensors of an archive in memory. As `load_file`."""
    return _load(_native.Archive.from_bytes(data), torch.device(device))


def save_file(
    tensors: Mapping[str, torch.Tensor],
    filename: str | os.PathLike,
    metadata: Mapping[str, str] | None = None,
    *,
    threads: int | None = None,
    progress: _files.Progress | None = None,
    **encoding: Any,
) -> _files.Report:
    """Writes an archive of tensors: the one of the safetensors file with these tensors and this metadata, which
    `wcodec.decompress` restores. An existing file is replaced, as by `safetensors`, unless `overwrite=False`.

    Tensors may share memory (tied weights): equal bytes are stored once. Tensors of devices are copied to main memory, all at
    once.

    Args:
        threads, progress, encoding: as for `wcodec.compress`.
    """
    kept = host_tensors(tensors)
    described = [given(name, tensor) for name, tensor in kept.items()]
    return _files.save_tensors(described, filename, metadata, threads, progress, encoding)


def save(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None, **encoding: Any) -> bytes:
    """The bytes of an archive of tensors. As `save_file`."""
    kept = host_tensors(tensors)
    described = [given(name, tensor) for name, tensor in kept.items()]
    return _files.save_tensors_to_bytes(described, metadata, encoding)


def empty(name: str, dtype: str, shape: list[int], nbytes: int, device: torch.device) -> torch.Tensor:
    """Memory for a tensor of an archive."""
    kind = torch_dtype(dtype, name)
    # The archive says both; memory is taken for what both agree on.
    if math.prod(shape) * kind.itemsize != nbytes:
        raise BadArgumentError(f"tensor `{name}`: shape {shape} of {dtype} does not take {nbytes} bytes", tensor=name)
    return torch.empty(shape, dtype=kind, device=device)


def region(tensor: torch.Tensor) -> tuple[int, int]:
    """Address and length of a contiguous tensor, for the native module; the caller keeps the tensor."""
    return tensor.data_ptr(), tensor.numel() * tensor.element_size()


def host_tensors(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, contiguous in main memory."""
    kept = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise BadArgumentError(f"tensor `{name}` is no tensor but {type(tensor).__name__}", tensor=name)
        if tensor.layout != torch.strided or tensor.device.type == "meta":
            raise BadArgumentError(f"tensor `{name}` is not dense: {tensor.layout}, {tensor.device}", tensor=name)
        code_of(tensor.dtype, name)
        kept[name] = tensor.detach().to("cpu").contiguous().resolve_conj().resolve_neg()
    return kept


def given(name: str, tensor: torch.Tensor) -> tuple[str, str, list[int], tuple[int, int]]:
    """A tensor in main memory as the native module takes it."""
    return name, code_of(tensor.dtype, name), list(tensor.shape), region(tensor)


def _load(archive: _native.Archive, device: torch.device) -> dict[str, torch.Tensor]:
    infos = archive.infos(None)
    if device.type == "cuda":
        return _cuda.load(archive, infos, device)
    tensors = {name: empty(name, dtype, shape, nbytes, torch.device("cpu")) for _, name, dtype, shape, nbytes in infos}
    archive.decode([(index, region(tensors[name])) for index, name, *_ in infos])
    return tensors if device.type == "cpu" else {name: tensor.to(device) for name, tensor in tensors.items()}


class Framework:
    """Tensors for `wcodec.open`."""

    def __init__(self, device: Any) -> None:
        self._device = torch.device(device)

    def tensor(
        self, archive: _native.Archive, index: int, name: str, dtype: str, shape: list[int], nbytes: int
    ) -> torch.Tensor:
        if self._device.type == "cuda":
            return _cuda.load(archive, [(index, name, dtype, shape, nbytes)], self._device)[name]
        tensor = empty(name, dtype, shape, nbytes, torch.device("cpu"))
        archive.decode([(index, region(tensor))])
        return tensor.to(self._device)

    def rows(
        self,
        tensor: _native.Tensor,
        ranges: list[tuple[int, int]],
        first_col: int,
        last_col: int,
        dtype: str,
        shape: tuple[int, ...],
    ) -> torch.Tensor:
        out = torch.empty(shape, dtype=torch_dtype(dtype, tensor.name))
        tensor.decode_rows(ranges, first_col, last_col, region(out))
        return out.to(self._device)
