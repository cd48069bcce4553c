"""How the cost grows with length, K, batch, latent size, layers and processes, beside encoder and decoder; a plot each."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ..comparison import Row, interleave, seconds, summarise
from ..isolated import ROOT, environment
from ..models import BOS, make_decoder, make_vae
from ..options import Options
from ..sizes import SIZES, Size
from . import generation, training_step

POINTS: dict[str, Sequence[int]] = {
    "sequence length": (8, 16, 32, 64, 128),
    "batch": (4, 8, 16, 32, 64),
    "latent size": (8, 32, 128, 512),
    "layers": (1, 2, 4, 8),
    "K": (1, 4, 16, 64),
}
FIELDS = {"sequence length": "length", "batch": "batch", "latent size": "latent", "layers": "layers"}
Work = tuple[Callable[[], object], Callable[[], object]]


def training(options: Options, size: Size) -> Work:
    """A step of the model and of its encoder and decoder, at a size that has no name."""
    SIZES["scaled"] = size
    try:
        return training_step.vae_step(options, "scaled"), training_step.halves_step(options, "scaled")
    finally:
        del SIZES["scaled"]


def generating(options: Options, size: Size, count: int) -> Work:
    """Eight tokens for each of `count` z, by the model and by its decoder."""
    model, bare = make_vae(size, options).eval(), make_decoder(size, options).eval()
    start = torch.full((count, 1), BOS, device=options.device)
    how = generation.settings(sampling=False, new_tokens=8)
    return (
        lambda: model.generate(num_samples=1, num_return_sequences=count, **how),
        lambda: bare.generate(start, attention_mask=torch.ones_like(start), **how),
    )


def measure(options: Options, axis: str, points: Sequence[int]) -> tuple[list[list[float]], list[list[float]]]:
    """Costs of ours and of encoder and decoder at every point, in seconds."""
    size = replace(SIZES[options.sizes[0]], batch=min(16, SIZES[options.sizes[0]].batch))
    both: tuple[list[list[float]], list[list[float]]] = ([], [])
    for point in points:
        work = generating(options, size, point) if axis == "K" else training(options, replace(size, **{FIELDS[axis]: point}))
        with options.precision():
            found = interleave(*(seconds(each, options.synchronize) for each in work), min(options.repeats, 3))
        for side, costs in zip(both, found):
            side.append(costs)
    return both


def plot(file: Path, axis: str, points: Sequence[int], sides: Sequence[Sequence[float]], names: Sequence[str]) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, ScalarFormatter

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    for values, label in zip(sides, names):
        axes.plot(points, values, marker="o", label=label)
    axes.set(xlabel=axis, ylabel="seconds", xscale="log", yscale="log", xticks=points, xticklabels=points)
    axes.minorticks_off()
    # A decade at least, so that what does not grow looks flat.
    costs = [cost for values in sides for cost in values]
    middle, reach = math.sqrt(min(costs) * max(costs)), max(math.sqrt(10), 1.3 * math.sqrt(max(costs) / min(costs)))
    axes.set_ylim(middle / reach, middle * reach)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


def data_parallel(options: Options, processes: int, sentences: int) -> float:
    """Seconds that so many processes of one thread each take for a training step of `sentences` sentences."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [*launch, "-m", "benchmarks.data_parallel_step", options.sizes[0], str(sentences)]
    environ = {**environment(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{processes} processes failed: {done.stderr[-2000:]}")
    return json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith("{")))["seconds"]


def run(options: Options) -> Iterator[Row]:
    name = options.sizes[0]
    for axis, all_points in POINTS.items():
        points = all_points[:2] if options.quick else all_points
        ours, theirs = measure(options, axis, points)
        # What the most costs over what the least costs, for both sides of each pair.
        growth = [[last / first for first, last in zip(side[0], side[-1])] for side in (ours, theirs)]
        if options.plots:
            names = ("VAE, training step", "encoder and decoder") if axis != "K" else ("VAE, generate", "decoder's generate")
            medians = [[statistics.median(costs) for costs in side] for side in (ours, theirs)]
            plot(Path(options.plots) / f"scaling_{axis.replace(' ', '_')}.png", axis, points, medians, names)
        against = "the decoder's growth" if axis == "K" else "the growth of encoder and decoder"
        yield summarise(f"growth with {axis} {points[0]} to {points[-1]}, {name}", *growth, unit="×", against=against)
    if options.device == "cpu":
        sentences = SIZES[name].batch
        runs = [partial(data_parallel, options, processes, sentences) for processes in (1, 2)]
        one, two = interleave(*runs, 1 if options.quick else options.repeats)
        case = f"training step, 2 processes of one thread against 1, {name}"
        if options.plots:
            alone, together = statistics.median(one), statistics.median(two)
            sides = ([alone, together], [alone, alone / 2])
            plot(Path(options.plots) / "scaling_processes.png", "processes", (1, 2), sides, ("VAE, training step", "ideal"))
        yield summarise(case, two, one, unit="s", against="1 process", note="0.5 is ideal")
