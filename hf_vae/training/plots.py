"""Pictures of a training run."""

from __future__ import annotations

from pathlib import Path

from matplotlib import ticker
from matplotlib.figure import Figure


def plot_training(log_history: list[dict], path: str | Path) -> None:
    """
    Reconstruction, KL and KL weight against the optimiser's step, as [`KLAnnealingCallback`] logged them.

    Args:
        log_history (`list[dict]`): `trainer.state.log_history`.
        path (`str` or `Path`): the picture to write.

    Raises:
        ValueError: the log holds no `kl`, so the callback was not there.
    """
    logs = [entry for entry in log_history if "kl" in entry]
    if not logs:
        raise ValueError("The log has no entry with `kl`: train with KLAnnealingCallback, and past the first logging step.")
    steps = [entry["step"] for entry in logs]
    figure = Figure(figsize=(7, 7), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True)
    for panel, (key, label, colour) in zip(
        panels,
        (
            ("reconstruction", "reconstruction\n(nats per sentence)", "tab:blue"),
            ("kl", "KL(q ‖ p)\n(nats per sentence)", "tab:orange"),
            ("kl_weight", "KL weight", "tab:green"),
        ),
    ):
        panel.plot(steps, [entry[key] for entry in logs], color=colour, marker=".", markersize=4)
        panel.set_ylabel(label)
        panel.grid(alpha=0.3)
    # The first steps start from a uniform guess and would flatten everything that follows.
    panels[0].set_yscale("log")
    panels[0].yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    panels[0].yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    panels[0].yaxis.set_minor_formatter(ticker.NullFormatter())
    for panel in panels[1:]:
        panel.set_ylim(bottom=0)
    panels[-1].set_xlabel("optimiser step")
    figure.align_ylabels(panels)
    figure.savefig(path, dpi=120)
