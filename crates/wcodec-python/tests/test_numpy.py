"""Archives as NumPy arrays, whole and in part."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

import wcodec
from wcodec import errors
from wcodec.numpy import load, load_file, save, save_file


def equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_arrays_come_back(arrays, tmp_path):
    path = tmp_path / "a.wcodec"
    report = save_file(arrays, path, metadata={"format": "np"}, level="fast")
    assert {t.name: t.shape for t in report.tensors} == {name: array.shape for name, array in arrays.items()}
    loaded = load_file(path)
    assert loaded.keys() == arrays.keys()
    assert all(equal(loaded[name], arrays[name]) for name in arrays)
    assert all(equal(array, arrays[name]) for name, array in load(path.read_bytes()).items())
    assert load(save(arrays)).keys() == arrays.keys()
    with wcodec.open(path) as archive:
        assert archive.metadata() == {"format": "np"}
    save_file({"other": arrays["weight"]}, path)
    assert list(load_file(path)) == ["other"]
    with pytest.raises(errors.AlreadyExistsError):
        save_file(arrays, path, overwrite=False)


def test_it_is_the_safetensors_file(arrays, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    contiguous = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items() if name != "complex"}
    save_file(contiguous, tmp_path / "a.wcodec")
    wcodec.decompress(tmp_path / "a.wcodec", tmp_path / "a.safetensors")
    loaded = safetensors.load_file(tmp_path / "a.safetensors")
    assert all(equal(loaded[name], contiguous[name]) for name in contiguous)


def test_bfloat16(archive, fixtures):
    raw = load_file(archive, raw=True)
    data = (fixtures / "minilm-layer-bf16.safetensors").read_bytes()
    assert all(array.tobytes() in data for array in raw.values())
    assert {array.dtype.name for array in raw.values()} == {"uint16", "int64"}
    ml_dtypes = pytest.importorskip("ml_dtypes")
    typed = load_file(archive)
    assert {array.dtype.name for array in typed.values()} == {"bfloat16", "int64"}
    assert np.dtype(ml_dtypes.bfloat16) in {array.dtype for array in typed.values()}
    assert all(typed[name].tobytes() == raw[name].tobytes() for name in raw)
    assert all(equal(array, typed[name]) for name, array in load(save(typed)).items())


def test_types_that_no_archive_holds():
    with pytest.raises(errors.BadArgumentError, match="w"):
        save({"w": np.array(["text"])})
    with pytest.raises(errors.BadArgumentError, match="list"):
        save({"w": [1, 2]})


def test_slices(arrays, tmp_path):
    path = tmp_path / "a.wcodec"
    save_file(arrays, path)
    with wcodec.open(path) as archive:
        assert sorted(archive.keys()) == sorted(arrays)
        for name, keys in {
            "weight": [3, -1, slice(10, 20), (slice(64, 65), slice(3, 77)), (5, 7), (slice(None), -2), ...,
                       (slice(0, 200, 7), slice(1, 130, 3)), slice(5, 5), (..., 4), slice(190, 999)],
            "half": [1, (1, slice(1, 3)), (slice(None), 2, slice(5, 9)), (..., slice(0, 96, 5)), (0, ..., 3)],
            "unsigned": [(slice(0, 2), 1, slice(3, 9), 2), (..., 7)],
            "ids": [2], "scalar": [...], "none": [slice(0, 0)], "flags": [slice(1, 3), 0],
        }.items():  # fmt: skip
            part = archive.get_slice(name)
            assert part.get_shape() == list(arrays[name].shape)
            for key in keys:
                assert np.array_equal(part[key], arrays[name][key]), (name, key)
        weight = archive.get_slice("weight")
        assert weight.get_dtype() == "F32"
        for key in ((1, 2, 3), "x", slice(None, None, -1), [1, 2]):
            with pytest.raises(errors.BadArgumentError):
                weight[key]
        with pytest.raises(IndexError):
            weight[200]
    with pytest.raises(errors.BadArgumentError, match="closed"):
        archive.get_tensor("weight")


def test_threads_decode_side_by_side(archive):
    expected = load_file(archive, raw=True)
    failures = []

    def read():
        for _ in range(5):
            loaded = load_file(archive, raw=True)
            failures.extend(name for name in expected if not equal(loaded[name], expected[name]))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(archive):
    load_file(archive, raw=True)
    child = os.fork()
    if child == 0:
        loaded = load_file(archive, raw=True)
        os._exit(0 if loaded else 1)
    assert os.waitpid(child, 0)[1] == 0
