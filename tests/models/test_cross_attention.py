"""Generation from a source that the decoder reads by cross-attention, where it is more than a plain greedy search."""

import inspect

import pytest
import torch
from transformers import AutoModelForCausalLM, EncoderDecoderCache

from families import CROSS_ATTENTION
from helpers import BOS, EOS, GREEDY, PAD, VOCAB, make_batch, make_model, tiny_encoder_config, tiny_gpt2_config
from hf_vae import DialogCVAEConfig, DialogCVAEModel, ParaphraseVAEConfig, ParaphraseVAEModel
from hf_vae.compat import ACTIVATION_CHECKPOINTING, CACHE
from hf_vae.cross_attention_check import check_cross_attention
from hf_vae.source_cache import self_attention

DECODERS = ("GPT-2", "BERT", "BART")
WAYS = (["embedding"], ["memory"], ["prefix"], ["memory", "embedding"])


def make(decoder: str, ways: list[str]) -> ParaphraseVAEModel:
    torch.manual_seed(0)
    config = ParaphraseVAEConfig(
        encoder=tiny_encoder_config(), decoder=CROSS_ATTENTION[decoder][0](), latent_size=4, latent_injection=ways,
        source_conditioning="cross_attention", decoder_start_token_id=BOS,
    )  # fmt: skip
    model = ParaphraseVAEModel(config).eval()
    with torch.no_grad():
        # So that x and z matter: projections begin small.
        model.source_projection.weight.mul_(6)
        for name in ("project", "memory", "prefix"):
            if hasattr(model.decoder, name):
                model.decoder.get_submodule(name).weight.mul_(20)
    return model


@pytest.fixture(
    params=[(decoder, ways) for decoder in DECODERS for ways in WAYS], ids=lambda each: f"{each[0]}-{'+'.join(each[1])}"
)
def reader(request) -> ParaphraseVAEModel:
    return make(*request.param)


def sources(model) -> dict[str, torch.Tensor]:
    batch = make_batch(model)
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def some_latents(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(1))


def repeated(given: dict[str, torch.Tensor], times: int) -> dict[str, torch.Tensor]:
    return {name: tensor.repeat_interleave(times, 0) for name, tensor in given.items()}


def seeded(model, **options) -> torch.Tensor:
    torch.manual_seed(3)
    return model.generate(**options, do_sample=True, max_new_tokens=6, min_new_tokens=6)


def test_every_sequence_of_a_source_reads_it(reader):
    given, latents = sources(reader), some_latents()
    samples = seeded(reader, **given, latents=latents, num_return_sequences=2)
    assert torch.equal(samples, seeded(reader, **repeated(given, 2), latents=latents.repeat_interleave(2, 0)))
    assert torch.equal(samples, seeded(reader, **given, latents=latents, num_return_sequences=2, use_cache=False))
    own = some_latents(6)
    each_its_own = reader.generate(**given, latents=own, num_return_sequences=2, **GREEDY)
    assert torch.equal(each_its_own, reader.generate(**repeated(given, 2), latents=own, **GREEDY))


def test_beams_are_the_same_without_a_cache(reader):
    options = {**sources(reader), "latents": some_latents(), "num_beams": 3, "num_return_sequences": 2, **GREEDY}
    assert torch.equal(reader.generate(**options), reader.generate(**options, use_cache=False))


def test_words_guessed_from_the_text_change_nothing(reader):
    given = {name: tensor[:1] for name, tensor in sources(reader).items()}
    options = {**given, "latents": some_latents(1), **GREEDY, "max_new_tokens": 20, "min_new_tokens": 20}
    assert torch.equal(reader.generate(**options, prompt_lookup_num_tokens=3), reader.generate(**options))


@torch.no_grad()
def test_a_generation_goes_on_from_the_cache_that_another_returned(reader):
    given, latents = sources(reader), some_latents()
    whole = reader.generate(**given, latents=latents, **GREEDY)
    states = reader.condition(**given)
    options = {"latents": latents, "do_sample": False, "eos_token_id": EOS, "pad_token_id": PAD, **states}
    start = reader.decoder.generate(whole[:, :1], max_new_tokens=3, min_new_tokens=3, return_dict_in_generate=True, **options)
    assert type(start[CACHE]) is EncoderDecoderCache
    assert self_attention(start[CACHE]).get_seq_length() == 3 + reader.decoder.num_latent_positions
    rest = reader.decoder.generate(start.sequences, max_new_tokens=5, min_new_tokens=5, **{CACHE: start[CACHE]}, **options)
    assert torch.equal(rest, whole)


