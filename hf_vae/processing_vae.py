"""Text to tensors and back, for an encoder and a decoder that may have two vocabularies."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from transformers import BatchEncoding, PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils import logging

from .checks import check_choice, check_count
from .given_vectors import as_vectors, check_reader
from .padding import as_tokens, check_rows, padded, padded_length
from .part_tokenizers import load_saved_tokenizer, load_tokenizer
from .saved_files import HUB_OPTIONS, read_json

logger = logging.get_logger(__name__)

Texts = str | list[str]
# A fast tokenizer stores the length that it truncates to, and a thread with another length would change it while one reads.
ONE_THREAD_READS = threading.RLock()
PADDINGS = (True, False, "longest", "max_length", "do_not_pad")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def as_items(name: str, given: Any, expected: str) -> list:
    """
    The items of a list, a tuple, a column of a dataset, a one-dimensional array or another collection, as a list.

    Raises:
        ValueError: `given` has no items, or it has keys or columns instead.
    """
    # Iterating over these would give keys, columns, bytes or rows, or texts in no fixed order.
    is_other = isinstance(given, (Mapping, str, bytes, bytearray, set, frozenset)) or getattr(given, "ndim", 1) != 1
    if is_other or not hasattr(given, "__iter__"):
        raise ValueError(
            f"`{name}` is {_shown(given)}, of type {type(given).__name__}; it should be {expected}. If it is a row or a table, "
            "give one of its columns, for instance `row['text']`."
        )
    # The items of an Arrow array are Arrow's, not Python's.
    items = given.to_pylist() if hasattr(given, "to_pylist") else list(given)
    if not items:
        raise ValueError(f"`{name}` is an empty list: give at least one item.")
    return items


def is_text(value: Any) -> bool:
    """Whether `value` is a string that is not blank and that UTF-8 can encode: half of a surrogate pair is not a character."""
    return isinstance(value, str) and bool(value.strip()) and not _HALF_CHARACTER.search(value)


def as_list(name: str, texts: Texts) -> list[str]:
    """
    `texts` as a list of strings.

    Raises:
        ValueError: `texts` is neither a text nor a collection of texts, it is empty, or an item is empty or not a text.
    """
    texts = [texts] if isinstance(texts, str) else as_items(name, texts, "a text or a list of texts")
    bad = [row for row, text in enumerate(texts) if not is_text(text)]
    if bad:
        raise ValueError(
            f"`{name}` holds no text at position(s) {bad[:10]} (found {_shown(texts[bad[0]])}): remove the item(s), or give them a "
            "text."
        )
    return texts


def _shown(value: Any) -> str:
    """`value` as an error message shows it: at most 200 characters."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


