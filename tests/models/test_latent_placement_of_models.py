"""z behind the source, in whole models: one reading of x serves every z, and writes and scores what as many readings do."""

import json

import pytest
import torch
from transformers import AutoModel

from helpers import GREEDY, UNK, draw, generation_inputs, left_padded, make_batch, make_model
from hf_vae.calls import call_with
from hf_vae.compat import ACTIVATION_CHECKPOINTING
from hf_vae.rows import repeat_rows, select_rows

MODELS = [
    ("cvae", ["memory", "prefix"]), ("cvae-cross", ["embedding"]), ("paraphrase-prompt", ["embedding"]),
    ("paraphrase-prompt", ["memory", "prefix"]), ("paraphrase-cross", ["memory", "prefix"]),
    ("paraphrase-lstm", ["memory", "embedding"]), ("dialog", ["embedding"]), ("dialog-acts", ["memory"]), ("vae", ["prefix"]),
]  # fmt: skip


@pytest.fixture(params=MODELS, ids=lambda case: f"{case[0]}-{'-'.join(case[1])}")
def model(request):
    variant, ways = request.param
    return make_model(variant, latent_injection=ways, latent_placement="after_source", prefix_length=2)


def conditioning_of(model, batch):
    with torch.no_grad():
        return model.condition(call_with(model.read_source, batch))


def given_a_prompt(model, batch):
    """A VAE has a source too if it is given a prompt."""
    if not model.config.is_conditional:
        source, mask = left_padded()
        batch.update(prompt_input_ids=source, prompt_attention_mask=mask)
    return batch


def test_likelihoods_of_a_source_read_once_are_those_of_one_read_with_each_z(model):
    batch = given_a_prompt(model, make_batch(model))
    conditioning, labels = conditioning_of(model, batch), batch["labels"]
    with torch.no_grad():
        read = model.prefill(conditioning)
        assert ("source_cache" in read) == (
            model.config.source_conditioning != "initial_state" if model.config.is_conditional else True
        )
        for seed in (2, 3):
            latents = draw(6, 4, seed=seed)
            plain, once = (
                model.nll(latents, labels.repeat_interleave(2, 0), **repeat_rows(each, 2)) for each in (conditioning, read)
            )
            torch.testing.assert_close(once, plain, atol=5e-5, rtol=0)
        part = [2, 0]
        some = model.nll(draw(2, 4), labels[part], **select_rows(read, part))
        torch.testing.assert_close(some, model.nll(draw(2, 4), labels[part], **select_rows(conditioning, part)), atol=5e-5, rtol=0)


def test_several_sequences_of_a_source_are_what_each_is_alone(model):
    batch = given_a_prompt(model, generation_inputs(make_batch(model)))
    latents = draw(9, 4)
    together = model.generate(**batch, latents=latents, num_return_sequences=3, **GREEDY)
    alone = [
        model.generate(**{name: tensor[row : row + 1] for name, tensor in batch.items()}, latents=latents[[3 * row + k]], **GREEDY)
        for row in range(3)
        for k in range(3)
    ]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"use_cache": False}, {"average_latents": 4}, {"do_sample": True}], ids=str)
