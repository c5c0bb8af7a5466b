"""On a CUDA device: the same bits as on the CPU."""

from __future__ import annotations

import copy

import pytest

import wcodec
from wcodec import errors

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

import test_module  # noqa: E402
import test_torch  # noqa: E402
from test_module import IDS, Net  # noqa: E402
from test_torch import equal  # noqa: E402

from wcodec.torch import CompressedTensor, compress_module, compressed_weights, load, load_file, save, save_file  # noqa: E402
from wcodec.torch._scratch import _pipeline, prefetch, release_scratch, scratch_bytes  # noqa: E402

pytestmark = pytest.mark.cuda
tensors = test_torch.tensors
net = test_module.net
DEVICE = torch.device("cuda", 0)


def test_tensors_come_back(tensors, archive, tmp_path):
    path = tmp_path / "t.wcodec"
    save_file({name: tensor.to(DEVICE) for name, tensor in tensors.items()}, path)
    for loaded in (load_file(path, device="cuda"), load(path.read_bytes(), device=DEVICE)):
        assert all(tensor.device == DEVICE and equal(tensor.cpu(), tensors[name]) for name, tensor in loaded.items())
    on_host = load_file(archive)
    assert all(equal(tensor.cpu(), on_host[name]) for name, tensor in load_file(archive, device="cuda").items())
    with wcodec.open(path, framework="pt", device="cuda") as opened:
        assert equal(opened.get_tensor("bfloat16").cpu(), tensors["bfloat16"])
        assert equal(opened.get_slice("bfloat16")[70:99].cpu(), tensors["bfloat16"][70:99])


def test_on_a_stream_of_the_callers(archive):
    on_host = load_file(archive)
    with torch.cuda.stream(torch.cuda.Stream()):
        loaded = load_file(archive, device="cuda")
        copies = {name: tensor.clone() for name, tensor in loaded.items()}
    torch.cuda.synchronize()
    assert all(equal(copies[name].cpu(), on_host[name]) for name in on_host)


def test_damage_raises(tensors):
    good = bytearray(save(tensors))
    for at in range(0, len(good), max(1, len(good) // 60)):
        bad = bytearray(good)
        bad[at] ^= 0x10
        try:
            loaded = load(bytes(bad), device="cuda")
        except errors.WcodecError:
            continue
        assert all(equal(loaded[name].cpu(), tensors[name]) for name in tensors)
    torch.cuda.synchronize()


@pytest.mark.parametrize("ahead", [True, False], ids=["ahead", "in turn"])
@pytest.mark.parametrize("slab_bytes", [128 << 20, 16 << 10], ids=["whole", "slabs"])
def test_outputs_are_the_same_bits(net, ahead, slab_bytes):
    prefetch(ahead)
    net.to(DEVICE)
    ids = IDS.to(DEVICE)
    with torch.no_grad():
        expected = net(ids)
        compress_module(net, min_bytes=0, slab_bytes=slab_bytes)
        for _ in range(5):
            found = net(ids)
            if slab_bytes == 128 << 20:
                assert torch.equal(found, expected)
            else:
                # Other shapes may take other kernels of the matrix library.
                assert torch.allclose(found.float(), expected.float(), atol=0.1, rtol=0.05)
        assert net.head.weight is net.embed.weight and scratch_bytes(DEVICE) > 0
        # Another order of use is noticed.
        x = net.inner(net.embed(ids))
        assert torch.equal(net.inner(net.embed(ids)), x)
        assert torch.equal(net.embed(ids), torch.nn.functional.embedding(ids, net.embed.weight.decoded()))
    prefetch(True)


def test_moves(net):
    with torch.no_grad():
        on_host = net(IDS)
        compress_module(net, min_bytes=0)
        net.to("cuda")
        assert isinstance(net.head.weight, CompressedTensor) and net.head.weight.device == DEVICE
        assert net.head.weight is net.embed.weight
        plain = copy.deepcopy(net)
        from wcodec.torch import decompress_module

        decompress_module(plain)
        assert torch.equal(net(IDS.to(DEVICE)), plain(IDS.to(DEVICE)))
        assert all(weight.device_bytes(DEVICE) > 0 for weight in compressed_weights(net).values())
        net.to("cpu")
        assert torch.equal(net(IDS), on_host)
        assert all(weight.device_bytes(DEVICE) == 0 for weight in compressed_weights(net).values())
        state = net.to("cuda").state_dict()
        assert state["embed.weight"].device == DEVICE and torch.equal(state["embed.weight"], plain.embed.weight)


def test_gradients_pass_through(net):
    x = torch.randn(2, 5, 64, dtype=torch.bfloat16, device=DEVICE)
    plain = copy.deepcopy(net).to(DEVICE)
    net.to(DEVICE)
    compress_module(net, min_bytes=0)

    def gradient(module):
        leaf = x.clone().requires_grad_()
        module.inner(module.inner(leaf)).float().square().sum().backward()
        return leaf.grad

    expected = gradient(plain)
    for _ in range(3):
        assert torch.equal(gradient(net), expected)


def test_in_a_graph(net):
    net.to(DEVICE)
    ids = IDS.to(DEVICE)
    with torch.no_grad():
        expected = net(ids)
        compress_module(net, min_bytes=0)
        for _ in range(3):
            net(ids)
        assert _pipeline(DEVICE).order is not None
        release_scratch()
        graph = torch.cuda.CUDAGraph()
        static = ids.clone()
        with torch.cuda.graph(graph):
            found = net(static)
        for _ in range(3):
            found.zero_()
            graph.replay()
            assert torch.equal(found, expected)
        static.copy_(ids.flip(1))
        graph.replay()
        assert torch.equal(found, net(ids.flip(1)))


def test_a_transformer_generates_the_same_bits(tmp_path):
    pytest.importorskip("transformers")
    import test_transformers as t

    from wcodec.transformers import Fp32Cache, from_pretrained

    t.model(tie_word_embeddings=True).save_pretrained(tmp_path / "llama")
    wcodec.compress(tmp_path / "llama", tmp_path / "llama.wcodec")
    plain = t.plain(tmp_path / "llama").to(DEVICE)
    t.IDS = t.IDS.to(DEVICE)
    tokens, logits = t.generate(plain)
    for compressed in (True, False):
        loaded = from_pretrained(tmp_path / "llama.wcodec", device="cuda", compressed=compressed, min_bytes=0)
        assert {p.device for p in loaded.parameters()} == {b.device for b in loaded.buffers()} == {DEVICE}
        found_tokens, found_logits = t.generate(loaded)
        assert torch.equal(found_tokens, tokens) and torch.equal(found_logits, logits)
        cached = t.generate(loaded, past_key_values=Fp32Cache(loaded.config))
        assert torch.equal(cached[0], tokens) and torch.equal(cached[1], logits)
    t.IDS = t.IDS.cpu()
