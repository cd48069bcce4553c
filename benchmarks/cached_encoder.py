"""
Training steps with a frozen encoder that runs in each step, and with its outputs read from disk.

    python -m benchmarks.cached_encoder --encoder ENCODER --train_file FILE [--rows 6400] [--steps 100] [--write]

ENCODER is a pretrained encoder of BERT's kind, FILE has the columns `source` and `targets`. The decoder is small and from scratch:
a Llama, or a GPT-2 where it has cross-attention. Three models are trained by the plain Trainer, each `--steps` steps with the
encoder and as many with its outputs: a VAE of the targets; paraphrases whose p(z|x) reads x, with x in the decoder's prompt; and
paraphrases whose decoder reads x by cross-attention. `--write` puts the table into docs/measured/benchmarks.md.

Seconds are those of the process on its cores: other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoModel, Trainer, TrainingArguments, set_seed

from hf_vae import (
    ParaphraseVAEConfig,
    ParaphraseVAEModel,
    ParaphraseVAEProcessor,
    VAEConfig,
    VAEDataCollator,
    VAEModel,
    VAEProcessor,
)
from hf_vae.cli.from_scratch import small_configs, train_tokenizers
from hf_vae.data import expand_targets, load_pairs
from hf_vae.processing_vae import load_tokenizer
from hf_vae.training import cache_encoder_outputs

from .report import markdown_table, write_between

PAGE = Path(__file__).parent.parent / "docs" / "measured" / "benchmarks.md"
MARKS = ("<!-- cached encoder -->", "<!-- end of cached encoder -->")
KINDS: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "VAE": (VAEModel, VAEConfig, VAEProcessor, {}),
    "paraphrases, p(z\\|x), x in the prompt": (
        ParaphraseVAEModel, ParaphraseVAEConfig, ParaphraseVAEProcessor, {"prior_type": "conditional", "pooling": "target"},
    ),
    "paraphrases, cross-attention": (
        ParaphraseVAEModel, ParaphraseVAEConfig, ParaphraseVAEProcessor,
        {"source_conditioning": "cross_attention", "pooling": "target"},
    ),
}  # fmt: skip


def build(kind: str, encoder_name: str, texts: Sequence[str], hidden_size: int, seed: int) -> tuple[Any, Any]:
    """A model of this kind around the frozen encoder and a small decoder, and its processor."""
    model_class, config_class, processor_class, options = KINDS[kind]
    tokenizer, _ = train_tokenizers(texts, vocab_size=4000)
    conditioning = {"source_conditioning": options["source_conditioning"]} if "source_conditioning" in options else {}
    processor = processor_class(tokenizer, load_tokenizer(encoder_name), **conditioning)
    set_seed(seed)
    encoder = AutoModel.from_pretrained(encoder_name, add_pooling_layer=False).requires_grad_(False)
    kind_of_decoder = "gpt2" if conditioning else "llama"
    _, decoder = small_configs(tokenizer, decoder_type=kind_of_decoder, hidden_size=hidden_size, decoder_layers=3)
    config = config_class(encoder=encoder.config, decoder=decoder, latent_size=32, **options)
    return model_class(config, encoder=encoder), processor


def train(model: Any, processor: Any, rows: Dataset, steps: int, batch_size: int, seed: int) -> float:
    """Seconds of the process for one step."""
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=batch_size, learning_rate=1e-3, save_strategy="no",
            report_to="none", disable_tqdm=True, logging_strategy="no", seed=seed, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = Trainer(model, settings, train_dataset=rows, data_collator=VAEDataCollator(processor))
        started = time.process_time()
        trainer.train()
        return (time.process_time() - started) / steps


def measure(kind: str, options: argparse.Namespace, pairs: Dataset) -> dict[str, Any]:
    texts = [*pairs["source"], *pairs["target"]]
    set_seed(options.seed)
    model, processor = build(kind, options.encoder, texts, options.hidden_size, options.seed)
    given = (pairs["target"], pairs["target"]) if kind == "VAE" else (pairs["source"], pairs["target"])
    lengths = {"max_length": 32, "max_target_length": 32}
    rows = Dataset.from_dict(dict(processor(*given, return_tensors=None, **lengths)))
    run = (processor, rows, options.steps, options.batch_size, options.seed)
    # The first steps of a process are slower.
    train(model, processor, rows, 3, options.batch_size, options.seed)
    without = train(model, *run)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        outputs = cache_encoder_outputs(model, processor, rows, folder)
        encoded = time.process_time() - started
        with outputs:
            cached = train(model, *run)
        return {
            "kind": kind, "rows": len(rows), "without": without, "cached": cached, "encoded": encoded,
            "outputs": len(outputs), "bytes": outputs.num_bytes, "misses": outputs.misses,
        }  # fmt: skip


def table(measured: Sequence[dict[str, Any]]) -> str:
    head = ("", "a step, the encoder runs", "a step, from disk", "", "encoding 1,000 examples once", "outputs", "on disk")
    rows = [
        (
            each["kind"], f"{each['without']:.3f} s", f"{each['cached']:.3f} s", f"{each['without'] / each['cached']:.1f} times",
            f"{1000 * each['encoded'] / each['rows']:.1f} s", f"{each['outputs']:,}", f"{each['bytes'] / 2**20:.1f} MiB",
        )
        for each in measured
    ]  # fmt: skip
    return markdown_table(head, rows) + "\n"


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--train_file", required=True)
    parser.add_argument("--rows", type=int, default=6400, help="Pairs that are trained on.")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--hidden_size", type=int, default=192, help="Of the decoder, which has three layers.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(argv)
    pairs = expand_targets(load_pairs(options.train_file, "train")).shuffle(seed=options.seed)
    pairs = pairs.select(range(min(options.rows, len(pairs))))
    measured = []
    for kind in KINDS:
        measured.append(measure(kind, options, pairs))
        print(measured[-1], flush=True)
    print(table(measured))
    if options.write:
        write_between(PAGE, MARKS, table(measured))
    return measured


if __name__ == "__main__":
    main()
