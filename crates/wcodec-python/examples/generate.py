"""Generates text with a model whose weights stay compressed.

    python examples/generate.py path/to/model "Once upon a time"

The model is a Hugging Face folder, which is compressed first (`path/to/model.wcodec`), or an archive of one."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from transformers import AutoTokenizer

import wcodec
from wcodec.torch import compressed_weights
from wcodec.transformers import FP32_ATTENTION, Fp32Cache, from_pretrained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("prompt")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--fp32-cache", action="store_true", help="keys, values and attention in FP32")
    args = parser.parse_args()

    archive = args.model
    if archive.is_dir():
        archive = args.model.with_name(args.model.name + ".wcodec")
        if not archive.exists():
            print(f"{archive}: {wcodec.compress(args.model, archive).ratio:.3f} of the folder's size")

    attention = {"attn_implementation": FP32_ATTENTION} if args.fp32_cache else {}
    model = from_pretrained(archive, device=args.device, **attention)
    weights = compressed_weights(model).values()
    raw, stored = sum(w.nbytes for w in weights), sum(w.stored_bytes for w in weights)
    print(f"{len(weights)} weights stay compressed: {stored / 2**20:.0f} MiB instead of {raw / 2**20:.0f} MiB")

    inputs = tokenizer(archive)(args.prompt, return_tensors="pt").to(args.device)
    cache = {"past_key_values": Fp32Cache(model.config, handed=torch.float32)} if args.fp32_cache else {}
    tokens = model.generate(**inputs, **cache, max_new_tokens=args.tokens, do_sample=False)
    print(tokenizer(archive).decode(tokens[0], skip_special_tokens=True))


def tokenizer(archive: Path) -> AutoTokenizer:
    """The tokenizer of an archive of a folder: its files, without the weights."""
    with wcodec.open(archive) as opened, tempfile.TemporaryDirectory() as folder:
        for name in opened.files():
            if "/" not in name and not name.endswith(".safetensors"):
                (Path(folder) / name).write_bytes(opened.read_file(name))
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)


if __name__ == "__main__":
    main()
