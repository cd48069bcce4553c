"""The loss of a large vocabulary without its logits: the same nats and the same gradients, in less memory."""

import threading

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, CohereConfig, Gemma2Config, GraniteConfig

from families import DECODERS, WORKS
from helpers import EOS, VOCAB, make_batch, make_model, tiny_encoder_config, tiny_gpt2_config
from hf_vae import VAEConfig, VAEModel
from hf_vae import fused_linear_cross_entropy as fused
from hf_vae.fused_linear_cross_entropy import fused_linear_cross_entropy, sequence_nll

SIZES = {
    "vocab_size": VOCAB, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 48, "bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": 0,
    "initializer_range": 0.3,
}  # fmt: skip
BENDING = {
    "Gemma-2": Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=3.0),
    "Cohere": CohereConfig(**SIZES, logit_scale=0.25),
    "Granite": GraniteConfig(**SIZES, logits_scaling=4.0),
}


@pytest.fixture(autouse=True)
def every_vocabulary_is_large(monkeypatch):
    """Five tokens at a time, so that several chunks, the last of them smaller, are added up."""
    monkeypatch.setattr(fused, "MIN_LOGITS", 1)
    monkeypatch.setattr(fused, "chunk_rows", lambda weight: 5)


def test_a_chunk_holds_no_more_than_the_layer_unless_that_is_small(monkeypatch):
    monkeypatch.undo()
    rows = {shape: fused.chunk_rows(torch.empty(shape, device="meta")) for shape in ((50257, 768), (50257, 32), (300, 16))}
    assert rows == {(50257, 768): 768, (50257, 32): 83, (300, 16): 2**22 // 300}


def loss_and_gradients(model, batch, **options) -> tuple[torch.Tensor, dict[str, torch.Tensor], object]:
    """Of one training step whose z and dropout follow from a seed."""
    model.train().zero_grad()
    torch.manual_seed(5)
    output = model(**batch, **options)
    output.loss.backward()
    gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    return output.loss.detach(), gradients, output


def assert_equal_to_the_plain_path(model, batch, tolerance: float = 1e-6, **options) -> None:
    plain, plain_gradients, with_logits = loss_and_gradients(model, batch, output_logits=True, **options)
    loss, gradients, without = loss_and_gradients(model, batch, **options)
    assert with_logits.logits is not None and without.logits is None
    torch.testing.assert_close(loss, plain, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(without.reconstruction_loss, with_logits.reconstruction_loss, atol=1e-5, rtol=1e-6)
    assert gradients.keys() == plain_gradients.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, plain_gradients[name], atol=tolerance, rtol=1e-5), name


def used(monkeypatch) -> list:
    """Filled with what the path without logits is called for."""
    calls: list = []
    monkeypatch.setattr(
        "hf_vae.decoding_vae.fused_linear_cross_entropy",
        lambda *inputs: calls.append(inputs) or fused_linear_cross_entropy(*inputs),
    )
    return calls


def test_every_model_has_the_plain_paths_loss_and_gradients(model, batch, monkeypatch):
    calls = used(monkeypatch)
    assert_equal_to_the_plain_path(model, batch)
    assert len(calls) == 1


def test_the_hybrid_objective_scales_both_of_its_parts(monkeypatch):
    calls = used(monkeypatch)
    model = make_model("cvae", objective="hybrid", hybrid_alpha=0.3)
    assert_equal_to_the_plain_path(model, make_batch(model))
    # The part on z from the prior goes without logits also where they are asked for.
    assert len(calls) == 3


@pytest.mark.parametrize("name", [name for name, family in DECODERS.items() if family.expected[0] == WORKS])
def test_every_decoder_family_has_the_plain_paths_loss_and_gradients(name):
    torch.manual_seed(0)
    model = VAEModel(VAEConfig(encoder=tiny_encoder_config(), decoder=DECODERS[name].config(), latent_size=4))
    # Where the family drops words by chance both paths drop the same ones.
    assert_equal_to_the_plain_path(model, make_batch(model), tolerance=3e-6)


@pytest.mark.parametrize("name", BENDING)
def test_a_decoder_that_bends_its_logits_is_found_out_and_keeps_them(name, monkeypatch):
    calls = used(monkeypatch)
    torch.manual_seed(0)
    model = VAEModel(VAEConfig(encoder=tiny_encoder_config(), decoder=BENDING[name], latent_size=4))
    batch = make_batch(model)
    assert_equal_to_the_plain_path(model, batch)
    assert not calls and not model.lm_head_is_final


def test_an_output_layer_with_a_bias_teaches_it():
    config = BertConfig(**{**SIZES, "is_decoder": True, "tie_word_embeddings": False})
    torch.manual_seed(0)
    model = VAEModel(VAEConfig(encoder=tiny_encoder_config(), decoder=config, latent_size=4))
    bias = model.get_output_embeddings().bias
    assert bias is not None
    assert_equal_to_the_plain_path(model, make_batch(model))
    assert bias.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["Llama", "GPT-2", "Gemma 2", "LSTM"])
