"""z as several vectors: learned queries make them, each way in tells them apart, and to everybody else z is one flat vector."""

import re

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoModel

from extension.contract import SENTENCES, check_evaluates, check_generates, check_saves_and_loads, check_trains, processor, vae
from families import DECODERS, ENCODERS, WORKS, tiny_encoder_config
from helpers import VARIANTS, VOCAB, built, generation_inputs, make_batch, make_model, tiny_gpt2_config, tiny_llama_config
from hf_vae import (
    DiagonalGaussian,
    LatentDecoder,
    LatentInjection,
    VAEConfig,
    VAEModel,
    register_latent_injection,
    register_posterior,
)
from hf_vae.latent_injection import EmbeddingInjection, MemoryInjection, PrefixInjection
from hf_vae.latent_space import decode_latents, encode_texts, fit_prior
from hf_vae.latent_vectors import EmbeddingAttention, MemorySlots, SoftTokens
from hf_vae.posterior import GaussianHead
from hf_vae.resampler import Resampler

WAYS = ("embedding", "memory", "prefix", "logits")


def several(variant="vae", way="embedding", **options):
    """Three vectors of four numbers."""
    return make_model(variant, num_latents=3, **{"pooling": "attention", "latent_injection": way, **options})


def test_one_vector_is_what_it_was():
    model = make_model("vae", latent_injection=list(WAYS[:3]))
    assert (model.config.pooling, model.config.prefix_length, model.config.total_latent_size) == ("mean", 4, 4)
    classes = [type(way) for way in model.decoder.injections]
    assert classes == [EmbeddingInjection, MemoryInjection, PrefixInjection]
    assert model.resampler is None and not [name for name in model.state_dict() if "resampler" in name or "places" in name]


def test_what_several_vectors_settle():
    config = VAEConfig(num_latents=3, latent_size=5)
    assert (config.pooling, config.prefix_length, config.total_latent_size) == ("attention", 3, 15)
    assert VAEConfig.from_dict(config.to_diff_dict()).to_dict() == config.to_dict()
    classes = [type(way) for way in several(way=list(WAYS[:3])).decoder.injections]
    assert classes == [EmbeddingAttention, MemorySlots, SoftTokens]


def resampler(num_queries: int = 3, size: int = 8, num_heads: int = 2) -> Resampler:
    torch.manual_seed(0)
    return Resampler(size, num_queries, num_heads, torch.float32)


def test_queries_attend_as_torch_s_own_attention_does():
    """The layer against `nn.MultiheadAttention` with the same weights."""
    layer, states = resampler(), torch.randn(2, 5, 8)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    projections = (layer.to_queries, layer.to_keys, layer.to_values)
    with torch.no_grad():
        for module in (*projections, layer.to_output):
            module.bias.normal_()
        attention.in_proj_weight.copy_(torch.cat([each.weight for each in projections]))
        attention.in_proj_bias.copy_(torch.cat([each.bias for each in projections]))
        attention.out_proj.load_state_dict(layer.to_output.state_dict())
        queries = layer.queries.expand(2, -1, -1)
        seen, _ = attention(queries, states, states, key_padding_mask=mask == 0)
        hidden = layer.attention_norm(queries + seen)
        torch.testing.assert_close(layer(states, mask), layer.norm(hidden + layer.mlp(hidden)))


def test_a_query_sees_no_padding_and_its_vectors_differ():
    layer, states = resampler(), torch.randn(2, 5, 8)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    with torch.no_grad():
        vectors = layer(states, mask)
        torch.testing.assert_close(vectors[1:], layer(states[1:, :2]))
        torch.testing.assert_close(layer(states[:, [4, 2, 0, 1, 3]]), layer(states))
    assert torch.pdist(vectors[0]).min() > 0.5


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_one_flat_z_and_a_gradient_in_every_weight(variant, way):
    model = several(variant, way).train()
    batch = make_batch(model)
    output = model(**batch)
    assert output.posterior_mean.shape == output.prior_mean.shape == (3, 12)
    output.loss.backward()
    assert not [name for name, each in model.named_parameters() if each.grad is None or not each.grad.any()]
    assert all(row.any() for name, each in model.named_parameters() if name.endswith("queries") for row in each.grad)
    written = model.eval().generate(
        **generation_inputs(batch), num_return_sequences=2, num_beams=2, max_new_tokens=4, return_dict_in_generate=True
    )
    assert written["latents"].shape == (6, 12)


