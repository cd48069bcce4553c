"""
Turns a checkpoint of Optimus (Li et al. 2020), as its authors published them, into a saved `VAEModel`.

    python -m hf_vae.convert_optimus_checkpoint \
        --encoder_dir checkpoint-encoder-508523 --decoder_dir checkpoint-decoder-508523 --output_dir optimus \
        --tokenizers bert-base-cased gpt2

An encoder's directory holds `config.json` and `pytorch_model.bin` of a BERT with a `linear` layer that gives mean and log variance;
a decoder's those of a GPT-2 with `linear` (memory) and `linear_emb` (embedding). Padding, start and end are the last three ids of
the decoder's vocabulary, in this order: Optimus added them to GPT-2's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import BertConfig, GPT2Config, PreTrainedConfig

from . import VAEConfig, VAEModel, VAEProcessor
from .configuration_vae import check_choice
from .processing_vae import load_tokenizer

INJECTIONS = {"memory": ("transformer.linear.weight", "decoder.latent_injection.memory.projection.weight"),
              "embedding": ("transformer.linear_emb.weight", "decoder.latent_injection.embedding.projection.weight")}  # fmt: skip
SPECIAL_TOKENS = {"pad_token": "<PAD>", "bos_token": "<BOS>", "eos_token": "<EOS>"}


def _read(directory: str | Path, argument: str, expected: Sequence[str]) -> tuple[dict, dict[str, torch.Tensor]]:
    """A directory's configuration and weights; `expected` are matrices that tell the layout."""
    directory = Path(directory)
    for name in ("config.json", "pytorch_model.bin"):
        if not (directory / name).is_file():
            raise ValueError(f"`{argument}` {directory} holds no {name}: give a directory as Optimus saves it.")
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"a {type(config).__name__}")
    except ValueError as error:
        raise ValueError(
            f"`{argument}` {directory}: config.json holds no settings by name ({error}); give the file that Optimus saved."
        ) from error
    try:
        weights = torch.load(directory / "pytorch_model.bin", map_location="cpu", weights_only=True)
        named = weights.items() if isinstance(weights, dict) else [(type(weights).__name__, weights)]
        others = [name for name, tensor in named if not (isinstance(name, str) and isinstance(tensor, torch.Tensor))]
        if others:
            raise TypeError(f"{others[:3]} are no tensors")
    # What is no checkpoint fails in as many ways as there are files.
    except Exception as error:
        raise ValueError(
            f"`{argument}` {directory}: pytorch_model.bin is no file of tensors alone, and nothing else is read from it "
            f"({type(error).__name__}: {error}); give the file that Optimus saved."
        ) from error
    missing = [name for name in expected if name not in weights or weights[name].ndim != 2]
    if missing:
        raise ValueError(
            f"`{argument}` {directory} is of another layout: its weights have no {' and no '.join(map(repr, missing))} of two "
            f"dimensions (found {sorted(weights)[:3]}, …); give a checkpoint of Optimus, and as `--latent_injection` what it was "
            "trained with."
        )
    return config, weights


def _config(config_class: type[PreTrainedConfig], config: dict, **options) -> PreTrainedConfig:
    """Of the old file only what this class of today knows: the rest was about other tasks."""
    known = set(config_class.__dataclass_fields__) - set(PreTrainedConfig.__dataclass_fields__)
    return config_class(**{name: value for name, value in config.items() if name in known} | options)


