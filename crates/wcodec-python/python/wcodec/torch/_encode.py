"""Compressing tensors into memory."""

from __future__ import annotations

from typing import Any

import torch

from .. import _files, _native
from ._io import given, host_tensors
from ._weight import Weight

# The largest piece of a weight that is decoded at a time on a CUDA device, in bytes; scratch memory is twice that.
SLAB_BYTES = 128 << 20


def encode(tensors: dict[str, torch.Tensor], slab_bytes: int = SLAB_BYTES, **encoding: Any) -> dict[str, Weight]:
    """Compresses tensors, together, into an archive in main memory."""
    kept = host_tensors(tensors)
    data = _native.compress_tensors_to_bytes(
        [given(name, tensor) for name, tensor in kept.items()], {}, _files.options(**encoding), None, None
    )
    archive = _native.Archive.from_bytes(data)
    return {info[1]: Weight(archive, info, slab_bytes) for info in archive.infos(None)}
