"""What `evaluate --frontier` adds: quality against diversity of several outputs for each source, as table, picture and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, AutoProcessor, GenerationConfig

from ..configuration_conditional_vae import ConditionalVAEConfig
from ..configuration_dialog_cvae import DialogCVAEConfig
from ..configuration_vae import VAEConfig
from ..evaluation import LATENT_CURVES, FrontierPoint, TextEmbedder, above, baseline_curves, copying, frontier, frontier_table
from ..evaluation.frontier import COPYING, Curves, settings_of
from ..modeling_vae import VAEModel
from ..options.evaluate import FrontierArguments
from ..part_files import settle_pooling
from ..processing_vae import VAEProcessor
from .checks import check_least, check_writable
from .plots import check_picture, plot_frontier
from .progress import say


def check_frontier(args: FrontierArguments, name: str, config: VAEConfig) -> None:
    """
    Refuses what `--frontier` cannot do with the model `name` of this `config`, before any weights are loaded.

    Raises:
        ValueError: names the argument.
    """
    if not args.frontier:
        unused = [each for each, value in vars(args).items() if value != getattr(FrontierArguments(), each)]
        if unused:
            raise ValueError(f"`--{unused[0]}` needs `--frontier`: add it, or leave `--{unused[0]}` out.")
        return
    if not isinstance(config, ConditionalVAEConfig):
        raise ValueError(
            f"`--frontier` compares several outputs of one source, and {name} is a VAE of sentences, which has no source: leave it "
            "out, or name a conditional model."
        )
    check_least(vars(args), {"frontier_outputs": 2, "max_new_tokens": 1})
    check_writable("frontier_plot", args.frontier_plot)
    check_picture("frontier_plot", args.frontier_plot)
    if args.frontier_baseline:
        found = AutoConfig.from_pretrained(args.frontier_baseline).model_type
        if found != config.model_type:
            raise ValueError(
                f"`--frontier_baseline` {args.frontier_baseline} holds a model of type {found!r}, and {name} is of type "
                f"{config.model_type!r}: name the same model, trained without z."
            )
        temperature = getattr(GenerationConfig.from_pretrained(args.frontier_baseline), "latent_temperature", 1.0)
        if temperature != 0:
            raise ValueError(
                f"`--frontier_baseline` {args.frontier_baseline} generates with z at a temperature of {temperature:g}: name a "
                "model without z, as `--with_baseline` saves it. If this is one, put `latent_temperature: 0` into its "
                "generation_config.json."
            )
    if args.frontier_embedder:
        if isinstance(config, DialogCVAEConfig):
            raise ValueError("`--frontier_embedder` compares outputs with their source, and a dialogue is no text: leave it out.")
        AutoConfig.from_pretrained(args.frontier_embedder)
        settle_pooling(args.frontier_embedder)


def plan_frontier(
    args: FrontierArguments,
    model: VAEModel,
    processor: VAEProcessor,
    sources: Sequence[Any],
    references: Sequence[Sequence[str]],
    tokenize: str | None,
    **options,
) -> Iterator[FrontierPoint]:
    """
    The points of the model with z, of the one without, and of copying the source if it is a text; `options` are those of
    [`frontier`]. Models that they need are loaded now. Each point is measured when it is asked for, and said in a line.
    """
    # Who is asked for a reply is not told its act.
    sources = [source if isinstance(source, str) else {**source, "act": None} for source in sources]
    embedder = TextEmbedder(args.frontier_embedder, model.device) if args.frontier_embedder else None
    options |= {"num_outputs": args.frontier_outputs, "embedder": embedder, "tokenize": tokenize}
    if args.max_new_tokens:
        options["max_new_tokens"] = args.max_new_tokens
    models: dict[str, tuple[Any, VAEProcessor, Curves]] = {"Several outputs of each source": (model, processor, LATENT_CURVES)}
    if args.frontier_baseline:
        curves = baseline_curves(args.frontier_outputs)
        models["The same of the model without z"] = (*_load_baseline(args.frontier_baseline, model), curves)

    def points() -> Iterator[FrontierPoint]:
        for heading, (each, its_processor, curves) in models.items():
            say(f"\n{heading}")
            planned = [FrontierPoint(curve, setting, {}) for curve, several in curves.items() for setting in several]
            for number, (plan, setting) in enumerate(zip(planned, settings_of(planned)), start=1):
                its_curve = {plan.curve: [plan.options]}
                [point] = frontier(each.to(model.device), its_processor, sources, references, its_curve, **options)
                name = f"{plan.curve}, {setting}" if setting else plan.curve
                say(f"  {number} of {len(planned)}, {name}: {_in_words(point)}")
                yield point
        if all(isinstance(source, str) for source in sources):
            yield copying(sources, references, args.frontier_outputs, tokenize, seed=options["seed"])

    return points()


def _in_words(point: FrontierPoint) -> str:
    self_bleu, average, best = (point.metrics[name].value for name in ("self_bleu", "bleu", "best_bleu"))
    return f"self-BLEU {self_bleu:.1f}, average BLEU {average:.1f}, best {best:.1f} ({point.seconds:.2f} s a source)"


def _load_baseline(name: str, model: VAEModel) -> tuple[VAEModel, VAEProcessor]:
    """The model without z and its processor, in the dtype of `model`. Parts that were left out of both lie where the model's do."""
    left_out = AutoConfig.from_pretrained(name).frozen_parts or ()
    folders = {part: folder for part, folder in model.part_folders.items() if part in left_out}
    baseline = AutoModel.from_pretrained(name, part_folders=folders, dtype=model.dtype)
    return baseline, AutoProcessor.from_pretrained(name)


def point_metrics(point: FrontierPoint) -> dict[str, Any]:
    """A point as JSON has it."""
    return {
        "curve": point.curve,
        "options": dict(point.options),
        **{name: estimate.value for name, estimate in point.metrics.items()},
        "intervals": {name: [estimate.low, estimate.high] for name, estimate in point.metrics.items()},
        "seconds": point.seconds,
    }


def report_frontier(points: Sequence[FrontierPoint], args: FrontierArguments) -> None:
    """Prints the table and where z is above, and draws the picture."""
    print(f"\n{frontier_table(points)}\n")
    labels = {"bleu": "average BLEU", "best_bleu": f"BLEU of the best of {args.frontier_outputs}"}
    for curve, by_metric in z_above(points).items():
        for metric, intervals in by_metric.items():
            where = " and ".join(f"{low:.1f} to {high:.1f}" for low, high in intervals)
            stretch = f"At a self-BLEU of {where} the curve" if where else "Nowhere does the curve"
            verb = "lies" if where else "lie"
            print(f"{stretch} '{curve}' {verb} above every curve without z that reaches there ({labels[metric]}).")
    if args.frontier_plot:
        Path(args.frontier_plot).parent.mkdir(parents=True, exist_ok=True)
        plot_frontier(points, args.frontier_plot)


def z_above(points: Sequence[FrontierPoint]) -> dict[str, dict[str, list[list[float]]]]:
    """
    The intervals of self-BLEU at which a curve with z is above all without it, by the curve and the metric of quality. Without a
    model to compare with there are none.
    """
    others = [point for point in points if point.curve not in (*LATENT_CURVES, COPYING)]
    if not others:
        return {}
    by_curve = {name: [point for point in points if point.curve == name] for name in LATENT_CURVES}
    return {
        name: {metric: [list(each) for each in above(own, others, metric)] for metric in ("bleu", "best_bleu")}
        for name, own in by_curve.items()
    }
