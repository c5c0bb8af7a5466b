"""Models from archives, without materialising them."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn.modules.conv import _ConvNd

from .. import _native
from ..errors import BadArgumentError, InputError, NotFoundError, UnsupportedError
from ..torch import _cuda
from ..torch._encode import SLAB_BYTES
from ..torch._io import empty, region
from ..torch._module import _MIN_BYTES, attach, leave_uncompiled
from ..torch._types import torch_dtype
from ..torch._weight import Weight, upload

# Files of a model's folder that say how to build it.
_CONFIGS = ("config.json", "generation_config.json")


def from_pretrained(
    path: str | os.PathLike,
    *,
    device: Any = "cpu",
    model_class: Any = None,
    compressed: bool = True,
    modules: tuple[type, ...] = (nn.Linear, nn.Embedding, _ConvNd),
    min_bytes: int = _MIN_BYTES,
    slab_bytes: int = SLAB_BYTES,
    **options: Any,
) -> Any:
    """A Hugging Face model from archives, in evaluation mode.

    Weights of linear layers, embeddings and convolutions stay compressed: on the CPU in the mapped archive, on a CUDA device in
    its memory (see `wcodec.torch.compress_module`). Nothing else is ever in memory but the other parameters, which are small.

    Args:
        path: an archive of a model's folder; a folder with `config.json` and one or more `.wcodec` files in it; or one such
            file beside its `config.json`.
        device: where the model goes.
        model_class: a class of transformers, such as `AutoModelForCausalLM`; without it, the configuration's architecture.
        compressed: False for ordinary parameters, decoded straight to the device.
        modules, min_bytes, slab_bytes: as for `wcodec.torch.compress_module`.
        options: for the model's construction, such as `attn_implementation`.

    Parameters have the types that they have in the archive. Names are those of the checkpoint, also where transformers has others by now and
    renames them.

    Raises:
        WcodecError: `NotFoundError` when there is no archive or no configuration, `InputError` when the archives lack weights of
            the model, naming them, `UnsupportedError` when transformers makes the model's weights of several of the checkpoint's
            (experts of some mixtures), `CorruptError`, `DeviceError`.
    """
    device = torch.device(device)
    if device.type == "cuda":
        device, _ = _cuda.device_of(device)
    with contextlib.ExitStack() as stack:
        archives, folder = _open(Path(path), stack)
        found = _Tensors(archives)
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        with _parameters_on_meta():
            model = _build(config, model_class, found.float_type(), options)
        if (folder / "generation_config.json").is_file() and model.can_generate():
            model.generation_config = transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
    _fill(model, found, device, modules if compressed else (), min_bytes, slab_bytes)
    if compressed:
        leave_uncompiled(model)
    return model.eval()


def _open(path: Path, stack: contextlib.ExitStack) -> tuple[list[_native.Archive], Path]:
    """The archives, and a folder with the configuration."""
    if path.is_dir():
        files = sorted(path.glob("*.wcodec"))
        if not files:
            raise NotFoundError(f"{path}: no .wcodec file in this folder", file=str(path))
        archives = [_native.Archive.open(os.fspath(file)) for file in files]
        if (path / "config.json").is_file():
            return archives, path
    else:
        archives = [_native.Archive.open(os.fspath(path))]
    for archive in archives:
        if "config.json" in archive.files:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wcodec-")))
            for name in _CONFIGS:
                if name in archive.files:
                    (folder / name).write_bytes(archive.read_file(name))
            return archives, folder
    if not path.is_dir() and (path.parent / "config.json").is_file():
        return archives, path.parent
    raise NotFoundError(f"{path}: no config.json in the archive or beside it", file=str(path))


class _Tensors:
    """The tensors of several archives by name."""

    def __init__(self, archives: list[_native.Archive]) -> None:
        self.by_name: dict[str, tuple[_native.Archive, tuple]] = {}
        for archive in archives:
            for info in archive.infos(None):
                self.by_name.setdefault(info[1], (archive, info))
        self.unused = set(self.by_name)
        # Of names that transformers gives to tensors, those in the archives.
        self.original: dict[str, str] = {}
        # Names of tensors that transformers would make others of, and how.
        self.converted: dict[str, str] = {}

    def float_type(self) -> torch.dtype:
        """The floating-point type of most bytes."""
        sizes: Counter = Counter()
        for _, (_, name, dtype, _, nbytes) in self.by_name.values():
            kind = torch_dtype(dtype, name)
            if kind.is_floating_point and kind.itemsize > 1:
                sizes[kind] += nbytes
        return sizes.most_common(1)[0][0] if sizes else torch.get_default_dtype()

    def rename(self, model: Any) -> None:
        """Knows tensors also by the names that the model has for them, where transformers renames those of checkpoints."""
        rename = _renaming(model)
        own = set(model.state_dict())
        for name in [name for name in self.by_name if name not in own]:
            new, converter = rename(name)
            if converter is not None:
                self.converted[name] = converter
            elif new != name and new not in self.by_name:
                self.by_name[new] = self.by_name[name]
                self.original[new] = name

    def find(self, names: list[str], prefix: str) -> tuple[_native.Archive, tuple] | None:
        """The tensor with one of these names. Checkpoints of a model's body lack the prefix that its name has in the whole, and
        the other way round."""
        for name in names:
            for known in (name, name.removeprefix(prefix + "."), f"{prefix}.{name}"):
                if known in self.by_name:
                    self.unused.discard(self.original.get(known, known))
                    return self.by_name[known]
        return None


def _renaming(model: Any) -> Callable[[str], tuple[str, str | None]]:
    """How transformers renames a checkpoint's tensors for this model; with it, the operations by which it makes others of a tensor."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, rename_source_key
    except ImportError:
        # Version 4 has patterns alone.
        patterns = getattr(model, "_checkpoint_conversion_mapping", None) or {}

        def by_pattern(name: str) -> tuple[str, str | None]:
            for pattern, replacement in patterns.items():
                name, count = re.subn(pattern, replacement, name)
                if count:
                    break
            return name, None

        return by_pattern
    transforms = get_model_conversion_mapping(model)
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    renamings = [one for one in transforms if not isinstance(one, WeightConverter)]
    operations = {pattern: one.operations for one in converters for pattern in one.source_patterns}

    def by_transforms(name: str) -> tuple[str, str | None]:
        new, pattern = rename_source_key(name, renamings, converters)
        if pattern is None:
            return new, None
        return new, ", ".join(type(one).__name__ for one in operations.get(pattern, [])) or "conversion"

    return by_transforms


