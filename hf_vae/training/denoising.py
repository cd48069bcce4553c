"""Noise on what the encoder reads in training, so that texts alike get codes alike."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainingArguments

from ..checks import check_count, check_number
from ..options.techniques import DenoisingArguments
from .json_options import parse_json
from .loss_parts import find_model
from .techniques import register_technique


@dataclass(frozen=True)
class NoiseVocabulary:
    """
    What noise needs to know of a tokenizer.

    Args:
        special_ids (`torch.LongTensor`): tokens that noise leaves alone.
        word_ids (`torch.LongTensor`): tokens that may stand in for another one.
        pad_id (`int`): what fills the place of a dropped token, outside the mask.
        blank_id (`int`, *optional*): what stands for a blanked token.
    """

    special_ids: torch.Tensor
    word_ids: torch.Tensor
    pad_id: int
    blank_id: int | None = None

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase) -> NoiseVocabulary:
        """
        Special tokens are the tokenizer's own but for an unknown token that is nothing besides, or the mask too: it stands for a
        word. A blank is the mask token, or the unknown token if there is none.
        """
        special = set(tokenizer.all_special_ids)
        words = [number for number in range(len(tokenizer)) if number not in special]
        named = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "sep", "cls", "pad")}
        if tokenizer.unk_token_id not in named.values():
            special.discard(tokenizer.unk_token_id)
        blank = tokenizer.unk_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id
        pad = tokenizer.eos_token_id if named["pad"] is None else named["pad"]
        return cls(torch.tensor(sorted(special)), torch.tensor(words), 0 if pad is None else pad, blank)

    def to(self, device: torch.device | str) -> NoiseVocabulary:
        return NoiseVocabulary(self.special_ids.to(device), self.word_ids.to(device), self.pad_id, self.blank_id)


@dataclass(frozen=True)
class TokenNoise:
    """
    Random changes to a text's tokens (Shen et al. 2020, section 5): shuffled, dropped, blanked, substituted, in this order, drawn
    anew at every call. Special tokens and padding are never changed, and a row that has a word keeps one.

    Args:
        drop (`float`, defaults to 0.0): probability of leaving a word out.
        blank (`float`, defaults to 0.0): probability of putting the mask or unknown token in a word's place.
        substitute (`float`, defaults to 0.0): probability of putting a word drawn from the whole vocabulary in its place.
        shuffle (`int`, defaults to 0): words change places, none by more than this many, and none across a special token.

    Raises:
        ValueError: a probability outside [0, 1], a negative distance, or no noise at all.
    """

    drop: float = 0.0
    blank: float = 0.0
    substitute: float = 0.0
    shuffle: int = 0

    def __post_init__(self):
        for name in ("drop", "blank", "substitute"):
            check_number(name, getattr(self, name), least=0, most=1)
        check_count("shuffle", self.shuffle, least=0)
        if not (self.drop or self.blank or self.substitute or self.shuffle):
            raise ValueError("No noise at all: give `drop`, `blank`, `substitute` or `shuffle`.")

    def check(self, vocabulary: NoiseVocabulary) -> None:
        """Raises a `ValueError` if the vocabulary lacks what this noise puts in a word's place."""
        if self.blank and vocabulary.blank_id is None:
            raise ValueError("`blank` needs a mask or an unknown token, and the encoder's tokenizer has neither.")
        if self.substitute and not len(vocabulary.word_ids):
            raise ValueError("`substitute` needs words to draw from, and every token of the encoder's tokenizer is special.")

    def __call__(
        self,
        vocabulary: NoiseVocabulary,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """
        The same text with noise; every tensor has the shape `(batch, length)` that it came with, and what dropping leaves free is
        padding on the right.

        Args:
            vocabulary ([`NoiseVocabulary`]): the tokenizer's.
            input_ids, attention_mask, token_type_ids (`(batch, length)`): as the encoder reads them.

        Returns:
            `input_ids` and `attention_mask`, and `token_type_ids` if they were given.

        Raises:
            ValueError: the vocabulary lacks what this noise puts in a word's place.
        """
        self.check(vocabulary)
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        rows = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            rows["token_type_ids"] = token_type_ids
        if self.shuffle:
            rows = _reorder(rows, _shuffled(_words(rows, vocabulary), self.shuffle))
        if self.drop:
            dropped = _dropped(_words(rows, vocabulary), self.drop)
            fill = {"input_ids": vocabulary.pad_id, "attention_mask": 0, "token_type_ids": 0}
            rows = {name: tensor.masked_fill(dropped, fill[name]) for name, tensor in rows.items()}
            rows = _reorder(rows, (rows["attention_mask"] == 0).long().argsort(dim=-1, stable=True))
        words = _words(rows, vocabulary)
        ids = rows["input_ids"]
        if self.blank:
            ids = ids.masked_fill(words & _chance(ids, self.blank), cast(int, vocabulary.blank_id))
        if self.substitute:
            drawn = vocabulary.word_ids[torch.randint(len(vocabulary.word_ids), ids.shape, device=ids.device)]
            ids = torch.where(words & _chance(ids, self.substitute), drawn.to(ids), ids)
        return {**rows, "input_ids": ids}


def _chance(like: torch.Tensor, probability: float) -> torch.Tensor:
    return torch.rand(like.shape, device=like.device) < probability


def _words(rows: dict[str, torch.Tensor], vocabulary: NoiseVocabulary) -> torch.Tensor:
    """Where a token is neither special nor padding."""
    return (rows["attention_mask"] != 0) & ~torch.isin(rows["input_ids"], vocabulary.special_ids)


def _reorder(rows: dict[str, torch.Tensor], order: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: tensor.gather(-1, order) for name, tensor in rows.items()}


def _shuffled(words: torch.Tensor, distance: int) -> torch.Tensor:
    """
    An order of each row's places that moves no word by more than `distance`: the order of i + U[0, distance + 1) (Lample et al.
    2018). What is no word stays, and opens a stretch that its words do not leave.
    """
    places = torch.arange(words.shape[-1], device=words.device, dtype=torch.float32)
    moved = places + (distance + 1) * torch.rand(words.shape, device=words.device) * words
    order = moved.argsort(dim=-1)
    stretch = (~words).long().cumsum(-1)
    # The two sorts could be one by a joint key, but for long texts such a key has more digits than float32.
    return order.gather(-1, stretch.gather(-1, order).argsort(dim=-1, stable=True))


def _dropped(words: torch.Tensor, probability: float) -> torch.Tensor:
    draws = torch.rand(words.shape, device=words.device).masked_fill(~words, -1.0)
    # The word with the largest draw stays: where any is kept, it is too, so this changes nothing but the empty row.
    return words & (draws < probability) & (draws < draws.amax(-1, keepdim=True))


class DenoisingCallback(TrainerCallback):
    r"""
    Denoising of the encoder's input (DAAE, Shen et al. 2020): in training q reads \(\tilde y\), y with noise, and the decoder still
    reconstructs y. The loss is then the bound with q(z|ỹ) in the posterior's place. Evaluation sees no noise.

    The Trainer has one collator for training and evaluation, which cannot tell them apart; and noise drawn while batches are made
    would differ after resuming, because batches are made ahead of the step that reads them. So the noise enters where dropout
    does: a forward pre-hook changes what the model is called with while it is in training mode, and draws from torch's generator,
    which the Trainer saves and restores. It works with any dataset and number of workers.

    What is changed is what q reads: `posterior_input_ids` if the model is called with them, `input_ids` otherwise, with their
    attention mask and token types.

    A training that an exception ends leaves the hook on the model; the next one with this callback removes it.

    Args:
        noise ([`TokenNoise`]): how much of which.
        tokenizer (`PreTrainedTokenizerBase`): the encoder's (`processor.encoder_tokenizer`).

    Raises:
        ValueError: `noise` blanks tokens, and the tokenizer has neither a mask nor an unknown token.
    """

    def __init__(self, noise: TokenNoise, tokenizer: PreTrainedTokenizerBase):
        self.noise = noise
        self.vocabulary = NoiseVocabulary.from_tokenizer(tokenizer)
        noise.check(self.vocabulary)
        self._hook = None
        self._state = None

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._unhook()
        denoised = find_model(model)
        # What an ended training left behind would noise the text once more. Every training has a state of its own, which tells
        # that from a second callback of this one.
        for hook in list(denoised._forward_pre_hooks.values()):
            owner = getattr(hook, "__self__", None)
            if isinstance(owner, DenoisingCallback) and owner._state is not state:
                owner._unhook()
        self._state = state
        self._hook = denoised.register_forward_pre_hook(self._add_noise, with_kwargs=True)

    def on_train_end(self, args, state, control, **kwargs):
        self._unhook()

    def _unhook(self):
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _add_noise(self, module, arguments, inputs):
        prefix = "posterior_" if "posterior_input_ids" in inputs else ""
        if not module.training or f"{prefix}input_ids" not in inputs:
            return None
        names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if f"{prefix}{name}" in inputs]
        text = {name: inputs[f"{prefix}{name}"] for name in names}
        self.vocabulary = self.vocabulary.to(text["input_ids"].device)
        noised = self.noise(self.vocabulary, **text)
        return arguments, {**inputs, **{f"{prefix}{name}": tensor for name, tensor in noised.items()}}


def make_token_noise(args: Any) -> TokenNoise:
    """
    Raises:
        ValueError: `--token_noise` names an option that noise does not have, or one out of range.
    """
    options = parse_json("token_noise", args.token_noise)
    known = [each.name for each in fields(TokenNoise)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"`--token_noise` has no option {', '.join(unknown)}; its options are {', '.join(known)}.")
    return TokenNoise(**options)


def check_denoising(args: Any, training_args: TrainingArguments) -> None:
    if args.token_noise:
        make_token_noise(args)


def denoising_callbacks(args: Any, processor: Any) -> list[TrainerCallback]:
    return [DenoisingCallback(make_token_noise(args), processor.encoder_tokenizer)] if args.token_noise else []


register_technique(DenoisingArguments, denoising_callbacks, check_denoising)