def test_what_z_adds_to_the_logits_is_in_the_fused_loss_too(name):
    torch.manual_seed(0)
    config = VAEConfig(
        encoder=tiny_encoder_config(), decoder=DECODERS[name].config(), latent_size=4, latent_injection=["embedding", "logits"]
    )
    model = VAEModel(config)
    assert_equal_to_the_plain_path(model, make_batch(model))
    assert model.decoder.latent_injection["logits"].projection.weight.grad.abs().sum() > 0


def test_a_frozen_decoder_still_teaches_the_posterior():
    model = make_model("vae")
    model.decoder.lm.requires_grad_(False)
    assert_equal_to_the_plain_path(model, make_batch(model))


def test_an_adapter_on_the_output_layer_is_not_passed_by(monkeypatch):
    calls = used(monkeypatch)
    model = make_model("vae", decoder="llama")
    adapted = get_peft_model(model, LoraConfig(target_modules=["lm_head"], init_lora_weights=False))
    assert_equal_to_the_plain_path(adapted, make_batch(model))
    assert not calls


def test_autocast_multiplies_in_bfloat16_and_sums_in_float32():
    model = make_model("vae")
    batch = make_batch(model)
    with torch.autocast("cpu", torch.bfloat16):
        plain, plain_gradients, _ = loss_and_gradients(model, batch, output_logits=True)
        loss, gradients, output = loss_and_gradients(model, batch)
    assert output.reconstruction_loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain, atol=2e-2, rtol=0)
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, plain_gradients[name], atol=2e-2, rtol=0)


def test_a_batch_of_padding_alone_costs_nothing_and_teaches_nothing():
    head = nn.Linear(4, 9)
    states = torch.randn(2, 3, 4, requires_grad=True)
    nats = fused_linear_cross_entropy(head, states, torch.full((2, 3), -100))
    nats.sum().backward()
    assert nats.tolist() == [0, 0] and not any(each.grad.any() for each in (states, head.weight, head.bias))


