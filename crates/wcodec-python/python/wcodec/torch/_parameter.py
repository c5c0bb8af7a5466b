"""A tensor whose bytes are compressed: the parameter of a module whose weights stay so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only

from ..errors import BadArgumentError
from . import _scratch
from ._weight import Weight

aten = torch.ops.aten


class CompressedTensor(torch.Tensor):
    """A tensor with shape, type and device, but with its bytes compressed.

    `torch.nn.functional.linear`, `embedding` and the convolutions decode it into scratch memory that they share, embeddings
    only the rows that they look up. Every other operation decodes it into memory of its own, so it can be used like any
    tensor. It takes no gradient; gradients pass through it. It cannot be changed but by `copy_`, which compresses anew.
    """

    _weight: Weight

    @staticmethod
    def __new__(cls, weight: Weight, device: torch.device) -> CompressedTensor:
        tensor = torch.Tensor._make_wrapper_subclass(cls, weight.shape, dtype=weight.dtype, device=device)
        tensor._weight = weight
        return tensor

    @property
    def compressed(self) -> Weight:
        """The compressed weight."""
        return self._weight

    def decoded(self) -> torch.Tensor:
        """An ordinary tensor with the same values."""
        return self._weight.decode(self.device)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        shape = "×".join(map(str, self.shape))
        return f"CompressedTensor({shape}, {self.dtype}, {self.device}, {self._weight.stored_bytes} bytes)"

    def __deepcopy__(self, memo: dict) -> Any:
        # The weight is never changed, so copies share it.
        copy = CompressedTensor(self._weight, self.device)
        if isinstance(self, torch.nn.Parameter):
            copy = torch.nn.Parameter(copy, requires_grad=False)
        memo[id(self)] = copy
        return copy

    def __reduce_ex__(self, protocol: Any) -> Any:
        return torch.nn.Parameter(self.decoded(), requires_grad=False).__reduce_ex__(protocol)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        handler = _HANDLERS.get(func)
        if handler is not None:
            handled = handler(func, args, kwargs or {})
            if handled is not NotImplemented:
                return handled
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in _SAME:
            return CompressedTensor(args[0]._weight, args[0].device)
        if func is aten._to_copy.default and kwargs.get("dtype") in (None, args[0].dtype):
            return _moved(args[0], kwargs.get("device"))
        if func._schema.is_mutable and isinstance(args[0], CompressedTensor):
            if func is aten.copy_.default:
                return _recompressed(args[0], args[1])
            message = f"{func} would change `{args[0]._weight.name}`, which is compressed: decompress the module first"
            raise BadArgumentError(message, tensor=args[0]._weight.name)
        decode = lambda tensor: tensor.decoded()  # noqa: E731
        args, kwargs = tree_map_only(CompressedTensor, decode, (args, kwargs))
        return func(*args, **kwargs)


_SAME = {aten.detach.default, aten.alias.default, aten.clone.default, aten.lift_fresh.default}


def _moved(tensor: CompressedTensor, device: Any) -> CompressedTensor:
    device = torch.device(device) if device is not None else tensor.device
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    if device.type == "meta":
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    if device != tensor.device:
        tensor._weight.release(keep=device)
        if device.type == "cuda":
            tensor._weight.resident(device)
    return CompressedTensor(tensor._weight, device)


def _recompressed(tensor: CompressedTensor, source: torch.Tensor) -> CompressedTensor:
    from ._encode import encode

    if isinstance(source, CompressedTensor) and source._weight is tensor._weight:
        return tensor
    old = tensor._weight
    values = source.decoded() if isinstance(source, CompressedTensor) else source.detach()
    values = values.expand(old.shape).to(old.dtype)
    tensor._weight = encode({old.name: values}, old.slab_bytes)[old.name]
    return tensor


def _argument(args: tuple, kwargs: dict, place: int, name: str) -> Any:
    return args[place] if len(args) > place else kwargs.get(name)


def _linear(func: Any, args: tuple, kwargs: dict) -> Any:
    input, weight = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 1, "weight")
    bias = _argument(args, kwargs, 2, "bias")
    if not isinstance(weight, CompressedTensor) or isinstance(input, CompressedTensor):
        return NotImplemented
    if isinstance(bias, CompressedTensor):
        bias = bias.decoded()
    parts = []
    for use, slab in _scratch.leases(weight._weight, input.device):
        part = bias if bias is None or use.shape[0] == weight.shape[0] else bias[use.first : use.last]
        parts.append(_apply(func, (input, slab, part), {}, slab, weight._weight, use.first, use.last))
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def _convolution(func: Any, args: tuple, kwargs: dict) -> Any:
    weight = _argument(args, kwargs, 1, "weight")
    others = [arg for arg in (*args, *kwargs.values()) if arg is not weight]
    if not isinstance(weight, CompressedTensor) or any(isinstance(arg, CompressedTensor) for arg in others):
        return NotImplemented
    input = _argument(args, kwargs, 0, "input")
    # Not in slabs: groups and transposition give the first dimension different meanings.
    slab = _scratch.lease(weight._weight, input.device)
    args = tuple(slab if arg is weight else arg for arg in args)
    kwargs = {name: slab if arg is weight else arg for name, arg in kwargs.items()}
    return _apply(func, args, kwargs, slab, weight._weight, 0, weight.shape[0])


def _embedding(func: Any, args: tuple, kwargs: dict) -> Any:
    ids, weight = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 1, "weight")
    if not isinstance(weight, CompressedTensor):
        return NotImplemented
    if _argument(args, kwargs, 3, "max_norm") is not None:
        message = f"`{weight._weight.name}` is compressed, and max_norm would change it"
        raise BadArgumentError(message, tensor=weight._weight.name)
    if ids.is_cuda and torch.cuda.is_current_stream_capturing():
        return _captured_embedding(ids, weight._weight)
    rows, places = weight._weight.rows(ids)
    return F.embedding(places, rows)


def _captured_embedding(ids: torch.Tensor, weight: Weight) -> torch.Tensor:
    """Within a CUDA graph nobody can look at the ids: every row is decoded."""
    out = None
    for use, slab in _scratch.leases(weight, ids.device):
        inside = ((ids >= use.first) & (ids < use.last)).unsqueeze(-1)
        found = F.embedding((ids - use.first).clamp(0, use.last - use.first - 1), slab)
        out = found if out is None else torch.where(inside, found, out)
    return out


def _apply(
    func: Callable, args: tuple, kwargs: dict, slab: torch.Tensor, weight: Weight, first: int, last: int
) -> torch.Tensor:
    """Calls `func` with `slab`, which is scratch memory, as its weight. Should autograd want to keep that, it keeps the weight
    instead, and decodes it again for the backward pass."""
    if not torch.is_grad_enabled():
        return func(*args, **kwargs)
    memory = slab.untyped_storage().data_ptr()
    start = slab.storage_offset()

    def pack(tensor: torch.Tensor) -> Any:
        # Layouts without a storage are never the weight.
        if tensor.layout is not torch.strided or tensor.untyped_storage().data_ptr() != memory:
            return tensor
        return _Kept(weight, first, last, tensor.size(), tensor.stride(), tensor.storage_offset() - start)

    def unpack(kept: Any) -> torch.Tensor:
        return kept.tensor(slab.device) if isinstance(kept, _Kept) else kept

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return func(*args, **kwargs)


class _Kept:
    """A view of rows of a weight, as autograd would have kept it."""

    def __init__(self, weight: Weight, first: int, last: int, size: Any, stride: Any, offset: int) -> None:
        self.weight, self.first, self.last = weight, first, last
        self.size, self.stride, self.offset = size, stride, offset

    def tensor(self, device: torch.device) -> torch.Tensor:
        shape = (self.last - self.first, *self.weight.shape[1:])
        rows = torch.empty(shape, dtype=self.weight.dtype, device=device)
        self.weight.decode_into(rows, self.first, self.last)
        return rows.as_strided(self.size, self.stride, self.offset)


def _set_data(func: Any, args: tuple, kwargs: dict) -> Any:
    """`parameter.data = other`, by which modules are moved and converted: other types are compressed anew, and owners of a tied
    weight keep sharing it."""
    tensor, value = args
    if not isinstance(tensor, CompressedTensor):
        return func(tensor, value.decoded())
    if not isinstance(value, CompressedTensor):
        from ._encode import encode

        old = tensor._weight
        value = CompressedTensor(encode({old.name: value.detach()}, old.slab_bytes)[old.name], value.device)
    with torch._C.DisableTorchFunctionSubclass():
        func(tensor, value)
    tensor._weight = value._weight
    return None


_HANDLERS = {
    torch.Tensor.data.__set__: _set_data,
    F.linear: _linear,
    F.embedding: _embedding,
    F.conv1d: _convolution,
    F.conv2d: _convolution,
    F.conv3d: _convolution,
    F.conv_transpose1d: _convolution,
    F.conv_transpose2d: _convolution,
    F.conv_transpose3d: _convolution,
}
