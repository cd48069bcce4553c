"""`torch.compile` in one graph, `torch.export` of both halves."""

import pytest
import torch
from torch import nn
from torch.export import Dim, export
from transformers import CompileConfig, StaticCache

from helpers import BOS, PAD, VOCAB, make_batch, make_model
from hf_vae.compat import CACHE

SLOW_VARIANTS = ("cvae", "cvae-cross", "paraphrase-eq", "paraphrase-cross", "dialog", "dialog-acts", "vae-optimus")
FORWARD = [
    "vae",
    "paraphrase-prompt",
    *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_VARIANTS),
]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("variant", FORWARD)
def test_forward_is_one_graph_whatever_the_kl_s_weight(variant):
    with torch._dynamo.config.patch(error_on_recompile=True):
        # Where an act is unknown, evaluation sums over all acts, and looks at the labels to know where.
        for training in (True,) if variant == "dialog-acts" else (True, False):
            torch._dynamo.reset()
            model = make_model(variant).train(training)
            batch = make_batch(model)
            compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=False)
            losses = []
            for weight in (1.0, 0.25):
                model.kl_weight.fill_(weight)
                torch.manual_seed(0)
                output = compiled(**batch)
                torch.manual_seed(0)
                torch.testing.assert_close(output.loss, model(**batch).loss)
                losses.append(output.loss.item())
            # In training the graph must read the weight, which it was not traced with; evaluation's is always 1.
            assert (losses[0] != losses[1]) == training


@pytest.mark.parametrize("variant", FORWARD)
def test_training_steps_on_batches_of_other_sizes_are_one_graph(variant):
    # From the second size on the compiler leaves the sizes open.
    model = make_model(variant).train()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    whole = make_batch(model)
    for rows in (3, 2):
        batch = {name: tensor[:rows] for name, tensor in whole.items()}
        torch.manual_seed(0)
        found = compiled(**batch).loss
        torch.manual_seed(0)
        torch.testing.assert_close(found, model(**batch).loss)


def test_training_with_all_terms_is_one_graph():
    model = make_model("cvae", objective="hybrid", prior_regularization=0.5, bow_loss_weight=1.0).train()
    batch = make_batch(model)
    torch.manual_seed(0)
    output = torch.compile(model, fullgraph=True, backend="eager", dynamic=False)(**batch)
    torch.manual_seed(0)
    expected = model(**batch)
    for name in ("loss", "prior_reconstruction_loss", "prior_kl", "bow_loss"):
        torch.testing.assert_close(output[name], expected[name])


@pytest.mark.slow
def test_lstms_compile_in_pieces():
    # Rows of unequal length are packed, by lengths that no graph can know.
    model = make_model("vae-lstm", latent_injection=["memory", "embedding", "logits"])
    batch = make_batch(model)
    torch.manual_seed(0)
    found = torch.compile(model, backend="eager")(**batch).loss
    torch.manual_seed(0)
    torch.testing.assert_close(found, model(**batch).loss)


def test_gradients_of_the_compiled_forward_are_those_of_the_model():
    model = make_model("vae").train()
    batch = make_batch(model)
    gradients = []
    for forward in (model, torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=False)):
        model.zero_grad()
        torch.manual_seed(0)
        forward(**batch).loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def parts_compiled(kind: str, model) -> None:
    lm = model.decoder.lm
    if kind == "the head":
        lm.lm_head.compile(backend="eager")
    elif kind == "the layers":
        for layer in lm.model.layers:
            layer.compile(backend="eager")
    elif kind == "the LM in place":
        lm.compile(backend="eager")
    elif kind == "the LM with a break":
        lm.model.norm.register_forward_hook(lambda *_: torch._dynamo.graph_break())
        lm.compile(backend="eager")
    else:
        lm.lm_head = torch.compile(lm.lm_head, backend="eager")


@pytest.mark.parametrize("kind", ["the head", "the layers", "the LM in place", "the LM with a break", "a head around the head"])
def test_z_reaches_the_head_whatever_part_is_compiled(kind):
    model = make_model("vae", "llama", latent_injection="logits")
    labels, latents = make_batch(model)["labels"], torch.randn(3, 4)
    expected, other = (model.decode(each, labels) for each in (latents, -latents))
    assert (expected - other).abs().max() > 1e-3
    parts_compiled(kind, model)
    for _ in range(2):
        torch.testing.assert_close(model.decode(latents, labels), expected)


@pytest.mark.parametrize("training", [True, False])
def test_z_at_the_head_is_one_graph_also_after_a_new_vocabulary(training):
    model = make_model("vae", latent_injection="logits").train(training)
    model.decoder.resize_token_embeddings(VOCAB + 3)
    batch = make_batch(model)
    torch.manual_seed(0)
    found = torch.compile(model, fullgraph=True, backend="eager", dynamic=False)(**batch).loss
    torch.manual_seed(0)
    torch.testing.assert_close(found, model(**batch).loss)


def compiled_generation() -> dict:
    """Options under which `generate` compiles each step, and fails where it is not one graph."""
    config = CompileConfig(fullgraph=True, backend="eager", mode=None, dynamic=False)
    # transformers compiles on accelerators alone unless it is told so.
    config._compile_all_devices = True
    return {"cache_implementation": "static", "compile_config": config}


