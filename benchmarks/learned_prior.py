"""
A sentence VAE's samples and bounds under N(0, I) and under a flow that is fitted to its codes.

    python -m benchmarks.learned_prior --model MODEL --train_file FILE --test_file FILE [--text_column text] [--lm LM] [--write]

MODEL is a sentence VAE, such as that of `examples/recipes/vae_captions.yaml`. The flow is fitted to the training texts. Then both
priors are held beside each other: bounds on the test texts, and texts that are sampled from each, word by word.

*Forward*: the nats per word of the samples under a trigram model of training texts. *Reverse*: those of the test texts under a
trigram model of the samples, which is low only if the samples are like all of the texts (Zhao et al. 2018). LM is a causal language
model for another look at the samples. `--write` puts the table into docs/measured/priors.md.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from nltk.lm import WittenBellInterpolated
from nltk.lm.preprocessing import pad_both_ends, padded_everygram_pipeline
from nltk.util import ngrams
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor, AutoTokenizer

from hf_vae.data import load_texts
from hf_vae.evaluation import LikelihoodEvaluator, language_model_nll, self_bleu
from hf_vae.latent_space import fit_flow_prior, prior_gain

from .report import markdown_table, write_between

PAGE = Path(__file__).parent.parent / "docs" / "measured" / "priors.md"
MARKS = ("<!-- learned prior -->", "<!-- end of learned prior -->")
ORDER = 3
# Texts whose self-BLEU is one measurement, of which there are as many as the samples make.
GROUP = 50


def words_of(text: str) -> list[str]:
    return text.lower().split()


def fit_trigrams(texts: Sequence[str]) -> WittenBellInterpolated:
    model = WittenBellInterpolated(ORDER)
    # A word of one text alone becomes unknown, or a text with a new word would be impossible.
    counts: dict[str, int] = {}
    for text in texts:
        for word in words_of(text):
            counts[word] = counts.get(word, 0) + 1
    known = {word for word, count in counts.items() if count > 1}
    rows = [[word if word in known else model.vocab.unk_label for word in words_of(text)] for text in texts]
    model.fit(*padded_everygram_pipeline(ORDER, rows))
    return model


def nats_per_word(model: WittenBellInterpolated, texts: Sequence[str]) -> list[float]:
    """Of each text, its end counted."""
    found = []
    for text in texts:
        padded = list(pad_both_ends(model.vocab.lookup(words_of(text)), ORDER))
        of_words = [-math.log(max(model.score(each[-1], each[:-1]), 1e-12)) for each in ngrams(padded, ORDER)]
        # The last symbols only pad the end.
        of_words = of_words[: len(of_words) - (ORDER - 2)]
        found.append(sum(of_words) / len(of_words))
    return found


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    numbers = torch.tensor(values, dtype=torch.float64)
    return numbers.mean().item(), (numbers.std() / math.sqrt(len(numbers))).item()


def lm_nats(folder: str, texts: Sequence[str]) -> list[float]:
    """Nats per word of each text on a line of its own, under a causal language model; the text's end is not counted."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    start = tokenizer("\n", add_special_tokens=False)["input_ids"][-1]
    nats = language_model_nll(model, tokenizer(list(texts), add_special_tokens=False)["input_ids"], start).tolist()
    return [each / len(text.split()) for each, text in zip(nats, texts)]


def look_at(texts: Sequence[str], trigrams: WittenBellInterpolated, held_out: Sequence[str], lm: str | None, lm_texts: int) -> dict:
    """What the table shows of samples, each measure with its standard error."""
    groups = [texts[start : start + GROUP] for start in range(0, len(texts) - GROUP + 1, GROUP)]
    found = {
        "forward": mean_and_error(nats_per_word(trigrams, texts)),
        "reverse": mean_and_error(nats_per_word(fit_trigrams(texts), held_out)),
        "self_bleu": mean_and_error([self_bleu([group]) for group in groups]),
    }
    if lm is not None:
        found["lm"] = mean_and_error(lm_nats(lm, texts[:lm_texts]))
    return found


def cell(value: tuple[float, float] | None) -> str:
    return "" if value is None else f"{value[0]:.2f} ± {value[1]:.2f}"


