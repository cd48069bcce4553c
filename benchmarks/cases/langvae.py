"""Training and generation against LangVAE 0.6.13, which runs in an environment of its own and takes turns with this one."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from hf_vae import DiagonalGaussian, LatentOutput, VAEDataCollator, VAEModel, VAEProcessor
from hf_vae.cli.from_scratch import train_tokenizers

from ..comparison import Row, interleave, seconds, skipped, summarise
from ..isolated import ROOT, environment
from ..models import BOS, EOS, make_decoder, make_vae
from ..options import Options
from ..sizes import SIZES
from .quality import corpus

# What LangVAE's own example sets.
MAX_LENGTH = 32


class Peer:
    """A LangVAE process that does one thing at a time and tells the seconds; ended by `close`."""

    def __init__(self, options: Options, settings: dict):
        self.folder = tempfile.TemporaryDirectory()
        file = Path(self.folder.name) / "settings.json"
        file.write_text(json.dumps(settings), encoding="utf-8")
        self.errors = open(Path(self.folder.name) / "errors.txt", "w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            [str(options.langvae_python), str(ROOT / "benchmarks" / "langvae_side.py"), str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            # Not this project's packages: transformers is another one there.
            env={name: value for name, value in environment().items() if name != "PYTHONPATH"},
        )
        self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise RuntimeError(f"LangVAE's process ended: {self.errors.read()[-2000:]}")
        return line

    def ask(self, command: str) -> float:
        """Seconds that `command` took there."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.errors.close()
        self.folder.cleanup()


class EndAt(LogitsProcessor):
    """Lets row i end after `lengths[i]` new tokens, as a trained model's sentences end, and not before."""

    def __init__(self, lengths: torch.Tensor, eos_token_id: int):
        self.lengths, self.eos = lengths, eos_token_id

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        ends = self.lengths <= input_ids.shape[1]
        scores[:, self.eos] = torch.where(ends, torch.inf, -torch.inf)
        return scores


def epoch_of(model: VAEModel, loader, options: Options, dtype: torch.dtype | None) -> Callable[[], None]:
    """An epoch as a training loop runs it: batches made, forward, backward, clipping, the optimiser's step."""
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-4)

    def epoch() -> None:
        for batch in loader:
            with contextlib.nullcontext() if dtype is None else torch.autocast(options.device, dtype):
                model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return epoch


def decode_to_lengths(decode: Callable[..., object], lengths: torch.Tensor, batch: int) -> None:
    """Greedy decoding of so many texts, each ending at a length drawn from `lengths`."""
    ends = EndAt(lengths[torch.randperm(len(lengths))[:batch]], EOS)
    decode(do_sample=False, max_new_tokens=MAX_LENGTH, logits_processor=LogitsProcessorList([ends]))


def freeze_and_cache(model: VAEModel, features: dict[str, list], collator: VAEDataCollator) -> list[dict]:
    """
    Freezes encoder and decoder, has the encoder read every text once, and gives rows whose `input_ids` are numbers into what it
    said: only q's head is run, as of LangVAE with its cache.
    """
    model.encoder.requires_grad_(False)
    model.decoder.lm.requires_grad_(False)
    caught: list[torch.Tensor] = []
    handle = model.posterior_head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    inputs = {name: rows for name, rows in features.items() if name != "labels"}
    rows = [dict(zip(inputs, row)) for row in zip(*inputs.values())]
    with torch.no_grad():
        for at in range(0, len(rows), 50):
            model.encode(**collator(rows[at : at + 50]))
    handle.remove()
    pooled = torch.cat(caught)

    def encode(input_ids, attention_mask=None, token_type_ids=None, source=None, embeddings=None) -> LatentOutput:
        distribution: DiagonalGaussian = model.posterior_head(pooled[input_ids[:, 0]])
        return LatentOutput(latent_dist=distribution)

    model.encode = encode  # type: ignore[method-assign]
    return [{"input_ids": [number], "attention_mask": [1], "labels": labels} for number, labels in enumerate(features["labels"])]


def run(options: Options) -> Iterator[Row]:
    if options.langvae_python is None:
        yield skipped("LangVAE", "no --langvae_python; docs/measured/benchmarks.md says how to make its environment")
        return
    name = options.sizes[0]
    size = SIZES[name]
    data = corpus(options, 1000)
    texts = data.train[: 200 if options.quick else 1000]
    vocabulary = max(size.vocabulary, 300)
    settings = {
        "texts": texts, "layers": size.layers, "hidden": size.hidden, "heads": size.heads, "vocabulary": vocabulary,
        "latent": size.latent, "batch": size.batch, "max_length": MAX_LENGTH, "threads": options.threads,
    }  # fmt: skip
    processor = VAEProcessor(*train_tokenizers(texts, vocabulary))
    collator = VAEDataCollator(processor)
    features = dict(processor(texts, texts, return_tensors=None))
    rows = [dict(zip(features, row)) for row in zip(*features.values())]
    size = type(size)(**{**vars(size), "vocabulary": len(processor.tokenizer)})
    repeats = min(options.repeats, 5)

    def loader(of_rows) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(of_rows, size.batch, collate_fn=collator)

    with contextlib.closing(Peer(options, settings)) as peer:
        against = "LangVAE, both parts frozen, encodings cached"
        frozen = make_vae(size, options).train()
        cached = freeze_and_cache(frozen.eval(), features, collator)
        plans = [
            ("both parts frozen, encodings cached", frozen.train(), cached, None, 2.5),
            ("everything trained, float32", make_vae(size, options).train(), rows, None, 1.0),
            ("everything trained, bfloat16", make_vae(size, options).train(), rows, torch.bfloat16, 2.0),
        ]
        for what, model, of_rows, dtype, target in plans:
            epoch = seconds(epoch_of(model, loader(of_rows), options, dtype), options.synchronize)
            measured = interleave(epoch, partial(peer.ask, "train"), repeats)
            case = f"training, {what}, {name}"
            yield summarise(case, *measured, per=len(texts), unit="sentences/s", against=against, target=target)
        model, bare = make_vae(size, options).eval(), make_decoder(size, options).eval()
        lengths = torch.tensor([len(labels) for labels in features["labels"]])
        for batch, required in ((1, 2.5), (50, 4.0)):
            start = torch.full((batch, 1), BOS, device=options.device)
            decoders = (
                ("generation", partial(model.generate, num_samples=batch), required),
                ("generation by the bare decoder", partial(bare.generate, start, attention_mask=torch.ones_like(start)), None),
            )
            for what, decode, target in decoders:
                generation = seconds(partial(decode_to_lengths, decode, lengths, batch), options.synchronize)
                measured = interleave(generation, partial(peer.ask, f"generate {batch}"), options.repeats, warm_up=2)
                yield summarise(
                    f"{what}, greedy, batch {batch}, {name}",
                    *measured,
                    per=batch,
                    unit="sentences/s",
                    against=f"LangVAE, always {MAX_LENGTH} tokens",
                    target=target,
                    note="ours end where the corpus' sentences end",
                )
