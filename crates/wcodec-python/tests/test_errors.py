"""Errors are exceptions of one hierarchy, and damage never ends the interpreter."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import wcodec
from wcodec import errors
from wcodec.numpy import load, load_file, save


def test_kinds_are_those_of_python_too():
    assert issubclass(errors.NotFoundError, FileNotFoundError)
    assert issubclass(errors.AlreadyExistsError, FileExistsError)
    assert issubclass(errors.TensorNotFoundError, KeyError)
    assert issubclass(errors.BadArgumentError, ValueError)
    assert all(issubclass(getattr(errors, name), errors.WcodecError) for name in errors.__all__)


def test_what_is_not_there(tmp_path, archive, fixtures):
    with pytest.raises(errors.NotFoundError) as missing:
        load_file(tmp_path / "missing.wcodec")
    assert missing.value.file == str(tmp_path / "missing.wcodec") and "missing.wcodec" in str(missing.value)
    with wcodec.open(archive) as opened, pytest.raises(errors.TensorNotFoundError) as absent:
        opened.get_tensor("no.such")
    assert absent.value.tensor == "no.such" and str(absent.value) == "no tensor `no.such` in the archive"
    with pytest.raises(errors.BadArgumentError):
        wcodec.open(archive, file="no/such/file")
    with pytest.raises(errors.AlreadyExistsError):
        wcodec.compress(fixtures / "silero.safetensors", archive)
    with pytest.raises(errors.BadArgumentError, match="level"):
        wcodec.compress(fixtures / "silero.safetensors", tmp_path / "m.wcodec", level="best")
    with pytest.raises(TypeError):
        wcodec.compress(fixtures / "silero.safetensors", tmp_path / "m.wcodec", levle="fast")


def test_what_is_no_checkpoint(tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(b"\x08\0\0\0\0\0\0\0notjson!")
    with pytest.raises(errors.InputError) as bad:
        wcodec.compress(path, tmp_path / "bad.wcodec")
    assert bad.value.file == str(path) and not (tmp_path / "bad.wcodec").exists()


def test_errors_can_be_pickled():
    error = errors.CorruptError("torn", file="m.wcodec", tensor="w", offset=7)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is errors.CorruptError
    assert (str(copy), copy.file, copy.tensor, copy.offset) == ("torn", "m.wcodec", "w", 7)


def test_truncation_is_recognised(archive, tmp_path):
    data = archive.read_bytes()
    for keep in (0, 1, 7, 64, len(data) // 2, len(data) - 1):
        path = tmp_path / "cut.wcodec"
        path.write_bytes(data[:keep])
        with pytest.raises(errors.WcodecError) as cut:
            load_file(path, raw=True)
        assert isinstance(cut.value, errors.CorruptError) and cut.value.file == str(path)


def test_damage_raises_or_changes_nothing():
    random = np.random.default_rng(1)
    arrays = {
        "weight": random.normal(0, 0.02, (256, 192)).astype(np.float16),
        "bytes": random.integers(-30, 30, (128, 64)).astype(np.int8),
        "small": random.normal(size=40).astype(np.float32),
    }
    good = save(arrays)
    for _ in range(400):
        bad = bytearray(good)
        for _ in range(int(random.integers(1, 4))):
            bad[int(random.integers(len(bad)))] ^= 1 << int(random.integers(8))
        try:
            decoded = load(bytes(bad))
        except errors.WcodecError:
            continue
        assert all(np.array_equal(decoded[name], arrays[name]) for name in arrays)
