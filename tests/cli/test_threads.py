"""How many threads a command that `accelerate launch` has started takes."""

import pytest
import torch
from accelerate import PartialState

from hf_vae.cli import processes
from hf_vae.cli.processes import use_all_cores


class Launcher:
    """The process that started this one, as psutil tells of it."""

    def __init__(self, words, environment):
        self.cmdline, self.environ = (lambda: words), (lambda: environment)

    def parent(self):
        return self


LAUNCH = ["python", "/bin/accelerate", "launch"]


@pytest.mark.parametrize(
    "words, environment, takes_all",
    [
        ([*LAUNCH, "x.py"], {}, True),
        ([*LAUNCH, "x.py"], {"OMP_NUM_THREADS": "1"}, False),
        ([*LAUNCH, "--num_cpu_threads_per_process", "1", "x.py"], {}, False),
        ([*LAUNCH, "--num-cpu-threads-per-process=1", "x.py"], {}, False),
    ],
)
def test_the_user_s_number_of_threads_is_kept(words, environment, takes_all, monkeypatch):
    taken = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    monkeypatch.setattr(processes.psutil, "Process", lambda: Launcher(words, environment))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    # As `accelerate launch` leaves it in any case.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    use_all_cores(PartialState(cpu=True))
    assert bool(taken) is takes_all
