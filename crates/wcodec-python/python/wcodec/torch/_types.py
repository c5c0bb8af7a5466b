"""Element types of archives and of PyTorch."""

from __future__ import annotations

import torch

from ..errors import BadArgumentError

_NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
    "C64": "complex64",
}
# Older releases of PyTorch lack the newest types.
_TYPES = {code: getattr(torch, name) for code, name in _NAMES.items() if hasattr(torch, name)}
_CODES = {dtype: code for code, dtype in _TYPES.items()}


def torch_dtype(code: str, tensor: str) -> torch.dtype:
    """PyTorch's type for a safetensors name."""
    try:
        return _TYPES[code]
    except KeyError:
        raise BadArgumentError(f"tensor `{tensor}`: this PyTorch has no {code}", tensor=tensor) from None


def code_of(dtype: torch.dtype, tensor: str) -> str:
    """The safetensors name of one of PyTorch's types."""
    try:
        return _CODES[dtype]
    except KeyError:
        raise BadArgumentError(f"tensor `{tensor}`: no archive holds {dtype}", tensor=tensor) from None


def has_code(dtype: torch.dtype) -> bool:
    """Whether an archive can hold this type."""
    return dtype in _CODES
