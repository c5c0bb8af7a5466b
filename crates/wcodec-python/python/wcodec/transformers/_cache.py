"""Key-value caches in FP32."""

from __future__ import annotations

import functools
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, StaticCache
from transformers.cache_utils import DynamicLayer, StaticLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

# The name of scaled-dot-product attention computed in FP32: `attn_implementation=FP32_ATTENTION`.
FP32_ATTENTION = "wcodec_fp32"


class Fp32Cache(DynamicCache):
    """A growing cache that stores keys and values in FP32.

        model.generate(**inputs, past_key_values=Fp32Cache(model.config))

    Storing changes no value: a BF16 or FP16 state is an FP32 number. What attention gets is what it asks for. By default that
    is the type of the states that the layer has computed, and outputs are bit for bit those of a cache in that type, at twice
    its memory. With `handed=torch.float32` and a model whose attention is `FP32_ATTENTION`, scores, softmax and sums over the
    context are computed in FP32 from FP32 states, rather than rounded to the model's type: that changes outputs, by what the
    model's type lost there. Weights have no part in it; they are the same bits, compressed or not.

    Args:
        config: the model's configuration: its layers may attend to windows. Without it every layer keeps everything.
        handed: the type that attention gets; None for the type of the states.
    """

    def __init__(self, config: Any = None, *, handed: torch.dtype | None = None) -> None:
        super().__init__(config=config)
        _widen(self, DynamicLayer, handed)


class Fp32StaticCache(StaticCache):
    """As `Fp32Cache`, with memory for `max_cache_len` tokens taken at once: for CUDA graphs and compiled models."""

    def __init__(self, config: Any, max_cache_len: int, *, handed: torch.dtype | None = None) -> None:
        super().__init__(config=config, max_cache_len=max_cache_len)
        _widen(self, StaticLayer, handed)


def _widen(cache: Any, kind: type, handed: torch.dtype | None) -> None:
    for layer in cache.layers:
        # Layers that keep no keys and values (linear attention) stay what they are.
        if isinstance(layer, kind):
            layer.__class__ = _widened(type(layer))
            layer.handed = handed
    replicated = getattr(cache, "layer_class_to_replicate", None)
    if replicated is not None and issubclass(replicated, kind):
        cache.layer_class_to_replicate = functools.partial(_new_layer, _widened(replicated), handed)


def _new_layer(kind: type, handed: torch.dtype | None, *args: Any, **kwargs: Any) -> Any:
    layer = kind(*args, **kwargs)
    layer.handed = handed
    return layer


@functools.cache
def _widened(kind: type) -> type:
    """The class of layers like `kind` that store FP32."""

    def update(self: Any, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        keys, values = kind.update(self, key_states.float(), value_states.float(), *args, **kwargs)
        handed = self.handed
        return keys.to(handed or key_states.dtype), values.to(handed or value_states.dtype)

    # A class that registers itself by this attribute would take the place of the original.
    return type(f"Fp32{kind.__name__}", (kind,), {"update": update, "handed": None, "_layer_type": None})


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled-dot-product attention in FP32; the result has the queries' type."""
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    out, weights = sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **kwargs)
    return out.to(query.dtype), weights


AttentionInterface.register(FP32_ATTENTION, _attention)
AttentionMaskInterface.register(FP32_ATTENTION, sdpa_mask)
