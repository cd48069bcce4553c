"""A model whose likelihood is known exactly."""

import pytest

from helpers import on_a_line
from hf_vae import ParaphraseVAEModel


@pytest.fixture
def evaluated(processor):
    return on_a_line(ParaphraseVAEModel, processor, seed=0)
