"""Where the time goes: torch.profiler's tables of the hot paths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from .cases import generation, importance_bound, training_step
from .models import make_vae
from .options import Options
from .sizes import SIZES

ROWS = 25


def hot_paths(options: Options) -> dict[str, Callable[[], object]]:
    """By name, what a user waits for and what it is measured against."""
    name = options.sizes[0]
    model = make_vae(SIZES[name], options).eval()
    how = generation.settings(sampling=False)
    return {
        "training_step_vae": training_step.vae_step(options, name),
        "training_step_halves": training_step.halves_step(options, name),
        "training_step_cvae": training_step.cvae_step(options, name),
        "generate": lambda: model.generate(num_samples=16, **how),
        "importance_bound": importance_bound.bound(options, samples=50, count=2),
    }


def write_profiles(options: Options, folder: Path) -> list[Path]:
    """A table for each hot path, as text in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if options.device == "cuda" else [])]
    order = f"self_{options.device}_time_total"
    files = []
    for name, work in hot_paths(options).items():
        with options.precision():
            work()
            with profile(activities=activities) as profiler:
                work()
        files.append(folder / f"{name}.txt")
        files[-1].write_text(profiler.key_averages().table(sort_by=order, row_limit=ROWS) + "\n", encoding="utf-8")
    return files
