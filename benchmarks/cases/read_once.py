"""z behind the source, which is then read once for all z, against z at every position: the same decoder with the same weights."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from transformers import DynamicCache

from hf_vae import CVAEProcessor, DialogCVAEProcessor
from hf_vae.cli.from_scratch import train_tokenizers
from hf_vae.compat import CACHE
from hf_vae.data import grammar
from hf_vae.evaluation import LikelihoodEvaluator, likelihood_metrics
from hf_vae.source_cache import SourceCache

from ..comparison import Row, compare, interleave, seconds, summarise
from ..isolated import peak_memory
from ..models import make_cvae, make_dialog_cvae, make_vae, read_before, tokens
from ..options import Options
from ..sizes import SIZES
from . import generation, training_step

OURS, THEIRS = "after_source", "before_source"
# Sources and targets of the bounds, and how many of them there are.
EXAMPLES, SOURCE, TARGET = 4, 100, 12
# K of the bound whose time is to grow by no more than the targets' cost.
POINTS = (10, 20, 50, 100, 200)
# Of generation.
SEQUENCES, LONG_SOURCE = 32, 200
Work = Callable[[], object]


def long_texts(count: int, sentences: int, seed: int) -> list[str]:
    """Texts of `sentences` sentences of the grammar. They are longer than what is read, so all are cut to one length."""
    drawn = iter(grammar.draw_sentences(count * sentences, seed))
    return [" ".join(next(drawn) for _ in range(sentences)) for _ in range(count)]


def tokenizers_and_size(options: Options):
    """Tokenizers of the grammar, and the first size with a word for each of their tokens."""
    size = SIZES[options.sizes[0]]
    size = replace(size, vocabulary=max(size.vocabulary, 300))
    return train_tokenizers(grammar.draw_sentences(500, options.seed), size.vocabulary), size


def evaluator_of(options: Options, latent_placement: str, source: int = SOURCE, target: int = TARGET) -> LikelihoodEvaluator:
    """A CVAE and the `EXAMPLES` of the bounds: `source` tokens in each source and `target` tokens in each target."""
    tokenizers, size = tokenizers_and_size(options)
    torch.manual_seed(options.seed)
    model = make_cvae(size, options, latent_placement=latent_placement)
    texts, targets = long_texts(EXAMPLES, 12, options.seed), long_texts(EXAMPLES, 3, options.seed + 1)
    return LikelihoodEvaluator(model, CVAEProcessor(*tokenizers), texts, targets, max_length=source, max_target_length=target)


def bound(options: Options, latent_placement: str, samples: int, **lengths: int) -> Work:
    """The importance-weighted bound; q is computed before, as in an evaluation, which needs it more than once."""
    evaluator = evaluator_of(options, latent_placement, **lengths)
    return partial(evaluator.importance_weighted, evaluator.posterior(), evaluator.prior(), samples)


def targets_alone(options: Options, samples: int) -> Work:
    """-log p of the targets by the bare decoder, `samples` times each, behind sources that it read and repeated beforehand."""
    evaluator = evaluator_of(options, OURS)
    model = evaluator.model
    lm, inputs = model.decoder.lm, evaluator.processor(evaluator.texts, evaluator.targets, **evaluator.processor_options)
    inputs = inputs.to(model.device)
    source, cache = inputs["prompt_input_ids"], DynamicCache(config=model.decoder.config)
    with torch.no_grad():
        lm(input_ids=source, attention_mask=inputs["prompt_attention_mask"], use_cache=True, **{CACHE: cache})
    at_once = evaluator.samples_per_pass * evaluator.batch_size // EXAMPLES
    counts = [min(at_once, samples - done) for done in range(0, samples, at_once)]
    read = {count: SourceCache(cache).repeat(count) for count in set(counts)}

    @torch.no_grad()
    def work() -> None:
        for count in counts:
            labels = inputs["labels"].repeat_interleave(count, 0)
            mask = labels.new_ones(len(labels), source.shape[1] + labels.shape[1])
            behind = {"attention_mask": mask, CACHE: read[count].fork()}
            lm(input_ids=read_before(labels), labels=labels, shift_labels=labels, use_cache=True, **behind)

    return work


def generating(
    options: Options, latent_placement: str, size: str, batch: int, count: int = SEQUENCES, source: int = LONG_SOURCE
) -> Work:
    """`count` texts for each of `batch` sources."""
    torch.manual_seed(options.seed)
    model = make_cvae(SIZES[size], options, latent_placement=latent_placement).eval()
    words, how = tokens(batch, source, SIZES[size], options), generation.settings(sampling=False)
    return partial(model.generate, words, prompt_input_ids=words, num_return_sequences=count, **how)


def generating_without_source(options: Options, latent_placement: str, size: str) -> Work:
    """A VAE's texts."""
    model = make_vae(SIZES[size], options, latent_placement=latent_placement).eval()
    return partial(model.generate, num_samples=16, **generation.settings(sampling=False))


def dialogues(options: Options, latent_placement: str, samples: int, count: int) -> Work:
    """Both bounds of replies of 14 tokens to contexts of up to 100, and what else `likelihood_metrics` measures."""
    tokenizers, size = tokenizers_and_size(options)
    torch.manual_seed(options.seed)
    model = make_dialog_cvae(size, options, latent_placement=latent_placement)
    turns = iter(grammar.draw_sentences(12 * count, options.seed))
    roles = ("user", "assistant") * 6
    contexts = [[{"role": role, "content": next(turns)} for role in roles] for _ in range(count)]
    replies = long_texts(count, 3, options.seed + 1)

    def work() -> dict[str, float]:
        processor = DialogCVAEProcessor(*tokenizers, max_turns=len(roles))
        evaluator = LikelihoodEvaluator(model, processor, contexts, replies, max_length=SOURCE, max_target_length=14)
        return likelihood_metrics(evaluator, samples, options.seed)

    return work


