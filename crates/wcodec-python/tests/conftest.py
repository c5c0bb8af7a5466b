"""What the tests share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import wcodec

try:
    import torch
except ImportError:
    pass
else:
    # These models are tiny: threads would only wait for each other.
    torch.set_num_threads(1)

# Elsewhere in a bundle for another machine.
FIXTURES = Path(os.environ.get("WCODEC_FIXTURES") or Path(__file__).resolve().parents[3] / "fixtures")


@pytest.fixture(scope="session")
def fixtures() -> Path:
    return FIXTURES


@pytest.fixture(scope="session")
def archive(tmp_path_factory) -> Path:
    """An archive of a piece of a real model in BF16."""
    path = tmp_path_factory.mktemp("archives") / "layer.wcodec"
    wcodec.compress(FIXTURES / "minilm-layer-bf16.safetensors", path)
    return path


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """Arrays of every type that NumPy has, with awkward shapes among them."""
    random = np.random.default_rng(5)
    made = {
        "weight": random.normal(0, 0.02, (200, 130)).astype(np.float32),
        "half": random.normal(0, 0.02, (3, 5, 96)).astype(np.float16),
        "double": random.normal(size=(17, 9)),
        "bytes": random.integers(-40, 40, (96, 128)).astype(np.int8),
        "unsigned": random.integers(0, 255, (3, 3, 16, 8)).astype(np.uint8),
        "ids": np.arange(12, dtype=np.int64).reshape(3, 4),
        "flags": np.array([True, False, True]),
        "complex": (random.normal(size=5) + 1j).astype(np.complex64),
        "scalar": np.array(3.5, np.float32),
        "none": np.empty((0, 7), np.float32),
    }
    made["transposed"] = made["weight"].T
    return made