@pytest.mark.parametrize("variant", ["vae", "cvae", "paraphrase-cross", "dialog", "dialog-lstm"])
def test_padding_and_other_rows_change_nothing(variant):
    model = several(variant, "memory")
    batch = make_batch(model)
    latents = torch.randn(3, 12)
    with torch.no_grad():
        together = [model(**batch).kl, model(**batch, latents=latents).reconstruction_loss]
        for row in range(3):
            alone = {name: tensor[row : row + 1] for name, tensor in batch.items()}
            found = [model(**alone).kl, model(**alone, latents=latents[row : row + 1]).reconstruction_loss]
            torch.testing.assert_close([each[0] for each in found], [each[row] for each in together], atol=1e-5, rtol=1e-5)
        padded = dict(batch)
        for name in ("input_ids", "attention_mask", "posterior_input_ids", "posterior_attention_mask"):
            if name in batch:
                padded[name] = nn.functional.pad(batch[name], (0, 3))
        torch.testing.assert_close(model(**padded).kl, together[0], atol=1e-5, rtol=1e-5)


def pair_of(encoder, decoder, num_latents: int, way: str) -> VAEModel:
    torch.manual_seed(0)
    sizes = {"latent_size": 2, "num_latents": num_latents, "latent_injection": way}
    return VAEModel(VAEConfig(encoder=encoder, decoder=decoder, **sizes))


@pytest.mark.parametrize("name", [name for name, family in ENCODERS.items() if family.expected == WORKS])
def test_queries_read_any_encoder(name):
    model = pair_of(ENCODERS[name].config(), tiny_llama_config(), 3, "embedding").train()
    model(**make_batch(model)).loss.backward()
    gradient = model.resampler.queries.grad
    assert gradient.isfinite().all() and gradient.any(-1).all()


@pytest.mark.parametrize("name", DECODERS)
def test_any_decoder_reads_several_vectors_in_the_ways_that_it_has_for_one(name):
    for way in WAYS[:3]:
        try:
            pair_of(tiny_encoder_config(), DECODERS[name].config(), 1, way)
        except ValueError as error:
            with pytest.raises(ValueError, match=re.escape(str(error))):
                pair_of(tiny_encoder_config(), DECODERS[name].config(), 3, way)
            continue
        model = pair_of(tiny_encoder_config(), DECODERS[name].config(), 3, way).eval()
        given = {"latents": torch.randn(3, 6), "max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
        assert torch.equal(model.generate(**given), model.generate(**given, use_cache=False))


def test_one_query_pools_one_vector():
    model = make_model("cvae", pooling="attention").train()
    output = model(**make_batch(model))
    assert output.posterior_mean.shape == output.prior_mean.shape == (3, 4)
    output.loss.backward()
    assert all(each.resampler.queries.grad.any() for each in (model, model.prior_network))


def test_the_kl_is_the_sum_over_vectors_and_free_bits_may_be_granted_to_each():
    model = several(free_bits=0.2, free_bits_per="vector").train()
    with torch.no_grad():
        # One vector says much and two say little.
        model.resampler.queries[0] *= 4
        model.posterior_head.linear.weight *= 2
    batch = make_batch(model)
    output = model(**batch)
    parameters = (each.unflatten(-1, (3, 4)).unbind(1) for each in (output.posterior_mean, output.posterior_logvar))
    per_vector = torch.stack([DiagonalGaussian(*each).kl(DiagonalGaussian.standard(3, 4)).sum(-1) for each in zip(*parameters)], 1)
    torch.testing.assert_close(output.kl, per_vector.sum(1))
    granted = per_vector.median().item()
    model.config.free_bits = granted
    torch.manual_seed(0)
    output = model(**batch)
    charged = torch.where(per_vector > granted, per_vector, granted).sum()
    tokens = (batch["labels"] != -100).sum()
    torch.testing.assert_close(output.loss, (output.reconstruction_loss.sum() + charged) / tokens)
    assert charged > per_vector.sum()


def test_the_head_reads_every_vector_by_the_same_weights():
    model, vectors = several(), torch.randn(2, 3, 16)
    with torch.no_grad():
        together = model.posterior_head(vectors)
        alone = [GaussianHead.forward(model.posterior_head, each) for each in vectors.unbind(1)]
    torch.testing.assert_close(together.mean, torch.cat([each.mean for each in alone], dim=-1))
    torch.testing.assert_close(together.logvar, torch.cat([each.logvar for each in alone], dim=-1))


def test_batch_norm_bounds_the_kl_of_all_vectors_together():
    model = several(batch_norm_gamma=0.7).train()
    output = model(**make_batch(model, rows=16))
    assert output.kl.mean() >= 12 * 0.7**2 / 2 - 1e-4


def test_a_token_attends_to_the_vectors_as_torch_s_own_attention_does():
    torch.manual_seed(0)
    decoder = LatentDecoder(tiny_llama_config(), latent_size=6, num_latents=3).eval()
    way, tokens, z = decoder.latent_injection.embedding, torch.randn(2, 4, 16), torch.randn(2, 6)
    vectors = z.view(2, 3, 2)
    attention = nn.MultiheadAttention(16, way.num_heads, bias=False, batch_first=True)
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat([way.to_queries.weight, torch.eye(16), torch.eye(16)]))
        attention.out_proj.weight.copy_(torch.eye(16))
        keys = vectors @ way.to_keys.weight.T + way.places.weight
        seen, weights = attention(way.norm(tokens), keys, way.projection(vectors), average_attn_weights=False)
        torch.testing.assert_close(way.embed(tokens, z), tokens + seen)
    # Heads begin with different mixtures.
    assert weights.std(1).mean() > 0.05 and weights.amax(-1).mean() < 0.8


