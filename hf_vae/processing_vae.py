"""Text to tensors and back, for an encoder and a decoder that may have two vocabularies."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from transformers import AutoTokenizer, BatchEncoding, PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils import logging

from .checks import check_choice, check_count
from .saved_files import HUB_OPTIONS, read_json

logger = logging.get_logger(__name__)

Texts = str | list[str]
# A fast tokenizer keeps in itself where it cuts. A thread that asks for another length while the first one reads would change its.
ONE_THREAD_READS = threading.RLock()
PADDINGS = (True, False, "longest", "max_length", "do_not_pad")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def as_items(name: str, given: Any, expected: str) -> list:
    """
    What is in a list, a tuple, a column of a dataset, an array of one dimension or anything else that has items.

    Raises:
        ValueError: it has none, or keys or columns in place of them.
    """
    # Iterating over these would give names and numbers (keys, columns, bytes, rows), or texts in any order.
    is_other = isinstance(given, (Mapping, str, bytes, bytearray, set, frozenset)) or getattr(given, "ndim", 1) != 1
    if is_other or not hasattr(given, "__iter__"):
        raise ValueError(
            f"`{name}` is {_shown(given)}, of type {type(given).__name__}; it should be {expected}. Of a row or a table give the "
            "column that you mean, for instance `row['text']`."
        )
    # The items of an Arrow array are Arrow's own.
    items = given.to_pylist() if hasattr(given, "to_pylist") else list(given)
    if not items:
        raise ValueError(f"`{name}` is an empty list.")
    return items


def is_text(value: Any) -> bool:
    """Whether it is a string with something in it that UTF-8 can write: half of a surrogate pair is no character."""
    return isinstance(value, str) and bool(value.strip()) and not _HALF_CHARACTER.search(value)


def as_list(name: str, texts: Texts) -> list[str]:
    """
    `texts` as a list of strings.

    Raises:
        ValueError: it is neither a text nor has texts in it, there is nothing in it, or an item that is no text or is empty.
    """
    texts = [texts] if isinstance(texts, str) else as_items(name, texts, "a text or a list of texts")
    bad = [row for row, text in enumerate(texts) if not is_text(text)]
    if bad:
        raise ValueError(f"`{name}` holds no text at position(s) {bad[:10]} (found {_shown(texts[bad[0]])}).")
    return texts


def _shown(value: Any) -> str:
    """As an error message shows it."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def load_tokenizer(name_or_path: str) -> PreTrainedTokenizerBase:
    """
    `AutoTokenizer.from_pretrained`, for parts that may have been saved without their tokenizer.

    Raises:
        OSError, ValueError: there is no tokenizer. For several families transformers makes one up that knows special tokens alone
            and reads every text as nothing.
    """
    tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    if not knows_words(tokenizer):
        raise ValueError(f"{name_or_path} holds no tokenizer; save the part's own there, with `tokenizer.save_pretrained`.")
    return tokenizer


