"""A language model with plain BF16 weights, with weights that wcodec keeps compressed, and with DFloat11's kernel: the same
model, the same loops, one run.

    python benches/llama.py [--dfloat11 FOLDER] [--layers N] [--tokens N] [--batch N ...] [--folder FOLDER]

The model has the shapes of Llama-3-8B. Its weights are normal with a log-normal scale for each row and each column. They are saved as an
archive beside a `config.json`, in a temporary folder within `--folder`, and `from_pretrained` loads that twice: compressed, and decoded.
`--dfloat11` names the unpacked wheel of the package `dfloat11`; needs CuPy and `dahuffman`. Loops: `eager` is greedy decoding through
transformers with its growing cache, then with keys and values in FP32, stored, and handed to attention in FP32; `graph` is one step
captured as a CUDA graph with a static cache. Prints one JSON object a line."""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from wcodec.torch import _cuda, compressed_weights, load_file, prefetch, release_scratch, save_file
from wcodec.transformers import FP32_ATTENTION, Fp32Cache, from_pretrained

LAYER = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
         "mlp.down_proj")  # fmt: skip
PROMPT = 64
CONTEXT = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dfloat11", type=Path)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--slab-mib", type=int, default=128)
    parser.add_argument("--folder", type=Path, help="where the archive goes: 11 GB for all layers")
    parser.add_argument("--load-layers", type=int, default=8, help="layers of the file that is loaded; 0 to load none")
    parser.add_argument("--loops", nargs="+", choices=["eager", "graph"], default=["eager", "graph"])
    args = parser.parse_args()
    tell(device=torch.cuda.get_device_name(), torch=torch.__version__, layers=args.layers)
    with torch.inference_mode():
        attempt(run, args)


def run(args: argparse.Namespace) -> None:
    model = build(args.layers)
    plain_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    tell(what="plain", parameters=sum(p.numel() for p in model.parameters()), bytes=plain_bytes)
    # Once unseen: libraries load their kernels when they are first asked for them.
    eager(model, torch.zeros(1, PROMPT, dtype=torch.long, device="cuda"), args.tokens)
    references = {batch: attempt(measure, "plain", model, batch, args) or {} for batch in args.batch}
    if args.load_layers:
        attempt(loading, model, args.load_layers)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        start = time.perf_counter()
        model.config.save_pretrained(folder)
        report = save_file(model.state_dict(), Path(folder) / "model.wcodec")
        tell(what="save", seconds=time.perf_counter() - start, ratio=report.ratio)
        del model
        clear()
        model = pretrained("on the fly", folder, args, plain_bytes)
        attempt(decoding, model)
        for batch in args.batch:
            attempt(measure, "wcodec", model, batch, args, references[batch])
        held = sum(w.device_bytes(torch.device("cuda", 0)) for w in compressed_weights(model).values())
        dense = sum(p.numel() * p.element_size() for p in model.parameters() if type(p) is torch.nn.Parameter)
        scratch = 2 * (args.slab_mib << 20)
        tell(what="memory", resident=held, dense=dense, scratch=scratch, of_plain=(held + dense + scratch) / plain_bytes,
             without_scratch=(held + dense) / plain_bytes, torch_allocated=torch.cuda.memory_allocated())  # fmt: skip
        prefetch(False)
        attempt(measure, "wcodec, one stream", model, args.batch[0], args, references[args.batch[0]], None, False)
        prefetch(True)
        del model
        release_scratch()
        clear()
        model = pretrained("loaded", folder, args, plain_bytes, compressed=False)
    for batch in args.batch:
        attempt(compare, "loaded", model, batch, args, references[batch])
    if args.dfloat11 is not None:
        attempt(dfloat11, args, model, plain_bytes, references)


def clear() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def pretrained(what: str, folder: str, args: argparse.Namespace, plain_bytes: int, **options: Any) -> Any:
    """The model from the archive, and the most device memory that loading took beyond what is kept."""
    start = time.perf_counter()
    model, most = watched(lambda: from_pretrained(folder, device="cuda", slab_bytes=args.slab_mib << 20, **options))
    seconds = time.perf_counter() - start
    kept = sum(p.numel() * p.element_size() for p in model.parameters() if type(p) is torch.nn.Parameter)
    kept += sum(w.device_bytes(torch.device("cuda", 0)) for w in compressed_weights(model).values())
    tell(what="from_pretrained", how=what, seconds=seconds, device_bytes=kept, of_plain=kept / plain_bytes, peak_beyond=most - kept)
    return model


