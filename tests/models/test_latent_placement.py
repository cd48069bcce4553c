"""z behind the source: the source is read once, and every way of reading it gives the same numbers."""

import json

import pytest
import torch
from transformers import AutoModel, StaticCache

from families import DECODERS as FAMILIES
from helpers import (
    GREEDY,
    PAD,
    UNK,
    VOCAB,
    generation_inputs,
    make_batch,
    make_model,
    tiny_gpt2_config,
    tiny_llama_config,
    tiny_lstm_config,
)
from hf_vae import LatentDecoder
from hf_vae.calls import call_with
from hf_vae.compat import ACTIVATION_CHECKPOINTING, CACHE
from hf_vae.rows import repeat_rows, select_rows

PARTS = {"gpt2": tiny_gpt2_config, "llama": tiny_llama_config, "lstm": lambda: tiny_lstm_config(num_hidden_layers=2)}
EVERY_WAY = ("embedding", "prefix", "memory", "logits")
CASES = [
    ("gpt2", ("embedding",)),
    ("gpt2", ("memory",)),
    ("gpt2", ("prefix",)),
    ("gpt2", ("logits",)),
    ("llama", ("embedding",)),
    ("llama", EVERY_WAY),
]
CASES += [("lstm", ("embedding",)), ("lstm", ("memory",)), ("lstm", EVERY_WAY)]
LENGTH = 5


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{'-'.join(case[1])}")
def decoder(request):
    torch.manual_seed(0)
    name, ways = request.param
    return LatentDecoder(PARTS[name](), latent_size=3, latent_injection=ways).eval()


def left_padded(rows: int = 3):
    source = torch.randint(4, VOCAB, (rows, LENGTH), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]])[:rows]
    return source.masked_fill(mask == 0, PAD), mask


def draw(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def text_behind(source: torch.Tensor, mask: torch.Tensor, length: int = 4):
    """The source with `length` tokens behind it, the mask of both, and positions as `generate` counts them."""
    target = torch.randint(4, VOCAB, (len(source), length), generator=torch.Generator().manual_seed(3))
    mask = torch.cat([mask, torch.ones_like(target)], dim=1)
    return torch.cat([source, target], dim=1), mask, (mask.cumsum(-1) - 1).clamp(min=0)


GENERATION = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "return_dict_in_generate": True}


