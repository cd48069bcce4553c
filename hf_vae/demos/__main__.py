"""
Trains both demo models by the recipes of the embedded grammar, and puts them into the package:

    python -m hf_vae.demos FOLDER

A model that is already in FOLDER is packed as it is, so that a second call does not train again. The one of sentences is given
attributes: mood, voice and the place of the time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from transformers import AutoModel, AutoProcessor

from ..cli.tasks import paraphrase, vae
from ..latent_space.grammar_probe import grammar_attributes
from .folders import FOLDER
from .packing import pack

# What trains each demo, with which arguments, and what its card calls it. A vocabulary of whole words, as the sentences' recipe has
# it, knows which words it does not know; byte-level BPE would spell them.
DEMOS = {
    "sentences": (vae.main, [], "VAE of sentences (`VAEModel`)"),
    "paraphrase": (paraphrase.main, ["--tokenizer_type", "word", "--seed", "0"], "VAE of paraphrases (`ParaphraseVAEModel`)"),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m hf_vae.demos", description="Trains the demo models and packs them.")
    parser.add_argument("folder", type=Path, help="Where the trained models lie, or will lie: metrics and pictures stay here.")
    work = parser.parse_args(argv).folder
    for name, (train, arguments, kind) in DEMOS.items():
        trained = work / name
        if not (trained / "metrics.json").is_file():
            train([*arguments, "--output_dir", str(trained)])
        attributes = {}
        if name == "sentences":
            attributes = grammar_attributes(AutoModel.from_pretrained(trained), AutoProcessor.from_pretrained(trained))
        pack(trained, FOLDER / name, kind, attributes)
        print(f"{FOLDER / name}: {sum(path.stat().st_size for path in (FOLDER / name).rglob('*') if path.is_file()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