def watched(work: Any) -> tuple[Any, int]:
    """What `work` returns, and the most device memory that was taken at a time while it ran, as the driver counts it."""
    clear()
    before, least, done = torch.cuda.mem_get_info()[0], [1 << 60], threading.Event()

    def watch() -> None:
        while not done.is_set():
            least[0] = min(least[0], torch.cuda.mem_get_info()[0])
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    made = work()
    torch.cuda.synchronize()
    least[0] = min(least[0], torch.cuda.mem_get_info()[0])
    done.set()
    watcher.join()
    return made, before - least[0]


def tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def attempt(work: Any, *args: Any) -> Any:
    """Goes on with the other measurements when one fails, and says so."""
    try:
        return work(*args)
    except Exception:
        traceback.print_exc(limit=8)
        tell(what="failed", work=work.__name__)
        return None


def build(layers: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=layers, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=8192, rms_norm_eps=1e-5, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0}, dtype="bfloat16", architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    # Its frequencies as `from_pretrained` has them: computed on the CPU, where powers round otherwise.
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to("cuda")
    generator = torch.Generator("cuda").manual_seed(11)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            rows, cols = parameter.shape
            row = torch.randn(rows, 1, device="cuda", generator=generator).mul(0.25).exp()
            col = torch.randn(1, cols, device="cuda", generator=generator).mul(0.25).exp()
            parameter.copy_(torch.randn(rows, cols, device="cuda", generator=generator).mul_(row).mul_(col).mul_(0.018))
    return model


def measure(
    what: str, model: Any, batch: int, args: argparse.Namespace, reference: Any = None, before: Any = None, wide: bool = True
) -> dict[str, Any]:
    """The loops asked for; returns what they computed: the logits and tokens of the eager ones, the tokens of the other."""
    ids = prompt(batch)
    told, made = {"what": what, "batch": batch}, {}
    if "eager" in args.loops:
        eager(model, ids, 4)
        made, seconds = eager_loops(model, ids, args, wide)
        told["eager_tokens_per_second"] = batch * args.tokens / seconds
    release_scratch()
    torch.cuda.empty_cache()
    if "graph" in args.loops:
        told["graph_tokens_per_second"], made["graph_tokens"] = Step(model, batch, before).run(ids[:, :1], args.tokens)
    tell(**told, **equal(made, reference))
    return made


def compare(what: str, model: Any, batch: int, args: argparse.Namespace, reference: Any) -> None:
    """The eager loops without a measurement of their speed."""
    tell(what=what, batch=batch, **equal(eager_loops(model, prompt(batch), args)[0], reference))


def prompt(batch: int) -> torch.Tensor:
    return torch.arange(batch * PROMPT, device="cuda").reshape(batch, PROMPT) * 7919 % 128256


def equal(made: dict[str, Any], reference: Any) -> dict[str, bool]:
    known = (name for name in made if reference is not None and name in reference)
    return {f"{name}_equal": torch.equal(made[name], reference[name]) for name in known}


def eager_loops(
    model: Any, ids: torch.Tensor, args: argparse.Namespace, wide: bool = True
) -> tuple[dict[str, Any], float]:
    made = {}
    made["logits"], made["tokens"], seconds = eager(model, ids, args.tokens)
    if not wide:
        return made, seconds
    made["fp32_cache_logits"], made["fp32_cache_tokens"], _ = eager(model, ids, args.tokens, Fp32Cache(model.config))
    attention = model.config._attn_implementation
    model.set_attn_implementation(FP32_ATTENTION)
    cache = Fp32Cache(model.config, handed=torch.float32)
    made["fp32_attention_logits"], made["fp32_attention_tokens"], _ = eager(model, ids, args.tokens, cache)
    model.set_attn_implementation(attention)
    return made, seconds


def eager(model: Any, ids: torch.Tensor, tokens: int, cache: Any = None) -> tuple[torch.Tensor, torch.Tensor, float]:
    cache = DynamicCache(config=model.config) if cache is None else cache
    out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
    logits, chosen = [out], [out.argmax(-1, keepdim=True)]
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(tokens):
        out = model(input_ids=chosen[-1], past_key_values=cache, use_cache=True).logits[:, -1]
        logits.append(out)
        chosen.append(out.argmax(-1, keepdim=True))
    torch.cuda.synchronize()
    return torch.stack(logits), torch.cat(chosen, 1), time.perf_counter() - start


