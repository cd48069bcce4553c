"""z behind the source: the source is read once, and every way of reading it gives the same numbers."""

import pytest
import torch
from transformers import StaticCache

from families import DECODERS as FAMILIES
from helpers import PAD, VOCAB, draw, left_padded, tiny_gpt2_config, tiny_llama_config, tiny_lstm_config
from hf_vae import LatentDecoder
from hf_vae.compat import ACTIVATION_CHECKPOINTING, CACHE

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
