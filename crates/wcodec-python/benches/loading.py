"""What loading an archive takes: on the CPU time beside its parts, and memory; on a CUDA device memory.

    python benches/loading.py model.wcodec [cuda]

`load_file` is compared with what it cannot do without: decoding into buffers whose pages are there, and getting the pages. Memory
is the largest sum of anonymous pages while it loads, less what was there before; pages of the mapped archive belong to the page
cache. On a device it is what the driver counts, the kernels' code and PyTorch's rounding included. Prints one JSON object."""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from wcodec import _native
from wcodec.torch import _io, load_file

RUNS = 7


def main() -> None:
    path = sys.argv[1]
    if sys.argv[2:] == ["cuda"]:
        return on_device(path)
    memory = peak(lambda: load_file(path))
    size = sum(tensor.numel() * tensor.element_size() for tensor in load_file(path).values())
    archive = _native.Archive.open(path)
    warm = {info[1]: _io.empty(*info[1:], torch.device("cpu")) for info in archive.infos(None)}
    targets = [(info[0], _io.region(warm[info[1]])) for info in archive.infos(None)]
    archive.decode(targets)
    loading, decoding, faulting = [], [], []
    # In turn, so that what else the machine does meets all alike.
    for _ in range(RUNS):
        loading.append(timed(lambda: load_file(path)))
        decoding.append(timed(lambda: archive.decode(targets)))
        faulting.append(timed(lambda: fault([info[4] for info in archive.infos(None)])))
    load, decode, faults = (statistics.median(times) for times in (loading, decoding, faulting))
    told = {
        "bytes": size, "load_seconds": load, "decode_warm_seconds": decode, "fault_seconds": faults,
        "load_over_parts": load / (decode + faults), "peak_bytes": memory, "beyond_output_bytes": memory - size,
        "gigabytes_per_second": size / load / 1e9, "threads": os.cpu_count(),
    }  # fmt: skip
    print(json.dumps(told))


def on_device(path: str) -> None:
    torch.zeros(1, device="cuda")
    tensors = {}
    taken = peak(lambda: tensors.update(load_file(path, device="cuda")), lambda: -torch.cuda.mem_get_info()[0])
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    allocated = torch.cuda.memory_reserved()
    print(json.dumps({"bytes": size, "peak_bytes": taken, "beyond_output_bytes": taken - size, "reserved_bytes": allocated}))


def fault(sizes: list[int]) -> list[np.ndarray]:
    """Memory for the tensors as PyTorch gets it, of which every page has been asked for, by all cores."""
    arrays = [torch.empty(size, dtype=torch.uint8).numpy() for size in sizes]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(lambda array: array[::4096].fill(1), arrays))
    return arrays


def timed(work: Callable) -> float:
    start = time.perf_counter()
    kept = work()
    seconds = time.perf_counter() - start
    del kept
    return seconds


def peak(work: Callable, memory: Callable[[], int] | None = None) -> int:
    """The most memory, anonymous if nothing else is said, that `work` had at a time."""
    memory = memory or anonymous
    before, most, done = memory(), memory(), threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, memory())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    kept = work()
    most = max(most, memory())
    done.set()
    watcher.join()
    del kept
    return most - before


def anonymous() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
