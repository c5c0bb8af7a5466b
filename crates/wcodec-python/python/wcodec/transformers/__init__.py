"""Hugging Face models from archives, with their weights compressed in memory, and a key-value cache in FP32.

    from wcodec.transformers import Fp32Cache, from_pretrained
    model = from_pretrained("Llama-3-8B.wcodec", device="cuda")
    model.generate(**inputs, past_key_values=Fp32Cache(model.config))
"""

from __future__ import annotations

from ._cache import FP32_ATTENTION, Fp32Cache, Fp32StaticCache
from ._load import from_pretrained

__all__ = ["FP32_ATTENTION", "Fp32Cache", "Fp32StaticCache", "from_pretrained"]
