"""`import hf_vae` against importing the classes of transformers that it builds on, in fresh processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

from ..comparison import Row, interleave, summarise
from ..isolated import ROOT, environment
from ..options import Options

OURS = "import hf_vae"
THEIRS = """from transformers import (
    AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForTextEncoding, AutoProcessor, AutoTokenizer,
    BatchEncoding, DynamicCache, GenerationConfig, LogitsProcessorList, Pipeline, PreTrainedConfig, PreTrainedModel, ProcessorMixin,
    TrainerCallback, initialization,
)
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast
"""
MEASURE = """
import json, time
start = time.perf_counter()
{statement}
seconds = time.perf_counter() - start
from benchmarks.isolated import most_resident
print(json.dumps([seconds, most_resident()]))
"""


def in_a_fresh_process(statement: str) -> tuple[float, float]:
    """Seconds that an import takes, and MiB that the process holds at most then."""
    command = [sys.executable, "-c", MEASURE.format(statement=statement)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT, check=True)
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def run(options: Options) -> Iterator[Row]:
    both: dict[str, list[float]] = {OURS: [], THEIRS: []}

    def importing(statement: str) -> Callable[[], float]:
        def measure() -> float:
            elapsed, memory = in_a_fresh_process(statement)
            both[statement].append(memory)
            return elapsed

        return measure

    # The first imports read files that later ones find in memory.
    times = interleave(importing(OURS), importing(THEIRS), 2 if options.quick else options.repeats, warm_up=1)
    fields = {"against": "what it needs of transformers", "target": 1.05}
    yield summarise("import hf_vae", *times, unit="s", **fields)
    yield summarise("memory after import hf_vae", both[OURS][1:], both[THEIRS][1:], unit="MiB", **fields)
