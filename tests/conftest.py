"""Tiny models built from configurations, and the rule that a deprecated call of transformers fails a test."""

import logging
import os

# Before transformers is imported: nothing may be looked up on the Hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from transformers import BertConfig, GPT2Config, LlamaConfig
from transformers.utils import logging as transformers_logging

from hf_vae import (
    ConditionalVAEModel,
    CVAEConfig,
    CVAEModel,
    DialogCVAEConfig,
    DialogCVAEModel,
    LSTMConfig,
    ParaphraseVAEConfig,
    ParaphraseVAEModel,
    ParaphraseVAEProcessor,
    VAEConfig,
    VAEModel,
    VAEProcessor,
)
from hf_vae.training.from_scratch import train_tokenizers

torch.set_num_threads(1)


def pytest_configure(config):
    """Marks of transformers' testers (`tests/peer`), which `--strict-markers` would refuse."""
    kinds = ("torch_export", "onnx_export", "executorch_export", "torch_compile", "flash_attn", "flash_attn_3", "flash_attn_4")
    for mark in (*(f"{kind}_test" for kind in kinds), "accelerate_tests", "generate", "timeout"):
        config.addinivalue_line("markers", f"{mark}: of transformers' testers")


VOCAB = 40
PAD, BOS, EOS, UNK = 0, 1, 2, 3


def tiny_encoder_config(**options) -> BertConfig:
    return BertConfig(
        vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=48, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.3, **options,
    )  # fmt: skip


def tiny_gpt2_config(**options) -> GPT2Config:
    return GPT2Config(
        vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=2, n_positions=48, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, initializer_range=0.3, **options,
    )  # fmt: skip


def tiny_llama_config(**options) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=48, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, initializer_range=0.3, **options,
    )  # fmt: skip


def tiny_lstm_config(**options) -> LSTMConfig:
    return LSTMConfig(
        **{
            "vocab_size": VOCAB, "embedding_size": 12, "hidden_size": 16, "bos_token_id": BOS, "eos_token_id": EOS,
            "pad_token_id": PAD, "initializer_range": 0.5, **options,
        }
    )  # fmt: skip


def make_model(variant: str, decoder: str = "gpt2", **options):
    """One of the family, in evaluation mode, with weights that follow from the variant's name alone."""
    torch.manual_seed(0)
    parts = {
        "encoder": tiny_encoder_config(),
        "decoder": tiny_gpt2_config() if decoder == "gpt2" else tiny_llama_config(),
        "latent_size": 4,
    }
    if variant == "vae":
        return VAEModel(VAEConfig(**{**parts, **options})).eval()
    if variant == "vae-optimus":
        optimus = {"latent_injection": ["memory", "embedding"], "pooling": "pooler", "posterior_bias": False}
        return VAEModel(VAEConfig(**{**parts, **optimus, **options})).eval()
    if variant == "vae-lstm":
        parts.update(encoder=tiny_lstm_config(bidirectional=True), decoder=tiny_lstm_config(num_hidden_layers=2))
        bowman = {"latent_injection": ["memory", "embedding"], "pooling": "pooler"}
        return VAEModel(VAEConfig(**{**parts, **bowman, **options})).eval()
    if variant.startswith("cvae"):
        conditional = {"cvae": {}, "cvae-cross": {"source_conditioning": "cross_attention", "tie_encoders": False}}[variant]
        return CVAEModel(CVAEConfig(**{**parts, **conditional, **options})).eval()
    if variant.startswith("dialog"):
        dialog = {
            "dialog": {"meta_categories": [3, 2], "num_meta_values": 1, "meta_embedding_size": 2},
            "dialog-acts": {"num_acts": 3, "act_embedding_size": 5, "act_hidden_size": 8},
            "dialog-lstm": {
                "context_encoding": "hierarchical", "source_conditioning": "initial_state", "pooling": "pooler", "num_acts": 3,
                "act_embedding_size": 5, "act_hidden_size": 8,
            },
        }[variant]  # fmt: skip
        if variant == "dialog-lstm":
            parts.update(encoder=tiny_lstm_config(bidirectional=True), decoder=tiny_lstm_config(num_hidden_layers=2))
        return DialogCVAEModel(DialogCVAEConfig(**{**parts, **dialog, **options})).eval()
    conditioning = {
        "paraphrase-prompt": {},
        "paraphrase-eq": {"source_conditioning": "cross_attention"},
        "paraphrase-cross": {"source_conditioning": "cross_attention", "tie_encoders": False},
        "paraphrase-lstm": {"source_conditioning": "initial_state", "tie_encoders": False, "pooling": "pooler"},
    }[variant]
    if variant == "paraphrase-lstm":
        parts.update(encoder=tiny_lstm_config(bidirectional=True), decoder=tiny_lstm_config(num_hidden_layers=2))
    return ParaphraseVAEModel(ParaphraseVAEConfig(**{**parts, **conditioning, **options})).eval()


VARIANTS = (
    "vae", "vae-optimus", "vae-lstm", "cvae", "cvae-cross", "paraphrase-prompt", "paraphrase-eq", "paraphrase-cross",
    "paraphrase-lstm", "dialog", "dialog-acts", "dialog-lstm",
)  # fmt: skip


def make_batch(model, rows: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random inputs with ragged rows: sources padded on the right, prompts on the left, labels with -100."""
    generator = torch.Generator().manual_seed(seed)

    def ragged(length: int, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.randint(4, VOCAB, (rows, length), generator=generator)
        lengths = torch.randint(2, length + 1, (rows,), generator=generator)
        lengths[0] = length
        order = torch.arange(length).expand(rows, length)
        mask = (order >= length - lengths[:, None]) if left else (order < lengths[:, None])
        return ids.masked_fill(~mask, PAD), mask.long()

    batch = {}
    batch["input_ids"], batch["attention_mask"] = ragged(7)
    labels, mask = ragged(6)
    labels[range(rows), mask.sum(-1) - 1] = EOS
    batch["labels"] = labels.masked_fill(mask == 0, -100)
    if isinstance(model, ConditionalVAEModel):
        batch["posterior_input_ids"], batch["posterior_attention_mask"] = ragged(11)
        if model.config.source_conditioning == "prompt":
            batch["prompt_input_ids"], batch["prompt_attention_mask"] = ragged(5, left=True)
    if isinstance(model, DialogCVAEModel):
        config = model.config
        if config.context_encoding == "hierarchical":
            turns = [(batch["input_ids"], batch["attention_mask"]), ragged(7), ragged(7)]
            batch["input_ids"], batch["attention_mask"] = (torch.stack(each, 1) for each in zip(*turns))
            # One row has fewer turns.
            batch["attention_mask"][1:2, 2] = 0
            batch["same_speaker"] = torch.randint(2, (rows, 3), generator=generator)
        if config.meta_size:
            columns = [torch.randint(count, (rows,), generator=generator) for count in config.meta_categories]
            batch["meta_categories"] = torch.stack(columns, 1)
            batch["meta_values"] = torch.rand(rows, config.num_meta_values, generator=generator)
        if config.num_acts is not None:
            batch["act_labels"] = torch.randint(config.num_acts, (rows,), generator=generator)
    return batch


def generation_inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    measured = ("labels", "act_labels")
    return {name: tensor for name, tensor in batch.items() if name not in measured and not name.startswith("posterior")}


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