def log_probs(decoder, sequences, latents, mask):
    """log p of every token behind source and start token, in one pass without a cache."""
    mask = torch.cat([mask, mask.new_ones(len(mask), sequences.shape[1] - mask.shape[1])], dim=1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = decoder(sequences, latents, mask, position_ids=positions, source_length=LENGTH, use_cache=False).logits
    return logits[:, LENGTH:-1].log_softmax(-1)


def with_start(source: torch.Tensor, mask: torch.Tensor):
    start = torch.full((len(source), 1), 3)
    return torch.cat([source, start], dim=1), torch.cat([mask, torch.ones_like(start)], dim=1)


def test_cached_generation_on_left_padded_sources_equals_one_pass_without_a_cache(decoder):
    context, mask = with_start(*left_padded())
    latents = draw(3, 3)
    output = decoder.generate(context, attention_mask=mask, latents=latents, source_length=LENGTH, output_logits=True, **GENERATION)
    cached = torch.stack(output.logits, dim=1).log_softmax(-1)
    torch.testing.assert_close(cached, log_probs(decoder, output.sequences, latents, mask), atol=2e-5, rtol=0)


def test_beams_are_scored_as_in_one_pass(decoder):
    context, mask = with_start(*left_padded())
    latents = draw(3, 3)
    beams = {"num_beams": 3, "output_scores": True, "length_penalty": 1.0}
    output = decoder.generate(context, attention_mask=mask, latents=latents, source_length=LENGTH, **GENERATION, **beams)
    full = log_probs(decoder, output.sequences, latents, mask)
    expected = full.gather(-1, output.sequences[:, LENGTH + 1 :, None]).squeeze(-1).mean(-1)
    torch.testing.assert_close(output.sequences_scores, expected, atol=2e-5, rtol=0)


def test_without_a_source_z_is_where_it_is_before_one(decoder):
    """The same weights, an empty source: one number for both placements."""
    tokens, latents = torch.randint(4, VOCAB, (2, 6), generator=torch.Generator().manual_seed(4)), draw(2, 3)
    with torch.no_grad():
        before = decoder(tokens, latents).logits
        padded = torch.cat([torch.full((2, 2), PAD), tokens], dim=1)
        mask = torch.cat([torch.zeros(2, 2, dtype=torch.long), torch.ones_like(tokens)], dim=1)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        behind_padding = decoder(padded, latents, mask, position_ids=positions, source_length=2).logits[:, 2:]
    torch.testing.assert_close(behind_padding, before, atol=2e-5, rtol=0)


def test_the_source_knows_nothing_of_z_and_all_that_follows_does(decoder):
    tokens, mask, positions = text_behind(*left_padded())
    with torch.no_grad():
        one, other = (
            decoder(tokens, latents, mask, position_ids=positions, source_length=LENGTH).logits
            for latents in (draw(3, 3), draw(3, 3, seed=5))
        )
    assert torch.equal(one[:, :LENGTH][mask[:, :LENGTH].bool()], other[:, :LENGTH][mask[:, :LENGTH].bool()])
    assert (one - other)[:, LENGTH:].abs().amax(-1).min() > 1e-5


def test_a_source_read_once_serves_every_z_with_equal_logits_and_gradients(decoder):
    source, mask = left_padded()
    tokens, mask, positions = text_behind(source, mask)
    with torch.no_grad():
        read = decoder.prefill(source, mask[:, :LENGTH])
    kept = [tensor.clone() for tensor in read.tensors()]
    for seed in (2, 6):
        results = []
        for options in (
            {"input_ids": tokens, "position_ids": positions},
            {"input_ids": tokens[:, LENGTH:], "position_ids": positions[:, LENGTH:], CACHE: read.fork()},
        ):
            latents = draw(3, 3, seed=seed).requires_grad_()
            logits = decoder(latents=latents, attention_mask=mask, source_length=LENGTH, use_cache=False, **options).logits[:, -4:]
            logits.log_softmax(-1)[..., 7].sum().backward()
            results.append((logits.detach(), latents.grad))
        torch.testing.assert_close(results[0], results[1], atol=2e-5, rtol=1e-4)
    assert all(map(torch.equal, kept, read.tensors()))


def test_any_share_of_the_text_may_be_in_the_cache(decoder):
    """In pieces that end before, at and behind the place where z enters."""
    tokens, mask, positions = text_behind(*left_padded())
    latents = draw(3, 3)
    with torch.no_grad():
        whole = decoder(tokens, latents, mask, position_ids=positions, source_length=LENGTH).logits
        for ends in ((3, 9), (5, 9), (6, 9), (2, 4, 7, 9), tuple(range(1, 10))):
            pieces, cache, start = [], None, 0
            for end in ends:
                part = slice(start, end)
                output = decoder(
                    tokens[:, part], latents, mask[:, :end], positions[:, part],
                    source_length=LENGTH, use_cache=True, **{CACHE: cache},
                )  # fmt: skip
                pieces.append(output.logits)
                cache, start = output[CACHE], end
            real = mask.bool()
            torch.testing.assert_close(torch.cat(pieces, dim=1)[real], whole[real], atol=2e-5, rtol=0)


@pytest.mark.parametrize("kept", [1, 4, 7, torch.tensor([1, 5, 8])], ids=str)
def test_logits_are_kept_on_both_sides_of_z(decoder, kept):
    tokens, mask, positions = text_behind(*left_padded())
    given = {"latents": draw(3, 3), "attention_mask": mask, "position_ids": positions, "source_length": LENGTH}
    with torch.no_grad():
        whole, some = decoder(tokens, **given).logits, decoder(tokens, logits_to_keep=kept, **given).logits
    torch.testing.assert_close(some, whole[:, -kept:] if isinstance(kept, int) else whole[:, kept], atol=2e-5, rtol=0)


def test_chunks_of_a_prompt_are_read_as_the_whole(decoder):
    context, mask = with_start(*left_padded())
    options = {"attention_mask": mask, "latents": draw(3, 3), "source_length": LENGTH, **GENERATION}
    for size in (2, 5):
        chunked = decoder.generate(context, prefill_chunk_size=size, **options).sequences
        assert torch.equal(chunked, decoder.generate(context, **options).sequences)


def test_a_cache_of_fixed_size_serves_the_embedding():
    decoder = LatentDecoder(tiny_llama_config(), latent_size=3).eval()
    tokens, mask, positions = text_behind(*left_padded())
    given, cache = {"latents": draw(3, 3), "source_length": LENGTH}, StaticCache(config=decoder.config, max_cache_len=16)
    with torch.no_grad():
        whole = decoder(tokens, attention_mask=mask, position_ids=positions, **given).logits
        pieces = [
            decoder(
                tokens[:, part], attention_mask=mask[:, : part.stop], position_ids=positions[:, part], **{CACHE: cache}, **given
            )
            for part in (slice(0, 6), slice(6, 7), slice(7, 9))
        ]
    together = torch.cat([piece.logits for piece in pieces], dim=1)
    torch.testing.assert_close(together[mask.bool()], whole[mask.bool()], atol=2e-5, rtol=0)


def test_what_would_drop_or_confuse_it_is_refused():
    decoder = LatentDecoder(tiny_gpt2_config(), latent_size=3, latent_injection=("prefix",)).train()
    tokens, mask, positions = text_behind(*left_padded())
    getattr(decoder, f"{ACTIVATION_CHECKPOINTING}_enable")()
    with pytest.raises(ValueError, match="gradient checkpointing drops the cache that holds it"):
        decoder(tokens, draw(3, 3), mask, positions, source_length=LENGTH)
    lstm = LatentDecoder(tiny_lstm_config(), latent_size=3, latent_injection=("memory",))
    with pytest.raises(ValueError, match="`initial_state` and `source_length` are both given"):
        lstm(tokens, draw(3, 3), mask, initial_state=torch.zeros(3, 16), source_length=LENGTH)
    with pytest.raises(ValueError, match="there is no source to read"):
        decoder.prefill(None)
    hybrid = LatentDecoder(FAMILIES["Jamba"].config(), latent_size=3)
    assert not hybrid.shares_source
    with pytest.raises(ValueError, match="keeps of a source what several continuations cannot share"):
        hybrid.prefill(*left_padded())


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


def test_the_source_reaches_all_that_follows(decoder):
    """With z given; also an LSTM's state, to which z's is added."""
    tokens, mask, positions = text_behind(*left_padded())
    given = {"latents": draw(3, 3), "attention_mask": mask, "position_ids": positions, "source_length": LENGTH}
    # The one token that the shortest source has.
    other = tokens.clone()
    other[:, LENGTH - 1] = 4 + (other[:, LENGTH - 1] - 3) % (VOCAB - 4)
    with torch.no_grad():
        difference = (decoder(tokens, **given).logits - decoder(other, **given).logits)[:, LENGTH:].abs().amax(-1)
    assert difference.min() > 1e-6


def test_going_on_from_a_returned_cache_is_as_starting_anew(decoder):
    context, mask = with_start(*left_padded())
    given = {"latents": draw(3, 3), "source_length": LENGTH, **GENERATION}
    first = decoder.generate(context, attention_mask=mask, **given)
    longer = torch.cat([first.sequences, context[:, :2].clamp(min=4)], dim=1)
    mask = torch.cat([mask, mask.new_ones(3, longer.shape[1] - mask.shape[1])], dim=1)
    continued = decoder.generate(longer, attention_mask=mask, **{CACHE: first[CACHE]}, **given).sequences
    assert torch.equal(continued, decoder.generate(longer, attention_mask=mask, **given).sequences)
