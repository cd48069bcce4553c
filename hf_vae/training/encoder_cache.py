"""Training with a frozen encoder whose outputs are computed once and then read from disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from datasets import Dataset
from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
from transformers.utils import logging

from ..calls import call_with
from ..checks import check_count
from ..options.techniques import EncoderCacheArguments
from ..processing_vae import VAEProcessor
from .collator import VAEDataCollator
from .encoder_outputs import EncoderCache, check_frozen
from .loss_parts import find_model
from .techniques import register_technique

logger = logging.get_logger(__name__)

# Rows of a dataset that are encoded before what was computed is committed: a run that is stopped loses these at most.
_ROWS_OF_A_PART = 32_768


def check_outputs_stay(model: nn.Module) -> None:
    """
    Raises a `ValueError` unless every training step reads of a text what any other has read. So the encoders of `model` must be
    frozen, and no noise may be on what they read.

    Args:
        model ([`VAEModel`]): of any of the family, or a PEFT model around one.
    """
    vae = cast(Any, find_model(model))
    if vae.config.embedding_size is not None:
        raise ValueError("The model reads given vectors (`embedding_size`) and has no encoder whose outputs could be kept.")
    for encoder in _encoders(vae).values():
        check_frozen(encoder)
    if getattr(vae.config, "source_noise", 0.0) and vae.source_readers:
        raise ValueError(
            f"`source_noise` is {vae.config.source_noise}: in each step other tokens of x are hidden from the encoder, so no "
            "output would be read twice. Set it to 0, or keep no outputs."
        )


def _encoders(vae: Any) -> dict[str, PreTrainedModel]:
    found = {name: getattr(vae, name, None) for name in ("encoder", "source_encoder")}
    return {name: encoder for name, encoder in found.items() if encoder is not None}


class CachedOutputs:
    """
    The outputs of a model's encoders on disk, while the model reads them. As a context manager it ends this at the end of the
    block.

    Args:
        caches (`dict[str, EncoderCache]`): by the name of each encoder.
    """

    def __init__(self, caches: dict[str, EncoderCache]):
        self.caches = caches
        for cache in caches.values():
            cast(Any, cache.encoder).output_cache = cache

    def remove(self) -> None:
        """The encoders run again."""
        for cache in self.caches.values():
            if getattr(cache.encoder, "output_cache", None) is cache:
                del cast(Any, cache.encoder).output_cache

    def __enter__(self) -> CachedOutputs:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    @property
    def hits(self) -> int:
        """Texts that were read from disk."""
        return sum(cache.hits for cache in self.caches.values())

    @property
    def misses(self) -> int:
        """Texts for which an encoder had to run."""
        return sum(cache.misses for cache in self.caches.values())

    @property
    def num_bytes(self) -> int:
        """Size on disk."""
        return sum(cache.num_bytes for cache in self.caches.values())

    def __len__(self) -> int:
        """Outputs on disk."""
        return sum(map(len, self.caches.values()))


def cache_encoder_outputs(
    model: nn.Module,
    processor: VAEProcessor,
    datasets: Dataset | Sequence[Dataset],
    folder: str | Path,
    batch_size: int = 64,
    for_prior_fit: bool = False,
) -> CachedOutputs:
    """
    Encodes datasets once with the model's frozen encoder. From then on the model reads the outputs from disk, and gradients are the
    same as if the encoder ran in evaluation mode, without dropout.

        with cache_encoder_outputs(model, processor, train, "outputs/encoded"):
            Trainer(model, training_args, train_dataset=train, …).train()

    What is kept follows from what the model reads: of most texts one vector, and every state where a decoder's cross-attention
    reads them. What is in the folder already is not computed again; a text that is not there, such as one of another dataset, is
    encoded when it is read, and not kept. The outputs are those of float32 weights without autocast, if the weights are that.

    Args:
        model ([`VAEModel`]): of any of the family with an encoder, or a PEFT model around one. It is encoded on its device.
        processor ([`VAEProcessor`]): its processor.
        datasets (`Dataset` or a sequence of them): tokenised by the processor. With none, what is in the folder is read, as the
            processes besides the main one do.
        folder (`str`): where the outputs lie, those of each encoder in a folder of its name.
        batch_size (`int`, defaults to 64): examples at once.
        for_prior_fit (`bool`, defaults to `False`): also encode x for the p(z|x) that `fit_conditional_prior` will put in the place
            of N(0, I). Until then perhaps nobody reads x through an encoder.

    Returns:
        [`CachedOutputs`], whose `remove()` lets the encoder run again, as the end of the `with` does.

    Raises:
        OSError: what is in the folder is damaged.
        ValueError: an encoder that is trained, in whole or in part, or reads noise; a folder with the outputs of another encoder or
            tokenizer; or a model without an encoder.
    """
    check_count("batch_size", batch_size)
    check_outputs_stay(model)
    vae = cast(Any, find_model(model))
    tokenizer = cast(PreTrainedTokenizerBase, processor.encoder_tokenizer)
    caches = {name: EncoderCache(encoder, Path(folder) / name, tokenizer) for name, encoder in _encoders(vae).items()}
    if any(module.p for encoder in _encoders(vae).values() for module in encoder.modules() if isinstance(module, nn.Dropout)):
        logger.warning_once("The encoder has dropout. Its outputs are kept as they are without it, as in evaluation.")
    outputs = CachedOutputs(caches)
    try:
        with _reading_source(vae) if for_prior_fit else nullcontext():
            _encode(vae, processor, [datasets] if isinstance(datasets, Dataset) else datasets, caches.values(), batch_size)
    except BaseException:
        outputs.remove()
        raise
    for cache in caches.values():
        cache.hits = cache.misses = 0
    return outputs


@torch.no_grad()
def _encode(
    vae: Any, processor: VAEProcessor, datasets: Iterable[Dataset], caches: Iterable[EncoderCache], batch_size: int
) -> None:
    """Has the model read every row through its encoders, which keep what they give."""
    collator = VAEDataCollator(processor)
    parts = [(each, start) for each in datasets for start in range(0, len(each), _ROWS_OF_A_PART)]
    total = sum(-(-min(_ROWS_OF_A_PART, len(each) - start) // batch_size) for each, start in parts)
    hidden = not PartialState().is_main_process
    with _evaluating(vae), tqdm(total=total, desc="encoding once", leave=False, delay=1, disable=hidden) as bar:
        for dataset, start in parts:
            rows = dataset.select(range(start, min(start + _ROWS_OF_A_PART, len(dataset)))).to_list()
            # Rows of one length together, so that little of a batch is padding.
            rows.sort(key=_num_tokens)
            with ExitStack() as stack:
                for cache in caches:
                    stack.enter_context(cache.adding())
                for first in range(0, len(rows), batch_size):
                    batch = collator(rows[first : first + batch_size]).to(vae.device)
                    source = call_with(vae.read_source, batch)
                    if vae.config.has_posterior:
                        call_with(vae.encode, batch, source=source)
                    bar.update()


@contextmanager
def _reading_source(vae: Any) -> Iterator[None]:
    """Inside, x is read as a conditional prior would read it."""
    prior_type = vae.config.prior_type
    if vae.config.is_conditional and prior_type == "standard":
        vae.config.prior_type = "conditional"
    try:
        yield
    finally:
        vae.config.prior_type = prior_type


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _num_tokens(row: dict[str, Any]) -> int:
    """Tokens in a row of a dataset, those of turns together."""
    return sum(len(each) for value in row.values() if isinstance(value, list) for each in (value if _nested(value) else [value]))


def _nested(value: list) -> bool:
    return bool(value) and isinstance(value[0], list)


def check_encoder_cache(args: Any, training_args: TrainingArguments) -> None:
    if args.cache_encoder is None:
        return
    if not args.freeze_encoder:
        raise ValueError("`--cache_encoder` keeps the outputs of an encoder that does not change: add `--freeze_encoder`.")
    if args.token_noise:
        raise ValueError(
            "`--token_noise` changes what the encoder reads in each step, so nothing of `--cache_encoder` would be read."
        )
    folder, output_dir = Path(args.cache_encoder).resolve(), Path(cast(str, training_args.output_dir)).resolve()
    if folder.is_relative_to(output_dir):
        raise ValueError(
            f"`--cache_encoder` {args.cache_encoder} lies in `--output_dir`, whose files are the model's and are uploaded with it: "
            "name a folder beside it."
        )
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`--cache_encoder` {args.cache_encoder} is a file: name a folder.")


register_technique(EncoderCacheArguments, check=check_encoder_cache)


__all__ = ["CachedOutputs", "cache_encoder_outputs"]
