"""
What z is for, measured where the truth is known: on the embedded grammar.

    python -m benchmarks.what_z_is_for [MODEL] [--sentences DIR] [--baseline DIR] [--write]

MODEL is a paraphrase model of the grammar, and `--sentences` names a sentence VAE of it: by default the demos. `--baseline` names
the paraphrase model without z, which `examples/train_paraphrase.py --with_baseline` leaves in `baseline/`. `--write` puts the table
into the README, and needs the baseline.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoProcessor

import hf_vae
from hf_vae.data import grammar
from hf_vae.evaluation import generate_texts
from hf_vae.latent_space import reconstruct
from hf_vae.latent_space.grammar_probe import form_transfer, grammar_metrics

from .report import markdown_table, write_between

README = Path(__file__).parent.parent / "README.md"
MARKS = ("<!-- what z is for -->", "<!-- end of what z is for -->")
SEED, OUTPUTS = 0, 10
GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 24}
BEAMS: dict[str, Any] = {"do_sample": False, "num_beams": OUTPUTS, "max_new_tokens": 24}
SAMPLING: dict[str, Any] = {"do_sample": True, "top_k": 0, "max_new_tokens": 24}


def load(folder: str) -> tuple[Any, Any]:
    return AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def ten_outputs(model: Any, processor: Any, num_sources: int, num_timed: int, without_z: bool, **options) -> dict[str, float]:
    """How many of ten outputs are right and different, and the milliseconds that they take for one source by itself."""
    sources = [row["source"] for row in grammar.draw_pairs(num_sources, SEED)]
    latents = torch.zeros(num_sources, 1, model.config.total_latent_size) if without_z else None
    torch.manual_seed(SEED)
    outputs = generate_texts(model, processor, sources, OUTPUTS, latents, seed=SEED, **options)
    judged = grammar.judge(outputs, sources)
    distinct = sum(len(set(texts)) for texts in outputs) / num_sources

    def once(source: str) -> float:
        start = time.perf_counter()
        generate_texts(model, processor, [source], OUTPUTS, None if latents is None else latents[:1], **options)
        return 1000 * (time.perf_counter() - start)

    once(sources[0])
    spent = statistics.median(once(source) for source in sources[:num_timed])
    return {"distinct": distinct, "distinct_correct": judged["distinct_correct"], "meaning": judged["meaning_kept"], "ms": spent}


def measure(model: str, sentences: str, baseline: str | None, num: int = 500, num_timed: int = 50) -> dict[str, dict[str, float]]:
    """All that the table shows. `num` is the number of held-out texts; no default training sees the first 500."""
    paraphrase = load(model)
    pairs = [(row["source"], row["targets"][0]) for row in grammar.draw_pairs(min(num, 200), SEED)]
    measured = {
        "transfer": form_transfer(*paraphrase, pairs, SEED, max_new_tokens=24),
        "z": ten_outputs(*paraphrase, num, num_timed, without_z=False, **GREEDY),
        "spread": ten_outputs(*paraphrase, num, num_timed, without_z=False, latent_spread="repelled", **GREEDY),
    }
    if baseline:
        without = load(baseline)
        measured["beam"] = ten_outputs(*without, num, num_timed, without_z=True, **BEAMS)
        measured["sampling"] = ten_outputs(*without, num, num_timed, without_z=True, **SAMPLING)
    vae, processor = load(sentences)
    texts = grammar.draw_sentences(num, SEED)
    again = reconstruct(vae, processor, texts, **GREEDY).texts
    probed = grammar_metrics(vae, processor, texts, num, min(num, 100), min(num, 50), max_new_tokens=24)
    measured["sentences"] = {"exact": sum(map(str.__eq__, again, texts)) / num, **probed}
    return measured


def table(measured: dict[str, dict[str, float]]) -> str:
    """The table in Markdown; a column without a measurement is left out."""
    columns = {"z": "with z: ten z, greedy", "beam": "without z: ten beams", "sampling": "without z: ten samples"}
    columns = {name: title for name, title in columns.items() if name in measured}
    transfer, sentences = measured["transfer"], measured["sentences"]

    def row(label: str, cell: Callable[[dict[str, float]], str]) -> list[str]:
        return [label, *(cell(measured[name]) for name in columns)]

    def only_z(label: str, value: str) -> list[str]:
        return [label, value, *["cannot"] * (len(columns) - 1)]

    return markdown_table(
        ["", *columns.values()],
        [
            only_z("form transfer: exactly the form of another pair", f"{100 * transfer['form_transfer']:.0f} %"),
            only_z("a sentence from its z, word for word", f"{100 * sentences['exact']:.1f} %"),
            only_z("arithmetic: one factor changed, all else kept", f"{100 * sentences['arithmetic']:.0f} %"),
            row("distinct correct paraphrases in ten", lambda each: f"{each['distinct_correct']:.2f}"),
            only_z("the same, by z that repel each other", f"{measured['spread']['distinct_correct']:.2f}"),
            row("outputs that keep the meaning", lambda each: f"{100 * each['meaning']:.1f} %"),
            row("milliseconds for the ten", lambda each: f"{each['ms']:.0f}"),
        ],
    )


def write(text: str) -> None:
    """Puts `text` between the marks in the README."""
    write_between(README, MARKS, text)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.what_z_is_for", description="What z is for, on the grammar.")
    parser.add_argument("model", nargs="?", default=hf_vae.demo("paraphrase"), help="A paraphrase model of the grammar.")
    parser.add_argument("--sentences", default=hf_vae.demo("sentences"), help="A sentence VAE of the grammar.")
    parser.add_argument("--baseline", help="The paraphrase model trained without z.")
    parser.add_argument("--write", action="store_true", help="Put the table into the README.")
    arguments = parser.parse_args(argv)
    if arguments.write and not arguments.baseline:
        parser.error("--write needs --baseline: the table compares with the model without z.")
    torch.set_num_threads(1)
    measured = measure(arguments.model, arguments.sentences, arguments.baseline)
    for name, values in measured.items():
        print(name, {key: round(value, 3) for key, value in values.items()})
    print(table(measured))
    if arguments.write:
        write(table(measured))


if __name__ == "__main__":
    main()
