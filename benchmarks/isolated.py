"""
Peak memory of one side of a comparison, in a process of its own.

    python -m benchmarks.isolated CASE FUNCTION OPTIONS ARGUMENTS
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from .comparison import set_up
from .options import Options

ROOT = Path(__file__).parents[1]
STEPS = 3


def environment() -> dict[str, str]:
    """Of a child that can import both packages, and whose idle threads do not spin."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}


# glibc keeps freed blocks for itself as it happens to see fit, which moved a peak by tens of MiB from one run to the next: give
# blocks of 64 KiB and more back at once, so that a peak is what was in use.
EXACT_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def resident() -> float:
    """MiB that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def most_resident() -> float:
    """MiB that this process has held at most. Not by `getrusage`, which counts what the parent held when it made the process."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 2**10


def peak_memory(case: str, function: str, options: Options, **arguments) -> float:
    """
    MiB that a few runs of `benchmarks.cases.CASE.FUNCTION(options, **arguments)()` need at most, beyond what the imports hold: of
    the process, or on the GPU.

    Raises:
        RuntimeError: the process failed; with what it said last.
    """
    command = [sys.executable, "-m", "benchmarks.isolated", case, function, json.dumps(asdict(options)), json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment() | EXACT_MALLOC, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:5])} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(case: str, function: str, options_json: str, arguments_json: str) -> None:
    options = Options(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(options_json).items()}
    )
    build = getattr(importlib.import_module(f"benchmarks.cases.{case}"), function)
    set_up(options)
    before = resident()
    step = build(options, **json.loads(arguments_json))
    with options.precision():
        for _ in range(STEPS):
            step()
    if options.device == "cuda":
        print(torch.cuda.max_memory_allocated() / 2**20)
    else:
        # Linux counts in KiB.
        print(most_resident() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
