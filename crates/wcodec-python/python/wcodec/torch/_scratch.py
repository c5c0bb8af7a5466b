"""Scratch memory that weights are decoded into, shared by all modules.

On the CPU a weight is decoded where it is used. On a CUDA device, uses of weights are noted during a forward pass; when the
first one comes again, the order is known, and from then on the next weights are decoded on a second stream while the present
ones are used. A pass in another order is noticed, costs the overlap, and is learnt anew."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import torch

from .. import _native
from . import _cuda
from ._io import region
from ._weight import Weight

# Where decoded tensors begin in scratch memory.
_ALIGN = 256
# Small weights are decoded together: this many, and at least this many bytes, may share a half.
_GROUP = 32
_MIN_BYTES = 8 << 20
# After this many surprises a model is taken to have no fixed order.
_MAX_SURPRISES = 8

_local = threading.local()


def leases(weight: Weight, device: torch.device) -> Iterator[tuple[int, int, torch.Tensor]]:
    """The weight as slabs of rows, each decoded into scratch memory that is valid until the next lease of this thread: for work
    that is queued on PyTorch's current stream before then."""
    if device.type == "cuda":
        yield from _pipeline(device).leases(weight)
    else:
        yield 0, weight.shape[0], _on_host(weight, device)


def lease(weight: Weight, device: torch.device) -> torch.Tensor:
    """The whole weight in scratch memory."""
    if device.type != "cuda":
        return _on_host(weight, device)
    slabs = weight.slabs()
    if len(slabs) > 1:
        # Too large for scratch memory.
        return weight.decode(device)
    return next(_pipeline(device).leases(weight))[2]


def prefetch(enabled: bool) -> None:
    """Whether weights are decoded ahead on a second stream; on by default."""
    _local.prefetch = enabled


def scratch_bytes(device: torch.device) -> int:
    """Bytes of scratch memory on a CUDA device."""
    return sum(half.numel() for half in _pipeline(device).halves)


def _on_host(weight: Weight, device: torch.device) -> torch.Tensor:
    if device.type != "cpu":
        return weight.decode(device)
    buffer = getattr(_local, "buffer", None)
    if buffer is None or buffer.numel() < weight.nbytes:
        buffer = _local.buffer = torch.empty(weight.nbytes, dtype=torch.uint8)
    out = buffer[: weight.nbytes].view(weight.dtype).view(weight.shape)
    weight.decode_into(out, 0, weight.shape[0])
    return out


def _pipeline(device: torch.device) -> Pipeline:
    device, cuda = _cuda.device_of(device)
    pipelines = _local.__dict__.setdefault("pipelines", {})
    if device not in pipelines:
        pipelines[device] = Pipeline(device, cuda)
    return pipelines[device]


# A use of a weight: the weight, the first row and the last one.
Use = tuple[Weight, int, int]


class Pipeline:
    """Two halves of scratch memory on a device, filled in turn."""

    def __init__(self, device: torch.device, cuda: _native.Cuda) -> None:
        self.device = device
        self.cuda = cuda
        self.stream = torch.cuda.Stream(device)
        self.halves = [torch.empty(0, dtype=torch.uint8, device=device) for _ in range(2)]
        self.ready = [torch.cuda.Event() for _ in range(2)]
        self.used = [torch.cuda.Event() for _ in range(2)]
        self.noted: list[Use] = []
        # The learnt order, in groups that are decoded together, and where in it the pass is.
        self.groups: list[list[Use]] | None = None
        self.at = (0, 0)
        self.surprises = 0
        self.turn = 0

    def leases(self, weight: Weight) -> Iterator[tuple[int, int, torch.Tensor]]:
        for first, last in weight.slabs():
            yield first, last, self._lease((weight, first, last))

    def _lease(self, use: Use) -> torch.Tensor:
        if self.groups is None and self.noted and _same(use, self.noted[0]):
            self._learn()
        if self.groups is not None:
            group, place = self.at
            if _same(use, self.groups[group][place]):
                return self._play(group, place)
            # Another order: nothing that was decoded ahead is of use.
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
            self.groups, self.noted = None, []
            self.surprises += 1
        self.noted.append(use)
        self._reserve(_size(use))
        self.turn ^= 1
        half = self.halves[self.turn]
        out = half[: _size(use)]
        self._decode([(use, out)], torch.cuda.current_stream(self.device))
        return _view(use, out)

    def _learn(self) -> None:
        """The pass begins again: from now on in the noted order."""
        if self.surprises >= _MAX_SURPRISES or not getattr(_local, "prefetch", True):
            self.noted = []
            return
        limit = max(_MIN_BYTES, *(_size(use) for use in self.noted))
        groups: list[list[Use]] = []
        size = 0
        for use in self.noted:
            if not groups or size + _size(use) > limit or len(groups[-1]) >= _GROUP:
                groups.append([])
                size = 0
            groups[-1].append(use)
            size += _size(use)
        self._reserve(limit)
        self.groups, self.noted, self.at = groups, [], (0, 0)

    def _play(self, group: int, place: int) -> torch.Tensor:
        current = torch.cuda.current_stream(self.device)
        if place == 0:
            if group == 0:
                # What was used last must be done with both halves.
                self.stream.wait_stream(current)
                self._ahead(0)
            else:
                self.used[(group - 1) % 2].record(current)
            if group + 1 < len(self.groups):
                if group > 0:
                    self.stream.wait_event(self.used[(group - 1) % 2])
                self._ahead(group + 1)
            current.wait_event(self.ready[group % 2])
        uses = self.groups[group]
        start = sum(_size(use) for use in uses[:place])
        self.at = (group, place + 1) if place + 1 < len(uses) else ((group + 1) % len(self.groups), 0)
        use = uses[place]
        return _view(use, self.halves[group % 2][start : start + _size(use)])

    def _ahead(self, group: int) -> None:
        """Decodes a group on the second stream."""
        half, start, items = self.halves[group % 2], 0, []
        for use in self.groups[group]:
            items.append((use, half[start : start + _size(use)]))
            start += _size(use)
        self._decode(items, self.stream)
        self.ready[group % 2].record(self.stream)

    def _decode(self, items: list[tuple[Use, torch.Tensor]], stream: torch.cuda.Stream) -> None:
        rows = []
        for (weight, first, last), out in items:
            rows.append((weight.resident(self.device), first, last, (out.data_ptr(), (last - first) * weight.row_bytes)))
        self.cuda.decode_rows(rows, stream.cuda_stream)

    def _reserve(self, size: int) -> None:
        if self.halves[0].numel() >= size:
            return
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        self.halves = [torch.empty(0, dtype=torch.uint8, device=self.device) for _ in range(2)]
        self.halves = [torch.empty(size, dtype=torch.uint8, device=self.device) for _ in range(2)]
        for half in self.halves:
            half.record_stream(self.stream)


def _same(a: Use, b: Use) -> bool:
    return a[0] is b[0] and a[1] == b[1]


def _size(use: Use) -> int:
    """Bytes that a use takes in scratch memory."""
    weight, first, last = use
    return -(-(last - first) * weight.row_bytes // _ALIGN) * _ALIGN


def _view(use: Use, out: torch.Tensor) -> torch.Tensor:
    weight, first, last = use
    bytes = (last - first) * weight.row_bytes
    return out[:bytes].view(weight.dtype).view(last - first, *weight.shape[1:])