def test_one_reading_writes_what_as_many_readings_write(model, options, monkeypatch):
    batch = given_a_prompt(model, generation_inputs(make_batch(model)))
    draws = {} if "average_latents" in options else {"num_return_sequences": 2}
    written = []
    for prefill in (model.prefill, lambda conditioning: conditioning):
        monkeypatch.setattr(model, "prefill", prefill)
        torch.manual_seed(0)
        written.append(model.generate(**batch, **draws, **{**GREEDY, **options}, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(*written)


def test_the_decoder_reads_each_source_once_however_many_sequences(model):
    batch = given_a_prompt(model, generation_inputs(make_batch(model)))
    read = []
    model.decoder.lm.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    model.generate(**batch, num_return_sequences=7, **GREEDY)
    has_prompt, has_states = "prompt_input_ids" in batch, getattr(model.config, "source_conditioning", "") == "cross_attention"
    prompt = batch["prompt_input_ids"].numel() if has_prompt else 3 * has_states
    # The start token is read with what of z stands in front of it, and of eight new tokens the last is not.
    z = model.decoder.prefix_length
    assert sum(read) == prompt + 3 * 7 * (z + 8)


def test_with_a_sentence_of_words_hidden_and_an_inputless_decoder():
    model = make_model("paraphrase-prompt", latent_placement="after_source", word_dropout=1.0, word_dropout_token_id=UNK)
    batch = make_batch(model)
    conditioning = conditioning_of(model, batch)
    with torch.no_grad():
        plain, once = (model.nll(draw(3, 4), batch["labels"], **each) for each in (conditioning, model.prefill(conditioning)))
    torch.testing.assert_close(once, plain, atol=2e-5, rtol=0)


def test_a_source_of_other_rows_is_refused():
    model = make_model("cvae", latent_placement="after_source")
    batch = make_batch(model)
    read = model.prefill(conditioning_of(model, batch))
    with pytest.raises(ValueError, match=r"`source_cache` has 3 row\(s\) and `labels` 2: repeat its rows as theirs"):
        model.decode(
            draw(2, 4), batch["labels"][:2], source_cache=read["source_cache"], **select_rows(conditioning_of(model, batch), [0, 1])
        )


def test_the_gradient_of_training_is_that_of_the_two_sides_read_one_after_the_other(model):
    """Of one pass, in training mode: each parameter's, also those that only the source's keys reach."""
    batch = given_a_prompt(model, make_batch(model))
    model.train()
    gradients = []
    for read in (lambda conditioning: conditioning, model.prefill):
        model.zero_grad()
        conditioning = read(model.condition(call_with(model.read_source, batch)))
        model.nll(draw(3, 4), batch["labels"], **conditioning).sum().backward()
        gradients.append({name: each.grad for name, each in model.named_parameters() if each.grad is not None})
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-3)


def test_the_placement_is_saved_and_a_model_saved_before_keeps_its_own(tmp_path):
    for placement in ("before_source", "after_source"):
        model = make_model("cvae", latent_placement=placement)
        model.save_pretrained(tmp_path / placement)
        assert AutoModel.from_pretrained(tmp_path / placement).config.latent_placement == placement
    path = tmp_path / "before_source" / "config.json"
    config = json.loads(path.read_text())
    assert config.pop("latent_placement") == "before_source"
    path.write_text(json.dumps({**config, "format_version": 2}))
    assert AutoModel.from_pretrained(tmp_path / "before_source").config.latent_placement == "before_source"
    with pytest.raises(Exception, match="`latent_placement` is 'behind'; choose one of 'before_source', 'after_source'"):
        make_model("vae", latent_placement="behind")


class Written:
    """A streamer that keeps what it is given."""

    def __init__(self):
        self.tokens: list[int] = []

    def put(self, tokens: torch.Tensor) -> None:
        self.tokens += tokens.flatten().tolist()

    def end(self) -> None:
        self.tokens.append(-1)


def one_prompt(ways: list[str]):
    """A paraphrase model with z behind the source, and one source with its z."""
    model = make_model("paraphrase-prompt", "llama", latent_injection=ways, latent_placement="after_source", prefix_length=2)
    batch = {name: tensor[:1] for name, tensor in generation_inputs(make_batch(model)).items()}
    return model, {**batch, "latents": draw(1, 4)}


@pytest.mark.parametrize("ways", [["embedding"], ["memory"], ["prefix"]], ids=lambda ways: ways[0])
def test_streamers_assistants_and_lookups_change_no_text(ways, caplog):
    model, inputs = one_prompt(ways)
    plain = model.generate(**inputs, **GREEDY)
    streamer = Written()
    assert torch.equal(model.generate(**inputs, streamer=streamer, **GREEDY), plain)
    assert streamer.tokens[-9:] == [*plain[0, 1:].tolist(), -1]
    for options in ({"assistant_model": model}, {"assistant_model": model.decoder.lm}, {"prompt_lookup_num_tokens": 2}):
        assert torch.equal(model.generate(**inputs, **options, **GREEDY), plain)
    # transformers calls its own way of calling an assistant deprecated.
    caplog.clear()


def test_a_cache_of_fixed_size_is_filled_by_generation_itself():
    model, inputs = one_prompt(["embedding"])
    inputs["latents"] = draw(3, 4)
    plain = model.generate(**inputs, num_return_sequences=3, **GREEDY)
    assert torch.equal(model.generate(**inputs, num_return_sequences=3, cache_implementation="static", **GREEDY), plain)
    model, inputs = one_prompt(["prefix"])
    with pytest.raises(ValueError, match="need a cache that grows: leave `cache_implementation` unset"):
        model.generate(**inputs, cache_implementation="static", **GREEDY)


def test_gradient_checkpointing_with_the_embedding_changes_no_gradient():
    model = make_model("cvae", "llama", latent_placement="after_source").train()
    batch, gradients = make_batch(model), []
    for checkpointing in (False, True):
        if checkpointing:
            getattr(model, f"{ACTIVATION_CHECKPOINTING}_enable")()
        model.zero_grad()
        torch.manual_seed(0)
        model(**batch).loss.backward()
        gradients.append([each.grad for each in model.parameters() if each.grad is not None])
    torch.testing.assert_close(*gradients)


@pytest.mark.slow
@pytest.mark.parametrize("ways", [["embedding"], ["memory", "prefix"]], ids=lambda ways: ways[0])
def test_a_compiled_training_step_has_the_same_loss_and_gradients(ways):
    model = make_model("cvae", latent_injection=ways, latent_placement="after_source").train()
    batch, results = make_batch(model), []
    for step in (model, torch.compile(model, backend="eager", fullgraph=True)):
        model.zero_grad()
        torch.manual_seed(0)
        loss = step(**batch).loss
        loss.backward()
        results.append([loss.detach(), *(each.grad for each in model.parameters() if each.grad is not None)])
    torch.testing.assert_close(*results)


def test_an_engines_prompt_begins_with_the_source_which_is_the_same_for_every_z():
    model, inputs = one_prompt(["prefix"])
    inputs["latents"] = draw(2, 4)
    length = inputs["prompt_input_ids"].shape[1]
    embeds = model.prompt_embeds(**inputs)
    assert embeds.shape[:2] == (2, length + 2 + 1)
    assert torch.equal(embeds[0, :length], embeds[1, :length]) and not torch.equal(embeds[0], embeds[1])
    written = model.decoder.lm.generate(inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2]), **GREEDY)
    assert torch.equal(written, model.generate(**inputs, num_return_sequences=2, **GREEDY)[:, 1:])


def test_a_saved_copy_of_the_code_reads_a_source_once_too(tmp_path):
    model, inputs = one_prompt(["memory", "embedding"])
    inputs["latents"] = draw(3, 4)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
    assert {"source_cache.py", "wrapped_lm.py", "decoding_vae.py"} <= {path.name for path in tmp_path.glob("*.py")}
    read = []
    loaded.decoder.lm.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["inputs_embeds"].shape[0]), with_kwargs=True
    )
    assert torch.equal(loaded.generate(**inputs, **GREEDY), model.generate(**inputs, **GREEDY))
    assert read[0] == 1 and set(read[1:]) == {3}
