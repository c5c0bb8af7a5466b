"""Modules whose weights stay compressed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from ._encode import SLAB_BYTES, encode
from ._parameter import CompressedTensor
from ._types import has_code
from ._weight import Weight, upload

# Weights that are compressed at a time, in bytes.
_BATCH_BYTES = 256 << 20
# A smaller weight saves nothing worth a decoding.
_MIN_BYTES = 16 << 10


@dataclass(frozen=True)
class CompressionReport:
    """What `compress_module` did: weights compressed, their bytes before and after."""

    weights: int
    decoded_bytes: int
    stored_bytes: int

    @property
    def ratio(self) -> float:
        """Bytes after over bytes before; 1 for nothing."""
        return self.stored_bytes / self.decoded_bytes if self.decoded_bytes else 1.0


def compress_module(
    module: nn.Module,
    *,
    modules: tuple[type, ...] = (nn.Linear, nn.Embedding, _ConvNd),
    skip: Callable[[str], bool] | None = None,
    min_bytes: int = _MIN_BYTES,
    slab_bytes: int = SLAB_BYTES,
    progress: Callable[[int, int], Any] | None = None,
    **encoding: Any,
) -> CompressionReport:
    """Compresses the weights of a module and of all modules in it, in place. They stay compressed, on whatever device the module
    is or goes to, and are decoded bit for bit when they are used: into scratch memory that all share; embeddings decode only
    the rows that they look up. Where the order of use repeats from one forward pass to the next, a CUDA device decodes the
    next weights on a second stream while the present ones are used.

    Tied weights stay tied. `state_dict` returns the true weights, `load_state_dict` takes them. Compressed weights take no
    gradient (`requires_grad` becomes False); gradients pass through them to what comes before, for adapters.

    Compiled models (`torch.compile`) are not supported; `generate` of transformers is told not to compile.

    Memory: the compressed bytes in main memory (they were made there), the same on the CUDA device that the module is used on,
    and as scratch memory the largest weight (CPU) or twice the largest slab (CUDA).

    Args:
        modules: classes whose parameter `weight` is compressed, subclasses included.
        skip: says of a weight's name, such as "lm_head.weight", whether to leave it alone.
        min_bytes: leave smaller weights alone.
        slab_bytes: on a CUDA device, larger weights of linear layers are decoded and multiplied in slabs of rows of so many bytes.
        progress: called with (bytes done, bytes in all) between batches.
        encoding: `level` and others, as for `wcodec.compress`.

    Returns:
        What was compressed.

    Raises:
        WcodecError: `BadArgumentError` for an unknown option, `DeviceError`.
    """
    chosen: dict[int, tuple[nn.Parameter, list[tuple[nn.Module, str]]]] = {}
    for name, owner in _owners(module, modules):
        weight = owner._parameters["weight"]
        if weight.numel() * weight.element_size() >= min_bytes and not (skip is not None and skip(name)):
            chosen.setdefault(id(weight), (weight, []))[1].append((owner, name))
    total = sum(weight.numel() * weight.element_size() for weight, _ in chosen.values())
    done = stored = count = 0
    waiting = list(chosen.values())
    chosen.clear()
    while waiting:
        batch: dict[str, tuple[nn.Parameter, list[tuple[nn.Module, str]]]] = {}
        size = 0
        while waiting and (not batch or size < _BATCH_BYTES):
            weight, owners = waiting.pop(0)
            batch[owners[0][1]] = (weight, owners)
            size += weight.numel() * weight.element_size()
        made = encode({name: weight.detach() for name, (weight, _) in batch.items()}, slab_bytes, **encoding)
        for name, (weight, owners) in batch.items():
            attach(made[name], weight.device, [owner for owner, _ in owners])
            stored += made[name].stored_bytes
            count += 1
        for device in {weight.device for weight, _ in batch.values() if weight.is_cuda}:
            upload([made[name] for name, (weight, _) in batch.items() if weight.device == device], device)
        done += size
        if progress is not None:
            progress(done, total)
    leave_uncompiled(module)
    return CompressionReport(count, done, stored)


def decompress_module(module: nn.Module) -> None:
    """Makes compressed weights ordinary parameters again, in place, without gradients. Tied ones stay tied."""
    known: dict[int, nn.Parameter] = {}
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if isinstance(parameter, CompressedTensor):
                if id(parameter) not in known:
                    known[id(parameter)] = nn.Parameter(parameter.decoded(), requires_grad=False)
                owner._parameters[name] = known[id(parameter)]


def compressed_weights(module: nn.Module) -> dict[str, Weight]:
    """The compressed weights in a module by name, tied ones once."""
    named = module.named_parameters(remove_duplicate=True)
    return {name: parameter.compressed for name, parameter in named if isinstance(parameter, CompressedTensor)}


def attach(weight: Weight, device: torch.device, owners: list[nn.Module], name: str = "weight") -> None:
    """Makes a compressed weight the parameter `name` of modules, the same for all."""
    parameter = nn.Parameter(CompressedTensor(weight, device), requires_grad=False)
    for owner in owners:
        owner._parameters[name] = parameter
        if _true_weights not in owner._state_dict_hooks.values():
            owner._register_state_dict_hook(_true_weights)


def leave_uncompiled(module: nn.Module) -> None:
    """Tells transformers not to compile the model by itself, as it does for caches of fixed size."""
    config = getattr(module, "generation_config", None)
    if hasattr(config, "disable_compile"):
        config.disable_compile = True


def _owners(module: nn.Module, classes: tuple[type, ...]) -> Iterator[tuple[str, nn.Module]]:
    """Modules whose weight can be compressed, with its name."""
    for path, owner in module.named_modules():
        weight = owner._parameters.get("weight")
        suitable = (
            isinstance(owner, classes)
            and isinstance(weight, nn.Parameter)
            and not isinstance(weight, (CompressedTensor, nn.parameter.UninitializedParameter))
            and weight.layout is torch.strided
            and weight.device.type != "meta"
            and has_code(weight.dtype)
            # Changes its weight in every forward pass.
            and getattr(owner, "max_norm", None) is None
        )
        if suitable:
            yield f"{path}.weight" if path else "weight", owner


def _true_weights(module: nn.Module, state: dict, prefix: str, local_metadata: Any) -> None:
    """In a `state_dict`, weights are ordinary tensors."""
    for name, parameter in module._parameters.items():
        key = prefix + name
        if isinstance(state.get(key), CompressedTensor):
            state[key] = parameter.decoded()
