"""Small models of all four kinds, with texts around them."""

import pytest
import torch

from explorer_models import SOURCES, make_explored
from hf_vae.explorer import Explored


@pytest.fixture(params=list(SOURCES))
def kind(request) -> str:
    return request.param


@pytest.fixture
def explored(kind) -> Explored:
    return make_explored(kind)


@pytest.fixture
def written(kind) -> str:
    """A source, as a person writes it."""
    return SOURCES[kind]


@pytest.fixture
def vae() -> Explored:
    return make_explored("vae")


@pytest.fixture
def codes() -> torch.Tensor:
    """Wide along the first unit, less so along the third, hardly along the second."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(400, 3, generator=generator) * torch.tensor([3.0, 0.1, 1.0]) + torch.tensor([1.0, 2.0, 3.0])
