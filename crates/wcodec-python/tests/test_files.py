"""Whole checkpoints, and the command."""

from __future__ import annotations

import subprocess
import sys

import pytest

import wcodec


def test_a_file_comes_back(fixtures, tmp_path):
    source = fixtures / "minilm-layer-bf16.safetensors"
    told = []
    report = wcodec.compress(source, tmp_path / "m.wcodec", level="fast", progress=lambda *now: told.append(now))
    assert report.ratio < 0.7 and report.files == 1 and report.decoded_bytes == source.stat().st_size
    assert told[-1] == (report.decoded_bytes, report.decoded_bytes)
    assert wcodec.inspect(tmp_path / "m.wcodec").tensors == report.tensors
    wcodec.verify(tmp_path / "m.wcodec")
    wcodec.decompress(tmp_path / "m.wcodec", tmp_path / "back.safetensors")
    assert (tmp_path / "back.safetensors").read_bytes() == source.read_bytes()


def test_a_folder_comes_back_and_its_archive_lies_beside_it(fixtures, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes((fixtures / "silero.safetensors").read_bytes())
    report = wcodec.compress(model)
    assert report.files == 2
    wcodec.decompress(tmp_path / "model.wcodec", tmp_path / "back")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "back" / name).read_bytes() == (model / name).read_bytes()
    with wcodec.open(tmp_path / "model.wcodec", file="model.safetensors") as archive:
        assert archive.read_file("config.json") == b"{}"
        assert archive.files() == ["config.json", "model.safetensors"]


def test_an_exception_in_the_callback_stops_the_work(fixtures, tmp_path):
    def stop(done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        wcodec.compress(fixtures / "minilm-layer-f32.safetensors", tmp_path / "m.wcodec", progress=stop)
    # Either it was stopped, or it had been done when it was first told.
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".wcodec"]


def test_an_interrupt_stops_the_work_and_leaves_nothing(tmp_path):
    program = """
import os, pathlib, signal, sys, threading, time, wcodec

# Shells start background jobs with the signal ignored, and Python then leaves it so.
signal.signal(signal.SIGINT, signal.default_int_handler)

def interrupt():
    while not list(pathlib.Path(sys.argv[2]).parent.glob(".wcodec-*")):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
try:
    wcodec.compress(sys.argv[1], sys.argv[2], level="max", threads=1)
except KeyboardInterrupt:
    print("interrupted")
"""
    wcodec.synth(tmp_path / "s.safetensors", shapes=[(4096, 4096)], tensors=4)
    args = [sys.executable, "-c", program, tmp_path / "s.safetensors", tmp_path / "s.wcodec"]
    ran = subprocess.run(args, capture_output=True, text=True, timeout=60)
    assert ran.stdout == "interrupted\n", ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["s.safetensors"]


def test_synthetic_data_and_baselines(tmp_path):
    path = tmp_path / "s.safetensors"
    made = wcodec.synth(path, shapes=[(64, 128)], dtype="bf16", distribution="column-scaled", seed=3, tensors=2)
    assert made["tensors"] == 2 and path.stat().st_size == made["bytes"]
    with pytest.raises(wcodec.WcodecError, match="already exists"):
        wcodec.synth(path)
    measured = wcodec.bench(path, level="fast", runs=1)
    assert measured["tensor_bytes"] == 2 * 64 * 128 * 2 and measured["decode_seconds"] > 0
    with pytest.raises(wcodec.WcodecError):
        wcodec.bench(tmp_path / "missing.safetensors")


def test_the_module_is_the_command(archive):
    def run(*args):
        return subprocess.run([sys.executable, "-m", "wcodec", *args], capture_output=True, text=True, timeout=60)

    shown = run("inspect", str(archive))
    assert shown.returncode == 0 and "BF16" in shown.stdout
    assert run("--version").stdout.strip() == f"wcodec {wcodec.__version__}"
    failed = run("inspect", str(archive) + ".missing")
    assert failed.returncode == 1 and failed.stderr.startswith("error:")
    assert run("no-such-command").returncode == 2