class VAEProcessor(ProcessorMixin):
    r"""
    The two tokenizers of a [`VAEModel`]; of one that reads given vectors, the decoder's alone.

    A special token that is written out in a text, such as "[EOS]", is read as that token, as by all tokenizers of transformers.
    Load them with `split_special_tokens=True` if texts come from strangers.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the decoder's; it decodes what `generate` returns. If it has no padding token, a copy
            is used that pads with the EOS.
        encoder_tokenizer (`PreTrainedTokenizerBase`): the encoder's. If it is the same object as `tokenizer`, a copy is used.
        embedding_size (`int`, *optional*): that of the model, if it reads given vectors. There is no `encoder_tokenizer` then.

    Raises:
        ValueError: an argument is not a tokenizer, there is an `encoder_tokenizer` beside an `embedding_size` or neither, the
            decoder's tokenizer has no EOS, with which generation would stop, or the encoder's has neither a padding token nor an
            EOS.
    """

    tokenizer: PreTrainedTokenizerBase
    # `None` if vectors are given.
    encoder_tokenizer: Any
    embedding_size: int | None = None

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        encoder_tokenizer: PreTrainedTokenizerBase | None = None,
        embedding_size: int | None = None,
        **kwargs,
    ):
        check_reader("encoder_tokenizer", encoder_tokenizer, embedding_size)
        for name, given in (("tokenizer", tokenizer), ("encoder_tokenizer", encoder_tokenizer)):
            if given is encoder_tokenizer is None:
                continue
            if not isinstance(given, PreTrainedTokenizerBase):
                raise ValueError(f"`{name}` is {given!r}; load a tokenizer with `AutoTokenizer.from_pretrained`.")
        if tokenizer.eos_token_id is None:
            raise ValueError(
                "`tokenizer`, the decoder's, has no EOS token, with which generation ends: set its `eos_token`, or exchange the "
                "two if you have given the encoder's first."
            )
        if encoder_tokenizer is None:
            check_count("embedding_size", embedding_size)
            self.encoder_tokenizer, self.embedding_size = None, embedding_size
            # transformers asks the class, whose `__init__` names both. A partial, unlike a lambda, can be pickled.
            self.get_attributes = partial(list, ("tokenizer",))  # type: ignore[method-assign]
            super().__init__(_with_padding(tokenizer), **kwargs)
            return
        if encoder_tokenizer.pad_token is None and encoder_tokenizer.eos_token is None:
            raise ValueError("`encoder_tokenizer` has no padding token, and no EOS token to pad with: set its `pad_token`.")
        if encoder_tokenizer is tokenizer:
            # Each of them is saved on its own and may be changed on its own.
            encoder_tokenizer = copy.deepcopy(tokenizer)
        super().__init__(_with_padding(tokenizer), _with_padding(encoder_tokenizer), **kwargs)

    @classmethod
    def from_encoder_decoder_pretrained(cls, encoder_name_or_path: str | None, decoder_name_or_path: str, **options):
        """
        The processor for a model that `from_encoder_decoder_pretrained` makes of the same two names, in the same order.

        Args:
            encoder_name_or_path, decoder_name_or_path (`str`): Hub ids or folders of an encoder and of a causal LM. No encoder with
                an `embedding_size`.
            options: passed to the processor.

        Raises:
            OSError, ValueError: one of them has no tokenizer, or one that cannot serve.
        """
        check_reader("encoder_name_or_path", encoder_name_or_path, options.get("embedding_size"))
        if encoder_name_or_path is not None:
            options["encoder_tokenizer"] = load_tokenizer(encoder_name_or_path)
        return cls(tokenizer=load_tokenizer(decoder_name_or_path), **options)

    @property
    def start_token_id(self) -> int | None:
        """The token that must be the model's `config.decoder_start_token_id`; `None` if the processor leaves that to the model."""
        return None

    @property
    def template_length(self) -> int:
        """How many tokens of a prompt stand around the source, beyond a call's `max_length`."""
        return 0

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, part_folders: Mapping[str, Any] | None = None, **kwargs):
        """
        As `ProcessorMixin.from_pretrained`, which would use the decoder's tokenizer for both if the encoder's is damaged.
        `part_folders` is an option of the model and is ignored here, because `pipeline` gives both the same options.

        Raises:
            OSError: a file is missing or damaged. The error names the file.
            ValueError: a tokenizer's code lies in another repository.
        """
        where = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
        read_json(pretrained_model_name_or_path, "processor_config.json", **where)
        processor_dict, options = cls.get_processor_dict(pretrained_model_name_or_path, **kwargs)
        root = kwargs.pop("subfolder", "")
        subfolders = [root]
        if processor_dict.get("embedding_size") is None:
            subfolders.append(str(PurePosixPath(root, "encoder_tokenizer")))
        tokenizers = [load_saved_tokenizer(pretrained_model_name_or_path, subfolder, **kwargs) for subfolder in subfolders]
        return cls.from_args_and_dict(tokenizers, processor_dict, **options)

    def __call__(
        self,
        text: Any = None,
        text_target: Texts | None = None,
        max_length: int | None = None,
        max_target_length: int | None = None,
        truncation: bool | None = None,
        padding: bool | str = True,
        return_tensors: str | None = "pt",
        embeddings: Any = None,
    ) -> BatchEncoding:
        """
        Makes the model's inputs of `text`, and of `text_target` if it is given.

        Args:
            text (`str` or `list[str]`): what the encoder reads; for the VAE the text to reconstruct. A processor of dialogues takes
                dialogues.
            text_target (`str` or `list[str]`, *optional*): y, one for each text; adds `labels`.
            max_length (`int`, *optional*): the number of tokens, in each vocabulary, that `text` is truncated to, for q(z|x,y)
                too. If both lengths are given, the pair that q reads has at most their sum: then y's end is cut.
            max_target_length (`int`, *optional*): the number of tokens that y is truncated to, its EOS included.
            truncation (`bool`, *optional*): whether to truncate; by default only if a length is given. `True` without a length
                truncates to the tokenizer's `model_max_length`.
            padding (`bool` or `str`, defaults to `True`): `True` or `"longest"` pads to the longest row, `"max_length"` to
                `max_length` and `max_target_length` (a pair to their sum), `False` does not pad.
            return_tensors (`str`, *optional*, defaults to `"pt"`): `"pt"` or `"np"`; `None` gives unpadded lists.
            embeddings (tensor, array or list of shape `(rows, embedding_size)`): in the place of `text`, if the model reads given
                vectors. A single vector makes a single row.

        Returns:
            `BatchEncoding` with `input_ids` and `attention_mask`, or with `embeddings`; and `labels` (-100 on padding) if there is
            a target.

        Raises:
            ValueError: a text is empty, a vector is not what the model reads, texts and targets differ in number, a length leaves
                no token of the text, or the padding needs a length that is not given.
        """
        if return_tensors is None and padding == "max_length":
            raise ValueError(
                "`padding='max_length'` pads tensors, and `return_tensors=None` gives unpadded lists: leave one of them out."
            )
        name = "text" if self.embedding_size is None else "embeddings"
        self._check_given(text, embeddings, max_length)
        if max_target_length is not None:
            check_count("max_target_length", max_target_length)
        texts, single = self.batch(text if self.embedding_size is None else embeddings)
        targets = None if text_target is None else as_list("text_target", text_target)
        if targets is not None and len(targets) != len(texts):
            raise ValueError(f"`{name}` has {len(texts)} and `text_target` {len(targets)} rows: give one target for each.")
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

    def _check_given(self, text: Any, embeddings: Any, max_length: int | None) -> None:
        """Raises a `ValueError` unless the model reads what is given."""
        if self.embedding_size is None:
            if embeddings is not None:
                raise ValueError("`embeddings` are given, and this processor's model reads texts with an encoder: give `text`.")
            check_text_length("max_length", max_length, self.encoder_tokenizer)
            return
        if text is not None:
            raise ValueError(
                f"`text` is given, and this processor's model reads vectors of {self.embedding_size} numbers and no texts: give "
                "`embeddings`, and y as `text_target`."
            )
        if max_length is not None:
            raise ValueError("`max_length` cuts texts that an encoder reads, and vectors are given: use `max_target_length`.")

    def batch(self, text: Any) -> tuple[list, bool]:
        """
        `text` as a list, and whether it was a single text; vectors, if the model reads those.

        Raises:
            ValueError: it is empty, or an item of it is not a text or a vector of the model's size.
        """
        if self.embedding_size is not None:
            vectors, single = as_vectors("embeddings", text, self.embedding_size)
            return list(vectors), single
        return as_list("text", text), isinstance(text, str)

    def features(self, texts: list, targets: list[str] | None, cuts: dict[str, dict[str, Any]]) -> dict[str, list]:
        """Unpadded token ids by the names of the model's arguments; `cuts` has tokenizers' options for text, target and pair."""
        features = {"embeddings": texts} if self.embedding_size is not None else dict(self._beginnings(texts, cuts["text"]))
        if targets is not None:
            features["labels"] = self.label_ids(targets, cuts["target"])
        return features

    def _beginnings(self, texts: list[str], cut: dict[str, Any]) -> BatchEncoding:
        """
        What q reads of texts that the decoder is scored on. If one is too long, its beginning is kept, as in the labels, whatever
        side the tokenizer cuts.
        """
        tokenizer = self.encoder_tokenizer
        side, tokenizer.truncation_side = tokenizer.truncation_side, "right"
        try:
            return tokenizer(texts, **cut)
        finally:
            tokenizer.truncation_side = side

    def label_ids(self, targets: list[str], cut: dict[str, Any]) -> list[list[int]]:
        """y and EOS in the decoder's vocabulary, nothing else. If y is too long, its beginning is kept."""
        # The tokenizer does not truncate here, because it may do so on the left.
        rows = self.tokenizer(targets, add_special_tokens=False)["input_ids"]
        if any(self.tokenizer.eos_token_id in row for row in rows):
            logger.warning_once(
                f"A target holds {self.tokenizer.eos_token!r}, which is read as the end of a text, so that a model learns to stop "
                "there: remove it from the texts, or load the tokenizer with `split_special_tokens=True`."
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
        Pads rows of features to one batch. The prompt is padded on the left, so that generated tokens follow it directly, and
        everything else on the right; labels are padded with -100. `padding="max_length"` pads to the two lengths, and a pair to
        their sum.

        Raises:
            ValueError: no model has an argument of a feature's name, a row is empty or all padding, `padding` is unknown, or
                `padding="max_length"` is given without the length.
        """
        check_choice("padding", padding, PADDINGS)
        batch: dict[str, list] = {}
        pair_length = None if max_length is None or max_target_length is None else max_length + max_target_length
        known = {"labels"}
        if self.embedding_size is not None:
            # A cached vector's column is called by what one row of it is.
            column = next((name for name in ("embeddings", "embedding") if name in features[0]), None)
            if column is not None:
                known.add(column)
                batch["embeddings"] = list(as_vectors(column, [row[column] for row in features], self.embedding_size)[0])
        for prefix, tokenizer, length in (
            ("", self.encoder_tokenizer, max_length),
            ("posterior_", self.encoder_tokenizer, pair_length),
            ("prompt_", self.tokenizer, None if max_length is None else max_length + self.template_length),
        ):
            tokens, mask, types = names = [f"{prefix}{name}" for name in ("input_ids", "attention_mask", "token_type_ids")]
            if tokenizer is None:
                continue
            columns = {name: [as_tokens(row[name]) for row in features] for name in names if name in features[0]}
            known.update(columns)
            if tokens not in columns:
                continue
            columns.setdefault(mask, [[1] * len(row) for row in columns[tokens]])
            check_rows(mask, columns[mask], any)
            fillings = {tokens: tokenizer.pad_token_id, mask: 0, types: tokenizer.pad_token_type_id}
            longest = padded_length(columns[tokens], padding, pad_to_multiple_of, length)
            for name, rows in columns.items():
                batch[name] = padded(rows, fillings[name], longest, on_the_left=prefix == "prompt_")
        if "labels" in features[0]:
            rows = [as_tokens(row["labels"]) for row in features]
            check_rows("labels", rows, len)
            batch["labels"] = padded(rows, -100, padded_length(rows, padding, pad_to_multiple_of, max_target_length))
        unknown = sorted(set(features[0]) - known)
        if unknown:
            raise ValueError(f"Features hold {', '.join(unknown)}, which no model of this kind reads: remove the column(s).")
        if return_tensors is not None:
            # NumPy reads lists several times faster than PyTorch.
            batch = {
                name: rows if name == "embeddings" else [np.array(row, dtype=np.int64) for row in rows]
                for name, rows in batch.items()
            }
        return BatchEncoding(batch, tensor_type=return_tensors)


def _with_padding(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """`tokenizer`, or a copy that pads with the EOS if it has no padding token."""
    if tokenizer.pad_token is None:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_text_length(name: str, length: int | None, encoder_tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises a `ValueError` if the encoder's special tokens fill `length`, so that nothing of a text would be read."""
    if length is None:
        return
    check_count(name, length)
    special = encoder_tokenizer.num_special_tokens_to_add()
    if length <= special:
        raise ValueError(
            f"`{name}` is {length}, and the encoder's tokenizer adds {special} special tokens to a text: it must be at least "
            f"{special + 1}."
        )


__all__ = ["VAEProcessor"]
