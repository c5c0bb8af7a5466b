"""Scratch memory that weights are decoded into, shared by all modules.

On the CPU a weight is decoded where it is used. On a CUDA device, uses of weights are noted during a forward pass; when the
first one comes again, the order is known, and from then on the next weights are decoded on a second stream while the present
ones are used. A pass in another order is noticed, costs the overlap, and is learnt anew.

CUDA graphs have scratch memory of their own, since they write to it whenever they are replayed; they follow the order that was
learnt before they were captured."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import torch

from .. import _native
from . import _cuda
from ._weight import Use, Weight

# Small weights are decoded together: this many, and at least this many bytes, may share a half.
_GROUP = 32
_MIN_BYTES = 8 << 20
# One this large fills a device by itself: a launch of several such takes as long as one launch for each, or longer.
_LONE_BYTES = 16 << 20
# After this many surprises a model is taken to have no fixed order.
_MAX_SURPRISES = 8

# Called for every use of a weight; `torch.cuda.current_stream` takes ten times as long.
_current_handle = getattr(torch._C, "_cuda_getCurrentRawStream", None)

_local = threading.local()


def leases(weight: Weight, device: torch.device) -> Iterator[tuple[Use, torch.Tensor]]:
    """The weight as slabs of rows, each decoded into scratch memory that is valid until the next lease of this thread: for work
    that is queued on PyTorch's current stream before then."""
    if device.type == "cuda":
        pipeline = _pipeline(device)
        for use in weight.uses():
            yield use, pipeline.lease(weight, use)
    else:
        yield Use(weight, 0, weight.shape[0]), _on_host(weight, device)


def lease(weight: Weight, device: torch.device) -> torch.Tensor:
    """The whole weight in scratch memory; in memory of its own if it is larger than that."""
    if device.type != "cuda":
        return _on_host(weight, device)
    uses = weight.uses()
    return _pipeline(device).lease(weight, uses[0]) if len(uses) == 1 else weight.decode(device)


def prefetch(enabled: bool) -> None:
    """Whether weights are decoded ahead on a second stream, for this thread; on by default."""
    _local.prefetch = enabled
    for pipeline in _local.__dict__.get("pipelines", {}).values():
        pipeline.forget()


def scratch_bytes(device: torch.device) -> int:
    """Bytes of scratch memory on a CUDA device, that of graphs included."""
    device, _ = _cuda.device_of(device)
    pipelines = _local.__dict__.get("pipelines", {}).values()
    return sum(half.numel() for pipeline in pipelines if pipeline.device == device for half in pipeline.halves)


def release_scratch() -> None:
    """Gives this thread's scratch memory back, but that of CUDA graphs. It is taken again when a weight is used."""
    _local.buffer = None
    for (_, capturing), pipeline in _local.__dict__.get("pipelines", {}).items():
        if not capturing:
            pipeline.release()


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
    index = device.index if device.index is not None else torch.cuda.current_device()
    pipelines = _local.__dict__.get("pipelines")
    if pipelines is None:
        pipelines = _local.pipelines = {}
    capturing = torch.cuda.is_current_stream_capturing()
    pipeline = pipelines.get((index, capturing))
    if pipeline is None:
        pipeline = pipelines[index, capturing] = Pipeline(*_cuda.device_of(device), capturing)
    if capturing and pipeline.order is None and not pipeline.noted and (index, False) in pipelines:
        pipeline.follow(pipelines[index, False])
    return pipeline


