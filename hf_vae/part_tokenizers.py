"""The tokenizers of an encoder and a decoder, as they were published or as a processor has saved them."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from .saved_files import HUB_OPTIONS, read_json


def load_tokenizer(name_or_path: str) -> PreTrainedTokenizerBase:
    """
    `AutoTokenizer.from_pretrained`, for a part that may have been saved without its tokenizer.

    Raises:
        OSError, ValueError: there is no tokenizer. For several families transformers then makes one up, which knows only special
            tokens and reads every text as empty.
    """
    tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    if not knows_words(tokenizer):
        raise ValueError(f"{name_or_path} holds no tokenizer: save the part's own there, with `tokenizer.save_pretrained`.")
    return tokenizer


def knows_words(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the vocabulary holds more than special tokens."""
    return not set(tokenizer.get_vocab().values()) <= set(tokenizer.all_special_ids)


def load_saved_tokenizer(name_or_path: Any, subfolder: str, **kwargs) -> PreTrainedTokenizerBase:
    """
    Loads a tokenizer that a processor has saved.

    Raises:
        OSError: one of its files is missing or damaged.
        ValueError: its code lies in another repository.
    """
    where = {**{name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}, "subfolder": subfolder}
    place = PurePosixPath(str(name_or_path), subfolder)
    auto_map = read_json(name_or_path, "tokenizer_config.json", **where).get("auto_map")
    if kwargs.get("trust_remote_code") and "--" in str(auto_map):
        raise ValueError(
            f"The tokenizer in {place} names code of another repository ({auto_map}), which `trust_remote_code` does not reach: "
            "read that code, load the tokenizer from there, and make a processor of it, such as `VAEProcessor(tokenizer, "
            "encoder_tokenizer)`."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, subfolder=subfolder, **kwargs)
    except ImportError:
        # A package is missing, and its error says which one.
        raise
    # Each library raises another error for a damaged file, and few of them name the file.
    except Exception as error:
        read_json(name_or_path, "tokenizer.json", **where)
        raise OSError(f"The tokenizer in {place} cannot be loaded ({error}): fetch or copy it again.") from error
    if not knows_words(tokenizer):
        raise OSError(f"The tokenizer in {place} has no words, because its tokenizer.json is missing: fetch or copy it again.")
    return tokenizer
