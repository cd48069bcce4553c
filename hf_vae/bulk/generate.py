"""Texts for many sources, in blocks: what processes write together is appended in order, and a kill loses at most one block."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from tqdm.auto import tqdm

from ..checks import check_count, check_seed
from ..evaluation.distributed import batches_shown_by, map_examples
from ..modeling_vae import VAEModel
from ..processing_vae import VAEProcessor, check_text_length
from .output_file import OutputFile
from .settings import fingerprint, settle
from .source_check import SourceCheck
from .sources import FileRows, Sources, shown_source

logger = logging.getLogger(__name__)
Decision = TypeVar("Decision")


@dataclass(frozen=True)
class GeneratedFile:
    """
    A file of outputs, finished.

    Args:
        path (`str`): where it lies.
        rows (`int`): its rows, as many as there are sources.
        generated (`int`): how many of them this call has written.
    """

    path: str
    rows: int
    generated: int

    def __str__(self) -> str:
        if not self.generated:
            return f"{self.path} is finished: it has the outputs of all {self.rows} sources. Nothing was generated."
        before = self.rows - self.generated
        went_on = f" {before} of them were there before." if before else ""
        return f"{self.path} has the outputs of {self.rows} sources.{went_on}"


def generate_to_file(
    model: VAEModel,
    processor: VAEProcessor,
    rows: str | Path | Iterable[Any],
    path: str | Path,
    num: int = 10,
    seed: int = 0,
    latent_source: str | None = None,
    latent_temperature: float | None = None,
    latent_spread: str | None = None,
    source_column: str | None = None,
    max_rows: int | None = None,
    max_length: int | None = None,
    batch_size: int = 32,
    block_size: int = 512,
    name: str | None = None,
    **generation_options,
) -> GeneratedFile:
    r"""
    Several texts for each source, from file to file. Called again with the same arguments it goes on where it was stopped, and of a
    finished file it changes nothing. Memory does not grow with the number of sources.

    All that is random in a row follows from the seed and the row's number. Batches are made in blocks of the file, whatever the
    number of processes and wherever a run was stopped, so the file is the same in any case, up to what other hardware rounds.

    Args:
        model ([`VAEModel`]): any model of the family, on its device; put into evaluation mode.
        processor ([`VAEProcessor`]): its processor.
        rows (`str`, `Path` or `Iterable`): the name of a `.txt`, `.jsonl`, `.csv`, `.tsv` or `.json` file; or a `Dataset`, an
            `IterableDataset`, a list of rows or of sources. Of a dialogue model rows have `turns`, and the reply to the last one is
            written: by `response_speaker`, with the `act`, if the row has them. They are read twice: all are checked before the
            first is used.
        path (`str`): JSON lines, one for each source in the same order: `source`; `outputs`, a list of texts; `seed`; and `nats`,
            \(-\log p(y|x,z)\) of each output given its z, its EOS counted if it has one. What the file was written with stands in
            `PATH.run` beside it.
        num (`int`, defaults to 10): texts for each source, each with its own z.
        seed (`int`, defaults to 0): of all noise.
        latent_source, latent_temperature, latent_spread (*optional*): as `generate` takes them. Of a VAE z is drawn from
            q(z|y) of the source by default, of a conditional model from the prior.
        source_column (`str`, *optional*): the column of the sources; by default `source`, or `text` if there is none.
        max_rows (`int`, *optional*): use this many rows at most, from the first. It may grow from call to call, and so may `rows`.
        max_length (`int`, *optional*): truncates the sources.
        batch_size (`int`, defaults to 32): sources at once.
        block_size (`int`, defaults to 512): sources that the processes share, sorted by length, and that are written together.
        name (`str`, *optional*): what error messages call the rows.
        generation_options: of `generate`, such as `max_new_tokens`, `num_beams` or `do_sample`. With `do_sample` tokens are drawn
            with the row's own random numbers, by `temperature`, `top_k` and `top_p`.

    Returns:
        [`GeneratedFile`].

    Raises:
        FileNotFoundError: `rows` ends like a file and there is no such file.
        ValueError: an option that is out of range or has no place here, `rows` that name no file, a source without a text or one
            that is too long, or a file that something else has written or that has other sources. Nothing has been changed then.
    """
    counts = {"num": num, "batch_size": batch_size, "block_size": block_size}
    for argument, count in {**counts, **({} if max_rows is None else {"max_rows": max_rows})}.items():
        check_count(argument, count)
    check_seed("seed", seed)
    if processor.embedding_size is not None:
        raise ValueError(
            f"`model` reads vectors of {processor.embedding_size} numbers, and `rows` hold texts: use `hf_vae.latent_space.invert`."
        )
    check_text_length("max_length", max_length, processor.encoder_tokenizer)
    if isinstance(rows, (str, Path)):
        rows = FileRows.named(str(rows))
    check_path(path, rows.path if isinstance(rows, FileRows) else None)
    writer, settings = settle(
        model.eval(), processor, num, seed, latent_source, latent_temperature, latent_spread, max_length, generation_options
    )
    name = name or (rows.path if isinstance(rows, FileRows) else "`rows`")
    sources = Sources(rows, processor, name, source_column, max_rows)
    state = PartialState()
    if state.num_processes * batch_size > block_size and state.is_main_process:
        logger.warning(
            "A block of %d sources has fewer batches of %d than there are processes (%d), and some have nothing to do: raise "
            "`block_size`.",
            block_size, batch_size, state.num_processes,
        )  # fmt: skip
    output = OutputFile(path, settings)

    def prepare() -> tuple[int, int]:
        output.settings |= {"model": model.name_or_path, "weights": fingerprint(model)}
        output.check_settings()
        check = SourceCheck(model, processor, name, max_length, writer.options["max_new_tokens"])
        done, total = compare(sources, output, check)
        if done < total or output.is_torn:
            output.start()
        return done, total

    done, total = decided_by_main(state, prepare)
    # The block that was stopped in is generated anew, so that its batches are the same; what is there is not written twice.
    begin = total if done == total else done - done % block_size
    silent = not state.is_main_process or begin == total
    bar = tqdm(total=total, initial=done, unit="source", desc="generating", delay=1, disable=silent)
    try:
        for first, block in blocks(sources, begin, total, block_size):
            with batches_shown_by(lambda batches, _: shown(bar, batches, state.num_processes)):
                written = map_examples(
                    lambda indices, first=first, block=block: writer.write(  # type: ignore[misc]
                        [block[index] for index in indices], [first + index for index in indices]
                    ),
                    [len(str(source)) for source in block],
                    batch_size,
                    "generating",
                )
            if state.is_main_process:
                output.append(written[max(done - first, 0) :])
            bar.update(first + len(block) - bar.n)
    finally:
        bar.close()
        output.close()
    state.wait_for_everyone()
    return GeneratedFile(str(path), total, total - done)


def check_path(path: str | Path, rows: Any = None) -> None:
    """
    Raises a `ValueError` if outputs cannot be written to `path`: it is a directory or no file of JSON lines, or the sources are
    read from it.
    """
    if Path(path).suffix != ".jsonl":
        raise ValueError(f"The outputs are JSON lines, and {path} does not end in .jsonl: name such a file.")
    if Path(path).is_dir():
        raise ValueError(f"{path} is a directory; name a file in it.")
    if isinstance(rows, str) and Path(path).resolve() == Path(rows).resolve():
        raise ValueError(f"{path} is the file of the sources; name another one for the outputs.")


def compare(sources: Sources, output: OutputFile, check: SourceCheck) -> tuple[int, int]:
    """
    How many rows are written, and how many sources there are. Sources that have no row yet are checked.

    Raises:
        ValueError: a row has another source, there are more rows than sources, or a source is refused.
    """
    written = output.rows()
    done = total = 0
    for number, source in enumerate(tqdm(sources, unit="source", desc="checking", leave=False, delay=2)):
        row = next(written, None)
        total += 1
        if row is None:
            check.add(source, number)
            continue
        done += 1
        if row["source"] != shown_source(source):
            raise ValueError(
                f"Row {number} of {output.path}, counted from 0, was written for another source than that of {sources.name}: "
                f"{str(row['source'])[:60]!r}. Name another file for the outputs."
            )
    if next(written, None) is not None:
        raise ValueError(
            f"{output.path} has more rows than there are sources in {sources.name} ({total}): name another file for the outputs."
        )
    check.finish(total)
    return done, total


def blocks(sources: Iterable[Any], first: int, total: int, size: int) -> Iterator[tuple[int, list[Any]]]:
    """Blocks of sources from the `first` on, a multiple of `size`, each with the number of its first source."""
    if first >= total:
        return
    rest = itertools.islice(sources, first, total)
    while block := list(itertools.islice(rest, size)):
        yield first, block
        first += len(block)


def shown(bar: tqdm, batches: Iterable[list[int]], processes: int) -> Iterator[list[int]]:
    """This process's batches; the bar moves as if the others were as fast."""
    for batch in batches:
        yield batch
        bar.update(min(len(batch) * processes, cast(int, bar.total) - bar.n))


def decided_by_main(state: PartialState, decide: Callable[[], Decision]) -> Decision:
    """What `decide` gives on the main process, or the error that it raises there, on all of them."""
    outcome: list[Any] = [None, None]
    if state.is_main_process:
        try:
            outcome[0] = decide()
        except (ValueError, OSError) as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return cast(Decision, outcome[0])
