"""What an export holds: a language model that writes as ours does, and prompts that are what our decoder reads."""

import json
import math
from unittest.mock import Mock

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import make_model, prefixed, tiny_lstm_config
from hf_vae import CVAEProcessor, GaussianMixturePrior, ParaphraseVAEProcessor
from hf_vae.latent_injection import PrefixInjection, register_latent_injection
from hf_vae.serving import check_servable, export_vllm

SOURCES = ("the cat sat on the mat", "a dog ran")
WRITE = {"do_sample": False, "max_new_tokens": 8}


def draw(rows, seed=0):
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed))


def test_a_clients_prompts_are_what_the_language_model_is_given(exported, client, placement):
    """Whatever our `generate` puts into its LM, step by step, in the first step."""
    model, processor, served = exported
    prompt, latents, read = client.LatentPrompt(served.directory), draw(3), []
    model.decoder.lm.register_forward_pre_hook(lambda module, args, kwargs: read.append(kwargs["inputs_embeds"]), with_kwargs=True)
    for source in SOURCES:
        read.clear()
        model.generate(**processor(source), latents=latents, num_return_sequences=3, max_new_tokens=1, do_sample=False)
        # A source that z follows is read by itself, once.
        whole = torch.cat([each.expand(3, -1, -1) for each in read], dim=1)
        torch.testing.assert_close(prompt.embeds(latents, source), whole, atol=1e-6, rtol=0)
        assert len(read) == (2 if placement == "after_source" else 1)


def test_the_language_model_by_itself_writes_our_texts(exported, client):
    model, processor, served = exported
    prompt, latents = client.LatentPrompt(served.directory), draw(5, 1)
    lm = AutoModelForCausalLM.from_pretrained(served.directory / "lm").eval()
    for source in SOURCES:
        expected = model.generate(**processor(source), latents=latents, num_return_sequences=5, **WRITE)[:, 1:]
        assert len({tuple(row) for row in expected.tolist()}) > 1
        assert torch.equal(lm.generate(inputs_embeds=prompt.embeds(latents, source), **WRITE), expected)


@pytest.mark.parametrize("decoder", ["gpt2", "llama"])
def test_a_model_without_a_source_needs_no_table_of_words(decoder, vae_processor, client, tmp_path):
    model = prefixed(vae_processor, "vae", decoder)
    served = export_vllm(model, vae_processor, tmp_path / "served")
    prompt, latents = client.LatentPrompt(served.directory), draw(4)
    assert set(prompt.tensors) == {"projection.weight", "projection.bias", "start_embedding"}
    assert not (served.directory / "encoder").exists()
    lm = AutoModelForCausalLM.from_pretrained(served.directory / "lm").eval()
    expected = model.generate(latents=latents, **WRITE)[:, 1:]
    assert torch.equal(lm.generate(inputs_embeds=prompt.embeds(latents), **WRITE), expected)
    with pytest.raises(ValueError, match="this model reads none"):
        prompt.embeds(latents, "a dog")


CHAT = "{% for message in messages %}[U] {{ message.content }} [A]{% endfor %}"


@pytest.mark.parametrize("options", [{"prompt_template": "write : {source} : "}, {"use_chat_template": True}, {}])
def test_a_client_writes_prompts_as_the_processor_does(options, tokenizers, client, tmp_path):
    tokenizer, encoder_tokenizer = tokenizers
    tokenizer = AutoTokenizer.from_pretrained(save(tokenizer, tmp_path))
    tokenizer.chat_template = CHAT
    processor = ParaphraseVAEProcessor(tokenizer, encoder_tokenizer, **options)
    model = prefixed(processor)
    if processor.start_token_id is not None:
        model.config.decoder_start_token_id = processor.start_token_id
    served = export_vllm(model, processor, tmp_path / "served")
    prompt = client.LatentPrompt(served.directory)
    for source in (*SOURCES, " a  dog", f"a{tokenizer.eos_token} dog {tokenizer.eos_token}", f"{tokenizer.bos_token}the mat"):
        ids = processor(source, return_tensors=None)["prompt_input_ids"]
        assert prompt.token_ids(source) == ids
        torch.testing.assert_close(
            prompt.embeds(draw(1), source), model.prompt_embeds(draw(1), **processor(source)), atol=1e-6, rtol=0
        )


def save(tokenizer, folder):
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder / "tokenizer"


def test_it_ends_its_texts_where_the_model_does(exported):
    model, _, served = exported
    defaults = json.loads((served.directory / "lm" / "generation_config.json").read_text())
    assert defaults["eos_token_id"] == model.generation_config.eos_token_id
    assert defaults["pad_token_id"] == model.config.pad_token_id
    assert not any(name.startswith("latent") for name in defaults)


def test_the_name_tells_two_language_models_apart(exported, processor, tmp_path):
    model, _, served = exported
    again = export_vllm(model, processor, tmp_path / "second" / "served")
    assert again.name == served.name and served.name.startswith("served-")
    with torch.no_grad():
        model.decoder.lm.get_input_embeddings().weight[0, 0] += 1
    assert export_vllm(model, processor, tmp_path / "third" / "served").name != served.name
    assert {path.stat().st_mode for path in served.directory.rglob("*.*")} == {(served.directory / "lm/config.json").stat().st_mode}
    assert served.command.endswith(f"lm --served-model-name {served.name} --enable-prompt-embeds --dtype float32")


