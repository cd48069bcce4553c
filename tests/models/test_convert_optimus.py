"""The converter against a checkpoint that the authors' own code wrote, and what it refuses."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor
from transformers import BertModel as Bert

from helpers import ROOT, tiny_encoder_config, tiny_gpt2_config
from hf_vae import VAEModel, VAEProcessor
from hf_vae.convert_optimus_checkpoint import convert, main

# A tiny model with random weights and the outputs that the reference implementation gave for it.
REFERENCE = Path(os.environ.get("OPTIMUS_REFERENCE", ROOT.parent / "shared" / "fixtures" / "optimus_tiny"))
MODES = (["memory", "embedding"], ["memory"], ["embedding"])


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint in the published layout, written from models of today."""
    torch.manual_seed(0)
    latent_size = 4
    encoder_config, decoder_config = tiny_encoder_config(), tiny_gpt2_config()
    encoder, decoder = Bert(encoder_config), AutoModelForCausalLM.from_config(decoder_config)
    weights = {"encoder": encoder.state_dict(), "decoder": decoder.state_dict()}
    weights["encoder"]["linear.weight"] = torch.randn(2 * latent_size, encoder_config.hidden_size)
    weights["decoder"]["transformer.linear.weight"] = torch.randn(decoder_config.n_layer * decoder_config.n_embd, latent_size)
    weights["decoder"]["transformer.linear_emb.weight"] = torch.randn(decoder_config.n_embd, latent_size)
    weights["decoder"]["transformer.h.0.attn.bias"] = torch.ones(1, 1, 48, 48).tril()
    for name, config in (("encoder", encoder_config), ("decoder", decoder_config)):
        (tmp_path / name).mkdir()
        old = {**config.to_dict(), "finetuning_task": None, "torchscript": False}
        (tmp_path / name / "config.json").write_text(json.dumps(old), encoding="utf-8")
        torch.save(weights[name], tmp_path / name / "pytorch_model.bin")
    return tmp_path


def arguments(directory, *more):
    return [
        "--encoder_dir", str(directory / "encoder"), "--decoder_dir", str(directory / "decoder"),
        "--output_dir", str(directory / "out"), *more,
    ]  # fmt: skip


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference implementation's outputs are not here (OPTIMUS_REFERENCE)")
@pytest.mark.parametrize("ways", MODES, ids="_".join)
def test_agrees_with_the_authors_code(ways, tmp_path):
    directories = [f"--{part}_dir={REFERENCE / f'checkpoint-{part}-508523'}" for part in ("encoder", "decoder")]
    main([*directories, f"--output_dir={tmp_path}", "--latent_injection", *ways])
    model = AutoModel.from_pretrained(tmp_path).eval()
    assert not (tmp_path / "processor_config.json").exists()
    expected, mode = load_file(REFERENCE / "expected.safetensors"), "_".join(ways)
    sizes = json.loads((REFERENCE / "sizes.json").read_text())["decoder"]
    for name in ("pad_token_id", "eos_token_id"):
        assert getattr(model.config, name) == getattr(model.generation_config, name) == sizes[name]
    assert model.config.decoder_start_token_id == model.generation_config.decoder_start_token_id == sizes["bos_token_id"]

    input_ids = expected["encoder_input_ids"]
    labels = expected["decoder_ids"][:, 1:]
    labels = labels.masked_fill(labels == sizes["pad_token_id"], -100)
    with torch.no_grad():
        latent_dist = model.encode(input_ids, (input_ids != 0).long()).latent_dist
        output = model(latents=expected["latents"], labels=labels)
        greedy = model.generate(latents=expected["latents"], do_sample=False, max_new_tokens=12)
    exact = {"atol": 1e-5, "rtol": 0}
    torch.testing.assert_close(latent_dist.mean, expected["posterior_mean"], **exact)
    torch.testing.assert_close(latent_dist.logvar, expected["posterior_logvar"], **exact)
    torch.testing.assert_close(latent_dist.kl(model.prior(batch_size=5).latent_dist), expected["kl_per_dimension"], **exact)
    counted = labels != -100
    torch.testing.assert_close(output.logits[counted], expected[f"{mode}.logits"][:, :-1][counted], **exact)
    torch.testing.assert_close(output.reconstruction_loss, expected[f"{mode}.reconstruction_nats"], atol=1e-4, rtol=0)
    for ours, theirs in zip(greedy.tolist(), expected[f"{mode}.greedy"].tolist()):
        end = theirs.index(sizes["eos_token_id"]) + 1 if sizes["eos_token_id"] in theirs else len(theirs)
        assert ours[:end] == theirs[:end]


