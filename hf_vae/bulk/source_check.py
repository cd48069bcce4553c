"""Whether a model holds the sources: looked at before the first text is generated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from ..encoders import longest_text, reserved_positions
from ..modeling_vae import VAEModel
from ..processing_vae import VAEProcessor
from ..unknown_words import texts_in, warn_of_unknown_words

# Sources that are tokenised at once.
CHUNK = 1000


class SourceCheck:
    """
    Tokenises sources, and remembers those that are too long.

    Args:
        model ([`VAEModel`]): the model.
        processor ([`VAEProcessor`]): its processor.
        name (`str`): what error messages call the sources.
        max_length (`int`, *optional*): truncates the sources.
        max_new_tokens (`int`): for which the decoder must have room behind a prompt.
    """

    def __init__(self, model: VAEModel, processor: VAEProcessor, name: str, max_length: int | None, max_new_tokens: int):
        self.processor, self.name, self.max_length, self.max_new_tokens = processor, name, max_length, max_new_tokens
        holds = longest_text(model.encoder.config, reserved_positions(model.encoder))
        self.limits = {"encoder": holds, "decoder": model.decoder.longest_text}
        self.too_long: dict[str, list[int]] = {part: [] for part in self.limits}
        self.longest = dict.fromkeys(self.limits, 0)
        self._chunk: list[Any] = []
        self._seen_first_chunk = False

    def add(self, source: Any, number: int) -> None:
        """One more source, the `number`-th; they come in their order."""
        self._chunk.append(source)
        if len(self._chunk) == CHUNK:
            self._read(number + 1 - CHUNK)

    def finish(self, count: int) -> None:
        """
        After the last of `count` sources.

        Raises:
            ValueError: sources are too long, or `max_new_tokens` leaves no room for any.
        """
        if self._chunk:
            self._read(count - len(self._chunk))
        for part, numbers in self.too_long.items():
            if not numbers:
                continue
            shown = ", ".join(map(str, numbers[:10])) + (", …" if len(numbers) > 10 else "")
            taken, holds = self.max_new_tokens if part == "decoder" else 0, cast(int, self.limits[part])
            if holds <= taken:
                raise ValueError(
                    f"`max_new_tokens` is {taken}, and the decoder holds {holds} tokens, those of a source among them: lower it."
                )
            room = f" beside `max_new_tokens` {self.max_new_tokens}" if part == "decoder" else ""
            lower = "Cut them with `max_length`" + (", or lower `max_new_tokens`" if part == "decoder" else "")
            raise ValueError(
                f"{len(numbers)} of {count} rows of {self.name} make more tokens than the {part} holds "
                f"({holds - taken}{room}), up to {self.longest[part] - taken}: row(s) {shown}, counted from 0. {lower}."
            )

    def _read(self, first: int) -> None:
        chunk, self._chunk = self._chunk, []
        try:
            features = self.processor(chunk, return_tensors=None, max_length=self.max_length)
        except ValueError as error:
            self._name_row(chunk, first)
            raise ValueError(f"Rows from {first} of {self.name}: {error}") from error
        if not self._seen_first_chunk:
            self._seen_first_chunk = True
            warn_of_unknown_words(self.processor.encoder_tokenizer, texts_in(chunk))
        counts = {"encoder": [_longest(row) for row in features["input_ids"]]}
        if "prompt_input_ids" in features:
            # The last token is written and not read, the start token is read and not written.
            counts["decoder"] = [len(row) + self.max_new_tokens for row in features["prompt_input_ids"]]
        for part, lengths in counts.items():
            limit = self.limits[part]
            if limit is not None:
                self.too_long[part] += [first + place for place, length in enumerate(lengths) if length > limit]
                self.longest[part] = max(self.longest[part], *lengths)

    def _name_row(self, chunk: Sequence[Any], first: int) -> None:
        """Raises the error of the first source that the processor refuses by itself, with its number."""
        for number, source in enumerate(chunk, start=first):
            try:
                self.processor([source], return_tensors=None, max_length=self.max_length)
            except ValueError as error:
                raise ValueError(f"Row {number} of {self.name}, counted from 0: {error}") from error


def _longest(row: Sequence) -> int:
    """Tokens of a text, or of the longest of its turns."""
    return max(map(len, row)) if row and isinstance(row[0], list) else len(row)