def knows_words(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether there is more in its vocabulary than special tokens."""
    return not set(tokenizer.get_vocab().values()) <= set(tokenizer.all_special_ids)


def load_saved_tokenizer(name_or_path: Any, subfolder: str, **kwargs) -> PreTrainedTokenizerBase:
    """
    A tokenizer that a processor has saved.

    Raises:
        OSError: a file of it is missing or damaged.
        ValueError: its code lies in another repository.
    """
    where = {**{name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}, "subfolder": subfolder}
    place = PurePosixPath(str(name_or_path), subfolder)
    auto_map = read_json(name_or_path, "tokenizer_config.json", **where).get("auto_map")
    if kwargs.get("trust_remote_code") and "--" in str(auto_map):
        raise ValueError(
            f"The tokenizer in {place} names code of another repository ({auto_map}), which "
            "`trust_remote_code` does not reach: read that code, load the tokenizer from there, and make the processor of it, as "
            "`VAEProcessor(tokenizer, encoder_tokenizer)`."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, subfolder=subfolder, **kwargs)
    # Each library says something else of a damaged file, and hardly any names it.
    except Exception as error:
        read_json(name_or_path, "tokenizer.json", **where)
        raise OSError(f"The tokenizer in {place} cannot be loaded: {error}") from error
    if not knows_words(tokenizer):
        raise OSError(f"The tokenizer in {place} has no words: its tokenizer.json is missing.")
    return tokenizer


class VAEProcessor(ProcessorMixin):
    r"""
    The two tokenizers of a [`VAEModel`].

    A special token that is written out in a text, such as "[EOS]", is read as that token, as transformers' tokenizers do; give
    them `split_special_tokens=True` if texts come from strangers.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the decoder's; decodes what `generate` returns. Of one without a padding token a
            copy is used, which pads with its EOS.
        encoder_tokenizer (`PreTrainedTokenizerBase`): the encoder's. If it is the same object as `tokenizer`, a copy is used.

    Raises:
        ValueError: the decoder's tokenizer has no EOS, so generation would not know where to stop; or the encoder's has neither a
            padding token nor an EOS; or one of them is no tokenizer.
    """

    tokenizer: PreTrainedTokenizerBase
    encoder_tokenizer: PreTrainedTokenizerBase

    def __init__(self, tokenizer: PreTrainedTokenizerBase, encoder_tokenizer: PreTrainedTokenizerBase, **kwargs):
        for name, given in (("tokenizer", tokenizer), ("encoder_tokenizer", encoder_tokenizer)):
            if not isinstance(given, PreTrainedTokenizerBase):
                raise ValueError(f"`{name}` is {given!r}; load one, with `AutoTokenizer.from_pretrained`.")
        if tokenizer.eos_token_id is None:
            raise ValueError("`tokenizer` has no EOS token; set one, generation ends with it.")
        if encoder_tokenizer.pad_token is None and encoder_tokenizer.eos_token is None:
            raise ValueError("`encoder_tokenizer` has no padding token, and no EOS token to pad with; set its `pad_token`.")
        if encoder_tokenizer is tokenizer:
            # Each is saved, and may be changed, by itself.
            encoder_tokenizer = copy.deepcopy(tokenizer)
        super().__init__(_that_pads(tokenizer), _that_pads(encoder_tokenizer), **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, part_folders: Mapping[str, Any] | None = None, **kwargs):
        """
        As `ProcessorMixin.from_pretrained`, which would take the decoder's tokenizer for an encoder's that is damaged. Of
        `part_folders`, an option of the model's, nothing is read: `pipeline` gives both the same options.

        Raises:
            OSError: a file is missing or damaged. It names the file.
            ValueError: a tokenizer's code lies in another repository.
        """
        where = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
        read_json(pretrained_model_name_or_path, "processor_config.json", **where)
        processor_dict, options = cls.get_processor_dict(pretrained_model_name_or_path, **kwargs)
        root = kwargs.pop("subfolder", "")
        tokenizers = [
            load_saved_tokenizer(pretrained_model_name_or_path, subfolder, **kwargs)
            for subfolder in (root, str(PurePosixPath(root, "encoder_tokenizer")))
        ]
        return cls.from_args_and_dict(tokenizers, processor_dict, **options)

    def __call__(
        self,
        text: Any,
        text_target: Texts | None = None,
        max_length: int | None = None,
        max_target_length: int | None = None,
        truncation: bool | None = None,
        padding: bool | str = True,
        return_tensors: str | None = "pt",
    ) -> BatchEncoding:
        """
        What the model needs for `text`, and for `text_target` if it is given.

        Args:
            text (`str` or `list[str]`): what the encoder reads; for the VAE the text to reconstruct. Dialogues, for a processor of
                those.
            text_target (`str` or `list[str]`, *optional*): y, one for each text; adds `labels`.
            max_length (`int`, *optional*): truncates `text` to as many tokens in each vocabulary. The pair that q(z|x,y) reads is
                truncated, to both lengths together, if both are given.
            max_target_length (`int`, *optional*): truncates y to as many tokens, its EOS included.
            truncation (`bool`, *optional*): whether to truncate; by default if a length is given. `True` without a length
                truncates to what the tokenizer says that its model holds.
            padding (`bool` or `str`, defaults to `True`): `True` or `"longest"` pads to the longest row, `"max_length"` to
                `max_length` and `max_target_length` (a pair to both together), `False` not at all.
            return_tensors (`str`, *optional*, defaults to `"pt"`): or `"np"`; `None` gives lists, unpadded.

        Returns:
            `BatchEncoding` with `input_ids` and `attention_mask`, and `labels` (-100 on padding) if there is a target.

        Raises:
            ValueError: an empty text, texts and targets that differ in number, a length that leaves no token of the text, or a
                padding without the length that it needs.
        """
        if return_tensors is None and padding == "max_length":
            raise ValueError(
                "`padding='max_length'` pads tensors, and `return_tensors=None` gives lists, unpadded: give one of both."
            )
        check_text_length("max_length", max_length, self.encoder_tokenizer)
        if max_target_length is not None:
            check_count("max_target_length", max_target_length)
        texts, single = self.batch(text)
        targets = None if text_target is None else as_list("text_target", text_target)
        if targets is not None and len(targets) != len(texts):
            raise ValueError(f"`text` has {len(texts)} and `text_target` {len(targets)} texts; each text needs one target.")
        lengths = {"text": max_length, "target": max_target_length, "pair": None}
        if max_length is not None and max_target_length is not None:
            lengths["pair"] = max_length + max_target_length
        cuts = {
            name: {"max_length": length, "truncation": length is not None if truncation is None else truncation}
            for name, length in lengths.items()
        }
        with ONE_THREAD_READS:
            features = self.features(texts, targets, cuts)
        if return_tensors is None:
            if single:
                return BatchEncoding({name: rows[0] for name, rows in features.items()})
            return BatchEncoding(features)
        rows = [dict(zip(features, values)) for values in zip(*features.values())]
        lengths = {"max_length": max_length, "max_target_length": max_target_length}
        return self.pad(rows, padding=padding, return_tensors=return_tensors, **lengths)

    def batch(self, text: Any) -> tuple[list, bool]:
        """
        What was given as `text`, as a list, and whether it was a single one.

        Raises:
            ValueError: there is nothing in it, or an item that cannot be read.
        """
        return as_list("text", text), isinstance(text, str)

    def features(self, texts: list, targets: list[str] | None, cuts: dict[str, dict[str, Any]]) -> dict[str, list]:
        """Unpadded token ids by the names of the model's arguments; `cuts` has tokenizers' options for text, target and pair."""
        features = dict(self.encoder_tokenizer(texts, **cuts["text"]))
        if targets is not None:
            features["labels"] = self.label_ids(targets, cuts["target"])
        return features

    def label_ids(self, targets: list[str], cut: dict[str, Any]) -> list[list[int]]:
        """y and EOS in the decoder's vocabulary, nothing else; of a longer y the beginning."""
        # Not cut by the tokenizer, which may cut on the left.
        rows = self.tokenizer(targets, add_special_tokens=False)["input_ids"]
        if any(self.tokenizer.eos_token_id in row for row in rows):
            logger.warning_once(
                f"A target has {self.tokenizer.eos_token!r} written in it, which is read as the end of a text: a model learns to "
                "stop there. Take it out of the texts, or load the tokenizer with `split_special_tokens=True`."
            )
        if cut["truncation"]:
            longest = cut.get("max_length") or self.tokenizer.model_max_length
            rows = [row[: longest - 1] for row in rows]
        return [[*row, self.tokenizer.eos_token_id] for row in rows]

    def pad(
        self,
        features: list[dict[str, list[int]]],
        padding: bool | str = True,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = "pt",
        max_length: int | None = None,
        max_target_length: int | None = None,
    ) -> BatchEncoding:
        """
        Rows of unpadded features as one batch: the prompt is padded on the left, so that what is generated follows it directly,
        everything else on the right; labels with -100. With `padding="max_length"` to the two lengths, a pair to both together.

        Raises:
            ValueError: a feature that no argument of a model is named after, a row that is empty or all padding, an unknown
                `padding`, or `padding="max_length"` without the length.
        """
        check_choice("padding", padding, PADDINGS)
        batch: dict[str, list] = {}
        pair_length = None if max_length is None or max_target_length is None else max_length + max_target_length
        known = {"labels"}
        for prefix, tokenizer, length in (
            ("", self.encoder_tokenizer, max_length),
            ("posterior_", self.encoder_tokenizer, pair_length),
            ("prompt_", self.tokenizer, max_length),
        ):
            names = [name for name in features[0] if name == f"{prefix}input_ids"]
            names += [f"{prefix}{name}" for name in ("attention_mask", "token_type_ids") if f"{prefix}{name}" in features[0]]
            known.update(names)
            if f"{prefix}input_ids" not in names:
                continue
            rows = [{name.removeprefix(prefix): row[name] for name in names} for row in features]
            check_rows(f"{prefix}attention_mask", [row.get("attention_mask", row["input_ids"]) for row in rows], any)
            side = "left" if prefix == "prompt_" else "right"
            padded = _padded(tokenizer, rows, side, padding, pad_to_multiple_of, length)
            batch.update({f"{prefix}{name}": values for name, values in padded.items()})
        if "labels" in features[0]:
            check_rows("labels", [row["labels"] for row in features], len)
            rows = [{"input_ids": row["labels"]} for row in features]
            padded = _padded(self.tokenizer, rows, "right", padding, pad_to_multiple_of, max_target_length)
            batch["labels"] = [
                [token if real else -100 for token, real in zip(*row)] for row in zip(padded["input_ids"], padded["attention_mask"])
            ]
        unknown = sorted(set(features[0]) - known)
        if unknown:
            raise ValueError(f"Features hold {', '.join(unknown)}, which no model of this kind reads; remove the column(s).")
        return BatchEncoding(batch, tensor_type=return_tensors)


def _that_pads(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """`tokenizer`, or if it has no padding token a copy that pads with its EOS: what was given stays as it is."""
    if tokenizer.pad_token is None:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_text_length(name: str, length: int | None, encoder_tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises a `ValueError` for a length that the encoder's special tokens fill: nothing of a text would be read."""
    if length is None:
        return
    check_count(name, length)
    special = encoder_tokenizer.num_special_tokens_to_add()
    if length <= special:
        raise ValueError(
            f"`{name}` is {length}; the encoder's tokenizer adds {special} tokens of its own to a text, so that it must be at "
            f"least {special + 1}."
        )


def _padded(
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict],
    side: str,
    padding: bool | str,
    multiple_of: int | None,
    length: int | None,
) -> dict[str, list]:
    """Rows of one tokenizer's features, padded as lists, with their mask."""
    if padding == "max_length" and length is None:
        raise ValueError(
            "`padding='max_length'` pads to `max_length`, and with targets to `max_target_length`; give the length(s)."
        )
    padded = tokenizer.pad(
        rows,
        padding=padding,
        max_length=length if padding == "max_length" else None,
        pad_to_multiple_of=multiple_of,
        padding_side=side,
        return_attention_mask=True,
    )
    return dict(padded)


def check_rows(name: str, rows: list, holds) -> None:
    """Raises a `ValueError` that names the rows which hold nothing."""
    empty = [index for index, row in enumerate(rows) if not holds(row)]
    if empty:
        raise ValueError(f"`{name}` holds no token in row(s) {empty[:10]} of the batch: every row needs at least one.")


__all__ = ["VAEProcessor"]