class Pipeline:
    """Two halves of scratch memory on a device, filled in turn."""

    def __init__(self, device: torch.device, cuda: _native.Cuda, capturing: bool) -> None:
        self.device = device
        self.cuda = cuda
        self.capturing = capturing
        self.stream = torch.cuda.Stream(device)
        self.halves = [torch.empty(0, dtype=torch.uint8, device=device) for _ in range(2)]
        self.ready = [torch.cuda.Event() for _ in range(2)]
        self.used = [torch.cuda.Event() for _ in range(2)]
        # Uses since the order was last unknown, with their places.
        self.noted: dict[Use, int] = {}
        # The learnt order: for each place the use, its group, and whether the group begins with it; and the place that is next.
        self.order: list[tuple[Use, int, bool]] | None = None
        self.groups: list[list[Use]] = []
        self.views: list[torch.Tensor] = []
        self.at = 0
        # Whether there is work on the second stream that the first has not waited for.
        self.forked = False
        self.surprises = 0
        self.turn = 0
        self.current = torch.cuda.current_stream(device)

    def lease(self, weight: Weight, use: Use) -> torch.Tensor:
        """Rows of a weight, decoded."""
        if _current_handle is None or _current_handle(self.device.index) != self.current.cuda_stream:
            self._follow_stream()
        if self.order is None and use in self.noted:
            self._learn(self.noted[use])
        if self.order is not None:
            at = self.at
            expected, group, begins = self.order[at]
            if use is expected:
                if begins:
                    self._begin(group)
                self.at = at + 1 if at + 1 < len(self.order) else 0
                return self.views[at]
            # Another order: nothing that was decoded ahead is of use.
            self.surprises += 1
            self.forget()
        self.noted[use] = len(self.noted)
        self._reserve(use.size)
        self.turn ^= 1
        self._decode([use], self.turn, self.current)
        return _view(use, weight.dtype, self.halves[self.turn], 0)

    def forget(self) -> None:
        """Lets go of the order."""
        self._join()
        self.order, self.groups, self.views, self.noted, self.at = None, [], [], {}, 0

    def follow(self, other: Pipeline) -> None:
        """Takes over the order that another has learnt."""
        self.order, self.groups, self.at = other.order, other.groups, 0

    def release(self) -> None:
        """Gives the halves back. The order stays known."""
        self._join()
        self.at = 0
        self.views = []
        self.halves = [torch.empty(0, dtype=torch.uint8, device=self.device) for _ in range(2)]

    def _follow_stream(self) -> None:
        current = torch.cuda.current_stream(self.device)
        if current == self.current:
            return
        # Within a graph, waiting for another stream would make that a part of the graph.
        if not self.capturing:
            current.wait_stream(self.current)
            self._known_to(current)
        self.current = current

    def _join(self) -> None:
        if self.forked:
            self.current.wait_stream(self.stream)
            self.forked = False

    def _learn(self, start: int) -> None:
        """The order repeats from the noted use `start` on."""
        uses = list(self.noted)[start:]
        self.noted = {}
        if self.surprises >= _MAX_SURPRISES or not getattr(_local, "prefetch", True):
            return
        limit = max(_MIN_BYTES, *(use.size for use in uses))
        self.order, self.groups, self.at, size = [], [], 0, 0
        for use in uses:
            begins = not self.groups or size + use.size > limit or len(self.groups[-1]) >= _GROUP
            if begins:
                self.groups.append([])
                size = 0
            self.groups[-1].append(use)
            size += use.size
            self.order.append((use, len(self.groups) - 1, begins))

    def _begin(self, group: int) -> None:
        """The uses of a group are next: waits for them, and decodes those of the group behind it ahead."""
        if group == 0:
            self._lay_out()
            # What was used last must be done with both halves.
            self.stream.wait_stream(self.current)
            self.forked = True
            self._ahead(0)
        else:
            self.used[(group - 1) % 2].record(self.current)
        if group + 1 < len(self.groups):
            if group > 0:
                self.stream.wait_event(self.used[(group - 1) % 2])
            self._ahead(group + 1)
        self.current.wait_event(self.ready[group % 2])
        self.forked = group + 1 < len(self.groups)

    def _lay_out(self) -> None:
        """Views of the halves, one for each place in the order."""
        if self.views:
            return
        self._reserve(max(sum(use.size for use in uses) for uses in self.groups))
        for group, uses in enumerate(self.groups):
            start = 0
            for use in uses:
                weight = use.weight()
                dtype = torch.uint8 if weight is None else weight.dtype
                self.views.append(_view(use, dtype, self.halves[group % 2], start))
                start += use.size

    def _ahead(self, group: int) -> None:
        """Decodes a group on the second stream."""
        self._decode(self.groups[group], group % 2, self.stream)
        self.ready[group % 2].record(self.stream)

    def _decode(self, uses: list[Use], half: int, stream: torch.cuda.Stream) -> None:
        address, together, weights = self.halves[half].data_ptr(), [], []
        for use in uses:
            weight = use.weight()
            # A weight that is gone will not be asked for.
            if weight is not None:
                item = (weight.resident(self.device), use.first, use.last, (address, use.bytes))
                if use.bytes >= _LONE_BYTES:
                    self.cuda.decode_rows([item], stream.cuda_stream)
                else:
                    together.append(item)
                weights.append((weight, use))
            address += use.size
        if together:
            self.cuda.decode_rows(together, stream.cuda_stream)
        if not self.capturing:
            for weight, use in weights:
                weight.check(self.device, use.first, use.last, stream.cuda_stream)

    def _known_to(self, stream: torch.cuda.Stream) -> None:
        """PyTorch's allocator must not hand the halves out again before the stream is done with them."""
        for half in self.halves:
            half.record_stream(stream)

    def _reserve(self, size: int) -> None:
        if self.halves[0].numel() >= size:
            return
        at = self.at
        self.release()
        self.at = at
        self.halves = [torch.empty(size, dtype=torch.uint8, device=self.device) for _ in range(2)]
        self._known_to(self.stream)


def _view(use: Use, dtype: torch.dtype, half: torch.Tensor, start: int) -> torch.Tensor:
    return half[start : start + use.bytes].view(dtype if use.bytes else torch.uint8).view(use.shape)
