"""
Peak memory of the bulk generation by the number of sources, and its rate beside `generate_texts`.

    python -m benchmarks.bulk_generation memory --sources 100000
    python -m benchmarks.bulk_generation rate

`memory` takes a tiny model with random weights, two outputs of two tokens for each source. `rate` takes the packaged paraphrase
model, ten outputs of each of 128 sentences of the grammar, greedy.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor

import hf_vae
from hf_vae import ParaphraseVAEConfig, ParaphraseVAEModel, ParaphraseVAEProcessor
from hf_vae.bulk import generate_to_file
from hf_vae.cli.from_scratch import small_configs, train_tokenizers
from hf_vae.data import grammar
from hf_vae.evaluation import generate_texts


def peak_memory() -> float:
    """MiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_memory(sources: int, folder: Path) -> dict[str, float]:
    """Peak MiB before the first source and in the end, and the seconds."""
    sentences = grammar.draw_sentences(200, seed=0)
    tokenizer, encoder_tokenizer = train_tokenizers(sentences, 300, "word")
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    encoder, decoder = small_configs(tokenizer, **sizes)
    torch.manual_seed(0)
    model = ParaphraseVAEModel(ParaphraseVAEConfig(encoder=encoder, decoder=decoder, latent_size=4))
    processor = ParaphraseVAEProcessor(tokenizer, encoder_tokenizer)
    draw = random.Random(0)
    with (folder / "sources.txt").open("w", encoding="utf-8") as file:
        file.writelines(f"{draw.choice(sentences)}\n" for _ in range(sources))
    before, start = peak_memory(), time.perf_counter()
    options = {"num": 2, "max_new_tokens": 2, "batch_size": 256}
    generate_to_file(model, processor, str(folder / "sources.txt"), folder / "outputs.jsonl", **options)
    return {"before": before, "peak": peak_memory(), "seconds": time.perf_counter() - start}


def measure_rate(sources: int, folder: Path) -> dict[str, float]:
    """Texts per second of this process's own time, by what wrote them."""
    name = hf_vae.demo("paraphrase")
    model, processor = AutoModel.from_pretrained(name).eval(), AutoProcessor.from_pretrained(name)
    texts = list(dict.fromkeys(grammar.draw_sentences(4 * sources, seed=1)))[:sources]
    single = texts[: max(1, sources // 4)]

    def to_file(batch_size: int) -> None:
        path = folder / f"outputs_{batch_size}.jsonl"
        generate_to_file(model, processor, texts, path, num=10, batch_size=batch_size)

    ways: dict[str, tuple[Callable[[], object], int]] = {
        "`generate_texts`, a source a call": (
            lambda: [generate_texts(model, processor, [text], 10, do_sample=False) for text in single],
            len(single),
        ),
        "`generate_texts`, batches of 32": (
            lambda: generate_texts(model, processor, texts, 10, batch_size=32, do_sample=False),
            sources,
        ),
        "`generate_to_file`, batches of 32": (lambda: to_file(32), sources),
        "`generate_to_file`, batches of 8": (lambda: to_file(8), sources),
    }
    generate_texts(model, processor, single, 10, do_sample=False)
    rates = {}
    for way, (write, count) in ways.items():
        start = time.process_time()
        write()
        rates[way] = 10 * count / (time.process_time() - start)
    return rates


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("memory", "rate"))
    parser.add_argument("--sources", type=int, help="1,000 for memory and 128 for the rate by default")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "memory":
            found, unit = measure_memory(options.sources or 1000, Path(folder)), ""
        else:
            found, unit = measure_rate(options.sources or 128, Path(folder)), " texts per CPU second"
    for name, value in found.items():
        print(f"{name}: {value:.0f}{unit}")


if __name__ == "__main__":
    main()
