"""Archives as PyTorch tensors."""

from __future__ import annotations

import pytest

import wcodec
from wcodec import errors

torch = pytest.importorskip("torch")

from wcodec.torch import load, load_file, save, save_file  # noqa: E402


@pytest.fixture
def tensors():
    torch.manual_seed(3)
    weight = torch.randn(200, 130) * 0.02
    made = {
        "weight": weight,
        "bfloat16": weight.bfloat16(),
        "half": weight.half(),
        "double": weight.double(),
        "int8": torch.randint(-50, 50, (96, 128), dtype=torch.int8),
        "uint8": torch.randint(0, 255, (3, 3, 16, 8), dtype=torch.uint8),
        "ids": torch.arange(12).reshape(3, 4),
        "flags": torch.tensor([True, False]),
        "complex": torch.complex(weight[0], weight[1]),
        "scalar": torch.tensor(3.5),
        "none": torch.empty(0, 7),
        "transposed": weight.t(),
        "fp8": (weight * 50).to(torch.float8_e4m3fn),
        "fp8 wide": (weight * 50).to(torch.float8_e5m2),
    }
    return made


def equal(a, b) -> bool:
    same = a.dtype == b.dtype and a.shape == b.shape
    as_bytes = lambda t: t.contiguous().reshape(-1).view(torch.uint8)  # noqa: E731
    return same and torch.equal(as_bytes(a), as_bytes(b))


def test_tensors_come_back(tensors, tmp_path):
    path = tmp_path / "t.wcodec"
    report = save_file(tensors, path, metadata={"format": "pt"})
    assert len(report.tensors) == len(tensors)
    loaded = load_file(path)
    assert all(equal(loaded[name], tensors[name]) for name in tensors)
    assert all(equal(tensor, tensors[name]) for name, tensor in load(path.read_bytes()).items())
    assert all(equal(tensor, tensors[name]) for name, tensor in load(save(tensors, level="fast")).items())
    with wcodec.open(path, framework="pt") as archive:
        assert archive.metadata() == {"format": "pt"}
        assert equal(archive.get_tensor("bfloat16"), tensors["bfloat16"])
        assert equal(archive.get_slice("bfloat16")[70:99, 5], tensors["bfloat16"][70:99, 5])
        assert equal(archive.get_slice("uint8")[1, ..., 2:5], tensors["uint8"][1, ..., 2:5])


def test_it_is_the_safetensors_file(tensors, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    save_file(tensors, tmp_path / "t.wcodec")
    wcodec.decompress(tmp_path / "t.wcodec", tmp_path / "t.safetensors")
    loaded = safetensors.load_file(tmp_path / "t.safetensors")
    assert all(equal(loaded[name], tensors[name]) for name in tensors)


def test_tensors_may_share_memory(tmp_path):
    weight = torch.randn(128, 128).bfloat16()
    both = save_file({"a": weight, "b": weight}, tmp_path / "both.wcodec")
    assert sum(t.stored_bytes > 0 for t in both.tensors) == 1
    loaded = load_file(tmp_path / "both.wcodec")
    assert equal(loaded["a"], weight) and equal(loaded["b"], weight)


def test_what_no_archive_holds():
    with pytest.raises(errors.BadArgumentError, match="`w` is no tensor"):
        save({"w": [1.0]})
    with pytest.raises(errors.BadArgumentError, match="not dense"):
        save({"w": torch.eye(3).to_sparse()})
    with pytest.raises(errors.BadArgumentError, match="not dense"):
        save({"w": torch.empty(3, device="meta")})


def test_damage_raises(tensors):
    good = bytearray(save(tensors))
    for at in range(0, len(good), max(1, len(good) // 150)):
        bad = bytearray(good)
        bad[at] ^= 0x10
        try:
            loaded = load(bytes(bad))
        except errors.WcodecError:
            continue
        assert all(equal(loaded[name], tensors[name]) for name in tensors)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_a_device_that_is_not_there(archive):
    with pytest.raises((errors.DeviceError, RuntimeError, AssertionError)):
        load_file(archive, device="cuda")
