"""`wcodec.open`: single tensors and slices of an archive."""

from __future__ import annotations

import math
import os
from typing import Any

from . import _native
from ._files import Report, report_of
from .errors import BadArgumentError, TensorNotFoundError


def open(path: str | os.PathLike, framework: str = "np", device: Any = "cpu", *, file: str | None = None) -> Archive:
    """Opens an archive to read tensors of it, as `safetensors.safe_open` does. Use it in a `with` statement.

        with wcodec.open("model.wcodec", framework="pt", device="cuda") as f:
            for name in f.keys():
                tensor = f.get_tensor(name)
            rows = f.get_slice("embed.weight")[10:20]

    Args:
        path: the archive; it is memory-mapped and must not change while it is open.
        framework: "np" (NumPy) or "pt" (PyTorch).
        device: where tensors go; with NumPy only "cpu".
        file: of an archive of a folder, only the tensors of this file, such as "text_encoder/model.safetensors". Without
            it, those of all files; of several with one name the first.

    Raises:
        WcodecError: `NotFoundError`, `CorruptError`, `UnsupportedError`, `BadArgumentError`.
    """
    return Archive(_native.Archive.open(os.fspath(path)), framework, device, file)


class Archive:
    """An open archive. See `wcodec.open`."""

    def __init__(self, native: _native.Archive, framework: str, device: Any, file: str | None) -> None:
        self._framework = _framework(framework, device)
        self._native: _native.Archive | None = native
        self._file = file
        self._infos = {name: (index, dtype, shape, nbytes) for index, name, dtype, shape, nbytes in native.infos(file)}

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file. Tensors that were read stay."""
        self._native = None

    def _open(self) -> _native.Archive:
        if self._native is None:
            raise BadArgumentError("the archive is closed")
        return self._native

    def keys(self) -> list[str]:
        """Names of the tensors, in the archive's order."""
        return list(self._infos)

    # The order of `safetensors`' method of this name.
    offset_keys = keys

    def files(self) -> list[str]:
        """Paths of the files that the archive reproduces."""
        return self._open().files

    def read_file(self, path: str) -> bytes:
        """A whole file of the archive."""
        return self._open().read_file(path)

    def metadata(self) -> dict[str, str]:
        """The `__metadata__` of the safetensors file, or of the first one of a folder that has any."""
        native = self._open()
        files = [self._file] if self._file is not None else [f for f in native.files if f.endswith(".safetensors")]
        return next((found for found in map(native.file_metadata, files) if found), {})

    def report(self) -> Report:
        """What the archive holds."""
        return report_of(self._open().report())

    def get_tensor(self, name: str) -> Any:
        """The tensor `name`.

        Raises:
            TensorNotFoundError: there is none.
            CorruptError: its bytes are damaged.
        """
        index, dtype, shape, nbytes = self._info(name)
        return self._framework.tensor(self._open(), index, name, dtype, shape, nbytes)

    def get_slice(self, name: str) -> Slice:
        """The tensor `name`, of which only what is asked for will be decoded: `get_slice(name)[10:20, :64]`."""
        index, dtype, shape, _ = self._info(name)
        return Slice(self._open().tensor(index), dtype, tuple(shape), self._framework)

    def _info(self, name: str) -> tuple[int, str, list[int], int]:
        try:
            return self._infos[name]
        except KeyError:
            raise TensorNotFoundError(f"no tensor `{name}` in the archive", tensor=name) from None


class Slice:
    """A tensor that is decoded in part. Ranges of the first two dimensions decode only the superblocks (or frames) that
    hold them; what else an index asks for is then taken from these."""

    def __init__(self, native: _native.Tensor, dtype: str, shape: tuple[int, ...], framework: Any) -> None:
        self._native = native
        self._dtype = dtype
        self._shape = shape
        self._framework = framework

    def get_shape(self) -> list[int]:
        """Dimensions, outermost first."""
        return list(self._shape)

    def get_dtype(self) -> str:
        """The element type, by its safetensors name."""
        return self._dtype

    def __getitem__(self, key: Any) -> Any:
        """The part of the tensor that `key` selects: integers, slices and `...`, as for an array."""
        keys = self._expand(key if isinstance(key, tuple) else (key,))
        shape = self._shape
        if not shape:
            return self._decode([(0, 1)], 0, 1, ())
        # What is decoded: whole ranges of the first two dimensions; the rest of the index applies to that.
        (row_first, row_last), row_key = _cover(keys[0], shape[0])
        inner = math.prod(shape[2:])
        if len(shape) > 1:
            (col_first, col_last), col_key = _cover(keys[1], shape[1])
            cut = (row_last - row_first, col_last - col_first, *shape[2:])
            rest = (row_key, col_key, *keys[2:])
        else:
            col_first, col_last, cut, rest = 0, 1, (row_last - row_first,), (row_key,)
        return self._decode([(row_first, row_last)], col_first * inner, col_last * inner, cut)[rest]

    def _decode(self, ranges: list[tuple[int, int]], first_col: int, last_col: int, shape: tuple[int, ...]) -> Any:
        return self._framework.rows(self._native, ranges, first_col, last_col, self._dtype, shape)

    def _expand(self, keys: tuple) -> tuple:
        """Fills `keys` up to a key for every dimension."""
        for key in keys:
            if key is not Ellipsis and not isinstance(key, (int, slice)):
                raise BadArgumentError(f"cannot select by {key!r}: integers, slices and ... only", tensor=self._native.name)
        if keys.count(Ellipsis) > 1:
            raise BadArgumentError("more than one ... in an index", tensor=self._native.name)
        given = len(keys) - keys.count(Ellipsis)
        if given > len(self._shape):
            raise BadArgumentError(f"{given} indices for {len(self._shape)} dimensions", tensor=self._native.name)
        fill = (slice(None),) * (len(self._shape) - given)
        at = keys.index(Ellipsis) if Ellipsis in keys else len(keys)
        return keys[:at] + fill + keys[at + 1 :]


def _cover(key: int | slice, size: int) -> tuple[tuple[int, int], int | slice]:
    """The range of a dimension that `key` needs, and the key into that range."""
    if isinstance(key, int):
        index = key + size if key < 0 else key
        if not 0 <= index < size:
            raise IndexError(f"index {key} is out of range for a dimension of {size}")
        return (index, index + 1), 0
    selected = range(size)[key]
    if not selected:
        return (0, 0), slice(None)
    first, last = min(selected[0], selected[-1]), max(selected[0], selected[-1])
    if selected.step < 0:
        raise BadArgumentError("slices with a negative step are not supported")
    return (first, last + 1), slice(None, None, selected.step)


def _framework(name: str, device: Any) -> Any:
    if name in ("np", "numpy"):
        if str(device) != "cpu":
            raise BadArgumentError(f"NumPy has no device {device}")
        from . import numpy

        return numpy.Framework()
    if name in ("pt", "torch", "pytorch"):
        from .torch import _io

        return _io.Framework(device)
    raise BadArgumentError(f"no framework `{name}`: np or pt")
