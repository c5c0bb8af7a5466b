"""Scratch memory that weights are decoded into, shared by all modules.

On the CPU a weight is decoded where it is used. On a CUDA device, uses of weights are noted during a forward pass; when the
first one comes again, the order is known, and every weight gets its place in scratch memory. From then on a second stream decodes the
next weights as soon as their places are free, while the present ones are used. A pass in another order is noticed, costs the overlap,
and is learnt anew.

CUDA graphs have scratch memory of their own, since they write to it whenever they are replayed; they follow the order that was
learnt before they were captured."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import torch

from .. import _native
from . import _cuda
from ._places import Group, place
from ._weight import Use, Weight

# Weights that are used one after the other are decoded together: at most this many, and this many bytes. A larger one fills a device by
# itself: a launch of several such takes as long as one launch for each, or longer.
_GROUP = 32
_GROUP_BYTES = 16 << 20
# Scratch memory has room for two of the largest use, or for two of these.
_MIN_BYTES = 8 << 20
# Decoding ahead leaves one multiprocessor in so many to the small kernels between two matrices, which would otherwise wait until it is done.
_SPARED = 7
# After this many surprises a model is taken to have no fixed order.
_MAX_SURPRISES = 8

# Called for every use of a weight; `torch.cuda.current_stream` takes ten times as long.
_current_handle = getattr(torch._C, "_cuda_getCurrentRawStream", None)

_local = threading.local()


def leases(weight: Weight, device: torch.device) -> Iterator[tuple[Use, torch.Tensor]]:
    """The weight as slabs of rows, each decoded into scratch memory that is valid until the next one is asked for: for work that is
    queued on PyTorch's current stream before then."""
    if device.type == "cuda":
        pipeline = _pipeline(device)
        for use in weight.uses():
            yield use, pipeline.lease(weight, use)
            pipeline.end()
    else:
        yield Use(weight, 0, weight.shape[0]), _on_host(weight, device)


def lease(weight: Weight, device: torch.device) -> torch.Tensor:
    """The whole weight in scratch memory, valid until the next lease of this thread; in memory of its own if it is larger than that."""
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
    return sum(pipeline.memory.numel() for pipeline in pipelines if pipeline.device == device)


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


def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


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
    """Scratch memory on a device, and what is decoded into it."""

    def __init__(self, device: torch.device, cuda: _native.Cuda, capturing: bool) -> None:
        self.device = device
        self.cuda = cuda
        # What decodes ahead, beside others' kernels.
        self.beside = cuda.sparing(_multiprocessors(device) // _SPARED)
        self.capturing = capturing
        self.stream = torch.cuda.Stream(device)
        self.memory = torch.empty(0, dtype=torch.uint8, device=device)
        self.used = torch.cuda.Event()
        # Uses since the order was last unknown, with their places.
        self.noted: dict[Use, int] = {}
        # The learnt order: for each place the use, its group, and whether the group begins with it; and the place that is next.
        self.order: list[tuple[Use, int, bool]] | None = None
        self.groups: list[Group] = []
        self.views: list[torch.Tensor] = []
        # Of every group: when it has been decoded.
        self.ready: list[torch.cuda.Event] = []
        self.at = 0
        # The group that is used now, and the next one to be decoded.
        self.group = 0
        self.next = 0
        # Whether there is work on the second stream that the first has not waited for.
        self.forked = False
        self.surprises = 0
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
        self._decode([use], 0, self.current, self.cuda)
        return _view(use, weight.dtype, self.memory, 0)

    def end(self) -> None:
        """The work that uses the last lease has been queued. If that was the last of its group, others are decoded in its place, while
        what is queued from now on runs."""
        if self.order is not None and (self.at == 0 or self.order[self.at][2]):
            self._ahead(self.group)

    def forget(self) -> None:
        """Lets go of the order."""
        self._join()
        self.order, self.groups, self.views, self.noted, self.at = None, [], [], {}, 0

    def follow(self, other: Pipeline) -> None:
        """Takes over the order that another has learnt."""
        self.order, self.groups, self.at = other.order, other.groups, 0

    def release(self) -> None:
        """Gives the memory back. The order stays known."""
        self._join()
        self.at = 0
        self.views = []
        self.memory = torch.empty(0, dtype=torch.uint8, device=self.device)

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
        largest = max(_MIN_BYTES, *(use.size for use in uses))
        limit = min(_GROUP_BYTES, largest)
        self.order, self.groups, self.at = [], [], 0
        for use in uses:
            begins = not self.groups or self.groups[-1].size + use.size > limit or len(self.groups[-1].uses) >= _GROUP
            if begins:
                self.groups.append(Group())
            self.groups[-1].uses.append(use)
            self.groups[-1].size += use.size
            self.order.append((use, len(self.groups) - 1, begins))
        place(self.groups, min(2 * largest, sum(group.size for group in self.groups)))

    def _begin(self, group: int) -> None:
        """The uses of a group are next: waits for them."""
        if group == 0:
            self._lay_out()
            # Whatever was used before must be done with the memory.
            self.stream.wait_stream(self.current)
            self.next = 0
        self._ahead(group - 1)
        self.group = group
        self.current.wait_event(self.ready[group])
        self.forked = self.next > group + 1

    def _lay_out(self) -> None:
        """Views of the memory, one for each place in the order."""
        if self.views:
            return
        self._reserve(max(group.start + group.size for group in self.groups))
        self.ready = [torch.cuda.Event() for _ in self.groups]
        for group in self.groups:
            start = group.start
            for use in group.uses:
                weight = use.weight()
                dtype = torch.uint8 if weight is None else weight.dtype
                self.views.append(_view(use, dtype, self.memory, start))
                start += use.size

    def _ahead(self, done: int) -> None:
        """Decodes groups on the second stream whose places are free when the uses of group `done`, which are queued, are done."""
        first = True
        while self.next < len(self.groups) and self.groups[self.next].after <= done:
            if first and done >= 0:
                self.used.record(self.current)
                self.stream.wait_event(self.used)
            first = False
            group = self.groups[self.next]
            self._decode(group.uses, group.start, self.stream, self.beside)
            self.ready[self.next].record(self.stream)
            self.next += 1
            self.forked = True

    def _decode(self, uses: list[Use], start: int, stream: torch.cuda.Stream, cuda: _native.Cuda) -> None:
        """Queues one launch."""
        address, items, weights = self.memory.data_ptr() + start, [], []
        for use in uses:
            weight = use.weight()
            # A weight that is gone will not be asked for.
            if weight is not None:
                items.append((weight.resident(self.device), use.first, use.last, (address, use.bytes)))
                weights.append((weight, use))
            address += use.size
        if items:
            cuda.decode_rows(items, stream.cuda_stream)
        if not self.capturing:
            for weight, use in weights:
                weight.check(self.device, use.first, use.last, stream.cuda_stream)

    def _known_to(self, stream: torch.cuda.Stream) -> None:
        """PyTorch's allocator must not hand the memory out again before the stream is done with it."""
        self.memory.record_stream(stream)

    def _reserve(self, size: int) -> None:
        if self.memory.numel() >= size:
            return
        at = self.at
        self.release()
        self.at = at
        self.memory = torch.empty(size, dtype=torch.uint8, device=self.device)
        self._known_to(self.stream)


def _view(use: Use, dtype: torch.dtype, memory: torch.Tensor, start: int) -> torch.Tensor:
    return memory[start : start + use.bytes].view(dtype if use.bytes else torch.uint8).view(use.shape)
