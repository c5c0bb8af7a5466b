"""Hugging Face models from archives, on the CPU: the same bits as from safetensors."""

from __future__ import annotations

import pytest

import wcodec
from wcodec import errors

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from wcodec.torch import CompressedTensor, compress_module, compressed_weights  # noqa: E402
from wcodec.transformers import FP32_ATTENTION, Fp32Cache, Fp32StaticCache, from_pretrained  # noqa: E402


def config(**changes):
    return transformers.LlamaConfig(**{
        "vocab_size": 320, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "dtype": "bfloat16", "eos_token_id": None,
    } | changes)  # fmt: skip


def model(**changes):
    torch.manual_seed(7)
    return transformers.LlamaForCausalLM(config(**changes)).bfloat16().eval()


# The argument has another name from transformers 6 on.
pytestmark = pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated")

IDS = torch.tensor([[1, 5, 9, 200, 31, 2, 319], [4, 4, 4, 8, 8, 8, 0]])


def generate(model, **options):
    with torch.no_grad():
        made = model.generate(
            IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=24, do_sample=False, output_logits=True,
            return_dict_in_generate=True, **options,
        )  # fmt: skip
    return made.sequences, torch.stack(made.logits)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "llama"
    model(tie_word_embeddings=request.param).save_pretrained(path, max_shard_size="100KB")
    return path


def plain(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()


def test_a_generation_is_the_same_bits(folder, tmp_path):
    tokens, logits = generate(plain(folder))
    wcodec.compress(folder, tmp_path / "llama.wcodec")
    loaded = from_pretrained(tmp_path / "llama.wcodec", min_bytes=0)
    assert isinstance(loaded.model.layers[0].mlp.up_proj.weight, CompressedTensor)
    assert len(compressed_weights(loaded)) == 3 * 7 + (1 if loaded.config.tie_word_embeddings else 2)
    found_tokens, found_logits = generate(loaded)
    assert torch.equal(found_tokens, tokens) and torch.equal(found_logits, logits)
    for other in (from_pretrained(tmp_path / "llama.wcodec", compressed=False), plain(folder)):
        assert not compressed_weights(other)
        compress_module(other, min_bytes=0)
        found_tokens, found_logits = generate(other)
        assert torch.equal(found_tokens, tokens) and torch.equal(found_logits, logits)


def test_a_folder_of_shards(folder, tmp_path):
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    for shard in shards:
        wcodec.compress(shard, tmp_path / f"{shard.stem}.wcodec")
    for name in ("config.json", "generation_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    loaded = from_pretrained(tmp_path, model_class=transformers.AutoModelForCausalLM)
    assert torch.equal(generate(loaded)[1], generate(plain(folder))[1])
    (tmp_path / f"{shards[0].stem}.wcodec").unlink()
    with pytest.raises(errors.InputError, match="lacks weights of LlamaForCausalLM"):
        from_pretrained(tmp_path)


def test_names_that_transformers_changes(tmp_path):
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    settings = transformers.BertConfig(vocab_size=160, max_position_embeddings=32, **small)
    torch.manual_seed(3)
    made = transformers.BertModel(settings).eval()
    state = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
             for name, tensor in made.state_dict().items()}  # fmt: skip
    assert any(name.endswith("gamma") for name in state)
    (tmp_path / "model").mkdir()
    settings.architectures = ["BertModel"]
    settings.save_pretrained(tmp_path / "model")
    wcodec.torch.save_file(state, tmp_path / "model" / "model.wcodec")
    with torch.no_grad():
        found = from_pretrained(tmp_path / "model", min_bytes=0)(IDS % 160).last_hidden_state
        assert torch.equal(found, made(IDS % 160).last_hidden_state)


@pytest.mark.skipif(int(transformers.__version__.split(".")[0]) < 5, reason="version 4 keeps experts apart")
def test_weights_that_transformers_makes_of_others(tmp_path):
    settings = transformers.MixtralConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        num_local_experts=2, architectures=["MixtralForCausalLM"],
    )  # fmt: skip
    transformers.MixtralForCausalLM(settings).save_pretrained(tmp_path / "mixtral")
    wcodec.compress(tmp_path / "mixtral", tmp_path / "mixtral.wcodec")
    with pytest.raises(errors.UnsupportedError, match="experts.*compress_module"):
        from_pretrained(tmp_path / "mixtral.wcodec")


def test_what_is_no_model(tmp_path, archive):
    with pytest.raises(errors.NotFoundError, match="no .wcodec file"):
        from_pretrained(tmp_path)
    with pytest.raises(errors.NotFoundError, match="no config.json"):
        from_pretrained(archive)


def test_it_can_be_saved_again(folder, tmp_path):
    wcodec.compress(folder, tmp_path / "llama.wcodec")
    from_pretrained(tmp_path / "llama.wcodec").save_pretrained(tmp_path / "again")
    expected, found = plain(folder).state_dict(), plain(tmp_path / "again").state_dict()
    assert expected.keys() == found.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_cache_in_fp32_changes_nothing_where_attention_asks_for_bf16(folder):
    tokens, logits = generate(plain(folder))
    cache = Fp32Cache(plain(folder).config)
    found_tokens, found_logits = generate(plain(folder), past_key_values=cache)
    assert torch.equal(found_tokens, tokens) and torch.equal(found_logits, logits)
    assert all(layer.keys.dtype == layer.values.dtype == torch.float32 for layer in cache.layers)
    static = Fp32StaticCache(plain(folder).config, 64)
    assert torch.equal(generate(plain(folder), past_key_values=static)[0], tokens)
    assert static.layers[0].keys.dtype == torch.float32
    assert torch.equal(generate(plain(folder), past_key_values=Fp32Cache())[1], logits)


def test_with_attention_in_fp32_both_generate_the_same(folder, tmp_path):
    wcodec.compress(folder, tmp_path / "llama.wcodec")
    loaded = from_pretrained(tmp_path / "llama.wcodec", min_bytes=0, attn_implementation=FP32_ATTENTION)
    dense = plain(folder)
    dense.set_attn_implementation(FP32_ATTENTION)
    options = lambda: {"past_key_values": Fp32Cache(dense.config, handed=torch.float32)}  # noqa: E731
    tokens, logits = generate(dense, **options())
    found_tokens, found_logits = generate(loaded, **options())
    assert torch.equal(found_tokens, tokens) and torch.equal(found_logits, logits)
    # Attention in BF16 rounds otherwise.
    assert not torch.equal(logits, generate(plain(folder))[1])


def test_beams(folder, tmp_path):
    wcodec.compress(folder, tmp_path / "llama.wcodec")
    loaded = from_pretrained(tmp_path / "llama.wcodec")
    options = {"max_new_tokens": 8, "num_beams": 3, "do_sample": False, "attention_mask": torch.ones_like(IDS)}
    with torch.no_grad():
        expected = plain(folder).generate(IDS, **options)
        assert torch.equal(loaded.generate(IDS, **options), expected)
        assert torch.equal(loaded.generate(IDS, past_key_values=Fp32Cache(loaded.config), **options), expected)
