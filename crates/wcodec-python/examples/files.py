"""Compresses a checkpoint, reads it back, and compares.

    python examples/files.py model.safetensors"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import wcodec
from wcodec.numpy import load_file


def main() -> None:
    source = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        archive, restored = Path(folder) / "model.wcodec", Path(folder) / source.name
        report = wcodec.compress(source, archive, progress=lambda done, total: print(f"\r{done * 100 // total} %", end=""))
        print(f"\r{report.decoded_bytes} bytes -> {report.archive_bytes}, ratio {report.ratio:.4f}")
        arrays = load_file(archive, raw=True)
        print(f"{len(arrays)} tensors, {sum(array.nbytes for array in arrays.values())} bytes decoded")
        wcodec.decompress(archive, restored)
        print("identical" if restored.read_bytes() == source.read_bytes() else "different")


if __name__ == "__main__":
    main()
