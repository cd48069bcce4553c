"""
LangVAE 0.6.13, in an environment of its own (docs/measured/benchmarks.md): builds BERT and GPT-2 of given sizes and then does what
the lines on its standard input say, so that the other side of a comparison can take turns with it. Imports nothing of this project.

    python langvae_side.py SETTINGS < commands

SETTINGS is a JSON file: `texts` to train on, `layers`, `hidden`, `heads`, `vocabulary`, `latent`, `batch`, `max_length`, `threads`.
A command is `train`, one epoch, or `generate N`, N sentences from the prior; the answer is a line with the seconds it took.
"""

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from langvae import LangVAE
from langvae.data_conversion.tokenization import TokenizedDataSet, collate_sparse_fn
from langvae.decoders.sentence import SentenceDecoder
from langvae.encoders import SentenceEncoder
from langvae.trainers import CyclicalScheduleKLThresholdTrainer, CyclicalScheduleKLThresholdTrainerConfig
from pythae.models.vae import VAEConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.utils.data import DataLoader
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast


def save_parts(folder: Path, settings: dict) -> None:
    """An encoder and a decoder as LangVAE loads them, with random weights: its speed does not depend on them."""
    special = ["[PAD]", "[BOS]", "[EOS]"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=settings["vocabulary"], special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(settings["texts"], trainer)
    names = dict(zip(("pad_token", "bos_token", "eos_token"), special))
    vocabulary = tokenizer.get_vocab_size()
    encoder = BertConfig(
        vocab_size=vocabulary,
        hidden_size=settings["hidden"],
        num_hidden_layers=settings["layers"],
        num_attention_heads=settings["heads"],
        intermediate_size=4 * settings["hidden"],
    )
    decoder = GPT2Config(
        vocab_size=vocabulary,
        n_embd=settings["hidden"],
        n_layer=settings["layers"],
        n_head=settings["heads"],
        n_positions=512,
        bos_token_id=1,
        eos_token_id=2,
    )
    for name, model in (("encoder", BertModel(encoder)), ("decoder", GPT2LMHeadModel(decoder))):
        model.save_pretrained(folder / name)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder / name)


def build(folder: Path, settings: dict) -> CyclicalScheduleKLThresholdTrainer:
    """The model and its trainer, with encoder outputs cached, and with every projection made."""
    save_parts(folder, settings)
    latent = settings["latent"]
    decoder = SentenceDecoder(str(folder / "decoder"), latent, settings["max_length"])
    encoder = SentenceEncoder(
        str(folder / "encoder"), latent, decoder.tokenizer, caching=True, automodel_preset={"cls": "AutoModel"}
    )
    model = LangVAE(VAEConfig(latent_dim=latent), encoder, decoder)
    data = TokenizedDataSet(settings["texts"], decoder.tokenizer, settings["max_length"], caching=True)
    with torch.no_grad():
        decoder(encoder(next(iter(DataLoader(data, 2, collate_fn=collate_sparse_fn)))["data"]).embedding)
    config = CyclicalScheduleKLThresholdTrainerConfig(
        output_dir=str(folder / "output"),
        num_epochs=1000,
        per_device_train_batch_size=settings["batch"],
        no_cuda=True,
    )
    trainer = CyclicalScheduleKLThresholdTrainer(model, data, training_config=config)
    trainer.prepare_training()
    return trainer


def main(settings_file: str) -> None:
    settings = json.loads(Path(settings_file).read_text(encoding="utf-8"))
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    answers = sys.stdout
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        trainer = build(Path(folder), settings)
        model = trainer.model
        print("ready", file=answers, flush=True)
        epoch = 0
        for line in sys.stdin:
            command, *number = line.split()
            start = time.perf_counter()
            if command == "train":
                epoch += 1
                trainer.train_step(epoch)
            else:
                model.eval()
                # As shipped `decode_sentences` keeps the graph; without it is what it can do.
                with torch.no_grad():
                    model.decode_sentences(torch.randn(int(number[0]), settings["latent"]))
            print(time.perf_counter() - start, file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
