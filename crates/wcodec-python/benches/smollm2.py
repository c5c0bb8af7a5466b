"""SmolLM2-135M, plain and from archives: whether a long generation has the same logits, bit for bit.

    cargo xtask fetch-models
    python benches/smollm2.py target/models/smollm2-bf16.safetensors [--device cuda] [--tokens N]

Compares with plain BF16 weights: loaded, on the fly from the archive, and on the fly after `compress_module`; then with keys,
values and attention in FP32. Prints one JSON object a line."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, LlamaConfig

import wcodec
from wcodec.torch import compress_module, compressed_weights
from wcodec.transformers import FP32_ATTENTION, Fp32Cache, from_pretrained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=int, default=256)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), args)


def compare(folder: Path, args: argparse.Namespace) -> None:
    source = folder / "model"
    source.mkdir()
    shutil.copy(args.weights, source / "model.safetensors")
    config_of(args.weights).save_pretrained(source)
    archive = folder / "model.wcodec"
    print(json.dumps({"ratio": wcodec.compress(source, archive).ratio, "device": args.device, "tokens": args.tokens}), flush=True)

    def plain(**options: Any) -> Any:
        return AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16, **options).to(args.device).eval()

    expected = generate(plain(), args)
    wide = {"attn_implementation": FP32_ATTENTION}
    expected_fp32 = generate(plain(**wide), args, fp32=True)
    compressed = plain()
    compress_module(compressed)
    for what, model, fp32 in (
        ("loaded", from_pretrained(archive, device=args.device, compressed=False), False),
        ("on the fly, from the archive", from_pretrained(archive, device=args.device), False),
        ("on the fly, compress_module", compressed, False),
        ("FP32 cache handed in BF16", from_pretrained(archive, device=args.device), "stored"),
        ("FP32 cache and attention, loaded", from_pretrained(archive, device=args.device, compressed=False, **wide), True),
        ("FP32 cache and attention, on the fly", from_pretrained(archive, device=args.device, **wide), True),
    ):
        tokens, logits = generate(model, args, fp32=fp32)
        reference = expected_fp32 if fp32 is True else expected
        told = {
            "what": what,
            "compressed_weights": len(compressed_weights(model)),
            "tokens_equal": torch.equal(tokens, reference[0]),
            "logits_equal": torch.equal(logits, reference[1]),
            "steps_equal": int((logits == reference[1]).flatten(1).all(1).sum()),
        }
        print(json.dumps(told), flush=True)
    changed = {"tokens": torch.equal(expected[0], expected_fp32[0]), "logits": torch.equal(expected[1], expected_fp32[1])}
    print(json.dumps({"what": "BF16 attention against FP32 attention, both plain", **changed}))


def generate(model: Any, args: argparse.Namespace, fp32: Any = False) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.arange(2 * 24, device=args.device).reshape(2, 24) * 311 % model.config.vocab_size
    handed = torch.float32 if fp32 is True else None
    cache = {"past_key_values": Fp32Cache(model.config, handed=handed)} if fp32 else {}
    with torch.inference_mode():
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=args.tokens, do_sample=False, output_logits=True,
            return_dict_in_generate=True, **cache,
        )  # fmt: skip
    return made.sequences, torch.stack(made.logits)


def config_of(weights: Path) -> LlamaConfig:
    """SmolLM2-135M's configuration, with as many layers and tokens as the file has."""
    with safe_open(weights, "pt") as file:
        layers = len([name for name in file.keys() if name.endswith("self_attn.q_proj.weight")])
        vocab, hidden = file.get_slice("model.embed_tokens.weight").get_shape()
    return LlamaConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=1536, num_hidden_layers=layers, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0}, dtype="bfloat16", eos_token_id=None,
        architectures=["LlamaForCausalLM"],
    )  # fmt: skip


if __name__ == "__main__":
    main()
