"""What stands between a model and its frozen encoder: the encoder's outputs, from disk if they are there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.stored_rows import KEY_BYTES, RowWriter, StoredRows
from ..data.vectors import FINGERPRINT, Fingerprint, read_fingerprint, write_fingerprint
from ..encoders import pool_text, reads_types, run_encoder
from ..saved_files import module_digest

# What numpy has no type for is kept as whole numbers of the same bits.
_STORED_AS = {torch.float64: "<f8", torch.float32: "<f4", torch.float16: "<f2", torch.bfloat16: "<i2"}


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """The SHA-256 digest, in hexadecimal digits, of what makes tokens of a text: how long it may be is left out."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        content = {"vocabulary": tokenizer.get_vocab(), "special": tokenizer.special_tokens_map}
    else:
        content = json.loads(backend.to_str())
        # Set by the last call.
        for name in ("truncation", "padding"):
            content.pop(name, None)
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


class EncoderCache:
    """
    What stands at a frozen encoder's `output_cache`. It gives what the encoder would in evaluation mode, from disk if it is there.
    An output is found by the tokens that the encoder reads, their types and what the mask hides. So the padding, the batch, the
    dataset and who asks do not matter, and what is not there is computed.

    Args:
        encoder (`PreTrainedModel`): frozen.
        folder (`str`): where the outputs lie.
        tokenizer (`PreTrainedTokenizerBase`): the encoder's.

    Raises:
        OSError: what is in the folder is damaged.
        ValueError: the folder is that of another encoder or tokenizer, or outputs of this dtype cannot be kept.
    """

    def __init__(self, encoder: PreTrainedModel, folder: str | Path, tokenizer: PreTrainedTokenizerBase):
        self.encoder, self.folder = encoder, Path(folder)
        self.dtype = encoder.dtype
        config = encoder.config.get_text_config()
        if self.dtype not in _STORED_AS:
            raise ValueError(f"The encoder's weights are {self.dtype}, whose outputs cannot be kept: load it as a float type.")
        self.fingerprint = Fingerprint(
            name=config.model_type,
            size=config.hidden_size,
            normalized=False,
            dtype=str(self.dtype).removeprefix("torch."),
            weights=module_digest(encoder),
            tokenizer=tokenizer_digest(tokenizer),
        )
        self._check_folder()
        self._versions = self._weight_versions()
        self._reads_types = reads_types(encoder)
        self._stored = StoredRows(self.folder, config.hidden_size, _STORED_AS[self.dtype])
        self._writer: RowWriter | None = None
        self.hits = self.misses = 0

    def _check_folder(self) -> None:
        if not self.folder.exists():
            return
        if not self.folder.is_dir():
            raise ValueError(f"`folder` {self.folder} is a file: name a folder.")
        if not any(self.folder.iterdir()):
            return
        differences = read_fingerprint(self.folder).tell_from(self.fingerprint)
        if differences:
            raise ValueError(
                f"The outputs in {self.folder} are those of another encoder or tokenizer ({differences}): name another folder, or "
                "remove this one."
            )

    def __len__(self) -> int:
        """Outputs on disk; a text has one for each form in which it was asked for, its vector or its states."""
        return len(self._stored)

    @property
    def num_bytes(self) -> int:
        """Their size."""
        return self._stored.num_bytes

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Inside, what is computed is kept: it is on disk when the block has ended, and not at all if it is broken off."""
        if not (self.folder / FINGERPRINT).exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_fingerprint(self.folder, self.fingerprint)
        try:
            with self._stored.adding() as self._writer:
                yield
        finally:
            self._writer = None

    @torch.compiler.disable
    def states(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, token_type_ids: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        The last hidden states `(batch, length, hidden)`, 0 on padding, and the pooler's output `(batch, hidden)` or `None`.

        Raises:
            ValueError: the encoder is no longer frozen, or its weights have changed.
        """
        keys, lengths = self._keys("states", input_ids, attention_mask, token_type_ids)
        found = self._find(keys)
        rows, size = input_ids.shape[0], self.fingerprint.size
        states = torch.zeros(*input_ids.shape, size, dtype=self.dtype, device=input_ids.device)
        pooled = torch.zeros(rows, size, dtype=self.dtype, device=input_ids.device)
        has_pooler = False
        missing, present = np.flatnonzero(found < 0), np.flatnonzero(found >= 0)
        if len(missing):
            where = torch.from_numpy(missing).to(input_ids.device)
            read, pooler_output = self._run(*_rows(where, input_ids, attention_mask, token_type_ids))
            real = _places(lengths[missing], input_ids.shape[1]).to(read.device)
            states[where] = read * real.unsqueeze(-1)
            has_pooler = pooler_output is not None
            if pooler_output is not None:
                pooled[where] = pooler_output
            for row, number in enumerate(missing):
                # The pooler's output lies behind the states.
                further = () if pooler_output is None else (pooler_output[row : row + 1],)
                self._keep(keys[number], torch.cat([read[row, : lengths[number]], *further]))
        if len(present):
            stored, counts = self._read(found[present], input_ids.device)
            has_pooler = bool((counts > lengths[present]).all())
            is_state = _places(lengths[present], int(counts.max()))[_places(counts, int(counts.max()))].to(stored.device)
            shown = np.where(found >= 0, lengths, 0)
            states[_places(shown, input_ids.shape[1]).to(states.device)] = stored[is_state]
            if has_pooler:
                pooled[torch.from_numpy(present).to(pooled.device)] = stored[~is_state]
        return states, pooled if has_pooler else None

    @torch.compiler.disable
    def vectors(
        self, pooling: str, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, token_type_ids: torch.Tensor | None
    ) -> torch.Tensor:
        """
        One vector `(batch, hidden)` for each text, as `pooling` makes it.

        Raises:
            ValueError: the encoder is no longer frozen, or its weights have changed.
        """
        keys, _ = self._keys(f"vector {pooling}", input_ids, attention_mask, token_type_ids, pooling == "target")
        found = self._find(keys)
        vectors = torch.empty(len(keys), self.fingerprint.size, dtype=self.dtype, device=input_ids.device)
        missing, present = np.flatnonzero(found < 0), np.flatnonzero(found >= 0)
        if len(missing):
            where = torch.from_numpy(missing).to(input_ids.device)
            text = _rows(where, input_ids, attention_mask, token_type_ids)
            read = pool_text(pooling, self._run(*text), *text).to(vectors.dtype)
            vectors[where] = read
            for row, number in enumerate(missing):
                self._keep(keys[number], read[row : row + 1])
        if len(present):
            vectors[torch.from_numpy(present).to(vectors.device)] = self._read(found[present], vectors.device)[0]
        return vectors

    def _keys(
        self,
        kind: str,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        token_type_ids: torch.Tensor | None,
        pools_by_type: bool = False,
    ) -> tuple[list[bytes], np.ndarray]:
        """The key of each row, and how long it is without the padding behind it."""
        self._check_weights()
        tokens = input_ids.detach().cpu().numpy().astype("<i4")
        visible = np.ones_like(tokens, dtype=np.uint8)
        if attention_mask is not None:
            visible = (attention_mask != 0).cpu().numpy().astype(np.uint8)
        types = np.zeros_like(visible)
        # An encoder without types is given none, unless they say what is pooled. None are all of the first type.
        if token_type_ids is not None and (self._reads_types or pools_by_type):
            types = token_type_ids.cpu().numpy().astype(np.uint8)
        lengths = visible.shape[1] - visible[:, ::-1].argmax(1)
        start = hashlib.blake2b(f"{kind}\n".encode(), digest_size=KEY_BYTES)
        keys = []
        for row, length in enumerate(lengths):
            digest = start.copy()
            for part in (tokens, visible, types):
                digest.update(part[row, :length].tobytes())
            keys.append(digest.digest())
        return keys, lengths

    def _find(self, keys: list[bytes]) -> np.ndarray:
        found = self._stored.find(keys)
        self.hits += int((found >= 0).sum())
        self.misses += int((found < 0).sum())
        return found

    def _read(self, numbers: np.ndarray, device: torch.device) -> tuple[torch.Tensor, np.ndarray]:
        rows, counts = self._stored.read(numbers)
        return torch.from_numpy(rows).view(self.dtype).to(device), counts

    def _keep(self, key: bytes, rows: torch.Tensor) -> None:
        if self._writer is not None:
            stored = rows.to(self.dtype).cpu().contiguous()
            self._writer.add(key, stored.view(_bits(stored.dtype)).numpy())

    @torch.no_grad()
    def _run(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, token_type_ids: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        # Whoever trains the model has put its encoder into training mode, where dropout would be another in each epoch.
        self.encoder.eval()
        with torch.autocast(input_ids.device.type, enabled=False):
            return run_encoder(self.encoder, input_ids, attention_mask, token_type_ids)

    def _weight_versions(self) -> list[tuple[torch.dtype, int]]:
        return [(parameter.dtype, parameter._version) for parameter in self.encoder.parameters()]

    def _check_weights(self) -> None:
        if any(parameter.requires_grad for parameter in self.encoder.parameters()):
            check_frozen(self.encoder)
        if self._versions == self._weight_versions():
            return
        # Something was written into them: a checkpoint, which may well hold the same.
        if module_digest(self.encoder) != self.fingerprint.weights:
            raise ValueError(
                f"The encoder's weights have changed since its outputs were read from {self.folder}: call `remove()` of what "
                "`cache_encoder_outputs` has returned before they change."
            )
        self._versions = self._weight_versions()


def _rows(
    where: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, token_type_ids: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Some rows of a text."""
    mask = None if attention_mask is None else attention_mask[where]
    return input_ids[where], mask, None if token_type_ids is None else token_type_ids[where]


def _bits(dtype: torch.dtype) -> torch.dtype:
    return torch.int16 if dtype == torch.bfloat16 else dtype


def _places(lengths: np.ndarray, longest: int) -> torch.Tensor:
    """Which places of rows of these `lengths` are no padding, `(rows, longest)`."""
    return torch.from_numpy(np.arange(longest) < lengths[:, None])


def check_frozen(encoder: nn.Module) -> None:
    """Raises a `ValueError` that names weights of `encoder` that are trained."""
    trained = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    if trained:
        raise ValueError(
            f"The encoder has {len(trained)} trained weights ({', '.join(trained[:3])}, ...), so its outputs change and cannot be "
            "kept: freeze it with `requires_grad_(False)` (`--freeze_encoder`), and leave adapters out of it."
        )
