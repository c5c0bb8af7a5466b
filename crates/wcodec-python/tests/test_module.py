"""Modules whose weights stay compressed, on the CPU."""

from __future__ import annotations

import copy
import io

import pytest

from wcodec import errors

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from wcodec.torch import CompressedTensor, compress_module, compressed_weights, decompress_module  # noqa: E402


class Net(nn.Module):
    """Every kind of layer that is compressed, and a tied weight."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(300, 64)
        self.conv = nn.Conv1d(64, 96, 3, padding=1, groups=2)
        self.back = nn.ConvTranspose1d(96, 64, 3, padding=1)
        self.inner = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64, bias=False))
        self.norm = nn.LayerNorm(64)
        self.head = nn.Linear(64, 300, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids)
        x = x + self.back(self.conv(x.transpose(1, 2))).transpose(1, 2)
        return self.head(self.norm(x + self.inner(x)))


@pytest.fixture
def net():
    torch.manual_seed(1)
    return Net().bfloat16().eval()


IDS = torch.tensor([[0, 299, 7, 8, 9, 150], [1, 1, 299, 64, 65, 2]])


def test_outputs_are_the_same_bits(net):
    with torch.no_grad():
        expected = net(IDS)
        report = compress_module(net, min_bytes=0)
        assert report.weights == 5 and report.ratio < 0.85
        for _ in range(3):
            assert torch.equal(net(IDS), expected)
        assert net.head.weight is net.embed.weight
        assert len(compressed_weights(net)) == 5
        decompress_module(net)
        assert type(net.embed.weight) is nn.Parameter and net.head.weight is net.embed.weight
        assert torch.equal(net(IDS), expected)


def test_the_state_is_the_true_one(net):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    compress_module(net)
    state = net.state_dict()
    assert state.keys() == before.keys()
    assert all(type(tensor) is torch.Tensor and torch.equal(tensor, before[name]) for name, tensor in state.items())
    assert state["head.weight"].data_ptr() == state["embed.weight"].data_ptr()
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in Net().parameters())


def test_other_weights_can_be_loaded(net):
    torch.manual_seed(2)
    other = Net().bfloat16().eval()
    compress_module(net)
    net.load_state_dict(other.state_dict())
    assert isinstance(net.inner[0].weight, CompressedTensor)
    with torch.no_grad():
        assert torch.equal(net(IDS), other(IDS))


def test_gradients_pass_through(net):
    x = torch.randn(2, 5, 64, dtype=torch.bfloat16)
    plain = copy.deepcopy(net)
    compress_module(net, min_bytes=0)

    def gradient(module):
        leaf = x.clone().requires_grad_()
        module.inner(module.back(module.conv(leaf.transpose(1, 2))).transpose(1, 2)).float().square().sum().backward()
        return leaf.grad

    expected = gradient(plain)
    for _ in range(2):
        assert torch.equal(gradient(net), expected)
    assert not net.inner[0].weight.requires_grad


def test_a_compressed_weight_is_a_tensor(net):
    plain = net.inner[0].weight.detach().clone()
    compress_module(net, min_bytes=0)
    weight = net.inner[0].weight
    assert (weight.shape, weight.dtype, weight.device) == (plain.shape, plain.dtype, plain.device)
    assert torch.equal(weight + 0, plain) and torch.equal(weight[3:5], plain[3:5]) and torch.equal(weight.t(), plain.t())
    assert torch.equal(weight.float(), plain.float()) and type(weight.float()) is torch.Tensor
    assert torch.equal(F.normalize(weight.float()), F.normalize(plain.float()))
    assert "CompressedTensor(256×64" in repr(weight)
    with pytest.raises(errors.BadArgumentError, match="inner.0.weight"), torch.no_grad():
        weight.mul_(2)
    assert torch.equal(weight.decoded(), plain)


def test_copies_and_moves(net):
    with torch.no_grad():
        expected = net(IDS)
        compress_module(net)
        twin = copy.deepcopy(net)
        assert torch.equal(twin(IDS), expected) and twin.head.weight is twin.embed.weight
        assert twin.inner[0].weight.compressed is net.inner[0].weight.compressed
        assert torch.equal(net.to("cpu")(IDS), expected) and isinstance(net.inner[0].weight, CompressedTensor)
        wide = copy.deepcopy(net).float()
        assert isinstance(wide.embed.weight, CompressedTensor) and wide.embed.weight is wide.head.weight
        assert wide.embed.weight.dtype == torch.float32 and torch.equal(wide.embed.weight, net.embed.weight.float())
        assert torch.equal(net(IDS), expected)
        stored = io.BytesIO()
        torch.save(net, stored)
        stored.seek(0)
        assert torch.equal(torch.load(stored, weights_only=False)(IDS), expected)


def test_what_is_left_alone(net):
    compress_module(net, skip=lambda name: name.startswith("inner"), min_bytes=0)
    assert set(compressed_weights(net)) == {"embed.weight", "conv.weight", "back.weight"}
    renormalised = nn.Embedding(100, 64, max_norm=1.0)
    assert compress_module(renormalised, min_bytes=0).weights == 0
    with pytest.raises(TypeError):
        compress_module(Net(), levle="fast")


def test_ids_that_are_not_there(net):
    compress_module(net)
    for ids in ([[300]], [[-1]]):
        with pytest.raises(IndexError):
            net.embed(torch.tensor(ids))
    assert net.embed(torch.empty(0, 3, dtype=torch.long)).shape == (0, 3, 64)


def test_attention_and_float32():
    torch.manual_seed(4)
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True).eval()
    x = torch.randn(2, 9, 64)
    with torch.no_grad():
        expected = layer(x)
        compress_module(layer, min_bytes=0)
        assert torch.allclose(layer(x), expected, atol=1e-5)
        layer.train()
        decompress_module(layer)
        assert torch.equal(layer.eval()(x), expected)
