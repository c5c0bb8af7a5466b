"""Archives as dictionaries of NumPy arrays.

NumPy has no BF16 and no FP8: with the package `ml_dtypes` those arrays have its types; without it, ask for `raw=True`, which
gives unsigned integers of the same width."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import _files, _native
from .errors import BadArgumentError

__all__ = ["load", "load_file", "save", "save_file"]

_TYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C64": "complex64",
}
_ML_TYPES = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
}
_WIDTHS = {"BF16": "uint16", "F8_E4M3": "uint8", "F8_E5M2": "uint8", "F8_E8M0": "uint8"}
_NAMES = {name: code for code, name in (_TYPES | _ML_TYPES).items()}


def load_file(filename: str | os.PathLike, *, raw: bool = False) -> dict[str, np.ndarray]:
    """All tensors of an archive, decoded by SIMD straight into the arrays.

    Args:
        raw: BF16 and FP8 as unsigned integers of the same width.

    Raises:
        WcodecError: `CorruptError` for a damaged archive, `BadArgumentError` for a type that NumPy does not have.
    """
    return _load(_native.Archive.open(os.fspath(filename)), raw)


def load(data: bytes, *, raw: bool = False) -> dict[str, np.ndarray]:
    """All tensors of an archive in memory. As `load_file`."""
    return _load(_native.Archive.from_bytes(data), raw)


def save_file(
    tensors: Mapping[str, np.ndarray],
    filename: str | os.PathLike,
    metadata: Mapping[str, str] | None = None,
    *,
    threads: int | None = None,
    progress: _files.Progress | None = None,
    **encoding: Any,
) -> _files.Report:
    """Writes an archive of arrays: the one of the safetensors file with these tensors and this metadata, which
    `wcodec.decompress` restores. An existing file is replaced, as by `safetensors`, unless `overwrite=False`.

    Args:
        threads, progress, encoding: as for `wcodec.compress`.
    """
    kept = {name: _contiguous(name, array) for name, array in tensors.items()}
    given = [_given(name, array) for name, array in kept.items()]
    return _files.save_tensors(given, filename, metadata, threads, progress, encoding)


def save(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None, **encoding: Any) -> bytes:
    """The bytes of an archive of arrays. As `save_file`."""
    kept = {name: _contiguous(name, array) for name, array in tensors.items()}
    given = [_given(name, array) for name, array in kept.items()]
    return _files.save_tensors_to_bytes(given, metadata, encoding)


def _load(archive: _native.Archive, raw: bool) -> dict[str, np.ndarray]:
    arrays, targets = {}, []
    for index, name, dtype, shape, nbytes in archive.infos(None):
        array = _empty(name, shape, dtype, nbytes, raw)
        arrays[name] = array
        targets.append((index, _region(array)))
    archive.decode(targets)
    return arrays


class Framework:
    """Arrays for `wcodec.open`."""

    def tensor(
        self, archive: _native.Archive, index: int, name: str, dtype: str, shape: list[int], nbytes: int
    ) -> np.ndarray:
        array = _empty(name, shape, dtype, nbytes, False)
        archive.decode([(index, _region(array))])
        return array

    def rows(
        self,
        tensor: _native.Tensor,
        ranges: list[tuple[int, int]],
        first_col: int,
        last_col: int,
        dtype: str,
        shape: tuple[int, ...],
    ) -> np.ndarray:
        array = np.empty(shape, _type(tensor.name, dtype, False))
        tensor.decode_rows(ranges, first_col, last_col, _region(array))
        return array


def _empty(name: str, shape: list[int], dtype: str, nbytes: int, raw: bool) -> np.ndarray:
    kind = _type(name, dtype, raw)
    # The archive says both; memory is taken for what both agree on.
    if math.prod(shape) * kind.itemsize != nbytes:
        raise BadArgumentError(f"tensor `{name}`: shape {shape} of {dtype} does not take {nbytes} bytes", tensor=name)
    return np.empty(shape, kind)


def _type(name: str, dtype: str, raw: bool) -> np.dtype:
    if dtype in _TYPES:
        return np.dtype(_TYPES[dtype])
    if raw and dtype in _WIDTHS:
        return np.dtype(_WIDTHS[dtype])
    if dtype in _ML_TYPES:
        try:
            import ml_dtypes

            return np.dtype(getattr(ml_dtypes, _ML_TYPES[dtype]))
        except (ImportError, AttributeError):
            message = f"tensor `{name}`: NumPy has no {dtype}; install ml_dtypes, or load with raw=True"
            raise BadArgumentError(message, tensor=name) from None
    raise BadArgumentError(f"tensor `{name}`: NumPy has no {dtype}", tensor=name)


def _contiguous(name: str, array: np.ndarray) -> np.ndarray:
    if not isinstance(array, np.ndarray):
        raise BadArgumentError(f"tensor `{name}` is no NumPy array but {type(array).__name__}", tensor=name)
    # Little-endian, row by row. `ascontiguousarray` would make a scalar one-dimensional.
    return np.asarray(array, array.dtype.newbyteorder("<") if array.dtype.byteorder == ">" else None, order="C")


def _given(name: str, array: np.ndarray) -> tuple[str, str, list[int], tuple[int, int]]:
    try:
        dtype = _NAMES[array.dtype.name]
    except KeyError:
        raise BadArgumentError(f"tensor `{name}`: no archive holds {array.dtype}", tensor=name) from None
    return name, dtype, list(array.shape), _region(array)


def _region(array: np.ndarray) -> tuple[int, int]:
    """Address and length of a contiguous array, for the native module; the caller keeps the array."""
    return array.ctypes.data, array.nbytes