def test_memory_has_a_position_for_each_vector():
    """A GPT-2 of one layer computed by hand."""
    torch.manual_seed(0)
    config = tiny_gpt2_config()
    config.n_layer = 1
    decoder = LatentDecoder(config, latent_size=6, latent_injection=("memory",), num_latents=3).eval()
    lm, tokens, z = decoder.lm.transformer, torch.randint(4, VOCAB, (1, 4)), torch.randn(1, 6)
    with torch.no_grad():
        hidden = lm.wte(tokens) + lm.wpe(torch.arange(3, 7))
        block, way = lm.h[0], decoder.latent_injection.memory
        query, key, value = (
            part.view(4, 2, 8).transpose(0, 1) for part in block.attn.c_attn(block.ln_1(hidden))[0].split(16, dim=-1)
        )
        memory = (way.projection(z.view(3, 2)) + way.places.weight).view(3, 2, 8).transpose(0, 1)
        scores = query @ torch.cat([memory, key], dim=1).transpose(1, 2) / 8**0.5
        causal = torch.ones(4, 7, dtype=torch.bool).tril(3)
        attended = scores.masked_fill(~causal, -torch.inf).softmax(-1) @ torch.cat([memory, value], dim=1)
        hidden = hidden + block.attn.c_proj(attended.transpose(0, 1).reshape(1, 4, 16))
        hidden = lm.ln_f(hidden + block.mlp(block.ln_2(hidden)))
        torch.testing.assert_close(decoder(tokens, z).logits, decoder.lm.lm_head(hidden))
    assert decoder.num_latent_positions == 3


def test_soft_tokens_are_one_for_each_vector_and_what_enters_beside_z_is_read_with_each():
    torch.manual_seed(0)
    decoder = LatentDecoder(tiny_llama_config(), latent_size=8, latent_injection=("prefix",), num_latents=3, beside_size=2).eval()
    way, z, act = decoder.latent_injection.prefix, torch.randn(2, 6), torch.randn(2, 2)
    with torch.no_grad():
        found = decoder.prompt_embeds(torch.randint(4, VOCAB, (2, 5)), torch.cat([z, act], dim=-1))[:, :3]
        for place, vector in enumerate(z.view(2, 3, 2).unbind(1)):
            expected = way.projection(torch.cat([vector, act], dim=-1)) + way.places.weight[place]
            torch.testing.assert_close(found[:, place], expected)


@pytest.mark.parametrize("way", ["memory", "prefix", "embedding"])
def test_a_prompt_that_was_read_without_z_serves_every_z(way):
    model = several("paraphrase-prompt", way, latent_placement="after_source")
    batch = make_batch(model)
    latents = torch.randn(3, 12)
    with torch.no_grad():
        conditioning = model.condition(
            prompt_input_ids=batch["prompt_input_ids"], prompt_attention_mask=batch["prompt_attention_mask"]
        )
        expected = model.nll(latents, batch["labels"], **conditioning)
        found = model.nll(latents, batch["labels"], **model.prefill(conditioning))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_training_step_is_one_graph(dynamic):
    torch._dynamo.reset()
    model = several().train()
    batch = make_batch(model)
    losses = []
    for each in (model, torch.compile(model, fullgraph=True, backend="eager", dynamic=dynamic)):
        torch.manual_seed(0)
        losses.append(each(**batch).loss)
    torch.testing.assert_close(*losses)


