"""Lossless compression of neural-network weights.

    import wcodec
    wcodec.compress("model.safetensors", "model.wcodec")

    from wcodec.torch import load_file          # or wcodec.numpy
    weights = load_file("model.wcodec", device="cuda")

`wcodec.open` reads single tensors and slices, as `safetensors.safe_open` does. `wcodec.torch.compress_module` and
`wcodec.transformers.from_pretrained` keep a model's weights compressed in memory and decode them as they are used.
"""

from __future__ import annotations

from . import errors
from ._archive import open
from ._files import Report, TensorReport, bench, compress, decompress, inspect, synth, verify
from ._native import VERSION as __version__
from .errors import WcodecError

__all__ = [
    "Report",
    "TensorReport",
    "WcodecError",
    "__version__",
    "bench",
    "compress",
    "decompress",
    "errors",
    "inspect",
    "open",
    "synth",
    "verify",
]