def test_tokens_that_count_differently_have_their_own_gradients():
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(6, VOCAB)
    states = torch.randn(4, 5, 6, generator=generator, requires_grad=True)
    labels = torch.randint(0, VOCAB, (4, 5), generator=generator)
    labels[1, 3:] = -100
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0])

    def gradients(nats):
        return torch.autograd.grad((weights * nats).sum(), [states, layer.weight, layer.bias])

    for found, expected in zip(
        gradients(fused_linear_cross_entropy(layer, states, labels)), gradients(sequence_nll(layer(states), labels)), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_what_is_kept_for_backward_can_be_used_twice():
    layer, states = nn.Linear(6, VOCAB), torch.randn(2, 5, 6)
    nats = fused_linear_cross_entropy(layer, states, torch.ones(2, 5, dtype=torch.long)).sum()
    first = torch.autograd.grad(nats, layer.weight, retain_graph=True)[0].clone()
    assert torch.equal(torch.autograd.grad(nats, layer.weight)[0], first)


@pytest.mark.parametrize("recorded", [True, False])
def test_gradients_are_computed_only_if_they_are_recorded(recorded, monkeypatch):
    compute, asked = fused._nll_and_gradients, []
    monkeypatch.setattr(fused, "_nll_and_gradients", lambda *inputs: asked.append(inputs[-1]) or compute(*inputs))
    with torch.set_grad_enabled(recorded):
        fused_linear_cross_entropy(nn.Linear(6, VOCAB), torch.randn(2, 5, 6), torch.ones(2, 5, dtype=torch.long))
    assert asked == [(False, recorded, recorded)]


class LargestTensor(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(each, torch.Tensor):
                self.elements = max(self.elements, each.numel())
        return result


def largest_tensor_of_a_step(**options) -> int:
    torch.manual_seed(0)
    decoder = tiny_gpt2_config()
    decoder.vocab_size = 400
    model = VAEModel(VAEConfig(encoder=tiny_encoder_config(), decoder=decoder, latent_size=4)).train()
    batch = make_batch(model, rows=12)
    with LargestTensor() as largest:
        model(**batch, **options).loss.backward()
    return largest.elements


def test_a_training_step_never_holds_all_logits():
    every_logit = 12 * 6 * 400
    assert largest_tensor_of_a_step(output_logits=True) == every_logit
    # The embeddings of 400 words are the largest thing then.
    assert largest_tensor_of_a_step() == 400 * 16


def test_a_small_vocabulary_goes_the_plain_way(monkeypatch):
    calls = used(monkeypatch)
    monkeypatch.setattr(fused, "MIN_LOGITS", 2**22)
    model = make_model("vae").train()
    assert model(**make_batch(model)).logits is None
    assert not calls


@torch.no_grad()
def test_the_likelihood_of_given_latents_needs_no_logits_either(monkeypatch):
    model = make_model("vae")
    labels, latents = make_batch(model)["labels"], torch.randn(3, 4)
    expected = sequence_nll(model.decode(latents, labels), labels)
    calls = used(monkeypatch)
    torch.testing.assert_close(model.nll(latents, labels), expected, atol=1e-5, rtol=0)
    assert len(calls) == 1


class OneThreadStops:
    """Has the thread `thread` stop when it has read its way into `module`, until `go_on` is set."""

    def __init__(self, module: nn.Module, work):
        self.there, self.go_on, self.results = threading.Event(), threading.Event(), []
        self.thread = threading.Thread(target=lambda: self.results.append(work()))
        self._hook = module.register_forward_hook(self._stop)

    def _stop(self, module, inputs, output):
        if threading.current_thread() is self.thread:
            self.there.set()
            assert self.go_on.wait(60)

    def __enter__(self) -> "OneThreadStops":
        self.thread.start()
        assert self.there.wait(60)
        return self

    def __exit__(self, *error) -> None:
        self.go_on.set()
        self.thread.join(60)
        self._hook.remove()


@torch.no_grad()
def test_while_one_thread_scores_the_others_have_their_logits_and_scores(monkeypatch):
    model = make_model("vae")
    labels, latents = make_batch(model)["labels"], torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    options = {"latents": latents, "do_sample": False, "max_new_tokens": 6}
    logits, text = model.decode(latents, labels), model.generate(**options)
    nats = sequence_nll(logits, labels)
    calls = used(monkeypatch)
    with OneThreadStops(model.decoder.lm.transformer.h[0], lambda: model.nll(latents, labels)) as other:
        assert torch.equal(model.decode(latents, labels), logits)
        assert torch.equal(model.generate(**options), text)
        torch.testing.assert_close(model.nll(-latents, labels), sequence_nll(model.decode(-latents, labels), labels))
    torch.testing.assert_close(other.results[0], nats, atol=1e-5, rtol=0)
    # Both without logits, now and from now on.
    assert len(calls) == 2 and model.lm_head_is_final
