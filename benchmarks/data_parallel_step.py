"""
A training step of data-parallel processes; the first one tells the median of its seconds.

    torchrun --standalone --nproc_per_node N -m benchmarks.data_parallel_step SIZE SENTENCES
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import torch
from torch.nn.parallel import DistributedDataParallel

from .models import make_vae, tokens
from .options import Options
from .sizes import SIZES

STEPS = 5


def main(name: str, sentences: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    options, size = Options(threads=1), SIZES[name]
    torch.manual_seed(0)
    model = DistributedDataParallel(make_vae(size, options).train())
    words = tokens(int(sentences), size.length, size, options)[rank::world]
    spent = []
    for _ in range(STEPS + 1):
        torch.distributed.barrier()
        start = time.perf_counter()
        model.zero_grad()
        model(input_ids=words, labels=words).loss.backward()
        torch.distributed.barrier()
        spent.append(time.perf_counter() - start)
    if rank == 0:
        # The first step makes the buckets.
        print(json.dumps({"seconds": statistics.median(spent[1:])}), flush=True)
    # The group must not be the reducer's to end: that waits, with the interpreter's lock, for a thread that may be waiting for it.
    del model
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