@pytest.mark.parametrize("decoder", ["gpt2", pytest.param("llama", marks=pytest.mark.slow)])
@pytest.mark.parametrize("variant", ["vae", pytest.param("cvae-cross", marks=pytest.mark.slow)])
def test_decoding_with_a_static_cache_is_one_graph(variant, decoder):
    if variant == "cvae-cross" and decoder == "llama":
        pytest.skip("Llama has no cross-attention")
    model = make_model(variant, decoder)
    torch.manual_seed(0)
    latents = torch.randn(3, 4)
    batch = make_batch(model)
    source = {name: batch[name] for name in ("input_ids", "attention_mask")} if variant != "vae" else {}
    given = {"latents": latents, "max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, **source}
    expected = model.generate(**given)
    torch._dynamo.utils.counters.clear()
    # Were a token's position or the cache's length a part of the graph, each step would compile anew.
    with torch._dynamo.config.patch(error_on_recompile=True):
        found = model.generate(**given, **compiled_generation())
        again = model.generate(**{**given, "latents": latents.flip(0)}, **compiled_generation())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert torch.equal(found, expected)
    if variant == "vae":
        assert torch.equal(again, expected.flip(0))


class Encode(nn.Module):
    """q(z|y) as two tensors: `torch.export` returns tensors and what is made of them."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        q = self.model.encode(input_ids, attention_mask).latent_dist
        return q.mean, q.logvar


SEVERAL = {"num_latents": 2}


@pytest.mark.parametrize(
    "variant, options",
    [
        ("vae", {}),
        ("vae", SEVERAL),
        ("vae", {**SEVERAL, "pooling": "local_attention"}),
        pytest.param("cvae", {}, marks=pytest.mark.slow),
        pytest.param("cvae", SEVERAL, marks=pytest.mark.slow),
        ("paraphrase-prompt", {}),
        ("paraphrase-prompt", SEVERAL),
    ],
)
def test_encode_is_exported_for_any_batch_and_length(variant, options, tmp_path):
    model = make_model(variant, **options)
    rows, length = Dim("rows", min=1, max=64), Dim("length", min=2, max=48)
    shapes = {"input_ids": {0: rows, 1: length}, "attention_mask": {0: rows, 1: length}}
    name = "input_ids" if variant == "vae" else "posterior_input_ids"
    batch = make_batch(model)
    example = {"input_ids": batch[name], "attention_mask": batch[name.replace("input_ids", "attention_mask")]}
    program = export(Encode(model).eval(), (), example, dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "encode.pt2")
    loaded = torch.export.load(tmp_path / "encode.pt2").module()
    for rows_of_it, seed in ((3, 0), (5, 1), (1, 2)):
        batch = make_batch(model, rows_of_it, seed)
        given = (batch[name], batch[name.replace("input_ids", "attention_mask")])
        expected = model.encode(*given).latent_dist
        mean, logvar = loaded(input_ids=given[0], attention_mask=given[1])
        torch.testing.assert_close(mean, expected.mean)
        torch.testing.assert_close(logvar, expected.logvar)


class DecodeStep(nn.Module):
    """One token further: the cache is the program's own state, of a fixed size."""

    STATE = ("keys", "values", "cumulative_length")

    def __init__(self, decoder, rows: int, max_cache_len: int):
        super().__init__()
        self.decoder = decoder
        config = decoder.config
        self.cache = StaticCache(config=config, max_cache_len=max_cache_len)
        heads, size = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
        self.cache.early_initialization(rows, heads, size, decoder.dtype, decoder.device)
        for number, layer in enumerate(self.cache.layers):
            for name in self.STATE:
                self.register_buffer(f"{name}_{number}", getattr(layer, name), persistent=False)

    def forward(self, input_ids, latents, position_ids):
        for number, layer in enumerate(self.cache.layers):
            for name in self.STATE:
                setattr(layer, name, getattr(self, f"{name}_{number}"))
        return self.decoder(
            input_ids=input_ids, latents=latents, position_ids=position_ids, use_cache=True, **{CACHE: self.cache}
        ).logits[:, -1]


def test_one_decode_step_is_exported():
    model = make_model("vae", "llama")
    torch.manual_seed(0)
    rows, steps, latents = 2, 5, torch.randn(2, 4)
    step = DecodeStep(model.decoder, rows, max_cache_len=16)
    tokens, position = torch.full((rows, 1), BOS), torch.zeros(rows, 1, dtype=torch.long)
    with torch.no_grad():
        program = export(step, (tokens, latents, position), strict=False).module()
    sequence = tokens
    for number in range(steps):
        logits = program(sequence[:, -1:], latents, torch.full((rows, 1), number))
        expected = model.decoder(sequence, latents).logits[:, -1]
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
        sequence = torch.cat([sequence, logits.argmax(-1, keepdim=True)], dim=1)
    model.generation_config.pad_token_id = PAD
    generated = model.generate(latents=latents, max_new_tokens=steps, min_new_tokens=steps, do_sample=False, eos_token_id=-1)
    assert torch.equal(generated, sequence)
