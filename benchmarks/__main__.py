"""
Runs the benchmarks.

    python -m benchmarks --output results.json --markdown results.md

Set OMP_WAIT_POLICY=PASSIVE where other processes of torch run: threads that wait for work then leave the cores to them.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from dataclasses import fields
from pathlib import Path

from hf_vae.configuration_vae import LATENT_INJECTION_TYPES, check_choice

from .cases import CASES, DEFAULTS
from .comparison import Row, set_up
from .options import DTYPES, Options
from .profiles import write_profiles
from .report import figure, markdown, write_json
from .sizes import SIZES

# Said where it is asked for and before it runs.
QUICK = "few and small measurements of the small size alone, in two to ten minutes: see that everything runs; the figures are noise"


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(prog="python -m benchmarks", description="What the models cost against the limit and a peer.")
    some = {"nargs": "+", "metavar": "NAME"}
    parse.add_argument("--cases", default=list(DEFAULTS), help=f"Of {', '.join(CASES)}; all but the last by default.", **some)
    parse.add_argument("--sizes", default=["small", "medium"], help=f"Of {', '.join(SIZES)}. Most cases take the first.", **some)
    ways = f"How z enters the decoder: of {', '.join(LATENT_INJECTION_TYPES)}."
    parse.add_argument("--latent_injection", default=["embedding"], help=ways, **some)
    parse.add_argument("--dtype", default="float32", help=f"Of {', '.join(DTYPES)}, under autocast on both sides.")
    parse.add_argument("--threads", type=int, default=2)
    parse.add_argument("--repeats", type=int, help="Pairs of measurements: 7, with --quick 3; some cases take more or fewer.")
    parse.add_argument("--device", default="cpu", help="cpu or cuda")
    parse.add_argument("--seed", type=int, default=0)
    parse.add_argument("--quick", action="store_true", help=f"{QUICK.capitalize()}.")
    parse.add_argument("--ragged_file", help="Real texts of many lengths: text lines, JSON lines or CSV; else made ones.")
    parse.add_argument("--text_column", default="text", help="Its column, where it has columns.")
    parse.add_argument("--synthetic_dir", help="train.txt and eval.txt of an entropy of 30.1 nats; else the embedded grammar.")
    parse.add_argument("--langvae_python", help="Interpreter of an environment with LangVAE; its rows are skipped without.")
    parse.add_argument("--output", type=Path, help="Results as JSON.")
    parse.add_argument("--markdown", type=Path, help="Results as a Markdown table.")
    parse.add_argument("--plots", help="Folder for the plots of the scaling and of `read_once`.")
    parse.add_argument("--profile", help="Folder for torch.profiler's tables of the hot paths.")
    return parse


def settle(argv: list[str]) -> tuple[argparse.Namespace, Options]:
    """
    The arguments, refused before anything is measured.

    Raises:
        ValueError: a case that does not exist, or what [`Options`] refuses.
    """
    arguments = parser().parse_args(argv)
    for case in arguments.cases:
        check_choice("--cases", case, tuple(CASES))
    for name in ("output", "markdown"):
        file = getattr(arguments, name)
        if file is not None and not file.parent.is_dir():
            raise ValueError(f"`--{name}` {file}: there is no folder {file.parent}.")
    given = {each.name: getattr(arguments, each.name) for each in fields(Options)}
    if arguments.repeats is None:
        given["repeats"] = 3 if arguments.quick else 7
    given["sizes"] = tuple(arguments.sizes[:1] if arguments.quick else arguments.sizes)
    given["latent_injection"] = tuple(arguments.latent_injection)
    return arguments, Options(**given)


def main(argv: list[str]) -> list[Row]:
    arguments, options = settle(argv)
    if options.quick:
        print(
            "--quick: these figures are too few and too small to mean anything; leave it out to measure.",
            file=sys.stderr,
            flush=True,
        )
    rows: list[Row] = []
    for case in arguments.cases:
        start = time.perf_counter()
        set_up(options)
        for row in CASES[case].run(options):
            rows.append(row)
            ratio = row.note if row.ratio is None else f"{row.ratio:.3f} ± {figure(row.spread)}"
            print(f"{row.case}: {figure(row.ours)} / {figure(row.theirs)} {row.unit}, {ratio}", flush=True)
            # What is measured is kept, should a later case fail.
            if arguments.output:
                write_json(rows, arguments.output)
        print(f"  {case}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    command = shlex.join(["python", "-m", "benchmarks", *argv])
    if arguments.markdown:
        arguments.markdown.write_text(markdown(rows, options, command), encoding="utf-8")
    if options.profile:
        set_up(options)
        for file in write_profiles(options, Path(options.profile)):
            print(file)
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