def test_a_fresh_prior_network_has_queries_of_its_own():
    model = several("paraphrase-prompt").train()
    model.add_prior_network()
    batch = make_batch(model)
    output = model(**batch)
    assert output.prior_mean.shape == (3, 12) and output.loss.isfinite()
    assert torch.pdist(model.prior_network.resampler.queries).min() > 1


def test_a_flow_and_an_attribute_are_over_all_numbers_of_z():
    model = several(prior_type="flow", flow_layers=2, flow_hidden_size=8)
    assert model.prior_network.latent_size == 12
    assert model(**make_batch(model)).loss.isfinite()


@pytest.mark.parametrize("ways", [["embedding"], ["memory", "prefix", "logits"]])
def test_it_trains_saves_generates_and_is_evaluated(ways, tmp_path):
    model = vae(latent_size=2, num_latents=3, latent_injection=ways)
    check_trains(model, tmp_path)
    check_saves_and_loads(model, tmp_path)
    check_generates(model)
    check_evaluates(model)
    loaded = AutoModel.from_pretrained(tmp_path / "saved")
    assert loaded.config.to_dict()["num_latents"] == 3 and loaded.config.pooling == "attention"


def test_the_latent_space_is_flat():
    model = vae(latent_size=2, num_latents=3).eval()
    means = encode_texts(model, processor(), SENTENCES).mode()
    assert means.shape == (12, 6)
    assert len(decode_latents(model, processor(), means[:2], max_new_tokens=4)) == 2
    model.set_fitted_prior(fit_prior(model, processor(), SENTENCES, num_components=1))
    written = model.generate(latent_source="fitted_prior", num_return_sequences=2, max_new_tokens=3, return_dict_in_generate=True)
    assert written["latents"].shape == (2, 6)
    with pytest.raises(ValueError, match=r"expected \(.*6\)"):
        model.generate(latents=means[:2, :2])


def test_a_way_in_from_elsewhere_reads_all_vectors_side_by_side():
    class Shift(LatentInjection):
        def __init__(self, latent_size, shape):
            super().__init__(latent_size, shape)
            self.projection = nn.Linear(latent_size, shape.embedding_size, dtype=shape.dtype)

        def embed(self, inputs_embeds, latents):
            return inputs_embeds + self.projection(latents).unsqueeze(1)

    register_latent_injection("shift", Shift)
    model = several(way=["shift", "memory"])
    assert model.decoder.latent_injection["shift"].projection.in_features == 12
    assert model(**make_batch(model)).loss.isfinite()


def test_a_family_of_one_vector_is_refused():
    class OneVector(nn.Module):
        """Reads `(batch, hidden_size)` alone."""

    register_posterior("one", OneVector)
    with pytest.raises(ValueError, match="`num_latents` is 3, and `posterior_type='one'` reads one vector"):
        several(posterior_type="one")


@pytest.mark.parametrize("num_latents, way", [(1, "embedding"), *((4, way) for way in WAYS)])
def test_four_small_vectors_learn_what_one_learns(num_latents, way):
    """Four sentences that differ in one word, decoded from the mean of q: soon each is likelier from its z than from another's."""
    sentences = [f"the {each} ." for each in ("farmer", "guard", "nurse", "baker")]
    features = processor()(sentences, sentences)
    read = (features["input_ids"], features["attention_mask"])
    model = vae(latent_injection=way, latent_size=16 // num_latents, num_latents=num_latents).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        model.nll(model.encode(*read).latent_dist.mean, features["labels"]).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        z = model.eval().encode(*read).latent_dist.mean
        own, others = (model.nll(each, features["labels"]).mean() for each in (z, z.roll(1, 0)))
    assert others - own > 1


def test_the_command_s_option():
    _, model, _ = built("--num_latents", "3", "--latent_injection", "prefix")
    assert (model.config.pooling, model.decoder.num_latent_positions, model.config.total_latent_size) == ("attention", 3, 12)
    with pytest.raises(StrictDataclassError, match="`num_latents` is 3 and `pooling` 'first'"):
        built("--num_latents", "3", "--pooling", "first")
