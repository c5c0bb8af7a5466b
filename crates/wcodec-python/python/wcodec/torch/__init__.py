"""Archives as dictionaries of PyTorch tensors, and modules whose weights stay compressed.

    from wcodec.torch import load_file, save_file
    weights = load_file("model.wcodec", device="cuda")

    from wcodec.torch import compress_module
    compress_module(model)      # decodes each weight when it is used
"""

from __future__ import annotations

from ._io import load, load_file, save, save_file
from ._module import CompressionReport, compress_module, compressed_weights, decompress_module
from ._parameter import CompressedTensor
from ._scratch import prefetch, release_scratch

__all__ = [
    "CompressedTensor",
    "CompressionReport",
    "compress_module",
    "compressed_weights",
    "decompress_module",
    "load",
    "load_file",
    "prefetch",
    "release_scratch",
    "save",
    "save_file",
]
