"""
Vectors on disk, and what made them: a dataset with a fingerprint beside it, so that vectors of two embedders are never mixed up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value, concatenate_datasets, load_from_disk

from ..checks import check_count
from ..given_vectors import LENGTH_TOLERANCE, as_vectors
from ..processing_vae import as_list

FINGERPRINT = "fingerprint.json"


@dataclass(frozen=True)
class Fingerprint:
    """
    What made a vector of a text. Two embedders of one fingerprint give a text the same vector.

    Args:
        name (`str`): what the embedder is called: a folder's name, a Hub id, or the name of a closed service's model.
        size (`int`): numbers in a vector.
        normalized (`bool`): whether each vector has length 1.
        dtype (`str`, defaults to `"float32"`): of its weights, such as `"bfloat16"`.
        pooling (`str`, *optional*): how one vector is made of an encoder's states.
        weights (`str`, *optional*): digest of its weights; `None` of a closed embedder, which its name stands for.
        max_length (`int`, *optional*): the number of tokens that a text is cut to.
        tokenizer (`str`, *optional*): digest of its tokenizer, where what is kept is found by the tokens of a text.
    """

    name: str
    size: int
    normalized: bool
    dtype: str = "float32"
    pooling: str | None = None
    weights: str | None = None
    max_length: int | None = None
    tokenizer: str | None = None

    def differences(self, other: Fingerprint) -> dict[str, tuple[Any, Any]]:
        """In what the two differ, with the values of both. A name does not matter if the weights are known."""
        names = [each.name for each in fields(self)]
        if self.weights is not None and other.weights is not None:
            names.remove("name")
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def tell_from(self, other: Fingerprint) -> str:
        """In what this one, which was found, differs from the `other`, in words; nothing if they are the same."""
        pairs = self.differences(other).items()
        return "; ".join(f"`{name}` is {_short(was)} there and {_short(now)} here" for name, (was, now) in pairs)


def save_vectors(vectors: Dataset, folder: str | Path, fingerprint: Fingerprint) -> None:
    """Writes a dataset with a column of vectors, and beside it what made them. What was in the folder is overwritten."""
    vectors.save_to_disk(str(folder))
    write_fingerprint(folder, fingerprint)


def write_fingerprint(folder: str | Path, fingerprint: Fingerprint) -> None:
    """Says in `folder`, which is there, what made the vectors in it."""
    text = json.dumps(asdict(fingerprint), indent=2) + "\n"
    (Path(folder) / FINGERPRINT).write_text(text, encoding="utf-8")


def read_fingerprint(folder: str | Path) -> Fingerprint:
    """
    What made the vectors in `folder`.

    Raises:
        OSError: the folder has no fingerprint, or a damaged one.
    """
    path = Path(folder) / FINGERPRINT
    if not path.is_file():
        raise OSError(
            f"{folder} has no {FINGERPRINT}, so nobody can tell what made its vectors: remove the folder, and make them again."
        )
    try:
        return Fingerprint(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise OSError(f"{path} is damaged ({error}): remove the folder, and make its vectors again.") from None


def load_vectors(folder: str | Path, fingerprint: Fingerprint | None = None) -> Dataset:
    """
    The dataset that [`save_vectors`] or [`embed_texts`] wrote.

    Args:
        folder (`str`): where it lies.
        fingerprint ([`Fingerprint`], *optional*): that of the embedder in hand, such as `embedder.fingerprint`.

    Returns:
        `Dataset`, whose vectors are read from the disk as they are asked for.

    Raises:
        OSError: the folder has no fingerprint, or a damaged one.
        ValueError: another embedder made the vectors.
    """
    found = read_fingerprint(folder)
    shown = "" if fingerprint is None else found.tell_from(fingerprint)
    if shown:
        raise ValueError(
            f"The vectors in {folder} were made by another embedder ({shown}): name the embedder that made them, or another folder."
        )
    dataset = load_from_disk(str(folder))
    if not isinstance(dataset, Dataset):
        raise ValueError(f"{folder} holds several splits; name the folder of one of them.")
    return dataset


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:12]}…'"


def embed_texts(
    texts: Sequence[str],
    embedder: Callable[[Sequence[str]], Any],
    folder: str | Path | None = None,
    fingerprint: Fingerprint | None = None,
    batch_size: int = 1024,
) -> Dataset:
    """
    The vector of each text, computed once. If `folder` holds those of the same texts by the same embedder already, they are
    read from there.

    Args:
        texts (`list[str]`): the texts.
        embedder (callable): gives for a list of texts a tensor or array `(texts, size)` of floats: a
            [`~hf_vae.evaluation.TextEmbedder`], or a function of yours that asks a service.
        folder (`str`, *optional*): where the vectors are kept, with what made them.
        fingerprint ([`Fingerprint`], *optional*): of an embedder that has no `fingerprint` of its own. Needed with a `folder`.
        batch_size (`int`, defaults to 1024): texts that the embedder is given at once.

    Returns:
        `Dataset` with the columns `text` and `embedding`, in the order of `texts`.

    Raises:
        ValueError: no text, nothing that says what the embedder is, vectors that are not as its fingerprint says, or a folder with
            the vectors of another embedder or of other texts.
    """
    texts = as_list("texts", list(texts))
    check_count("batch_size", batch_size)
    fingerprint = getattr(embedder, "fingerprint", None) if fingerprint is None else fingerprint
    if folder is not None and fingerprint is None:
        raise ValueError("`fingerprint` is missing: `embedder` has none, and vectors on disk must say what made them.")
    if folder is not None and Path(folder).is_dir() and any(Path(folder).iterdir()):
        found = load_vectors(folder, fingerprint)
        if found["text"][:] != texts:
            raise ValueError(
                f"`folder` is {folder}, which holds the vectors of {len(found)} other texts: name another folder, or remove it."
            )
        return found

    features = Features({"text": Value("string"), "embedding": List(Value("float32"))})
    batches = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]
    parts = [{"text": batch, "embedding": list(_checked(embedder(batch), len(batch), fingerprint))} for batch in batches]
    vectors = concatenate_datasets([Dataset.from_dict(part, features=features) for part in parts])
    if folder is not None and fingerprint is not None:
        save_vectors(vectors, folder, fingerprint)
        vectors = load_vectors(folder)
    return vectors


def _checked(vectors: Any, rows: int, fingerprint: Fingerprint | None) -> np.ndarray:
    """What the embedder gave, or a `ValueError` if it is not what was asked for."""
    size = np.shape(vectors)[-1] if fingerprint is None and np.ndim(vectors) else getattr(fingerprint, "size", 1)
    array, single = as_vectors("embedder(texts)", vectors, size)
    if single or len(array) != rows:
        raise ValueError(f"`embedder` gave an array of shape {np.shape(vectors)} for {rows} texts: give one vector for each.")
    wrong = max(np.linalg.norm(array, axis=-1).tolist(), key=lambda length: abs(length - 1))
    if fingerprint is not None and fingerprint.normalized and abs(wrong - 1) > LENGTH_TOLERANCE:
        raise ValueError(
            f"`fingerprint` says that vectors have length 1, and `embedder` gave one of length {wrong:.3g}: say "
            "`normalized=False`, or divide each by its length."
        )
    return array


__all__ = ["Fingerprint", "embed_texts", "load_vectors", "read_fingerprint", "save_vectors", "write_fingerprint"]