# Without a pooler that is never trained, and with one.
@pytest.mark.parametrize("pooling", ["mean", "first", "pooler"])
@pytest.mark.parametrize("tie", [True, False])
def test_a_prior_that_reads_the_source_is_the_models(tie, pooling, tokenizers, client, tmp_path):
    processor = CVAEProcessor(*tokenizers)
    model = prefixed(processor, "cvae", tie_encoders=tie, pooling=pooling)
    with torch.no_grad():
        # A narrow one, at a place of its own for each source.
        model.prior_network.head.linear.weight *= 20
        model.prior_network.head.linear.bias[4:] = -2.0
    served = export_vllm(model, processor, tmp_path / "served")
    assert served.prior == {"kind": "conditional", "pooling": pooling}
    prompt, means = client.LatentPrompt(served.directory), []
    for source in SOURCES:
        expected = model.prior(**{name: processor(source)[name] for name in ("input_ids", "attention_mask")}).latent_dist
        torch.testing.assert_close(prompt.sample(2, source, temperature=0), expected.mean.expand(2, -1), atol=1e-5, rtol=1e-5)
        drawn = prompt.sample(20_000, source, generator=torch.Generator().manual_seed(0))
        # Six standard errors of a mean and of a standard deviation.
        error = 6 * expected.std.max().item() / math.sqrt(20_000)
        torch.testing.assert_close(drawn.mean(0), expected.mean[0], atol=error, rtol=0)
        torch.testing.assert_close(drawn.std(0), expected.std[0], atol=error, rtol=0)
        means.append(expected.mean)
    assert (means[0] - means[1]).abs().max() > 0.1
    with pytest.raises(ValueError, match=r"`source` is None, and the prior p\(z\|x\) reads a text"):
        prompt.sample(1)


def test_a_mixture_that_is_the_prior_is_drawn_from(vae_processor, client, tmp_path):
    model = prefixed(vae_processor, "vae")
    weights, means = torch.tensor([0.75, 0.25]), torch.tensor([[-3.0, 0, 0, 0], [5.0, 0, 0, 0]])
    model.set_fitted_prior(GaussianMixturePrior.from_components(weights, means, torch.zeros(2, 4)))
    assert export_vllm(model, vae_processor, tmp_path / "one").prior == {"kind": "standard"}
    model.generation_config.update(latent_source="fitted_prior", latent_temperature=0.5, allow_custom_entries=True)
    served = export_vllm(model, vae_processor, tmp_path / "two")
    assert served.prior == {"kind": "mixture"}
    prompt = client.LatentPrompt(served.directory)
    drawn = prompt.sample(20_000, generator=torch.Generator().manual_seed(0))
    # E z₁ = -1, within six standard errors; the spread inside a component is half of its own.
    assert drawn[:, 0].mean().item() == pytest.approx(-1.0, abs=6 * 3.5 / math.sqrt(20_000))
    assert drawn[:, 1].std().item() == pytest.approx(0.5, abs=0.02)


def test_z_of_another_prior_must_be_given(vae_processor, client, tmp_path):
    model = prefixed(vae_processor, "vae", prior_type="flow")
    served = export_vllm(model, vae_processor, tmp_path / "served")
    assert served.prior["kind"] == "given"
    prompt = client.LatentPrompt(served.directory)
    with pytest.raises(ValueError, match="z must be given: the prior is a FlowPrior"):
        prompt.sample(1)
    assert prompt.embeds(draw(1)).shape == (1, 3, 16)


@pytest.mark.parametrize(
    "ways, why",
    [
        (["embedding"], "'embedding' adds z to the embedding of every token"),
        (["memory"], "'memory' makes z a key and a value of every layer"),
        (["logits"], "'logits' adds z to what the head reads at every step"),
        (["memory", "prefix"], r"`latent_injection` is \['memory', 'prefix'\]"),
    ],
)
def test_ways_in_that_no_request_has_are_refused_with_the_reason(ways, why, processor, tmp_path):
    model = make_model("paraphrase-prompt", latent_injection=ways)
    with pytest.raises(ValueError, match=why):
        export_vllm(model, processor, tmp_path / "served")
    assert not (tmp_path / "served").exists()


def test_a_way_of_ones_own_is_refused(processor, tmp_path):
    register_latent_injection("mine", type("Mine", (PrefixInjection,), {}))
    with pytest.raises(ValueError, match="'mine' is a way of your own"):
        check_servable(make_model("vae", latent_injection="mine").config)


@pytest.mark.parametrize(
    "variant, options, why",
    [
        ("paraphrase-cross", {}, "`source_conditioning` is 'cross_attention': the decoder reads states of the encoder"),
        ("paraphrase-lstm", {}, "`source_conditioning` is 'initial_state'"),
        ("dialog", {}, "This is a dialogue model, whose prompt is made of turns"),
        ("vae", {"word_dropout": 1.0, "word_dropout_token_id": 1}, "the decoder reads no words"),
        ("vae", {"decoder": tiny_lstm_config()}, "The decoder is an LSTM, which no engine has"),
    ],
)
def test_what_reaches_the_decoder_beside_its_prompt_is_refused(variant, options, why):
    with pytest.raises(ValueError, match=why):
        check_servable(make_model(variant, latent_injection=["prefix"], **options).config)


