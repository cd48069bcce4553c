"""From texts to latents and back, in batches: what every function of this folder is made of."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..checks import check_count, float_latents
from ..evaluation.evaluator import LikelihoodEvaluator
from ..evaluation.generation import decode_tokens
from ..latent_distribution import LatentDistribution
from ..modeling_vae import VAEModel
from ..processing_vae import Texts, VAEProcessor, as_list
from ..unknown_words import texts_in, warn_of_unknown_words

# Texts stand for the modes of their posteriors, which are Gaussians' means.
TextsOrLatents = Texts | torch.Tensor


@dataclass(repr=False)
class LatentTexts:
    """
    Args:
        texts (`list[str]`): one for each row of `latents`.
        latents (`torch.Tensor` of shape `(rows, latent_size)`): the z that each was decoded from; float32, on the CPU.
    """

    texts: list[str]
    latents: torch.Tensor

    def __repr__(self) -> str:
        return shown_texts(self, self.texts)


def shown_texts(result: Any, texts: Sequence[str], most: int = 10) -> str:
    """What a REPL shows of a `result` of this folder: its `texts`, shortened, and not its tensors."""
    lines = [f"  {textwrap.shorten(text, 100, placeholder=' …') or '(empty)'}" for text in texts[:most]]
    if len(texts) > most:
        lines.append(f"  … and {len(texts) - most} more")
    return "\n".join([f"{type(result).__name__} of {len(texts)} text{'' if len(texts) == 1 else 's'}:", *lines])


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside; every module's own training flag again outside."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, flag in flags:
            module.training = flag


def encode_texts(
    model: VAEModel,
    processor: VAEProcessor,
    texts: Texts,
    sources: Any = None,
    batch_size: int = 64,
    max_length: int | None = None,
) -> LatentDistribution:
    """
    The posterior of each text, the same whatever the batches.

    Args:
        model ([`VAEModel`]): any model of the family; its training flags come back as they were.
        processor ([`VAEProcessor`]): its processor.
        texts (`str` or `list[str]`): y.
        sources (*optional*): x of each text, as the processor takes it, which q(z|x,y) of a conditional model reads too.
        batch_size (`int`, defaults to 64): texts at once.
        max_length (`int`, *optional*): truncates texts to as many tokens.

    Returns:
        [`LatentDistribution`] with one row per text, on the CPU: a [`DiagonalGaussian`] if the model has no other
        `posterior_type`.

    Raises:
        ValueError: no text, an empty one, a `batch_size` below 1, or sources that the model needs or does not read, or that are
            fewer or more than the texts.
    """
    texts = as_list("texts", texts)
    check_count("batch_size", batch_size)
    given = check_encoded(model, processor, texts, sources)
    lengths = {} if max_length is None else {"max_length": max_length, "max_target_length": max_length}
    return posterior_of(model, processor, given or texts, texts, batch_size, **lengths)


def check_encoded(model: VAEModel, processor: VAEProcessor, texts: list[str], sources: Any) -> list | None:
    """[`check_sources`] of texts that are about to be encoded, with a warning if the encoder does not know their words."""
    given = check_sources(model, processor, texts, sources)
    warn_of_unknown_words(processor.encoder_tokenizer, [*texts, *texts_in(given or ())])
    return given


def posterior_of(
    model: VAEModel, processor: VAEProcessor, given: list, texts: list[str], batch_size: int, **lengths: int
) -> LatentDistribution:
    """[`encode_texts`] of what has been checked."""
    with evaluation_mode(model):
        return LikelihoodEvaluator(model, processor, given, texts, batch_size, **lengths).posterior()


def reads_pairs(model: VAEModel) -> bool:
    """Whether q reads a source beside each text."""
    return model.config.is_conditional


def refuse_sources(model: VAEModel) -> None:
    """Raises a `ValueError` if the model has no use for sources."""
    if not reads_pairs(model):
        raise ValueError(f"`sources` are given, but q(z|y) of {type(model).__name__} reads the text alone; leave them out.")


def check_sources(model: VAEModel, processor: VAEProcessor, texts: list[str], sources: Any) -> list | None:
    """`sources` as a list, one for each text, or `None` for a model without; a `ValueError` if they do not suit the model."""
    if model.config.embedding_size is not None:
        raise ValueError(
            f"`model` reads vectors of {model.config.embedding_size} numbers and no texts: embed the texts and use "
            "`encode_embeddings`, and give latents where a function takes texts or latents."
        )
    if sources is None:
        if reads_pairs(model):
            raise ValueError(
                f"q(z|x,y) of {type(model).__name__} reads source and text together: pass `sources`, or, if a function takes "
                "none, latents from `encode_texts(..., sources=...)`."
            )
        return None
    given = source_rows(model, processor, sources)
    if len(given) != len(texts):
        raise ValueError(f"{len(given)} `sources` for {len(texts)} `texts`; each text needs one.")
    return given


def source_rows(model: VAEModel, processor: VAEProcessor, sources: Any) -> list:
    """One or several sources as a list of them, each as it was given; a `ValueError` if they do not suit the model."""
    refuse_sources(model)
    given = sources if isinstance(sources, (str, dict)) else list(sources)
    try:
        # Dialogues are lists themselves; the processor knows a single one from several.
        is_single = processor.batch(given)[1]
    except ValueError as error:
        raise ValueError(f"`sources`: {error}") from error
    return [given] if is_single else list(given)


def as_latents(model: VAEModel, processor: VAEProcessor, name: str, given: TextsOrLatents, batch_size: int = 64) -> torch.Tensor:
    """
    `given` as latents of shape `(rows, latent_size)`, float32 on the CPU: posterior means of texts, or the tensor that it is.

    Raises:
        ValueError: a tensor of another shape, texts that [`encode_texts`] refuses, or values that are not finite.
    """
    if isinstance(given, torch.Tensor):
        size = model.config.total_latent_size
        latents = float_latents(given, name).detach().float().cpu()
        latents = latents.unsqueeze(0) if latents.ndim == 1 else latents
        if latents.ndim != 2 or latents.shape[0] < 1 or latents.shape[1] != size:
            raise ValueError(f"`{name}` has shape {tuple(given.shape)}; latents of this model are (rows, {size}).")
    else:
        latents = encode_texts(model, processor, as_list(name, given), batch_size=batch_size).mode()
    broken = (~latents.isfinite().all(-1)).nonzero().flatten().tolist()
    if broken:
        raise ValueError(f"`{name}` has latents that are not finite in row(s) {broken[:10]}.")
    return latents


def codes_of(
    model: VAEModel, processor: VAEProcessor, given: dict[str, TextsOrLatents], rows: list | None = None, batch_size: int = 64
) -> dict[str, torch.Tensor]:
    """
    [`as_latents`] of several arguments by their names. All texts are encoded at once, each with its source of [`source_rows`]: the
    only one, or the one at its place.
    """
    texts = {name: as_list(name, each) for name, each in given.items() if not isinstance(each, torch.Tensor)}
    if not texts:
        return {name: as_latents(model, processor, name, each) for name, each in given.items()}
    together = [text for each in texts.values() for text in each]
    pairs: dict[str, Any] = {}
    if rows is not None:
        wrong = [f"{len(each)} `{name}`" for name, each in texts.items() if len(rows) not in (1, len(each))]
        if wrong:
            raise ValueError(f"{len(rows)} `sources` for {', '.join(wrong)}: give one for all, or one for each text.")
        pairs["sources"] = [row for each in texts.values() for row in (rows * len(each) if len(rows) == 1 else rows)]
    means = encode_texts(model, processor, together, batch_size=batch_size, **pairs).mode()
    encoded = dict(zip(texts, means.split([len(each) for each in texts.values()])))
    return {name: as_latents(model, processor, name, encoded.get(name, each)) for name, each in given.items()}


def decode_latents(
    model: VAEModel, processor: VAEProcessor, latents: torch.Tensor, batch_size: int = 64, **generation_options
) -> list[str]:
    """
    One text for each z; greedy unless the options say otherwise.

    Args:
        model ([`VAEModel`]): any model of the family; its training flags come back as they were.
        processor ([`VAEProcessor`]): its processor.
        latents (`torch.Tensor` of shape `(rows, latent_size)`).
        batch_size (`int`, defaults to 64): rows at once.
        generation_options: passed to `generate`, such as `num_beams` or `max_new_tokens`. Tensors among them condition the
            decoder, as `**processor(source)` does for a conditional model: one row for all, or one for each z.

    Returns:
        `list[str]`, in the order of `latents`.

    Raises:
        ValueError: `latents` of another shape, conditioning with another number of rows, or an option that one text for each z
            leaves no room for.
    """
    latents = as_latents(model, processor, "latents", latents)
    check_count("batch_size", batch_size)
    for name in ("num_return_sequences", "num_samples"):
        if name in generation_options:
            raise ValueError(f"`{name}`: each z gives one text; repeat the rows of `latents` instead.")
    options: dict[str, Any] = {} if "generation_config" in generation_options else {"do_sample": False, "num_beams": 1}
    options.update((name, value) for name, value in generation_options.items() if not isinstance(value, torch.Tensor))
    conditioning = {name: value for name, value in generation_options.items() if isinstance(value, torch.Tensor)}
    for name, tensor in conditioning.items():
        if tensor.shape[0] not in (1, len(latents)):
            raise ValueError(f"`{name}` has {tensor.shape[0]} rows; expected 1, or one for each of {len(latents)} latents.")
    texts: list[str] = []
    with evaluation_mode(model):
        for start in range(0, len(latents), batch_size):
            part = latents[start : start + batch_size]
            rows: dict[str, Any] = {
                name: (tensor if tensor.shape[0] == 1 else tensor[start : start + batch_size]).to(model.device)
                for name, tensor in conditioning.items()
            }
            shared = bool(rows) and all(tensor.shape[0] == 1 for tensor in rows.values())
            if not shared:
                rows = {name: tensor.expand(len(part), *tensor.shape[1:]) for name, tensor in rows.items()}
            sequences = model.generate(
                **rows,
                latents=part.to(model.device),
                num_return_sequences=len(part) if shared else 1,
                **{**options, "return_dict_in_generate": False},
            )
            # The first is the start token.
            texts += [decode_tokens(processor, row) for row in sequences[:, 1:]]
    return texts


__all__ = ["LatentTexts", "decode_latents", "encode_texts"]
