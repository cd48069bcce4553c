"""
Any encoder with any decoder: each encoder family with one cheap decoder, each decoder family with one cheap encoder in all ways
in and all the ways to read x, and a few pairs.

`WRITE_FAMILIES=1 python -m pytest tests/models/test_any_pair.py` writes what is found into `docs/measured/families.md`.
"""

import inspect
import os
import re
from pathlib import Path

import pytest
import torch
import transformers
from families_page import PAGE, page
from transformers import AutoModel, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from families import (
    CROSS_ATTENTION,
    DECODERS,
    ENCODERS,
    PAIRS,
    READ_ONCE,
    REFUSALS,
    WORKS,
    expectations,
    tiny_bart_config,
    tiny_t5_config,
)
from helpers import VOCAB, tiny_gpt2_config, tiny_llama_config, tiny_lstm_config
from hf_vae import LatentDecoder, ParaphraseVAEConfig, ParaphraseVAEModel, VAEConfig, VAEModel
from hf_vae.compat import CACHE
from hf_vae.configuration_vae import LATENT_INJECTION_TYPES
from hf_vae.fused_linear_cross_entropy import sequence_nll
from hf_vae.rows import repeat_rows

# What the tests of this run found: (part, family, aspect) -> `WORKS`, or the reason why not.
FOUND: dict[tuple[str, str, str], str] = {}


def found(key: tuple[str, str, str], expected: str, attempt) -> None:
    """Runs `attempt`, notes how it ends, and holds that against what is expected."""
    try:
        FOUND[key] = attempt() or WORKS
    except ValueError as error:
        reasons = [reason for reason, refusal in REFUSALS.items() if re.search(refusal.message, str(error))]
        if not reasons:
            raise
        FOUND[key] = reasons[0]
    assert FOUND[key] == expected


def make_pair(encoder, decoder, **options) -> VAEModel:
    torch.manual_seed(0)
    return VAEModel(VAEConfig(encoder=encoder, decoder=decoder, latent_size=3, **options)).eval()


def texts(model: VAEModel, lengths: tuple[int, ...] = (7, 4, 1)) -> dict[str, torch.Tensor]:
    """For the encoder, padded on the right."""
    ids = torch.randint(4, VOCAB, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(3))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": ids.masked_fill(mask == 0, model.config.encoder.pad_token_id or 0), "attention_mask": mask}


def targets() -> torch.Tensor:
    labels = torch.randint(4, VOCAB, (3, 6), generator=torch.Generator().manual_seed(4))
    return labels.masked_fill(torch.arange(6) >= torch.tensor([6, 3, 1])[:, None], -100)


def prompts(lengths: tuple[int, ...] = (5, 3, 1)) -> dict[str, torch.Tensor]:
    """For the decoder, padded on the left."""
    ids = torch.randint(4, VOCAB, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(max(lengths)) >= max(lengths) - torch.tensor(lengths)[:, None]).long()
    return {"prompt_input_ids": ids.masked_fill(mask == 0, 0), "prompt_attention_mask": mask}


def some_latents(rows: int = 3, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))


def check_the_objective_is_finite_and_reconstruction_teaches_the_posterior(model: VAEModel) -> None:
    output = model(**texts(model), labels=targets())
    for value in (output.loss, output.reconstruction_loss, output.kl, output.logits):
        assert value.isfinite().all()
    output.reconstruction_loss.sum().backward()
    gradient = model.posterior_head.linear.weight.grad
    # Mean and log variance of every dimension of z.
    assert gradient.isfinite().all() and (gradient.abs().sum(1) > 1e-8).all()
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0
    model.zero_grad()


# By itself, without a z, this LM's recurrence differs by up to 1.8e-5 between steps and one piece, which adds up in another order.
ROUNDING = {"qwen3_next": 5e-5}
GENERATION = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "return_dict_in_generate": True}