def placements(
    case: str, build: Callable[..., Work], options: Options, most: float, repeats: int | None = None, **arguments
) -> Row:
    """The row of what `build` makes for either placement, whose ratio may be `most`."""
    ours, theirs = (build(options, latent_placement=placement, **arguments) for placement in (OURS, THEIRS))
    return compare(case, ours, theirs, options, repeats, against=THEIRS, target=most)


def peaks(case: str, options: Options, **arguments) -> Row:
    """The row of the memory that generation takes with either placement."""
    measured = interleave(
        *(partial(peak_memory, "read_once", "generating", options, latent_placement=each, **arguments) for each in (OURS, THEIRS)),
        repeats=1,
        warm_up=0,
    )
    return summarise(case, *measured, unit="MiB", against=THEIRS, target=1.05)


def slope(points: Sequence[int], costs: Sequence[float]) -> float:
    """What one more of `points` costs, by least squares."""
    return statistics.linear_regression(points, costs).slope


def measure_growth(options: Options, points: Sequence[int], repeats: int) -> dict[str, list[list[float]]]:
    """Seconds of the bound with either placement and of the targets alone: for each, a list for each repeat, over `points`."""
    names = {"z after the source": OURS, "z before the source": THEIRS}
    sides = {name: [bound(options, placement, point) for point in points] for name, placement in names.items()}
    sides["the targets alone, behind a cache"] = [targets_alone(options, point) for point in points]
    found: dict[str, list[list[float]]] = {name: [[] for _ in range(repeats)] for name in sides}
    with options.precision():
        for works in sides.values():
            works[0]()
        for repeat in range(repeats):
            for place in range(len(points)):
                for name, works in sides.items():
                    found[name][repeat].append(seconds(works[place], options.synchronize)())
    return found


def plot(file: Path, points: Sequence[int], sides: dict[str, list[float]]) -> None:
    """Seconds over K, and a straight line through each side's points."""
    import matplotlib
    from matplotlib.figure import Figure

    # The same file from the same numbers.
    with matplotlib.rc_context({"svg.hashsalt": "read_once", "svg.fonttype": "none"}):
        figure = Figure(figsize=(5, 3.5), layout="constrained")
        axes = figure.subplots()
        for name, costs in sides.items():
            line = statistics.linear_regression(points, costs)
            [dots] = axes.plot(points, costs, marker="o", linestyle="", label=f"{name}: {1000 * line.slope:.2g} ms each")
            axes.plot(points, [line.intercept + line.slope * point for point in points], color=dots.get_color(), linewidth=1)
        axes.set(xlabel="K, samples of z", ylabel="seconds", xlim=(0, None), ylim=(0, None))
        # Above the axes: the lines leave it no corner.
        figure.legend(loc="outside upper left")
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, metadata={"Date": None})


def growth(options: Options) -> Row:
    """The bound's slope in K by that of its targets; with `--plots` a plot of both placements."""
    points = POINTS[:3] if options.quick else POINTS
    found = measure_growth(options, points, min(options.repeats, 5))
    ours, theirs, alone = ([slope(points, costs) for costs in each] for each in found.values())
    if options.plots:
        medians = {name: [statistics.median(costs) for costs in zip(*each)] for name, each in found.items()}
        plot(Path(options.plots) / "read_once.svg", points, medians)
    return summarise(
        f"seconds for each more of K = {points[0]} to {points[-1]} of the bound, {options.sizes[0]}",
        ours,
        alone,
        unit="s",
        against="the targets alone, behind a cache",
        target=1.1,
        note=f"{statistics.median(theirs):.3g} s before_source",
    )


def run(options: Options) -> Iterator[Row]:
    name, quick = options.sizes[0], options.quick
    samples = 10 if quick else 100
    for source, target, most in ((SOURCE, TARGET, 0.2), (20, 20, 0.6)):
        case = f"importance-weighted bound, K = {samples}, source of {source}, target of {target}, {name}"
        yield placements(case, bound, options, most, samples=samples, source=source, target=target)
    for size, batch in [(name, 1), (name, 8), *([] if quick else [("base", 1)])]:
        what = f"generate, K = {SEQUENCES}, source of {LONG_SOURCE}, batch {batch}, {size}"
        repeats = min(options.repeats, 3) if size == "base" else None
        yield placements(what, generating, options, 0.5, repeats, size=size, batch=batch)
        yield peaks(f"peak memory of {what}", options, size=size, batch=batch)
    samples, count = (5, 4) if quick else (50, 16)
    case = f"dialogue evaluation, both bounds with K = {samples}, contexts of {SOURCE}, replies of 14, {name}"
    yield placements(case, dialogues, options, 0.35, min(options.repeats, 3), samples=samples, count=count)
    # What takes less than a second is soon disturbed.
    often = options.repeats if quick else 4 * options.repeats
    without: dict[str, tuple[Callable[..., Work], dict]] = {
        "training step, VAE": (training_step.vae_step, {}),
        "generate, VAE, batch 16": (generating_without_source, {}),
        "training step, CVAE": (training_step.cvae_step, {}),
        "generate, CVAE, K = 1, batch 8": (generating, {"batch": 8, "count": 1, "source": 20}),
    }
    for case, (build, arguments) in without.items():
        yield placements(f"{case}, {name}", build, options, 1.03, often, size=name, **arguments)
    yield growth(options)