def test_a_cache_of_fixed_size_serves_the_way_that_needs_no_place_in_it(reader):
    options = {**sources(reader), "latents": some_latents(), **GREEDY}
    if reader.config.latent_injection == ["embedding"]:
        assert torch.equal(reader.generate(**options, cache_implementation="static"), reader.generate(**options))
    else:
        with pytest.raises(ValueError, match="need a cache that grows: leave `cache_implementation` unset"):
            reader.generate(**options, cache_implementation="static")


def test_gradient_checkpointing_changes_nothing_or_is_refused(reader):
    given, labels, latents = sources(reader), make_batch(reader)["labels"], some_latents()

    def gradient() -> torch.Tensor:
        reader.zero_grad()
        reader.nll(latents, labels, **reader.condition(**given)).sum().backward()
        return reader.source_projection.weight.grad.clone()

    plain = gradient()
    getattr(reader.train(), f"{ACTIVATION_CHECKPOINTING}_enable")()
    if "memory" in reader.config.latent_injection:
        with pytest.raises(ValueError, match="gradient checkpointing drops the cache that holds it"):
            gradient()
    else:
        torch.testing.assert_close(gradient(), plain, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("ways", WAYS, ids="+".join)
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_dialogues_turns_are_read_as_a_source(decoder, ways):
    torch.manual_seed(0)
    config = DialogCVAEConfig(
        encoder=tiny_encoder_config(), decoder=CROSS_ATTENTION[decoder][0](), latent_size=4, latent_injection=ways,
        source_conditioning="cross_attention", context_encoding="hierarchical",
    )  # fmt: skip
    model = DialogCVAEModel(config).eval()
    names = ("input_ids", "attention_mask", "same_speaker")
    given = {name: tensor for name, tensor in make_batch(model).items() if name in names}
    output = model.generate(**given, latents=some_latents(), output_logits=True, return_dict_in_generate=True, **GREEDY)
    logits = model.decode(some_latents(), output.sequences[:, 1:], **model.condition(**given))
    torch.testing.assert_close(torch.stack(output.logits, 1), logits, atol=1e-4, rtol=0)


def test_a_decoder_that_was_built_without_cross_attention_is_refused():
    lm = AutoModelForCausalLM.from_config(tiny_gpt2_config())
    config = ParaphraseVAEConfig(
        encoder=tiny_encoder_config(), decoder=lm.config, latent_size=4, source_conditioning="cross_attention"
    )
    with pytest.raises(ValueError, match="GPT2LMHeadModel fails at cross-attention with a cache"):
        ParaphraseVAEModel(config, decoder=lm)


def test_a_decoder_that_gives_other_numbers_with_a_cache_is_refused(monkeypatch):
    lm = type(AutoModelForCausalLM.from_config(tiny_gpt2_config()))
    forward = lm.forward

    def forgets(self, *args, encoder_hidden_states=None, use_cache=None, **kwargs):
        return forward(self, *args, encoder_hidden_states=(not use_cache) * encoder_hidden_states, use_cache=use_cache, **kwargs)

    forgets.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(lm, "forward", forgets)
    with pytest.raises(ValueError, match="gives other numbers with a cache than without"):
        make_model("paraphrase-cross")


def test_a_decoder_that_looks_ahead_is_refused(monkeypatch):
    model = make_model("paraphrase-cross")
    monkeypatch.setattr(type(model.decoder.lm), "forward", both_ways(type(model.decoder.lm).forward))
    with pytest.raises(ValueError, match="gives other numbers with a cache than without"):
        check_cross_attention(model.decoder)


def both_ways(forward):
    def looks_ahead(self, *args, inputs_embeds=None, **kwargs):
        return forward(self, *args, inputs_embeds=inputs_embeds + inputs_embeds.mean(1, keepdim=True), **kwargs)

    return looks_ahead


def test_trying_the_decoder_leaves_chance_and_mode_as_they_were():
    model = make_model("paraphrase-cross").train()
    before = torch.get_rng_state()
    check_cross_attention(model.decoder)
    assert torch.equal(torch.get_rng_state(), before) and all(module.training for module in model.decoder.modules())
    with torch.device("meta"):
        # Nothing can be tried without weights.
        assert ParaphraseVAEModel(model.config).device.type == "meta"


@torch.no_grad()
def test_a_decoder_that_keeps_all_logits_is_asked_for_some():
    """TrOCR's takes no `logits_to_keep`."""
    model = make("TrOCR", ["prefix"])
    tokens = torch.randint(4, VOCAB, (3, 5), generator=torch.Generator().manual_seed(2))
    states = model.condition(**sources(model))
    every = model.decoder(tokens, some_latents(), **states).logits
    assert every.shape == (3, 5, VOCAB)
    assert torch.equal(model.decoder(tokens, some_latents(), logits_to_keep=2, **states).logits, every[:, 3:])
    places = torch.tensor([0, 3])
    assert torch.equal(model.decoder(tokens, some_latents(), logits_to_keep=places, **states).logits, every[:, places])