def decoding(model: Any) -> None:
    """Launches of the decoder by themselves."""
    device, cuda = _cuda.device_of(torch.device("cuda"))
    layer = model.model.layers[0]
    owners = [layer.get_submodule(name) for name in LAYER]
    sets = {"q_proj": owners[:1], "q, k, v, o": owners[:4], "gate_proj": owners[4:5], "layer": owners}
    jobs = {name: [(o.weight.compressed, 0, o.weight.shape[0]) for o in chosen] for name, chosen in sets.items()}
    head = model.lm_head.weight.compressed
    jobs["slab of lm_head"] = [(head, use.first, use.last) for use in head.uses()[:1]]
    for name, rows in jobs.items():
        out = [torch.empty(last - first, w.shape[1], dtype=w.dtype, device=device) for w, first, last in rows]
        items = [(w.resident(device), first, last, (o.data_ptr(), o.nbytes)) for (w, first, last), o in zip(rows, out)]
        size = sum(o.nbytes for o in out)
        for launches in (1, len(items)) if len(items) > 1 else (1,):
            times = []
            for _ in range(25):
                # Work before it, so that the host is ahead of the device.
                out[0].fill_(0)
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                for first in range(0, len(items), len(items) // launches):
                    cuda.decode_rows(items[first : first + len(items) // launches], _cuda.stream_of(device))
                end.record()
                end.synchronize()
                times.append(start.elapsed_time(end))
            median = sorted(times[5:])[10]
            tell(what="decode", of=name, launches=launches, bytes=size, microseconds=median * 1000,
                 gigabytes_per_second=size / median / 1e6)  # fmt: skip


class Step:
    """One token of the model, with its own modules and a static cache, as a CUDA graph. The embedding is looked up outside: it
    depends on the token, and reads next to nothing."""

    def __init__(self, model: Any, batch: int, before: Any) -> None:
        self.model, self.before = model, before
        config = model.config
        self.heads, self.kv, self.dim = config.num_attention_heads, config.num_key_value_heads, 128
        shape = (len(model.model.layers), batch, self.kv, CONTEXT, self.dim)
        self.keys, self.values = (torch.zeros(shape, dtype=torch.bfloat16, device="cuda") for _ in range(2))
        self.at = torch.zeros(1, dtype=torch.long, device="cuda")
        self.x = torch.zeros(batch, 1, config.hidden_size, dtype=torch.bfloat16, device="cuda")
        places = torch.arange(CONTEXT, device="cuda")
        angles = places[:, None] / 500000.0 ** (torch.arange(0, 128, 2, device="cuda") / 128)
        angles = torch.cat((angles, angles), -1)
        self.cos, self.sin, self.places = angles.cos().bfloat16(), angles.sin().bfloat16(), places

    def forward(self) -> torch.Tensor:
        x, batch = self.x, self.x.shape[0]
        cos, sin = self.cos[self.at], self.sin[self.at]
        mask = (self.places <= self.at)[None, None, None]

        def rotate(t: torch.Tensor) -> torch.Tensor:
            a, b = t.chunk(2, -1)
            return t * cos + torch.cat((-b, a), -1) * sin

        for i, layer in enumerate(self.model.model.layers):
            if self.before is not None:
                self.before(i)
            a, y = layer.self_attn, layer.input_layernorm(x)
            q = a.q_proj(y).view(batch, 1, self.heads, self.dim).transpose(1, 2)
            k = a.k_proj(y).view(batch, 1, self.kv, self.dim).transpose(1, 2)
            v = a.v_proj(y).view(batch, 1, self.kv, self.dim).transpose(1, 2)
            self.keys[i].index_copy_(2, self.at, rotate(k))
            self.values[i].index_copy_(2, self.at, v)
            y = F.scaled_dot_product_attention(rotate(q), self.keys[i], self.values[i], attn_mask=mask, enable_gqa=True)
            x = x + a.o_proj(y.transpose(1, 2).reshape(batch, 1, -1))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.model.lm_head(self.model.model.norm(x))

    def run(self, ids: torch.Tensor, tokens: int) -> tuple[float, torch.Tensor]:
        for _ in range(3):
            self.forward()
        release_scratch()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = self.forward()
        self.keys.zero_(), self.values.zero_(), self.at.zero_()
        # The same rows for all: how a peer decodes its embedding is in the eager loop.
        table = self.model.get_input_embeddings()
        chosen = [ids]
        for i in range(tokens + 8):
            if i == 8:
                torch.cuda.synchronize()
                start = time.perf_counter()
            self.x.copy_(table(chosen[-1]))
            graph.replay()
            self.at += 1
            chosen.append(logits[:, -1].argmax(-1, keepdim=True))
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        return ids.shape[0] * tokens / seconds, torch.cat(chosen, 1)


def loading(model: Any, layers: int) -> None:
    """Loading from the page cache to the device, beside safetensors with the uncompressed file."""
    from safetensors import torch as safetensors

    tensors = {name: p.detach() for name, p in model.named_parameters() if f"layers.{layers}." not in name}
    tensors = {n: p for n, p in tensors.items() if n.startswith("model.layers.") and int(n.split(".")[2]) < layers}
    size = sum(p.numel() * p.element_size() for p in tensors.values())
    with tempfile.TemporaryDirectory() as folder:
        plain, archive = Path(folder) / "m.safetensors", Path(folder) / "m.wcodec"
        safetensors.save_file(tensors, plain)
        start = time.perf_counter()
        report = save_file(tensors, archive)
        encode = time.perf_counter() - start
        expected = {name: tensor.clone() for name, tensor in list(tensors.items())[:12]}

        def timed(load: Any, device: str) -> float:
            seconds = []
            for _ in range(4):
                start = time.perf_counter()
                loaded = load(device)
                torch.cuda.synchronize()
                seconds.append(time.perf_counter() - start)
                assert all(torch.equal(loaded[name].to("cuda"), tensor) for name, tensor in expected.items())
                del loaded
            return min(seconds[1:])

        for device in ("cuda", "cpu"):
            theirs = timed(lambda device: safetensors.load_file(plain, device=device), device)
            ours = timed(lambda device: load_file(archive, device=device), device)
            tell(what="load", device=device, bytes=size, ratio=report.ratio, encode_seconds=encode,
                 wcodec_seconds=ours, safetensors_seconds=theirs, faster=theirs / ours)  # fmt: skip


def dfloat11(args: argparse.Namespace, model: Any, plain_bytes: int, references: dict) -> None:
    """The same model with DFloat11's kernel, as its package does it: a layer's weights, the embedding and the head are decoded
    before they are used, into one buffer."""
    import cupy

    spec = importlib.util.spec_from_file_location("dfloat11_utils", args.dfloat11 / "dfloat11" / "dfloat11_utils.py")
    utils = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(utils)
    kernel = cupy.RawModule(path=os.fspath(args.dfloat11 / "dfloat11" / "decode.ptx")).get_function("decode")
    parts = [[model.get_submodule(f"model.layers.{i}.{name}") for name in LAYER] for i in range(args.layers)]
    parts += [[model.model.embed_tokens], [model.lm_head]]
    start = time.perf_counter()
    held = []
    for part in parts:
        held.append(Huffman(utils, torch.cat([owner.weight.flatten() for owner in part])))
        for owner in part:
            del owner._parameters["weight"]
    tell(what="DFloat11, encode", seconds=time.perf_counter() - start, ratio=sum(h.bytes for h in held) / plain_bytes)
    buffer = torch.empty(max(h.elements for h in held), dtype=torch.bfloat16, device="cuda")
    for part in parts:
        at = 0
        for owner in part:
            rows, cols = (owner.out_features, owner.in_features) if hasattr(owner, "out_features") else (
                owner.num_embeddings, owner.embedding_dim)  # fmt: skip
            owner.weight = buffer[at : at + rows * cols].view(rows, cols)
            at += rows * cols

    def decode(number: int) -> None:
        with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
            held[number].launch(kernel, buffer)

    for i, layer in enumerate(model.model.layers):
        layer.register_forward_pre_hook(lambda module, inputs, i=i: decode(i))
    model.model.embed_tokens.register_forward_pre_hook(lambda module, inputs: decode(args.layers))
    model.lm_head.register_forward_pre_hook(lambda module, inputs: decode(args.layers + 1))
    for batch in args.batch:
        attempt(measure, "DFloat11", model, batch, args, references[batch], decode, False)


class Huffman:
    """Weights in DFloat11's format, made on the device: its package's own encoder is a loop over all weights in Python."""

    def __init__(self, utils: Any, weights: torch.Tensor) -> None:
        bits = weights.view(torch.int16)
        exponents = ((bits >> 7) & 0xFF).to(torch.uint8)
        self.sign_mantissa = ((bits >> 8) & 0x80 | (bits & 0x7F)).to(torch.uint8)
        self.elements = weights.numel()
        counts = torch.bincount(exponents.flatten().to(torch.int32), minlength=256).tolist()
        with open(os.devnull, "w") as sink:
            stdout, sys.stdout = sys.stdout, sink
            try:
                codec, _, table = utils.get_32bit_codec({s: c for s, c in enumerate(counts) if c})
                self.luts = utils.get_luts(table).to(weights.device)
            finally:
                sys.stdout = stdout
        lengths, values = torch.zeros(256, dtype=torch.long), torch.zeros(256, dtype=torch.long)
        for symbol, (length, value) in table.items():
            if isinstance(symbol, int):
                lengths[symbol], values[symbol] = length, value
        device = weights.device
        lengths, values = lengths.to(device), values.to(device)
        total = int((torch.tensor(counts, device=device) * lengths).sum())
        end_length, end_value = codec._table[codec._eof]
        encoded = torch.zeros(-(-total // 8) + 8, dtype=torch.uint8, device=device)
        chunks, blocks = -(-total // 64), -(-total // (64 * 512))
        gaps = torch.zeros(blocks * 512, dtype=torch.long, device=device)
        positions = torch.zeros(blocks + 1, dtype=torch.long, device=device)
        step, base, done = 1 << 24, 0, {64: 0, 64 * 512: 0}
        for first in range(0, self.elements, step):
            part = exponents[first : first + step].long()
            length = lengths[part]
            ends = torch.cumsum(length, 0) + base
            starts = ends - length
            # A code lies in at most five bytes; bytes of different codes are disjoint bits, so that adding is or.
            window = values[part] << (40 - (starts & 7) - length)
            for byte in range(5):
                encoded.index_add_(0, (starts >> 3) + byte, ((window >> (32 - 8 * byte)) & 0xFF).to(torch.uint8))
            for size, target, gap in ((64, gaps, True), (64 * 512, positions, False)):
                marks = torch.arange(done[size], -(-int(ends[-1]) // size), device=device)
                found = torch.searchsorted(starts, marks * size)
                # The code behind a mark may be the first of the next part.
                known = found < len(starts)
                marks, found = marks[known], found[known]
                done[size] += len(marks)
                target[marks] = starts[found] - marks * size if gap else found + first
            base = int(ends[-1])
        # The last byte is filled with the beginning of the end symbol.
        free = -total % 8
        fill = end_value >> (end_length - free) if end_length >= free else end_value << (free - end_length)
        encoded = encoded[: -(-total // 8)]
        encoded[-1] += fill if free else 0
        positions[-1] = self.elements
        assert int(gaps.max()) < 32 and chunks <= len(gaps)
        planes = (gaps[:, None] >> torch.arange(4, -1, -1, device=device)) & 1
        weight = 1 << torch.arange(7, -1, -1, device=device)
        self.gaps = (planes.flatten().view(-1, 8) * weight).sum(1).to(torch.uint8)
        self.encoded = encoded
        self.positions = positions.to(torch.int32)
        self.shared = 512 * 4 + 4 + int((positions[1:] - positions[:-1]).max()) * 2
        self.bytes = encoded.numel() + self.sign_mantissa.numel() + self.gaps.numel() + self.positions.numel() * 4

    def launch(self, kernel: Any, out: torch.Tensor) -> None:
        size = self.encoded.numel()
        kernel(
            grid=(-(-size // (512 * 8)),), block=(512,), shared_mem=self.shared,
            args=[self.luts.data_ptr(), self.encoded.data_ptr(), self.sign_mantissa.data_ptr(), self.positions.data_ptr(),
                  self.gaps.data_ptr(), out.data_ptr(), self.luts.shape[0], size, self.elements],
        )  # fmt: skip


if __name__ == "__main__":
    main()
