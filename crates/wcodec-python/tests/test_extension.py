"""The shared library itself."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from wcodec import _native


@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm here")
def test_it_exports_its_module_and_no_symbol_of_the_driver():
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", _native.__file__], capture_output=True, text=True, check=True, timeout=60
    )
    symbols = [line.split()[-1] for line in listed.stdout.splitlines()]
    assert "PyInit__native" in symbols
    assert not [symbol for symbol in symbols if symbol.startswith("cu")]


@pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf here")
def test_it_needs_no_driver():
    listed = subprocess.run(["readelf", "-d", _native.__file__], capture_output=True, text=True, check=True, timeout=60)
    assert "libcuda" not in listed.stdout