@torch.no_grad()
def one_pass(model: VAEModel, sequences: torch.Tensor, given: dict) -> torch.Tensor:
    """log p of every token after the start token, without a cache; several sequences for each of three inputs."""
    conditioning = repeat_rows(model.condition(**given), len(sequences) // 3)
    return model.decode(some_latents(len(sequences)), sequences[:, 1:], **conditioning).log_softmax(-1)


def check_steps_are_one_pass(model: VAEModel, given: dict, sequences_each: int = 1, **options) -> torch.Tensor:
    latents = some_latents(3 * sequences_each)
    options["num_return_sequences"] = sequences_each
    output = model.generate(**given, latents=latents, output_logits=True, **GENERATION, **options)
    steps = torch.stack(output.logits, dim=1).log_softmax(-1)
    tolerance = ROUNDING.get(model.config.decoder.model_type, 2e-5)
    torch.testing.assert_close(steps, one_pass(model, output.sequences, given), atol=tolerance, rtol=0)
    return steps


def check_beams_are_scored_as_in_one_pass(model: VAEModel, given: dict) -> None:
    beams = {"num_beams": 2, "output_scores": True, "length_penalty": 1.0}
    output = model.generate(**given, latents=some_latents(), **GENERATION, **beams)
    steps = one_pass(model, output.sequences, given)
    # EOS is forbidden while the sequences grow, so a token's score is the model's log-probability itself.
    expected = steps.gather(-1, output.sequences[:, 1:, None]).squeeze(-1).mean(-1)
    torch.testing.assert_close(output.sequences_scores, expected, atol=2e-5, rtol=0)


def check_a_padded_row_is_what_it_is_alone(model: VAEModel, alone: dict, together: torch.Tensor) -> None:
    output = model.generate(**alone, latents=some_latents()[1:2], output_logits=True, **GENERATION)
    torch.testing.assert_close(torch.stack(output.logits, dim=1).log_softmax(-1)[0], together[1], atol=2e-5, rtol=0)


def check_generation(model: VAEModel, padded_prompts: bool = True) -> None:
    if padded_prompts:
        alone = {name: tensor[1:2, 2:] for name, tensor in prompts().items()}
        check_a_padded_row_is_what_it_is_alone(model, alone, check_steps_are_one_pass(model, prompts()))
    else:
        check_steps_are_one_pass(model, prompts((5, 5, 5)))
        with pytest.raises(ValueError, match=r"has padding in front of tokens, which .* counts as positions"):
            model.generate(**prompts(), latents=some_latents(), **GENERATION)
        with pytest.raises(ValueError, match=r"has padding in front of tokens, which .* counts as positions"):
            model.decode(some_latents(), targets(), **prompts())
    check_beams_are_scored_as_in_one_pass(model, prompts() if padded_prompts else prompts((5, 5, 5)))


def check_generation_from_sources(model: ParaphraseVAEModel) -> None:
    padded = texts(model)
    steps = check_steps_are_one_pass(model, padded)
    check_a_padded_row_is_what_it_is_alone(model, {name: tensor[1:2, :4] for name, tensor in padded.items()}, steps)
    # Most encoders would count their positions over it.
    on_the_left = {name: torch.stack([row.roll(n) for row, n in zip(tensor, (0, 3, 6))]) for name, tensor in padded.items()}
    with pytest.raises(ValueError, match="has padding in front of the tokens in row"):
        model.generate(**on_the_left, latents=some_latents(), **GENERATION)
    check_steps_are_one_pass(model, texts(model, (5, 5, 5)))
    torch.testing.assert_close(check_steps_are_one_pass(model, padded, use_cache=False), steps, atol=2e-5, rtol=0)
    check_beams_are_scored_as_in_one_pass(model, padded)


def check_a_source_read_once_serves_every_z(model: VAEModel, given: dict) -> None:
    """Equal nats, and equal gradients of z, whether the source is read with each z or once for all."""
    with torch.no_grad():
        conditioning = model.condition(**given)
        read = model.prefill(conditioning)
    for seed in (5, 6):
        results = []
        for each in (conditioning, read):
            latents = some_latents(seed=seed).requires_grad_()
            nats = model.nll(latents, targets(), **each)
            [gradient] = torch.autograd.grad(nats.sum(), latents)
            results.append((nats.detach(), gradient))
        torch.testing.assert_close(*results, atol=2e-5, rtol=1e-5)
        assert (results[0][1].abs().sum(1) > 1e-8).all()


def check_z_behind_a_source(model: ParaphraseVAEModel, padded_prompts: bool) -> None:
    given = prompts() if padded_prompts else prompts((5, 5, 5))
    for sequences_each in (1, 3):
        check_steps_are_one_pass(model, given, sequences_each)
    check_a_source_read_once_serves_every_z(model, given)
    if padded_prompts:
        check_padding_is_no_source(model, given)


@torch.no_grad()
def check_padding_is_no_source(model: ParaphraseVAEModel, given: dict) -> None:
    """Of a row it changes nothing, and without any source z stands where it stands in front of one."""
    latents, labels = some_latents(), targets()
    alone = {name: tensor[1:2, 2:] for name, tensor in given.items()}
    together = model.nll(latents, labels, **model.condition(**given))[1:2]
    torch.testing.assert_close(model.nll(latents[1:2], labels[1:2], **model.condition(**alone)), together, atol=2e-5, rtol=0)
    tokens = targets().clamp(min=4)
    mask = torch.cat([torch.zeros(3, 2, dtype=torch.long), torch.ones_like(tokens)], dim=1)
    padded = torch.cat([torch.zeros_like(tokens[:, :2]), tokens], dim=1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    behind = model.decoder(padded, latents, mask, position_ids=positions, source_length=2).logits[:, 2:]
    torch.testing.assert_close(behind, model.decoder(tokens, latents).logits, atol=2e-5, rtol=0)


def check_rows_are_scored_in_training_as_alone(model: ParaphraseVAEModel) -> None:
    given, labels, latents = texts(model), targets(), some_latents().requires_grad_()
    nats = model.train().nll(latents, labels, **model.condition(**given))
    nats.sum().backward()
    assert (latents.grad.abs().sum(1) > 1e-8).all()
    assert model.get_input_embeddings().weight.grad.abs().sum() > 1e-6
    model.eval().zero_grad()
    for row, (length, source) in enumerate(zip((6, 3, 1), (7, 4, 1))):
        alone = model.condition(**{name: tensor[row : row + 1, :source] for name, tensor in given.items()})
        with torch.no_grad():
            logits = model.decode(latents[row : row + 1], labels[row : row + 1, :length], **alone)
        torch.testing.assert_close(nats[row : row + 1], sequence_nll(logits, labels[row : row + 1, :length]), atol=1e-4, rtol=0)


@torch.no_grad()
def check_saved_and_loaded_through_auto_it_is_the_same(model: VAEModel, folder: Path) -> None:
    model.save_pretrained(folder)
    loaded = AutoModel.from_pretrained(folder).eval()
    assert type(loaded) is VAEModel and type(loaded.encoder) is type(model.encoder)
    labels = targets().clamp(min=0)
    for read in (lambda each: each.encode(**texts(each)).latent_dist.mean, lambda each: each.decode(some_latents(), labels)):
        # Some kernels take another path where a tensor lies elsewhere in memory.
        torch.testing.assert_close(read(loaded), read(model), atol=1e-5, rtol=0)


@torch.no_grad()
def check_a_padded_text_is_read_as_alone(model: VAEModel) -> None:
    together, alone = texts(model), {name: tensor[1:2, :4] for name, tensor in texts(model).items()}
    first, second = (model.encode(**each).latent_dist.mean for each in (together, alone))
    torch.testing.assert_close(first[1:2], second, atol=1e-5, rtol=0)


@torch.no_grad()
def check_the_longest_text_is_read_and_a_longer_one_refused(model: VAEModel, longest: int | None) -> None:
    model.encode(**texts(model, (longest or 100, 3)))
    if longest is not None:
        with pytest.raises(ValueError, match=f"`input_ids` is {longest + 1} tokens long, but .* holds {longest} "):
            model.encode(**texts(model, (longest + 1, 3)))


def what_the_first_state_reads(model: VAEModel) -> str:
    """Part of a text that the first token's state depends on."""
    one = texts(model, (7, 7))
    other = {**one, "input_ids": one["input_ids"].clone()}
    other["input_ids"][:, 1:] = 4 + (other["input_ids"][:, 1:] - 3) % (VOCAB - 4)
    with torch.no_grad():
        means = [model.encode(**each).latent_dist.mean for each in (one, other)]
    return "its first token" if torch.equal(*means) else "the text"


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder(name, tmp_path):
    family = ENCODERS[name]

    def attempt():
        model = make_pair(family.config(), tiny_lstm_config())
        check_the_objective_is_finite_and_reconstruction_teaches_the_posterior(model)
        check_a_padded_text_is_read_as_alone(model)
        check_the_longest_text_is_read_and_a_longer_one_refused(model, family.longest)
        check_saved_and_loaded_through_auto_it_is_the_same(model, tmp_path)

    found(("encoder", name, "mean"), family.expected, attempt)


@pytest.mark.parametrize("name", [name for name, family in ENCODERS.items() if family.expected == WORKS])
def test_an_encoders_other_poolings(name):
    family = ENCODERS[name]

    def pooler():
        model = make_pair(family.config(), tiny_lstm_config(), pooling="pooler")
        check_the_objective_is_finite_and_reconstruction_teaches_the_posterior(model)
        check_a_padded_text_is_read_as_alone(model)

    found(("encoder", name, "pooler"), family.pooler, pooler)
    first = make_pair(family.config(), tiny_lstm_config(), pooling="first")
    check_a_padded_text_is_read_as_alone(first)
    found(("encoder", name, "first"), family.first_reads, lambda: what_the_first_state_reads(first))


@pytest.mark.parametrize("way", LATENT_INJECTION_TYPES)
@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder(name, way, tmp_path):
    family = DECODERS[name]

    def attempt():
        model = make_pair(tiny_lstm_config(), family.config(), latent_injection=way)
        check_the_objective_is_finite_and_reconstruction_teaches_the_posterior(model)
        check_generation(model, family.padded_prompts)
        check_saved_and_loaded_through_auto_it_is_the_same(model, tmp_path)

    found(("decoder", name, way), family.expects(way), attempt)


def reads_source(decoder, **options) -> ParaphraseVAEModel:
    torch.manual_seed(0)
    encoder = tiny_lstm_config(bidirectional=True)
    return ParaphraseVAEModel(ParaphraseVAEConfig(encoder=encoder, decoder=decoder, latent_size=3, **options)).eval()


@pytest.mark.parametrize("name", [name for name, family in DECODERS.items() if family.expected[0] == WORKS])
def test_a_decoder_that_reads_its_source_once(name):
    """In each way in that it has: z enters behind the source."""
    family = DECODERS[name]

    def attempt():
        for way, expected in zip(LATENT_INJECTION_TYPES, family.expected):
            if expected == WORKS:
                model = reads_source(family.config(), latent_injection=way, latent_placement="after_source")
                check_z_behind_a_source(model, family.padded_prompts)
        # Where sources cannot be shared, each is read with every z, to the same numbers.
        model.decoder.prefill(torch.tensor([[4, 5]]))

    found(("decoder", name, READ_ONCE), family.read_once, attempt)


@pytest.mark.parametrize("window", [2, 5, 6, 7, 20])
def test_a_window_may_be_shorter_or_longer_than_the_source(window):
    """Of 5 tokens, with the start token 6; what follows is then read at once."""
    for name in ("Mistral", "Gemma 3"):
        config = DECODERS[name].config()
        config.sliding_window = window
        check_z_behind_a_source(reads_source(config, latent_placement="after_source"), padded_prompts=True)


@pytest.mark.parametrize("way", LATENT_INJECTION_TYPES)
@pytest.mark.parametrize("name", CROSS_ATTENTION)
def test_a_decoder_that_reads_its_source_by_cross_attention(name, way):
    config, expected = CROSS_ATTENTION[name]

    def attempt():
        model = reads_source(config(), source_conditioning="cross_attention", latent_injection=way)
        check_generation_from_sources(model)
        check_rows_are_scored_in_training_as_alone(model)
        check_a_source_read_once_serves_every_z(model, texts(model))

    found(("cross_attention", name, way), expected, attempt)


@pytest.mark.parametrize("name", [name for name, family in DECODERS.items() if family.expected[0] == WORKS])
def test_a_decoder_that_starts_from_its_source(name):
    def attempt():
        model = reads_source(DECODERS[name].config(), source_conditioning="initial_state", pooling="pooler")
        check_generation_from_sources(model)
        check_rows_are_scored_in_training_as_alone(model)

    found(("initial_state", name, "embedding"), WORKS if name == "LSTM" else "no state", attempt)


@pytest.mark.parametrize(
    "name", [name for name, family in DECODERS.items() if family.expected[0] == WORKS and name not in CROSS_ATTENTION]
)
def test_a_decoder_without_cross_attention(name):
    def attempt():
        reads_source(DECODERS[name].config(), source_conditioning="cross_attention")

    found(("cross_attention", name, "embedding"), "no cross-attention", attempt)


def test_every_family_that_says_it_has_cross_attention_is_in_the_table():
    classes = [getattr(transformers, each) for each in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()]
    able = {each.config_class for each in classes if "encoder_hidden_states" in inspect.signature(each.forward).parameters}
    # They have no entry under `AutoModelForCausalLM`, and write sounds.
    able -= {transformers.MusicgenDecoderConfig, transformers.MusicgenMelodyDecoderConfig}
    assert able == {type(config()) for config, _ in CROSS_ATTENTION.values()}


@pytest.mark.parametrize(("encoder", "decoder", "ways"), PAIRS)
def test_a_pair(encoder, decoder, ways, tmp_path):
    def attempt():
        model = make_pair(ENCODERS[encoder].config(), DECODERS[decoder].config(), latent_injection=list(ways))
        check_the_objective_is_finite_and_reconstruction_teaches_the_posterior(model)
        check_generation(model, DECODERS[decoder].padded_prompts)
        check_saved_and_loaded_through_auto_it_is_the_same(model, tmp_path)

    found(("pair", f"{encoder} and {decoder}", ", ".join(ways)), WORKS, attempt)


def test_a_pretrained_t5_serves_with_its_encoder(tmp_path):
    torch.manual_seed(0)
    whole = AutoModel.from_config(tiny_t5_config())
    whole.save_pretrained(tmp_path / "t5")
    AutoModelForCausalLM.from_config(tiny_gpt2_config()).save_pretrained(tmp_path / "gpt2")
    model = VAEModel.from_encoder_decoder_pretrained(tmp_path / "t5", tmp_path / "gpt2", latent_size=3)
    assert type(model.encoder).__name__ == "T5EncoderModel"
    for name, parameter in model.encoder.encoder.named_parameters():
        assert torch.equal(parameter, whole.encoder.get_parameter(name))


def test_a_pretrained_encoder_decoder_is_refused_as_an_encoder(tmp_path):
    AutoModel.from_config(tiny_bart_config()).save_pretrained(tmp_path / "bart")
    AutoModelForCausalLM.from_config(tiny_gpt2_config()).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ValueError, match=REFUSALS["encoder-decoder"].message):
        VAEModel.from_encoder_decoder_pretrained(tmp_path / "bart", tmp_path / "gpt2")


@torch.no_grad()
def test_positions_of_robertas_kind_count_as_in_its_own_training():
    """transformers' `generate` counts them from 0, where no pretrained RoBERTa has ever been."""
    torch.manual_seed(0)
    config = DECODERS["RoBERTa"].config()
    config.is_decoder = True
    lm = AutoModelForCausalLM.from_config(config).eval()
    decoder = LatentDecoder(lm.config, latent_size=3, lm=lm)
    decoder.latent_injection.embedding.projection.weight.zero_()
    decoder.latent_injection.embedding.projection.bias.zero_()
    tokens = torch.randint(4, VOCAB, (2, 5))
    output = decoder.generate(tokens, latents=torch.zeros(2, 3), output_logits=True, **GENERATION)
    own = lm(output.sequences, use_cache=False).logits[:, 4:-1]
    torch.testing.assert_close(torch.stack(output.logits, dim=1), own)
    torch.testing.assert_close(decoder(tokens, latents=torch.zeros(2, 3)).logits, lm(tokens).logits)


@torch.no_grad()
@pytest.mark.parametrize(
    ("config", "way", "longest"),
    [
        (DECODERS["RoBERTa"].config, "embedding", 46),
        (tiny_gpt2_config, "memory", 47),
        (tiny_gpt2_config, "prefix", 44),
        (tiny_llama_config, "prefix", 44),
    ],
)
def test_a_decoder_reads_as_many_tokens_as_it_has_positions_left(config, way, longest):
    torch.manual_seed(0)
    decoder = LatentDecoder(config(), latent_size=3, latent_injection=(way,)).eval()
    tokens = torch.full((1, longest + 1), 5)
    assert decoder(tokens[:, 1:], torch.zeros(1, 3)).logits.isfinite().all()
    message = f"What the decoder reads is {longest + 1} tokens long, but .* holds {longest} .*48, of which {48 - longest} are"
    with pytest.raises(ValueError, match=message):
        decoder(tokens, torch.zeros(1, 3))
    # Padding is given no position.
    mask = torch.ones_like(tokens)
    mask[:, 0] = 0
    assert decoder(tokens, torch.zeros(1, 3), attention_mask=mask).logits[:, 1:].isfinite().all()


@pytest.mark.skipif(CACHE != "cache", reason="the page is written with the newest transformers")
def test_the_page_says_what_was_found():
    if os.environ.get("WRITE_FAMILIES"):
        assert set(FOUND) == set(expectations()), "run the whole file in one process: the page says what its tests found"
        PAGE.write_text(page({key: FOUND[key] for key in expectations()}, transformers.__version__), encoding="utf-8")
    written = PAGE.read_text(encoding="utf-8")
    # What another version gives is for the tests above; the page stays true of the one that it names.
    version = re.search(r"with transformers (\S+)\.\s", written)[1]
    assert written == page(expectations(), version), "set WRITE_FAMILIES=1 and run this whole file"
