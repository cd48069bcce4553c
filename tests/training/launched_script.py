"""
A training script whose noise in z follows from the mean, so that a row has the same on any process; started by
`test_accelerate.py`.

    accelerate launch --config_file CONFIG launched_script.py SCRIPT --use_cpu ARGUMENT…

accelerate 1.15 reads its FSDP settings for accelerators' backends alone. This says of gloo what it says of them; all that follows,
from `fully_shard` to the saved weights, is accelerate's, torch's and transformers' own.
"""

import os
import runpy
import sys

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from hf_vae import DiagonalGaussian

make_state = AcceleratorState.__init__


def make_sharded_state(self, *args, fsdp_plugin=None, **kwargs):
    make_state(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin


DiagonalGaussian.sample = lambda self, *_: self.mean + self.std * torch.sin(37 * self.mean.detach())
if os.environ.get("ACCELERATE_USE_FSDP") == "true":
    AcceleratorState.__init__ = make_sharded_state
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
