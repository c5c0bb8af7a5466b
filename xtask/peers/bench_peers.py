"""Sizes and one-thread speeds of other lossless codecs, and of wcodec, on the same files in the same run.

Every codec decodes into memory, and what it decodes is compared with the input before any clock starts. The process
is pinned to one CPU, so a library that starts threads nevertheless gets one. `cargo xtask bench-peers` sets glibc's
malloc to keep freed memory: a codec that returns a fresh buffer then finds its pages mapped after the first call, as
a copy into a buffer of one's own does.

Prints one JSON object; progress goes to standard error.
"""

import argparse
import importlib.metadata
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

# No codec's operation is repeated once its runs have taken this long together.
BUDGET_SECONDS = 20.0
WCODEC_LEVELS = ("fast", "default", "max")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--wcodec", help="the wcodec binary")
    parser.add_argument("--skip", action="append", default=[], metavar="CODEC", help="a codec's name in the report")
    arguments = parser.parse_args()
    cpu = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})

    # RAM-backed where the system has it: lmz and wcodec work on files, and no disk should be measured.
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        results = []
        for path in arguments.files:
            results.extend(bench_file(path, arguments, folder))
    json.dump({"runs": arguments.runs, "threads": 1, "results": results}, sys.stdout, indent=1)
    print()


def bench_file(path, arguments, folder):
    with open(path, "rb") as file:
        original = file.read()
    dtype = dominant_dtype(original)
    # Made one after another: each may hold buffers of the file's size.
    codecs = {
        "memcpy": lambda name: memcpy(name, original),
        "ZipNN": lambda name: zipnn_codec(name, original, dtype),
        "lmz": lambda name: lmz_codec(name, original, folder, {}),
        "lmz mapped": lambda name: lmz_codec(name, original, folder, {"mapped": True}),
        "zstd -1": lambda name: zstd_codec(name, original, 1),
        "zstd -3": lambda name: zstd_codec(name, original, 3),
        "zstd -19": lambda name: zstd_codec(name, original, 19),
    }
    rows = []
    for name, make in codecs.items():
        if name in arguments.skip:
            continue
        try:
            row = measure(make(name), original, arguments.runs)
        except Exception as error:  # A peer that fails on a file is a result, not the end of the run.
            row = {"codec": name, "error": f"{type(error).__name__}: {error}"}
        rows.append(row)
        note(path, row)
    for level in WCODEC_LEVELS:
        if f"wcodec {level}" in arguments.skip:
            continue
        row = wcodec(arguments.wcodec, path, level, arguments.runs)
        rows.append(row)
        note(path, row)
    for row in rows:
        row.update(file=os.path.basename(path), bytes=len(original))
    return rows


def note(path, row):
    outcome = row.get("error") or f"{row['compressed_bytes']} bytes"
    print(f"{os.path.basename(path)}: {row['codec']}: {outcome}", file=sys.stderr)


class Codec:
    """`encode()` gives what `decode` takes; `decode` gives a bytes-like object. `prepare` is not timed."""

    def __init__(self, name, encode, decode, prepare=lambda: None, **notes):
        self.name, self.encode, self.decode, self.prepare, self.notes = name, encode, decode, prepare, notes


def measure(codec, original, runs):
    codec.prepare()
    encoded = codec.encode()
    if memoryview(codec.decode(encoded)) != memoryview(original):
        raise ValueError("the round trip is not exact")
    row = {"codec": codec.name, "compressed_bytes": len(encoded), **codec.notes}
    row.update(timed("decode", lambda: codec.decode(encoded), runs))
    # After timing as well: a decoder that spoils its input would have been timed on something else.
    if memoryview(codec.decode(encoded)) != memoryview(original):
        raise ValueError("repeated decoding is not exact")
    del encoded
    row.update(timed("encode", codec.encode, runs, codec.prepare))
    return row


def timed(name, operation, runs, prepare=lambda: None):
    seconds = []
    while len(seconds) < runs and sum(seconds) < BUDGET_SECONDS:
        prepare()
        start = time.perf_counter()
        result = operation()
        seconds.append(time.perf_counter() - start)
        # Given back before the next run, whose buffer can then lie in the same pages.
        del result
    return {
        f"{name}_seconds": min(seconds),
        f"{name}_seconds_median": statistics.median(seconds),
        f"{name}_runs": len(seconds),
    }


def memcpy(name, original):
    there, back = (memoryview(bytearray(len(original))) for _ in range(2))

    def copy(source, target):
        target[:] = source
        return target

    return Codec(name, lambda: copy(original, there), lambda encoded: copy(encoded, back))