@contextlib.contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Within it, parameters have no memory. Buffers do: they are computed when a model is built, and in no checkpoint."""
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        # Those that are there already may be tied; they must stay the same objects.
        if parameter is not None and parameter.device.type != "meta":
            kept = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
            module._parameters[name] = kept

    nn.Module.register_parameter = on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def _build(config: Any, model_class: Any, dtype: torch.dtype, options: dict[str, Any]) -> Any:
    if model_class is None:
        architectures = getattr(config, "architectures", None) or []
        model_class = getattr(transformers, architectures[0], None) if architectures else None
        if model_class is None:
            raise BadArgumentError(f"transformers has no architecture {architectures}: say model_class=")
    build = getattr(model_class, "_from_config", None) or model_class.from_config
    return build(config, dtype=dtype, **options)


def _fill(
    model: Any, found: _Tensors, device: torch.device, modules: tuple[type, ...], min_bytes: int, slab_bytes: int
) -> None:
    """Gives every parameter its weight."""
    prefix = getattr(model, "base_model_prefix", "")
    found.rename(model)
    owners: dict[int, list[tuple[nn.Module, str, str]]] = {}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append((module, name, f"{path}.{name}" if path else name))
    missing, weights, dense = [], [], []
    for shared in owners.values():
        located = found.find([name for *_, name in shared], prefix)
        if located is None:
            missing.append(shared[0][2])
            continue
        archive, info = located
        expected = shared[0][0]._parameters[shared[0][1]].shape
        if tuple(info[3]) != tuple(expected):
            message = f"tensor `{info[1]}` has shape {info[3]}, the model's is {list(expected)}"
            raise InputError(message, tensor=info[1])
        stays = info[4] >= min_bytes and all(isinstance(m, modules) and n == "weight" for m, n, _ in shared)
        if stays:
            weights.append((Weight(archive, info, slab_bytes), [module for module, *_ in shared]))
        else:
            dense.append((archive, info, shared))
    if missing and found.converted:
        name, how = next(iter(found.converted.items()))
        message = (
            f"transformers makes weights of {type(model).__name__} of tensors like `{name}` ({how}), which wcodec does not: "
            "load the decompressed checkpoint with transformers, then use compress_module"
        )
        raise UnsupportedError(message, tensor=name)
    if missing:
        shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        raise InputError(f"the archive lacks weights of {type(model).__name__}: {shown}", tensor=missing[0])
    for weight, modules_of in weights:
        attach(weight, device, modules_of)
    if device.type == "cuda":
        upload((weight for weight, _ in weights), device)
    for (_, _, shared), tensor in zip(dense, _decoded([(archive, info) for archive, info, _ in dense], device)):
        parameter = nn.Parameter(tensor, requires_grad=False)
        for module, name, _ in shared:
            module._parameters[name] = parameter
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            located = found.find([f"{path}.{name}" if path else name], prefix) if buffer is not None else None
            if located is not None:
                buffer = next(iter(_decoded([located], device)))
            module._buffers[name] = None if buffer is None else buffer.to(device)
    if found.unused:
        warnings.warn(f"{type(model).__name__} has no use for {sorted(found.unused)[:8]} of the archive", stacklevel=3)


def _decoded(located: list[tuple[_native.Archive, tuple]], device: torch.device) -> list[torch.Tensor]:
    """Tensors of archives, on the device, each archive's decoded together."""
    made: dict[int, torch.Tensor] = {}
    by_archive: dict[int, list[int]] = {}
    for place, (archive, _) in enumerate(located):
        by_archive.setdefault(id(archive), []).append(place)
    for places in by_archive.values():
        archive = located[places[0]][0]
        infos = [located[place][1] for place in places]
        if device.type == "cuda":
            tensors = list(_cuda.load(archive, infos, device).values())
        else:
            tensors = [empty(name, dtype, shape, nbytes, torch.device("cpu")) for _, name, dtype, shape, nbytes in infos]
            archive.decode([(info[0], region(tensor)) for info, tensor in zip(infos, tensors)])
            tensors = [tensor.to(device) for tensor in tensors]
        made.update(zip(places, tensors))
    return [made[place] for place in range(len(located))]
