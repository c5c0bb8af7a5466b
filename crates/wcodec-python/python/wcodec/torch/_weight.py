"""A weight that stays compressed."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable

import torch

from .. import _native
from ..errors import BadArgumentError
from . import _cuda
from ._io import empty, region
from ._types import torch_dtype

# Rows that lie closer together than a superblock is high are decoded in one go.
_MERGE_ROWS = 64


# Where decoded tensors begin in scratch memory.
_ALIGN = 256


class Use:
    """Rows of a weight that are decoded together. It does not keep the weight alive, so that it can stand in a learnt order."""

    __slots__ = ("bytes", "first", "last", "shape", "size", "weight")

    def __init__(self, weight: Weight, first: int, last: int) -> None:
        self.weight = weakref.ref(weight)
        self.first = first
        self.last = last
        self.shape = (last - first, *weight.shape[1:])
        self.bytes = (last - first) * weight.row_bytes
        # Bytes that it takes in scratch memory.
        self.size = -(-self.bytes // _ALIGN) * _ALIGN


class Weight:
    """A tensor of an archive that is decoded when it is needed. Its compressed bytes lie in the archive (a mapped file, or
    main memory), and, once it is used on a CUDA device, on that device."""

    def __init__(self, archive: _native.Archive, info: tuple, slab_bytes: int) -> None:
        index, name, dtype, shape, nbytes = info
        self.name = name
        self.shape = tuple(shape)
        self.dtype = torch_dtype(dtype, name)
        self.nbytes = nbytes
        self.slab_bytes = slab_bytes
        self._code = dtype
        self._archive = archive
        self._index = index
        self._tensor: _native.Tensor | None = None
        self._resident: dict[int, _native.DeviceTensor] = {}
        self._uses: list[Use] | None = None
        # Ranges of rows that were decoded on a device and found to be in order.
        self._checked: set[tuple[int, int, int]] = set()
        self._whole: dict[tuple[torch.device, int], weakref.ref] = {}
        if math.prod(self.shape) * self.dtype.itemsize != nbytes:
            raise BadArgumentError(f"tensor `{name}`: shape {shape} of {dtype} does not take {nbytes} bytes", tensor=name)

    @property
    def stored_bytes(self) -> int:
        """Bytes in the archive."""
        return self._native().stored_bytes

    @property
    def row_bytes(self) -> int:
        """Decoded bytes of a row: of what the first dimension counts."""
        return self.nbytes // self.shape[0] if self.shape and self.shape[0] else self.nbytes

    def device_bytes(self, device: torch.device) -> int:
        """Bytes on a device, 0 where it has not been used there."""
        held = self._resident.get(device.index) if device.type == "cuda" else None
        return 0 if held is None else held.device_bytes

    def uses(self) -> list[Use]:
        """The weight in slabs of rows that each fit into scratch memory; always the same objects."""
        if self._uses is None:
            rows = self.shape[0] if self.shape else 1
            step = rows
            if self.nbytes > self.slab_bytes:
                step = max(1, self.slab_bytes // self.row_bytes)
                # Whole superblocks of whatever height.
                step = step // 512 * 512 or step
            self._uses = [Use(self, first, min(first + step, rows)) for first in range(0, rows, step)]
        return self._uses

    def decode(self, device: torch.device) -> torch.Tensor:
        """The weight itself, in memory of its own. As long as somebody keeps it, others on the same stream get the same."""
        place = (device, _cuda.stream_of(device) if device.type == "cuda" else 0)
        known = self._whole.get(place)
        tensor = known() if known is not None else None
        if tensor is None:
            with torch.no_grad():
                tensor = empty(self.name, self._code, list(self.shape), self.nbytes, device)
                self.decode_into(tensor, 0, self.shape[0] if self.shape else 1)
            self._whole[place] = weakref.ref(tensor)
        return tensor

    def decode_into(self, out: torch.Tensor, first: int, last: int) -> None:
        """Decodes rows into a contiguous tensor; on a CUDA device on PyTorch's current stream."""
        if out.device.type == "cuda":
            held = self.resident(out.device)
            device, cuda = _cuda.device_of(out.device)
            cuda.decode_rows([(held, first, last, region(out))], _cuda.stream_of(device))
            self.check(device, first, last)
        elif out.device.type == "cpu":
            whole = first == 0 and last == (self.shape[0] if self.shape else 1)
            if whole:
                self._native().decode(region(out))
            else:
                self._native().decode_rows([(first, last)], 0, math.prod(self.shape[1:]), region(out))
        else:
            out.copy_(self.decode(torch.device("cpu"))[first:last])

    def rows(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows that hold `ids`, decoded, and where in them each id is, in the shape of `ids`."""
        unique, inverse = torch.unique(ids, return_inverse=True)
        wanted = unique.tolist()
        if wanted and (wanted[0] < 0 or wanted[-1] >= self.shape[0]):
            raise IndexError(f"tensor `{self.name}` has {self.shape[0]} rows; ids are {wanted[0]} to {wanted[-1]}")
        ranges: list[list[int]] = []
        places, decoded = [], 0
        for row in wanted:
            if ranges and row - ranges[-1][1] < _MERGE_ROWS:
                decoded += row + 1 - ranges[-1][1]
                ranges[-1][1] = row + 1
            else:
                decoded += 1
                ranges.append([row, row + 1])
            places.append(decoded - 1)
        out = torch.empty((decoded, *self.shape[1:]), dtype=self.dtype, device=ids.device)
        self._decode_ranges(ranges, out)
        return out, torch.tensor(places, dtype=torch.long, device=ids.device)[inverse]

    def _decode_ranges(self, ranges: list[list[int]], out: torch.Tensor) -> None:
        if out.device.type == "cpu":
            self._native().decode_rows([(a, b) for a, b in ranges], 0, math.prod(self.shape[1:]), region(out))
            return
        at = 0
        if out.device.type == "cuda":
            held = self.resident(out.device)
            device, cuda = _cuda.device_of(out.device)
            items = []
            for first, last in ranges:
                items.append((held, first, last, region(out[at : at + last - first])))
                at += last - first
            cuda.decode_rows(items, _cuda.stream_of(device))
            # Other rows every time; whoever asked for the ids' values has waited for the stream anyway.
            cuda.check([held], _cuda.stream_of(device))
            return
        for first, last in ranges:
            self.decode_into(out[at : at + last - first], first, last)
            at += last - first

    def resident(self, device: torch.device) -> _native.DeviceTensor:
        """The compressed bytes on a device; brings them there at the first call."""
        index = device.index if device.index is not None else torch.cuda.current_device()
        held = self._resident.get(index)
        if held is None:
            upload([self], device)
            held = self._resident[index]
        return held

    def check(self, device: torch.device, first: int, last: int, stream: int | None = None) -> None:
        """Raises if these rows, which have been decoded on a stream (the current one), are damaged. Waits for it, but only the
        first time: bytes in device memory do not change. Within a CUDA graph nothing can be checked."""
        if (device.index, first, last) in self._checked or torch.cuda.is_current_stream_capturing():
            return
        device, cuda = _cuda.device_of(device)
        cuda.check([self._resident[device.index]], _cuda.stream_of(device) if stream is None else stream)
        self._checked.add((device.index, first, last))

    def release(self, *, keep: torch.device | None = None) -> None:
        """Lets go of compressed bytes on devices other than `keep`."""
        index = keep.index if keep is not None and keep.type == "cuda" else None
        self._resident = {i: held for i, held in self._resident.items() if i == index}
        self._checked = {known for known in self._checked if known[0] == index}

    def _native(self) -> _native.Tensor:
        if self._tensor is None:
            self._tensor = self._archive.tensor(self._index)
        return self._tensor


def upload(weights: Iterable[Weight], device: torch.device) -> None:
    """Brings the compressed bytes of weights to a CUDA device, those of one archive together. Their checksums are compared
    there."""
    device, cuda = _cuda.device_of(device)
    stream = _cuda.stream_of(device)
    by_archive: dict[int, list[Weight]] = {}
    for weight in weights:
        if device.index not in weight._resident:
            by_archive.setdefault(id(weight._archive), []).append(weight)
    for group in by_archive.values():
        held = cuda.upload(group[0]._archive, [weight._index for weight in group], stream)
        for weight, tensor in zip(group, held):
            weight._resident[device.index] = tensor