def zstd_codec(name, original, level):
    import zstandard

    compressor = zstandard.ZstdCompressor(level=level, threads=0)
    decompressor = zstandard.ZstdDecompressor()
    return Codec(name, lambda: compressor.compress(original), decompressor.decompress,
                 version=version("zstandard"))


def zipnn_codec(name, original, dtype):
    import zipnn

    # ZipNN has no integer form; its FP8 form is Huffman coding of bytes, the nearest for one-byte integers.
    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E5M2": "float8_e5m2"}
    form = names.get(dtype, "float8_e4m3fn")
    state = {}

    def prepare():
        # ZipNN reorders the bits of its input in place, and keeps the last header, so each run gets its own of both.
        state.clear()
        state["data"] = bytearray(original)
        state["codec"] = zipnn.ZipNN(input_format="byte", bytearray_dtype=form, threads=1)

    decoder = zipnn.ZipNN(input_format="byte", bytearray_dtype=form, threads=1)
    return Codec(name, lambda: state["codec"].compress(state["data"]), decoder.decompress, prepare=prepare,
                 setting=form, version=version("zipnn"))


def lmz_codec(name, original, folder, options):
    import lmz

    source, archive = os.path.join(folder, "input.safetensors"), os.path.join(folder, "archive.lmz")
    output = memoryview(bytearray(len(original)))

    def prepare():
        # The suffix matters: lmz reads the tensors' types from the safetensors header.
        if not os.path.exists(source) or os.path.getsize(source) != len(original):
            with open(source, "wb") as file:
                file.write(original)

    def encode():
        lmz.compress(source, archive, workers=1, **options)
        with open(archive, "rb") as file:
            return file.read()

    def decode(encoded):
        # Its interface without file reads, into a buffer that exists: the table of chunks alone is read from the file.
        index = lmz.ArchiveIndex(archive)
        payloads = memoryview(encoded)
        for chunk in index.chunks():
            target = output[chunk.dst:chunk.dst + chunk.rlen]
            plain = index.decode(chunk, payloads[chunk.off:chunk.off + chunk.clen], out=target)
            if not shares_memory(plain, target):
                target[:] = plain
        return output

    if os.path.exists(source):
        os.remove(source)
    return Codec(name, encode, decode, prepare=prepare, setting=lmz.backends()["kernel"], version=version("lmzip"))


def shares_memory(one, other):
    import numpy

    return numpy.shares_memory(numpy.frombuffer(one, numpy.uint8), numpy.frombuffer(other, numpy.uint8))


def version(package):
    return importlib.metadata.version(package)


def wcodec(binary, path, level, runs):
    """One `wcodec bench --json` per run, because the command measures once; its own round trip check counts."""
    name = f"wcodec {level}"
    if not binary or not shutil.which(binary):
        return {"codec": name, "error": "not available"}
    command = [binary, "bench", path, "--level", level, "--threads", "1", "--json"]
    reports, start = [], time.perf_counter()
    while len(reports) < runs and (not reports or time.perf_counter() - start < BUDGET_SECONDS):
        done = subprocess.run(command, capture_output=True, text=True)
        try:
            report = json.loads(done.stdout)
            if isinstance(report, list):
                report = report[0]
            # As of the others: from memory to memory.
            report["encode_seconds"] = report["encode_memory_seconds"]
            reports.append({key: report[key] for key in ("compressed_bytes", "encode_seconds", "decode_seconds")})
        except (ValueError, KeyError, IndexError, TypeError):
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
            return {"codec": name, "error": f"not available (exit {done.returncode}: {lines[-1]})"}
    row = {"codec": name, "compressed_bytes": reports[0]["compressed_bytes"]}
    for operation in ("encode", "decode"):
        seconds = [report[f"{operation}_seconds"] for report in reports]
        row[f"{operation}_seconds"] = min(seconds)
        row[f"{operation}_seconds_median"] = statistics.median(seconds)
        row[f"{operation}_runs"] = len(seconds)
    return row


def dominant_dtype(file):
    """The dtype with the most bytes in a safetensors file."""
    (length,) = struct.unpack_from("<Q", file)
    sizes = {}
    for name, entry in json.loads(file[8:8 + length]).items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            sizes[entry["dtype"]] = sizes.get(entry["dtype"], 0) + end - start
    return max(sizes, key=sizes.get, default="U8")


if __name__ == "__main__":
    main()