def measure(options: argparse.Namespace) -> str:
    model, processor = AutoModel.from_pretrained(options.model).eval(), AutoProcessor.from_pretrained(options.model)
    train, test = (
        load_texts(path, split, text_column=options.text_column)
        for path, split in ((options.train_file, "train"), (options.test_file, "test"))
    )
    shuffled = random.Random(options.seed)
    shuffled.shuffle(train)
    shuffled.shuffle(test)
    scored, held_out = test[: options.texts], test[options.texts : options.texts + options.samples]
    started = time.perf_counter()
    flow = fit_flow_prior(
        model,
        processor,
        train[: options.fit_texts],
        max_steps=options.max_steps,
        learning_rate=options.learning_rate,
        seed=options.seed,
    )
    minutes = (time.perf_counter() - started) / 60
    gain = prior_gain(model, processor, flow, scored, seed=options.seed)
    evaluator = LikelihoodEvaluator(
        model, processor, scored, scored, max_length=options.max_length, max_target_length=options.max_length
    )
    with evaluator.reading_once():
        posterior = evaluator.posterior()
        bounds = {
            "N(0, I)": evaluator.importance_weighted(posterior, evaluator.prior(), options.importance_samples, options.seed),
            "flow": evaluator.importance_weighted(posterior, evaluator.prior(flow), options.importance_samples, options.seed),
        }
    difference = mean_and_error((bounds["flow"].nll - bounds["N(0, I)"].nll).tolist())
    trigrams = fit_trigrams(train)
    model.set_fitted_prior(flow)
    rows: dict[str, dict[str, Any]] = {}
    for name, source in (("N(0, I)", "prior"), ("flow", "fitted_prior")):
        torch.manual_seed(options.seed)
        tokens = model.generate(
            num_samples=options.samples, latent_source=source, do_sample=True, max_new_tokens=options.max_length,
            generator=torch.Generator().manual_seed(options.seed),
        )  # fmt: skip
        texts = [text for text in processor.batch_decode(tokens, skip_special_tokens=True) if text.strip()]
        rows[name] = look_at(texts, trigrams, test[: options.texts], options.lm, options.lm_texts)
        rows[name]["elbo"] = mean_and_error((bounds[name].reconstruction + bounds[name].kl).tolist())
        rows[name]["iw_nll"] = mean_and_error(bounds[name].nll.tolist())
        print(f"{name}: " + " | ".join(texts[:5]), flush=True)
    rows["held-out texts"] = look_at(held_out, trigrams, test[: options.texts], options.lm, options.lm_texts)
    columns = {
        "elbo": "-ELBO", "iw_nll": f"IW-NLL, K = {options.importance_samples}", "forward": "forward, nats per word",
        "reverse": "reverse, nats per word", "self_bleu": f"self-BLEU of {GROUP}", "lm": "LM, nats per word",
    }  # fmt: skip
    shown = [name for name in columns if any(name in row for row in rows.values())]
    cells = [[label, *(cell(row.get(name)) for name in shown)] for label, row in rows.items()]
    table = markdown_table(["", *(columns[name] for name in shown)], cells)
    told = (
        f"IW-NLL falls by {-difference[0]:.2f} ± {difference[1]:.2f} nats (the same z under both priors). KL(q(z) ‖ p(z)) falls by "
        f"{gain['prior_gain']:.2f} ± {gain['prior_gain_error']:.2f} nats. The fit took {minutes:.1f} minutes."
    )
    return "\n".join([table, "", told])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train_file", required=True)
    parser.add_argument("--test_file", required=True)
    parser.add_argument("--text_column", default="text")
    parser.add_argument("--lm", help="folder of a causal language model")
    parser.add_argument("--lm_texts", type=int, default=200)
    parser.add_argument("--texts", type=int, default=500, help="test texts for the bounds and for the reverse measure")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--fit_texts", type=int, default=20_000)
    parser.add_argument("--max_steps", type=int, default=3000, help="of the flow's fit")
    parser.add_argument("--learning_rate", type=float, default=5e-3, help="of the flow's fit")
    parser.add_argument("--importance_samples", type=int, default=100)
    parser.add_argument("--max_length", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args(argv)
    table = measure(options)
    print(table)
    if options.write:
        write_between(PAGE, MARKS, table)


if __name__ == "__main__":
    main()
