"""Fixtures, and the rule that a deprecated call of transformers fails a test."""

import logging
import os
import shutil
import tempfile

# Before torch and transformers are imported, and for every process that a test starts: nothing is looked up on the Hub, and a
# process takes one core, so that as many as there are cores can run beside each other. Code that comes along with a model is
# copied to a folder of this process alone.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="modules")

import pytest
import torch
from transformers.utils import logging as transformers_logging

from helpers import VARIANTS, make_batch, make_model
from hf_vae import ParaphraseVAEProcessor, VAEProcessor
from hf_vae.cli.from_scratch import train_tokenizers
from hf_vae.configuration_vae import LATENT_INJECTION_TYPES, POSTERIOR_TYPES, PRIOR_TYPES
from hf_vae.latent_injection import LATENT_INJECTIONS
from hf_vae.posterior import POSTERIORS
from hf_vae.prior import PRIORS
from hf_vae.training.techniques import TECHNIQUES

torch.set_num_threads(1)


def pytest_configure(config):
    """Marks of transformers' testers (`tests/peer`), which `--strict-markers` would refuse."""
    kinds = ("torch_export", "onnx_export", "executorch_export", "torch_compile", "flash_attn", "flash_attn_3", "flash_attn_4")
    for mark in (*(f"{kind}_test" for kind in kinds), "accelerate_tests", "generate", "timeout"):
        config.addinivalue_line("markers", f"{mark}: of transformers' testers")


def pytest_unconfigure():
    shutil.rmtree(os.environ["HF_MODULES_CACHE"], ignore_errors=True)


@pytest.fixture(params=VARIANTS)
def variant(request) -> str:
    return request.param


@pytest.fixture
def model(variant):
    return make_model(variant)


@pytest.fixture
def batch(model):
    return make_batch(model)


@pytest.fixture(scope="session")
def tokenizers():
    return train_tokenizers(["the cat sat on the mat", "a dog ran in the park", "the mat"] * 5, vocab_size=300)


@pytest.fixture(scope="session")
def dialog_tokenizers():
    texts = ["user: hello", "assistant: good morning", "was it noon ?", "yes , it was", "no , never at noon"] * 5
    return train_tokenizers(texts, vocab_size=400)


@pytest.fixture
def vae_processor(tokenizers) -> VAEProcessor:
    return VAEProcessor(*tokenizers)


@pytest.fixture
def processor(tokenizers) -> ParaphraseVAEProcessor:
    return ParaphraseVAEProcessor(*tokenizers)


@pytest.fixture(autouse=True)
def deprecations_fail(caplog):
    """transformers tells of deprecations through its logger, where pytest's filters do not see them."""
    transformers_logging.enable_propagation()
    yield
    messages = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING]
    deprecated = [message for message in messages if "deprecated" in message.lower()]
    assert not deprecated, f"transformers calls this deprecated: {deprecated}"


@pytest.fixture(autouse=True)
def registries_as_they_were():
    """What a test registers from outside the package is known to that test alone."""
    registries = (PRIORS, PRIOR_TYPES, POSTERIORS, POSTERIOR_TYPES, LATENT_INJECTIONS, LATENT_INJECTION_TYPES, TECHNIQUES)
    known = [each.copy() for each in registries]
    yield
    for registry, before in zip(registries, known):
        registry.clear()
        (registry.update if isinstance(registry, dict) else registry.extend)(before)