def convert(
    encoder_dir: str | Path, decoder_dir: str | Path, latent_injection: Sequence[str] = ("memory", "embedding")
) -> VAEModel:
    """
    The model of a published checkpoint.

    Args:
        encoder_dir, decoder_dir (`str` or `Path`): the two directories.
        latent_injection (`Sequence[str]`, defaults to `("memory", "embedding")`): what the checkpoint was trained with; the weights
            of the others need not be in it.

    Raises:
        ValueError: a directory of another layout, a file that cannot be read or with more than tensors in it, or an
            encoder and a decoder of different latent sizes.
    """
    for way in latent_injection:
        check_choice("latent_injection", way, tuple(INJECTIONS))
    encoder_config, encoder_weights = _read(encoder_dir, "--encoder_dir", ["linear.weight"])
    chosen = dict(INJECTIONS[way] for way in latent_injection)
    decoder_config, decoder_weights = _read(decoder_dir, "--decoder_dir", ["transformer.wte.weight", *chosen])
    latent_size = encoder_weights["linear.weight"].shape[0] // 2
    for name in chosen:
        found = decoder_weights[name].shape[1]
        if found != latent_size:
            raise ValueError(f"The encoder's latent has {latent_size} dimensions and the decoder's {found} ({name}): no pair.")
    embeddings = decoder_weights["transformer.wte.weight"]
    vocab_size = len(embeddings)
    if vocab_size < len(SPECIAL_TOKENS):
        raise ValueError(
            f"`--decoder_dir` {decoder_dir} has a vocabulary of {vocab_size}, of which the last {len(SPECIAL_TOKENS)} would be "
            "Optimus' PAD, BOS and EOS; give a checkpoint of Optimus."
        )
    if not torch.equal(decoder_weights.get("lm_head.weight", embeddings), embeddings):
        raise ValueError(
            f"`--decoder_dir` {decoder_dir}: lm_head.weight differs from transformer.wte.weight, and in GPT-2, Optimus' too, "
            "they are one; give a checkpoint of Optimus."
        )
    pad, bos, eos = range(vocab_size - 3, vocab_size)
    weights = {f"encoder.{name}": tensor for name, tensor in encoder_weights.items() if name != "linear.weight"}
    weights["posterior_head.linear.weight"] = encoder_weights["linear.weight"]
    # `attn.bias` is the causal mask, not a weight.
    injected = [old for old, _ in INJECTIONS.values()]
    weights |= {
        f"decoder.lm.{name}": tensor
        for name, tensor in decoder_weights.items()
        if name not in injected and not name.endswith(".attn.bias")
    }
    weights |= {new: decoder_weights[old] for old, new in chosen.items()}
    if "embedding" in latent_injection:
        # Optimus adds the projection as it is.
        projection = "decoder.latent_injection.embedding.projection"
        weights[f"{projection}.bias"] = torch.zeros(weights[f"{projection}.weight"].shape[0])
    given = f"`--encoder_dir` {encoder_dir} and `--decoder_dir` {decoder_dir}"
    try:
        model = VAEModel(
            VAEConfig(
                encoder=_config(BertConfig, encoder_config, pad_token_id=0),
                decoder=_config(
                    GPT2Config,
                    {**decoder_config, "vocab_size": vocab_size},
                    pad_token_id=pad,
                    bos_token_id=bos,
                    eos_token_id=eos,
                ),
                latent_size=latent_size,
                latent_injection=list(latent_injection),
                pooling="pooler",
                posterior_bias=False,
            )
        )
        wrong = model.load_state_dict(weights, strict=False)
    # A value of config.json that means nothing, or that does not go with the weights' shapes.
    except (KeyError, RuntimeError, ValueError, StrictDataclassFieldValidationError) as error:
        raise ValueError(
            f"{given} are of another layout ({type(error).__name__}: {error}); give each config.json with the weights that it was "
            "saved with."
        ) from error
    if wrong.unexpected_keys or wrong.missing_keys:
        raise ValueError(
            f"{given} are of another layout: weights without a place ({wrong.unexpected_keys[:5]}) or missing "
            f"({wrong.missing_keys[:5]}); give the two directories as Optimus saved them."
        )
    return model.eval()


def load_processor(model: VAEModel, encoder_tokenizer: str, decoder_tokenizer: str) -> VAEProcessor:
    """
    The processor of a converted model.

    Args:
        encoder_tokenizer, decoder_tokenizer (`str`): Hub ids or paths, of BERT's and of GPT-2's; the latter gets Optimus' three
            special tokens.

    Raises:
        ValueError: a tokenizer whose vocabulary is not the model's.
    """
    tokenizer = load_tokenizer(decoder_tokenizer)
    tokenizer.add_special_tokens({**SPECIAL_TOKENS})
    expected = {name: getattr(model.config.decoder, f"{name}_id") for name in SPECIAL_TOKENS}
    found = {name: getattr(tokenizer, f"{name}_id") for name in SPECIAL_TOKENS}
    if found != expected:
        raise ValueError(
            f"`--tokenizers`: with Optimus' special tokens {decoder_tokenizer} has {found}, but the decoder's are {expected}."
        )
    reader = load_tokenizer(encoder_tokenizer)
    if len(reader) != model.config.encoder.vocab_size:
        raise ValueError(
            f"`--tokenizers`: {encoder_tokenizer} has {len(reader)} tokens, the encoder {model.config.encoder.vocab_size}."
        )
    return VAEProcessor(tokenizer, reader)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m hf_vae.convert_optimus_checkpoint", description=__doc__.split("\n\n")[0])
    parser.add_argument("--encoder_dir", required=True, help="The published directory checkpoint-encoder-….")
    parser.add_argument("--decoder_dir", required=True, help="The published directory checkpoint-decoder-….")
    parser.add_argument("--output_dir", required=True, help="Where the model is saved.")
    parser.add_argument("--latent_injection", nargs="+", choices=tuple(INJECTIONS), default=["memory", "embedding"])
    parser.add_argument(
        "--tokenizers", nargs=2, metavar=("ENCODER", "DECODER"), help="Hub ids or paths; without them no processor is saved."
    )
    arguments = parser.parse_args(argv)
    output_dir = Path(arguments.output_dir)
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise ValueError(f"`--output_dir` {output_dir} exists and is not empty; choose another one.")
    model = convert(arguments.encoder_dir, arguments.decoder_dir, arguments.latent_injection)
    processor = load_processor(model, *arguments.tokenizers) if arguments.tokenizers else None
    model.save_pretrained(output_dir)
    if processor is not None:
        processor.save_pretrained(output_dir)
    print(f"Saved to {output_dir}")


if __name__ == "__main__":
    main()