@pytest.mark.parametrize("ways", MODES, ids="_".join)
def test_every_weight_finds_its_place(checkpoint, ways):
    main(arguments(checkpoint, "--latent_injection", *ways))
    model = AutoModel.from_pretrained(checkpoint / "out")
    assert isinstance(model, VAEModel) and model.config.latent_injection == ways and model.posterior_head.linear.bias is None
    old = torch.load(checkpoint / "decoder" / "pytorch_model.bin", weights_only=True)
    if "memory" in ways:
        assert torch.equal(model.decoder.latent_injection.memory.projection.weight, old["transformer.linear.weight"])
    if "embedding" in ways:
        assert (
            torch.equal(model.decoder.latent_injection.embedding.projection.weight, old["transformer.linear_emb.weight"])
            and not model.decoder.latent_injection.embedding.projection.bias.any()
        )
    assert torch.equal(model.decoder.lm.transformer.wte.weight, old["transformer.wte.weight"])
    assert (model.config.pad_token_id, model.config.decoder.bos_token_id, model.config.eos_token_id) == (37, 38, 39)


def test_weights_of_other_ways_need_not_be_there(checkpoint):
    path = checkpoint / "decoder" / "pytorch_model.bin"
    weights = torch.load(path, weights_only=True)
    del weights["transformer.linear.weight"]
    torch.save(weights, path)
    with pytest.raises(ValueError, match=r"decoder is of another layout: its weights have no 'transformer\.linear\.weight'"):
        main(arguments(checkpoint))
    main(arguments(checkpoint, "--latent_injection", "embedding"))
    model = AutoModel.from_pretrained(checkpoint / "out")
    assert torch.equal(model.decoder.latent_injection.embedding.projection.weight, weights["transformer.linear_emb.weight"])


def test_a_processor_comes_with_tokenizers_that_fit(checkpoint, tokenizers):
    tokenizer, encoder_tokenizer = tokenizers
    for name, each in (("gpt2", tokenizer), ("bert", encoder_tokenizer)):
        each.save_pretrained(checkpoint / name)
    paths = [str(checkpoint / "bert"), str(checkpoint / "gpt2")]
    with pytest.raises(ValueError, match=r"with Optimus' special tokens .* has"):
        main(arguments(checkpoint, "--tokenizers", *paths))
    assert not (checkpoint / "out").exists()
    # The embeddings of a checkpoint that was trained with these vocabularies.
    for part, key, size in (("encoder", "embeddings.word_embeddings.weight", len(encoder_tokenizer)),
                            ("decoder", "transformer.wte.weight", len(tokenizer) + 3)):  # fmt: skip
        weights = torch.load(checkpoint / part / "pytorch_model.bin", weights_only=True)
        weights[key] = torch.zeros(size, 16)
        if part == "decoder":
            weights["lm_head.weight"] = weights[key]
        torch.save(weights, checkpoint / part / "pytorch_model.bin")
    config = json.loads((checkpoint / "encoder" / "config.json").read_text())
    (checkpoint / "encoder" / "config.json").write_text(json.dumps({**config, "vocab_size": len(encoder_tokenizer)}))
    main(arguments(checkpoint, "--tokenizers", *paths))
    processor = AutoProcessor.from_pretrained(checkpoint / "out")
    assert isinstance(processor, VAEProcessor)
    model = AutoModel.from_pretrained(checkpoint / "out").eval()
    labels = processor("the cat", "the cat")["labels"]
    assert labels[0, -1] == model.config.eos_token_id == len(tokenizer) + 2


@pytest.mark.parametrize("name", ["transformer.wte.weight", "transformer.linear_emb.weight"])
def test_a_decoder_without_what_is_read_of_it_is_refused(checkpoint, name):
    path = checkpoint / "decoder" / "pytorch_model.bin"
    weights = torch.load(path, weights_only=True)
    del weights[name]
    torch.save(weights, path)
    with pytest.raises(ValueError, match=f"`--decoder_dir` .*decoder is of another layout: its weights have no '{name}'"):
        main(arguments(checkpoint))
    assert not (checkpoint / "out").exists()