def test_an_adapter_is_to_be_merged_first(processor, tmp_path):
    model = prefixed(processor)
    adapted = get_peft_model(model, LoraConfig(target_modules=r".*\.q_proj"))
    with pytest.raises(ValueError, match="`model` is a PeftModel; give a model of hf_vae, with its adapters merged"):
        export_vllm(adapted, processor, tmp_path / "served")
    with pytest.raises(ValueError, match="`model` carries an adapter of peft"):
        export_vllm(model, processor, tmp_path / "served")
    export_vllm(adapted.merge_and_unload(), processor, tmp_path / "served")


def test_what_lies_in_the_folder_is_kept(exported, processor, tmp_path):
    model, _, served = exported
    with pytest.raises(ValueError, match="holds an export: choose another directory, or replace it with `overwrite`"):
        export_vllm(model, processor, served.directory)
    assert export_vllm(model, processor, served.directory, overwrite=True) == served
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="holds something else than an export"):
            export_vllm(model, processor, tmp_path / "other", overwrite=overwrite)
    with pytest.raises(ValueError, match=r"letter.txt is a file; choose a directory"):
        export_vllm(model, processor, tmp_path / "other" / "letter.txt")


def held(folder):
    """The content of every file below a folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("failing", ["check_tokens_of_file", "prior_tensors", "save_file"])
def test_an_export_that_fails_leaves_all_as_it_was(failing, exported, processor, tmp_path, monkeypatch):
    model, _, served = exported
    (served.directory / "notes.txt").write_text("mine")
    before, name = held(served.directory), served.name
    with torch.no_grad():
        model.decoder.lm.get_input_embeddings().weight[0, 0] += 1
    with monkeypatch.context() as patched, pytest.raises(ValueError, match="no"):
        patched.setattr(f"hf_vae.serving.export.{failing}", Mock(side_effect=ValueError("no")))
        export_vllm(model, processor, served.directory, overwrite=True)
    assert held(served.directory) == before
    with monkeypatch.context() as patched, pytest.raises(ValueError, match="no"):
        patched.setattr(f"hf_vae.serving.export.{failing}", Mock(side_effect=ValueError("no")))
        export_vllm(model, processor, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    # The next one has its way.
    assert export_vllm(model, processor, served.directory, overwrite=True).name != name
    assert held(served.directory).keys() == before.keys() and (served.directory / "notes.txt").read_text() == "mine"


def test_an_export_that_was_stopped_is_no_export(exported, processor, monkeypatch):
    """In the exchange, and then while the next one was written."""
    model, _, served = exported
    before = held(served.directory)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("pathlib.Path.rename", Mock(side_effect=KeyboardInterrupt))
        export_vllm(model, processor, served.directory, overwrite=True)
    assert not (served.directory / "latent_prompt.safetensors").exists()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("hf_vae.serving.export.save_file", Mock(side_effect=KeyboardInterrupt))
        export_vllm(model, processor, served.directory)
    assert held(served.directory) == {}
    assert export_vllm(model, processor, served.directory) == served and held(served.directory) == before


def test_what_an_earlier_export_had_besides_goes(tokenizers, tmp_path):
    processor = CVAEProcessor(*tokenizers)
    export_vllm(prefixed(processor, "cvae"), processor, tmp_path)
    assert (tmp_path / "encoder").is_dir()
    export_vllm(prefixed(processor, "cvae", prior_type="standard"), processor, tmp_path, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latent_prompt.safetensors", "lm"]


class Scaled(nn.Embedding):
    """As Gemma's: what it looks up is not a row of its weights."""

    def forward(self, tokens):
        return 4.0 * super().forward(tokens)


def test_embeddings_are_those_that_are_looked_up(processor, client, tmp_path):
    model = prefixed(processor)
    lm = model.decoder.lm
    table = Scaled(*lm.get_input_embeddings().weight.shape)
    table.weight = lm.get_input_embeddings().weight
    lm.set_input_embeddings(table)
    served = export_vllm(model, processor, tmp_path / "served")
    prompt = client.LatentPrompt(served.directory)
    expected = model.prompt_embeds(draw(2), **processor(SOURCES[0]))
    torch.testing.assert_close(prompt.embeds(draw(2), SOURCES[0]), expected, atol=1e-6, rtol=0)


def test_half_precision_stays_as_it_is(processor, client, tmp_path):
    served = export_vllm(prefixed(processor).bfloat16(), processor, tmp_path / "served")
    assert served.dtype == "bfloat16" and served.command.endswith("--dtype bfloat16")
    assert client.LatentPrompt(served.directory).embeds(draw(1), "a dog").dtype == torch.bfloat16
    with safe_open(served.directory / "lm" / "model.safetensors", framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118 (it is no dictionary)
