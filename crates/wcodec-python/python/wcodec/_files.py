"""Whole checkpoints: files and folders."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import _native

Path = str | os.PathLike
Progress = Callable[[int, int], Any]
# A tensor's name, element type, shape, and the address and length of its bytes.
Given = tuple[str, str, list[int], tuple[int, int]]


@dataclass(frozen=True)
class TensorReport:
    """One tensor of a `Report`. Sizes in bytes; `stored_bytes` is 0 for a tensor that shares another's payload."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    mode: str
    decoded_bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class Report:
    """What an archive holds. Sizes in bytes: of all files of the checkpoint, and of the archive."""

    files: int
    decoded_bytes: int
    archive_bytes: int
    tensors: tuple[TensorReport, ...]

    @property
    def ratio(self) -> float:
        """Archive size over decoded size; 1 for nothing."""
        return self.archive_bytes / self.decoded_bytes if self.decoded_bytes else 1.0


def report_of(told: tuple) -> Report:
    files, decoded, archive, tensors = told
    return Report(
        files, decoded, archive, tuple(TensorReport(n, d, tuple(s), m, raw, stored) for n, d, s, m, raw, stored in tensors)
    )


def options(
    *,
    level: str = "default",
    mode: str = "auto",
    superblock_rows: int = 64,
    progressive: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Options of the encoder, as the native module takes them; a name that is none of them is a TypeError."""
    return locals().copy()


def save_tensors(
    tensors: list[Given],
    filename: Path,
    metadata: Mapping[str, str] | None,
    threads: int | None,
    progress: Progress | None,
    encoding: dict[str, Any],
) -> Report:
    """An archive of tensors by address, at `filename`; an existing file is replaced unless `encoding` says otherwise."""
    encoding.setdefault("overwrite", True)
    chosen = options(**encoding)
    told = _native.compress_tensors(tensors, dict(metadata or {}), os.fspath(filename), chosen, threads, progress)
    return report_of(told)


def save_tensors_to_bytes(
    tensors: list[Given], metadata: Mapping[str, str] | None, encoding: dict[str, Any]
) -> bytes:
    """The bytes of an archive of tensors by address."""
    return _native.compress_tensors_to_bytes(tensors, dict(metadata or {}), options(**encoding), None, None)


def compress(
    input: Path,
    output: Path | None = None,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    **encoding: Any,
) -> Report:
    """Compresses a safetensors file or a checkpoint folder into one archive.

    Args:
        input: a `.safetensors` file, or a folder with everything in it.
        output: the archive; without it, `input` with `.wcodec` for `.safetensors`, or behind a folder's name.
        threads: one per core if not given.
        progress: called with (bytes done, bytes in all) a few times a second, on the calling thread. An exception that it
            raises stops the work, leaves nothing behind, and is raised here; so does Ctrl-C.
        level: "fast", "default" or "max". All decode at the same speed.
        mode: "auto", "float", "int", "zstd" or "store".
        superblock_rows: 16 to 512 in steps of 16.
        progressive: code 8-bit tensors so that their first bitplanes decode to a coarser tensor.
        overwrite: replace an existing archive.

    Raises:
        WcodecError: `InputError`, `AlreadyExistsError`, `NotFoundError`, `IoError`, `BadArgumentError`.
    """
    if output is None:
        path = os.path.abspath(os.fspath(input))
        root, extension = os.path.splitext(path)
        output = (root if extension == ".safetensors" and not os.path.isdir(path) else path) + ".wcodec"
    return report_of(_native.compress(os.fspath(input), os.fspath(output), options(**encoding), threads, progress))


def decompress(
    input: Path,
    output: Path,
    *,
    overwrite: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Restores what an archive was made from, byte for byte: a file, or a folder. The target appears when it is complete.

    Args:
        progress: as for `compress`.

    Raises:
        WcodecError: `CorruptError` for a damaged archive, `AlreadyExistsError` (a folder is never replaced), `IoError`.
    """
    archive = _native.Archive.open(os.fspath(input))
    return report_of(archive.decompress(os.fspath(output), overwrite, threads, progress))


def verify(input: Path, *, threads: int | None = None, progress: Progress | None = None) -> Report:
    """Decodes a whole archive without writing anything, and compares all its checksums.

    Raises:
        WcodecError: `CorruptError` for the first fault found.
    """
    return report_of(_native.Archive.open(os.fspath(input)).verify(threads, progress))


def inspect(input: Path) -> Report:
    """What an archive holds, from its directory. Decodes nothing."""
    return report_of(_native.Archive.open(os.fspath(input)).report())


def synth(
    output: Path,
    *,
    shapes: Iterable[Iterable[int]] = ((1024, 1024),),
    dtype: str = "bf16",
    distribution: str = "gaussian",
    seed: int = 0,
    tensors: int | None = None,
    bytes: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes a seeded synthetic safetensors file: `wcodec synth`. Returns what that prints as JSON.

    Args:
        shapes: shapes that the tensors take in turn.
        dtype: "bf16", "f16", "f32", "f64", "fp8-e4m3", "i8" or "u8".
        distribution: "gaussian", "student", "laplace", "uniform", "constant", "ramp" or "column-scaled".
        tensors: number of tensors; one per shape if not given.
        bytes: instead of `tensors`: as many as give at least this size.
    """
    args = ["synth", f"--dtype={dtype}", f"--distribution={distribution}", f"--seed={seed}"]
    args += [f"--shape={'x'.join(map(str, shape))}" for shape in shapes]
    args += [] if tensors is None else [f"--tensors={tensors}"]
    args += [] if bytes is None else [f"--bytes={bytes}"]
    args += ["--force"] if overwrite else []
    return json.loads(_native.call([*args, "--", os.fspath(output)]))


def bench(
    input: Path, *, level: str = "default", mode: str = "auto", runs: int = 5, threads: int | None = None
) -> dict[str, Any]:
    """Measures encoding and decoding in memory beside a plain copy: `wcodec bench`. Returns what that prints as JSON: times
    in seconds, sizes in bytes."""
    args = ["bench", f"--level={level}", f"--mode={mode}", f"--runs={runs}"]
    args += [] if threads is None else [f"--threads={threads}"]
    return json.loads(_native.call([*args, "--", os.fspath(input)]))