@pytest.mark.parametrize(
    "content, message",
    [
        (b"{", "`--decoder_dir` .*decoder: config.json holds no settings by name"),
        (b"\xff", "`--decoder_dir` .*decoder: config.json holds no settings by name"),
        (b"[1]", "`--decoder_dir` .*decoder: config.json holds no settings by name .a list"),
        (b'{"n_embd": "wide"}', "`--decoder_dir` .*decoder are of another layout (?s:.*)'n_embd' expected int, got str"),
        (b'{"activation_function": "none"}', "`--decoder_dir` .*decoder are of another layout .KeyError: 'none'"),
        (b'{"n_head": 5, "n_embd": 16}', "`--decoder_dir` .*decoder are of another layout .ValueError: "),
    ],
)
def test_a_configuration_that_says_nothing_is_refused(checkpoint, content, message):
    (checkpoint / "decoder" / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        main(arguments(checkpoint))
    assert not (checkpoint / "out").exists()


def test_other_layouts_are_refused_and_nothing_is_written(checkpoint):
    def refuses(match, *more):
        with pytest.raises(ValueError, match=match):
            main(arguments(checkpoint, *more))
        assert not (checkpoint / "out").exists()

    decoder = torch.load(checkpoint / "decoder" / "pytorch_model.bin", weights_only=True)
    torch.save({**decoder, "lm_head.weight": decoder["lm_head.weight"] + 1}, checkpoint / "decoder" / "pytorch_model.bin")
    refuses("decoder: lm_head.weight differs from transformer.wte.weight")
    few = {"lm_head.weight": torch.ones(2, 16), "transformer.wte.weight": torch.ones(2, 16)}
    torch.save({**decoder, **few}, checkpoint / "decoder" / "pytorch_model.bin")
    refuses("decoder has a vocabulary of 2")
    torch.save(decoder, checkpoint / "decoder" / "pytorch_model.bin")
    weights = torch.load(checkpoint / "encoder" / "pytorch_model.bin", weights_only=True)
    torch.save(
        {name: tensor for name, tensor in weights.items() if name != "linear.weight"}, checkpoint / "encoder" / "pytorch_model.bin"
    )
    refuses("of another layout: its weights have no 'linear.weight'")
    torch.save({**weights, "extra.weight": torch.ones(1)}, checkpoint / "encoder" / "pytorch_model.bin")
    refuses("weights without a place")
    torch.save({**weights, "linear.weight": torch.ones(6, 16)}, checkpoint / "encoder" / "pytorch_model.bin")
    refuses("latent has 3 dimensions and the decoder's 4")
    torch.save({**weights, "pooler.dense.bias": torch.ones(7)}, checkpoint / "encoder" / "pytorch_model.bin")
    refuses("`--encoder_dir` .*encoder and `--decoder_dir` .*decoder are of another layout (?s:.*)pooler.dense.bias")
    torch.save({**weights, "linear.weight": torch.tensor(3.0)}, checkpoint / "encoder" / "pytorch_model.bin")
    refuses("encoder is of another layout: its weights have no 'linear.weight' of two dimensions")
    for others in ({**weights, "linear.weight": 3}, {**weights, 0: torch.ones(1)}, [torch.ones(1)]):
        torch.save(others, checkpoint / "encoder" / "pytorch_model.bin")
        refuses("encoder: pytorch_model.bin is no file of tensors alone")
    (checkpoint / "encoder" / "pytorch_model.bin").write_bytes(b"exit, then an entrance\n")
    refuses("encoder: pytorch_model.bin is no file of tensors alone")
    # What a pickle can hold besides tensors is code.
    (checkpoint / "encoder" / "pytorch_model.bin").write_bytes(pickle.dumps({"linear.weight": Path("x")}))
    refuses("no file of tensors alone")
    (checkpoint / "encoder" / "pytorch_model.bin").unlink()
    refuses("holds no pytorch_model.bin")
    (checkpoint / "out").mkdir()
    (checkpoint / "out" / "thesis.txt").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="is not empty"):
        main(arguments(checkpoint))
    with pytest.raises(ValueError, match="`latent_injection` is 'prefix'"):
        convert(checkpoint / "encoder", checkpoint / "decoder", ["prefix"])
