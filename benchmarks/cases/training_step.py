"""Forward and backward of a model against its bare encoder and decoder on the same tokens, in time and in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from ..comparison import Row, compare, interleave, summarise
from ..isolated import peak_memory
from ..models import make_cvae, make_decoder, make_encoder, make_vae, read_before, tokens
from ..options import Options
from ..sizes import SIZES

Step = Callable[[], object]


def vae_step(options: Options, size: str, **fields) -> Step:
    """One training step of the VAE, without the optimiser."""
    sizes = SIZES[size]
    model = make_vae(sizes, options, **fields).train()
    words = tokens(sizes.batch, sizes.length, sizes, options)
    batch = {"input_ids": words, "attention_mask": torch.ones_like(words), "labels": words}

    def step():
        model.zero_grad()
        model(**batch).loss.backward()

    return step


def halves_step(options: Options, size: str) -> Step:
    """The encoder reads the tokens, the decoder predicts them: what any model of the two must do."""
    sizes = SIZES[size]
    encoder, decoder = make_encoder(sizes, options).train(), make_decoder(sizes, options).train()
    words = tokens(sizes.batch, sizes.length, sizes, options)
    mask, read = torch.ones_like(words), read_before(words)

    def step():
        encoder.zero_grad()
        decoder.zero_grad()
        states = encoder(input_ids=words, attention_mask=mask).last_hidden_state
        loss = decoder(input_ids=read, attention_mask=mask, labels=words, shift_labels=words, use_cache=False).loss
        (loss + states.mean()).backward()

    return step


def cvae_step(options: Options, size: str, **fields) -> Step:
    """One training step of the CVAE: q reads the pair, the prior reads x, the decoder reads x as its prompt."""
    sizes = SIZES[size]
    model = make_cvae(sizes, options, **fields).train()
    source, target = (tokens(sizes.batch, sizes.length, sizes, options, seed) for seed in (0, 1))
    pair = torch.cat([source, target], dim=1)
    names = {"input_ids": source, "posterior_input_ids": pair, "prompt_input_ids": source}
    masks = {name.replace("input_ids", "attention_mask"): torch.ones_like(each) for name, each in names.items()}

    def step():
        model.zero_grad()
        model(**names, **masks, labels=target).loss.backward()

    return step


def conditional_halves_step(options: Options, size: str) -> Step:
    """The passes that a CVAE cannot do without: the encoder over the pair and over x, the decoder over x and y."""
    sizes = SIZES[size]
    encoder, decoder = make_encoder(sizes, options).train(), make_decoder(sizes, options).train()
    source, target = (tokens(sizes.batch, sizes.length, sizes, options, seed) for seed in (0, 1))
    pair, read = torch.cat([source, target], dim=1), torch.cat([source, read_before(target)], dim=1)

    def step():
        encoder.zero_grad()
        decoder.zero_grad()
        states = [encoder(input_ids=each, attention_mask=torch.ones_like(each)).last_hidden_state for each in (pair, source)]
        loss = decoder(
            input_ids=read,
            attention_mask=torch.ones_like(read),
            labels=target,
            shift_labels=target,
            logits_to_keep=target.shape[1],
            use_cache=False,
        ).loss
        (loss + states[0].mean() + states[1].mean()).backward()

    return step


def run(options: Options) -> Iterator[Row]:
    for size in options.sizes:
        against = "encoder and decoder"
        yield compare(
            f"training step, VAE, {size}",
            vae_step(options, size),
            halves_step(options, size),
            options,
            against=against,
            target=1.05,
        )
        yield compare(
            f"training step, CVAE, {size}",
            cvae_step(options, size),
            conditional_halves_step(options, size),
            options,
            against="two encoder passes and the decoder",
            target=1.05,
        )
        repeats = 1 if options.quick else 3
        measured = interleave(
            lambda size=size: peak_memory("training_step", "vae_step", options, size=size),
            lambda size=size: peak_memory("training_step", "halves_step", options, size=size),
            repeats,
            warm_up=0,
        )
        case = f"peak memory of a training step, VAE, {size}"
        yield summarise(case, *measured, unit="MiB", against=against, target=1.05)
