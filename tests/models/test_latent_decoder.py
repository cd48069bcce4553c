"""p(y|x,z) with a cache equals p(y|x,z) without one, and z reaches every step."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaForCausalLM,
    MistralConfig,
    OPTConfig,
)

from helpers import BOS, EOS, PAD, VOCAB, tiny_encoder_config, tiny_gpt2_config, tiny_llama_config, tiny_lstm_config
from hf_vae import LatentDecoder, VAEConfig, VAEModel
from hf_vae.compat import ACTIVATION_CHECKPOINTING, CACHE
from hf_vae.fused_linear_cross_entropy import sequence_nll

COMMON = {
    "vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 48, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD,
    "initializer_range": 0.3,
}  # fmt: skip
DECODERS = {
    "gpt2": tiny_gpt2_config,
    "llama": tiny_llama_config,
    "opt": lambda: OPTConfig(
        vocab_size=VOCAB, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=48,
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, word_embed_proj_dim=16, dropout=0.0, init_std=0.3,
    ),
    "mistral sliding window": lambda: MistralConfig(**COMMON, sliding_window=4),
    "gemma3 alternating": lambda: Gemma3TextConfig(
        **COMMON, head_dim=8, sliding_window=4, query_pre_attn_scalar=8, layer_types=["sliding_attention", "full_attention"]
    ),
}  # fmt: skip


CASES = [(name, ("embedding",), 1) for name in DECODERS]
DECODERS["gemma2"] = lambda: Gemma2Config(**COMMON, head_dim=8, final_logit_softcapping=5.0)
DECODERS["lstm"] = lambda: tiny_lstm_config(num_hidden_layers=2)
CASES += [
    (name, ways, 1)
    for name in ("gpt2", "llama", "opt", "lstm")
    for ways in (("memory",), ("prefix",), ("memory", "embedding"), ("embedding", "prefix", "memory"))
]
# Three vectors of one number each.
CASES += [(name, ("embedding",), 3) for name in ("gpt2", "gemma3 alternating", "lstm")]
CASES += [
    (name, ways, 3) for name in ("gpt2", "llama", "lstm") for ways in (("memory",), ("prefix",), ("memory", "prefix", "logits"))
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{'-'.join(case[1])}-{case[2]}")
def decoder(request):
    torch.manual_seed(0)
    name, ways, num_latents = request.param
    sizes = {"prefix_length": 4 if num_latents == 1 else num_latents, "num_latents": num_latents}
    return LatentDecoder(DECODERS[name](), latent_size=3, latent_injection=ways, **sizes).eval()


def left_padded_prompt():
    prompt = torch.randint(4, VOCAB, (3, 5), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]])
    return prompt.masked_fill(mask == 0, PAD), mask


def log_probs(decoder, sequences, latents, mask, prompt_length):
    """log p of every token after the prompt, in one pass without a cache."""
    mask = torch.cat([mask, mask.new_ones(len(mask), sequences.shape[1] - mask.shape[1])], dim=1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = decoder(sequences, latents, attention_mask=mask, position_ids=positions, use_cache=False).logits
    return logits[:, prompt_length - 1 : -1].log_softmax(-1)


GENERATION = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "return_dict_in_generate": True}


def test_greedy_with_cache_equals_one_pass_without_on_left_padded_rows(decoder):
    prompt, mask = left_padded_prompt()
    latents = torch.randn(3, 3, generator=torch.Generator().manual_seed(2))
    output = decoder.generate(prompt, attention_mask=mask, latents=latents, output_logits=True, **GENERATION)
    cached = torch.stack(output.logits, dim=1).log_softmax(-1)
    torch.testing.assert_close(cached, log_probs(decoder, output.sequences, latents, mask, 5), atol=2e-5, rtol=0)


def test_beam_scores_are_those_of_one_pass(decoder):
    prompt, mask = left_padded_prompt()
    latents = torch.randn(3, 3, generator=torch.Generator().manual_seed(2))
    beams = {"num_beams": 3, "output_scores": True, "length_penalty": 1.0}
    output = decoder.generate(prompt, attention_mask=mask, latents=latents, **GENERATION, **beams)
    full = log_probs(decoder, output.sequences, latents, mask, 5)
    # EOS is forbidden while the sequences grow, so a token's score is the model's log-probability itself.
    expected = full.gather(-1, output.sequences[:, 5:, None]).squeeze(-1).mean(-1)
    torch.testing.assert_close(output.sequences_scores, expected, atol=2e-5, rtol=0)


def test_a_left_padded_row_is_what_it_is_alone(decoder):
    prompt, mask = left_padded_prompt()
    latents = torch.randn(3, 3, generator=torch.Generator().manual_seed(2))
    together = decoder.generate(prompt, attention_mask=mask, latents=latents, **GENERATION).sequences
    alone = decoder.generate(prompt[1:2, 2:], latents=latents[1:2], **GENERATION).sequences
    assert torch.equal(together[1, 5:], alone[0, 3:])


def test_going_on_from_a_returned_cache_is_as_starting_anew(decoder):
    prompt = torch.randint(4, VOCAB, (3, 5), generator=torch.Generator().manual_seed(1))
    latents = torch.randn(3, 3, generator=torch.Generator().manual_seed(2))
    first = decoder.generate(prompt, latents=latents, attention_mask=torch.ones_like(prompt), **GENERATION)
    longer = torch.cat([first.sequences, prompt[:, :2]], dim=1)
    options = {"latents": latents, "attention_mask": torch.ones_like(longer), **GENERATION}
    continued = decoder.generate(longer, **{CACHE: first[CACHE]}, **options).sequences
    assert torch.equal(continued, decoder.generate(longer, **options).sequences)


def test_positions_that_are_not_given_are_counted_as_generate_counts_them(decoder):
    if not decoder.num_latent_positions:
        pytest.skip("the language model's own affair")
    prompt, mask = left_padded_prompt()
    latents = torch.randn(3, 3, generator=torch.Generator().manual_seed(2))
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        given, counted = (
            decoder(prompt, latents, attention_mask=mask, **options).logits[:, -1] for options in ({"position_ids": positions}, {})
        )
    torch.testing.assert_close(given, counted)


def test_z_reaches_every_step(decoder):
    """With the tokens fixed, the logits at the last of 30 steps still depend on z."""
    tokens = torch.randint(4, VOCAB, (1, 30), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        first, second = (decoder(tokens, latents=torch.full((1, 3), value)).logits[:, -1] for value in (1.0, -1.0))
    # An LSTM forgets its initial state, which is why every step may read z beside it.
    assert (first - second).abs().max() > (1e-6 if getattr(decoder, "recurrent", False) else 1e-3)


def test_memory_is_one_more_position_with_one_vector_for_key_and_value():
    """A GPT-2 of one layer computed by hand."""
    torch.manual_seed(0)
    config = tiny_gpt2_config()
    config.n_layer = 1
    decoder = LatentDecoder(config, latent_size=3, latent_injection=("memory",)).eval()
    lm, tokens, z = decoder.lm.transformer, torch.randint(4, VOCAB, (1, 4)), torch.randn(1, 3)
    with torch.no_grad():
        hidden = lm.wte(tokens) + lm.wpe(torch.arange(1, 5))
        block = lm.h[0]
        query, key, value = (
            part.view(4, 2, 8).transpose(0, 1) for part in block.attn.c_attn(block.ln_1(hidden))[0].split(16, dim=-1)
        )
        memory = decoder.latent_injection.memory.projection(z).view(2, 1, 8)
        scores = query @ torch.cat([memory, key], dim=1).transpose(1, 2) / 8**0.5
        causal = torch.ones(4, 5, dtype=torch.bool).tril(1)
        attended = scores.masked_fill(~causal, -torch.inf).softmax(-1) @ torch.cat([memory, value], dim=1)
        hidden = hidden + block.attn.c_proj(attended.transpose(0, 1).reshape(1, 4, 16))
        hidden = lm.ln_f(hidden + block.mlp(block.ln_2(hidden)))
        torch.testing.assert_close(decoder(tokens, z).logits, decoder.lm.lm_head(hidden))


def test_an_lstms_memory_is_its_initial_state():
    torch.manual_seed(0)
    decoder = LatentDecoder(tiny_lstm_config(), latent_size=3, latent_injection=("memory",)).eval()
    lm, tokens, z = decoder.lm, torch.randint(4, VOCAB, (2, 4)), torch.randn(2, 3)
    with torch.no_grad():
        cell = decoder.latent_injection.memory.projection(z).unsqueeze(0)
        states, _ = lm.model.lstm(lm.model.embed_tokens(tokens), (cell.tanh(), cell))
        torch.testing.assert_close(decoder(tokens, z, use_cache=False).logits, lm.lm_head(states))


@pytest.mark.parametrize("way", ["memory", "prefix"])
def test_gradients_reach_z_without_a_cache(way):
    for name in ("gpt2", "llama", "lstm"):
        decoder = LatentDecoder(DECODERS[name](), latent_size=3, latent_injection=(way,)).train()
        z = torch.randn(2, 3, requires_grad=True)
        output = decoder(torch.randint(4, VOCAB, (2, 5)), z, use_cache=False)
        output.logits.square().sum().backward()
        assert output.get(CACHE) is None and z.grad.abs().min() > 0


def test_a_latent_of_zeros_has_a_finite_gradient_in_a_deep_decoder():
    torch.manual_seed(0)
    config = tiny_llama_config()
    config.num_hidden_layers = 30
    decoder = LatentDecoder(config, latent_size=3, latent_injection=("prefix",)).train()
    decoder(torch.randint(4, VOCAB, (2, 5)), torch.zeros(2, 3), use_cache=False).logits.logsumexp(-1).sum().backward()
    assert decoder.latent_injection.prefix.projection.bias.grad.isfinite().all()


def test_the_latent_neither_disturbs_a_fresh_decoder_much_nor_starts_dead():
    torch.manual_seed(0)
    decoder = LatentDecoder(tiny_llama_config(), latent_size=64)
    shift = decoder.latent_injection.embedding.projection(torch.randn(2000, 64))
    # The spread of a fresh embedding, whatever the number of dimensions of z.
    assert shift.std().item() == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize("num_latents", [1, 4])
@pytest.mark.parametrize(
    "ways", [("embedding",), ("memory",), ("prefix",), ("memory", "embedding"), ("embedding", "memory", "prefix"), ("logits",)]
)
def test_z_starts_gently_in_a_pretrained_decoder_and_not_dead(ways, num_latents):
    """What a position in front of the first token costs by itself depends on the decoder; z must add next to nothing to that."""
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(tiny_llama_config()).eval()
    sizes = {"latent_size": 8 // num_latents, "num_latents": num_latents, "latent_injection": list(ways)}
    model = VAEModel(VAEConfig(encoder=tiny_encoder_config(), decoder=lm.config, **sizes), decoder=lm).eval()
    start = torch.full((64, 1), model.config.decoder_start_token_id)
    written = lm.generate(start, do_sample=True, max_new_tokens=8, min_new_tokens=8, top_k=0)[:, 1:]
    with torch.no_grad():
        alone = sequence_nll(lm(torch.cat([start, written[:, :-1]], 1)).logits, written)
        without, drawn = (model.nll(latents, written) for latents in (torch.zeros(64, 8), torch.randn(64, 8)))
    assert abs((drawn - without).mean()) / 8 < 0.05
    if ways == ("embedding",):
        torch.testing.assert_close(without, alone)
        assert abs((drawn - alone).mean()) / 8 < 0.05
    # Whatever the way, q learns from the first step on.
    model.nll(model.encode(torch.randint(4, VOCAB, (64, 5))).latent_dist.sample(), written).sum().backward()
    assert all(parameter.grad.abs().max() > 1e-6 for parameter in model.posterior_head.parameters())


def head_inputs(lm, run):
    """What `run()` returns, and what the LM's head read meanwhile."""
    read = []
    handle = lm.get_output_embeddings().register_forward_hook(lambda head, inputs, logits: read.append(inputs[0]))
    result = run()
    handle.remove()
    return result, read[0]


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
def test_the_head_reads_z_beside_the_hidden_state_that_gates_it(name):
    """h + W((1 + tanh(G h + b)) * z), by hand."""
    torch.manual_seed(0)
    decoder = LatentDecoder(DECODERS[name](), latent_size=3, latent_injection=("logits",)).eval()
    tokens, z = torch.randint(4, VOCAB, (2, 5)), torch.randn(2, 3)
    way, head = decoder.latent_injection["logits"], decoder.get_output_embeddings()
    alone, hidden = head_inputs(decoder.lm, lambda: decoder.lm(tokens).logits)
    # The gates stand at 1 at first: the same is added to the logits of every position.
    torch.testing.assert_close(decoder(tokens, z).logits, alone + (way.projection(z) @ head.weight.T).unsqueeze(1))
    for parameter in way.parameters():
        torch.nn.init.normal_(parameter)
    opened = 1 + torch.tanh(hidden @ way.gate.weight.T + way.gate.bias)
    added = opened * z.unsqueeze(1) @ way.projection.weight.T @ head.weight.T
    assert (added[:, 1:] - added[:, :1]).abs().max() > 0.1
    torch.testing.assert_close(decoder(tokens, z).logits, alone + added)
    # A source is read without z, whichever positions are asked for.
    behind = decoder(tokens, z, source_length=3).logits
    torch.testing.assert_close(behind, torch.cat([alone[:, :3], (alone + added)[:, 3:]], 1))
    torch.testing.assert_close(decoder(tokens, z, source_length=3, logits_to_keep=3).logits, behind[:, 2:])
    torch.testing.assert_close(decoder(tokens, z, source_length=3, logits_to_keep=torch.tensor([0, 4])).logits, behind[:, [0, 4]])


def test_z_passes_through_what_follows_the_head():
    """Gemma 2 bends its logits: those of h with z in it are bent, and nothing is added to bent ones."""
    torch.manual_seed(0)
    decoder = LatentDecoder(DECODERS["gemma2"](), latent_size=3, latent_injection=("logits",)).eval()
    tokens, z = torch.randint(4, VOCAB, (2, 5)), 1e4 * torch.randn(2, 3)
    cap = decoder.config.final_logit_softcapping
    assert decoder(tokens, z).logits.abs().max() <= cap and (decoder(tokens, z).logits - decoder(tokens, -z).logits).abs().max() > 1


@pytest.mark.parametrize("change", ["resized vocabulary", "adapter", "copy"])
def test_z_reaches_a_head_that_took_the_place_of_another(change):
    """Once, and not twice: what an adapter is around has been opened before."""
    torch.manual_seed(0)
    decoder = LatentDecoder(tiny_llama_config(), latent_size=3, latent_injection=("logits",)).eval()
    tokens, z = torch.randint(4, VOCAB, (2, 5)), torch.randn(2, 3)
    before = decoder(tokens, z).logits
    if change == "resized vocabulary":
        decoder.resize_token_embeddings(VOCAB + 3)
    elif change == "copy":
        decoder = copy.deepcopy(decoder)
    else:
        get_peft_model(decoder, LoraConfig(target_modules=["lm_head"]))
    torch.testing.assert_close(decoder(tokens, z).logits[..., :VOCAB], before)
    assert (decoder(tokens, -z).logits[..., :VOCAB] - before).abs().max() > 1e-3


def test_z_of_a_pass_that_failed_is_forgotten(monkeypatch):
    torch.manual_seed(0)
    decoder = LatentDecoder(tiny_llama_config(), latent_size=3, latent_injection=("logits",)).eval()
    tokens = torch.randint(4, VOCAB, (2, 5))
    alone = decoder.lm(tokens).logits
    with monkeypatch.context() as patched:
        patched.setattr(decoder.lm.model, "forward", lambda **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            decoder(tokens, torch.randn(2, 3))
    torch.testing.assert_close(decoder.lm(tokens).logits, alone)


def test_threads_pass_one_head_each_with_its_own_z():
    torch.manual_seed(0)
    decoder = LatentDecoder(tiny_llama_config(), latent_size=3, latent_injection=("logits",)).eval()
    tokens, latents = torch.randint(4, VOCAB, (2, 5)), 10 * torch.randn(64, 2, 3)
    alone = [decoder(tokens, z).logits for z in latents]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda z: decoder(tokens, z).logits, latents))
    for one, other in zip(alone, together):
        torch.testing.assert_close(other, one)


@pytest.mark.parametrize("calls", [0, 2])
def test_an_lm_that_does_not_call_its_head_once_is_refused(calls, monkeypatch):
    decoder = LatentDecoder(tiny_llama_config(), latent_size=3, latent_injection=("logits",)).eval()
    call = torch.nn.Linear.__call__

    def other(head, states):
        for _ in range(calls):
            call(head, states)
        return torch.nn.functional.linear(states, head.weight)

    monkeypatch.setattr(
        type(decoder.lm.lm_head), "__call__", lambda head, states: (other if head is decoder.lm.lm_head else call)(head, states)
    )
    with pytest.raises(ValueError, match=f"this LM called its `get_output_embeddings` {calls} times. Choose 'embedding'"):
        decoder(torch.randint(4, VOCAB, (2, 5)), torch.zeros(2, 3))


def test_an_lm_that_hands_its_head_a_keyword_is_refused(monkeypatch):
    decoder = LatentDecoder(tiny_llama_config(), latent_size=3, latent_injection=("logits",)).eval()
    call = torch.nn.Linear.__call__

    def by_keyword(head, states):
        return call(head, input=states) if head is decoder.lm.lm_head else call(head, states)

    monkeypatch.setattr(torch.nn.Linear, "__call__", by_keyword)
    with pytest.raises(ValueError, match=r"hands its head the hidden states by a keyword.*Choose 'embedding'"):
        decoder(torch.randint(4, VOCAB, (2, 5)), torch.zeros(2, 3))


def test_one_z_serves_all_rows_and_a_number_that_fits_none_is_refused():
    torch.manual_seed(0)
    decoder = LatentDecoder(tiny_llama_config(), latent_size=3, latent_injection=("logits",)).eval()
    tokens, z = torch.randint(4, VOCAB, (3, 5)), torch.randn(1, 3)
    torch.testing.assert_close(decoder(tokens, z).logits, decoder(tokens, z.expand(3, -1)).logits)
    for rows in (2, 5):
        with pytest.raises(ValueError, match=f"There are {rows} z for 3 rows"):
            decoder(tokens, torch.randn(rows, 3))


def test_a_decoder_without_a_head_has_no_logits_to_add_to(monkeypatch):
    monkeypatch.setattr(LlamaForCausalLM, "get_output_embeddings", lambda self: None)
    with pytest.raises(ValueError, match="names 'logits', and LlamaForCausalLM has no layer of its own that makes logits"):
        LatentDecoder(tiny_llama_config(), latent_size=3, latent_injection=("logits",))


def test_refusals():
    with pytest.raises(ValueError, match="takes no `inputs_embeds`"):
        LatentDecoder(tiny_llama_config(), latent_size=3, lm=_without_inputs_embeds())
    decoder = LatentDecoder(tiny_llama_config(), latent_size=3)
    with pytest.raises(ValueError, match="`latents` is missing"):
        decoder(torch.ones(1, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="`latent_injection` is 'osmosis'"):
        LatentDecoder(tiny_llama_config(), latent_size=3, latent_injection=("osmosis",))


@pytest.mark.parametrize("num_latents", [1, 3])
@pytest.mark.parametrize("way", ["memory", "prefix"])
def test_ways_in_that_a_decoder_forgets_are_refused(way, num_latents):
    for name in ("mistral sliding window", "gemma3 alternating"):
        with pytest.raises(ValueError, match=f"names '{way}', which needs a decoder whose every layer attends to everything"):
            LatentDecoder(DECODERS[name](), latent_size=3, latent_injection=(way,), num_latents=num_latents)
    compressed = DeepseekV3Config(
        **COMMON, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=4, n_routed_experts=2,
        num_experts_per_tok=1, n_group=1, topk_group=1, first_k_dense_replace=2,
    )  # fmt: skip
    if way == "memory":
        with pytest.raises(ValueError, match="in a compressed form"):
            LatentDecoder(compressed, latent_size=3, latent_injection=(way,), num_latents=num_latents)


def test_memory_refuses_what_would_drop_it():
    decoder = LatentDecoder(tiny_llama_config(), latent_size=3, latent_injection=("memory",))
    getattr(decoder.train(), f"{ACTIVATION_CHECKPOINTING}_enable")()
    with pytest.raises(ValueError, match="gradient checkpointing drops the cache"):
        decoder(torch.ones(1, 2, dtype=torch.long), torch.zeros(1, 3))
    for way in ("memory", "prefix"):
        decoder = LatentDecoder(tiny_llama_config(), latent_size=3, latent_injection=(way,)).eval()
        with pytest.raises(ValueError, match="leave `cache_implementation` unset"):
            decoder.generate(
                torch.ones(1, 2, dtype=torch.long), latents=torch.zeros(1, 3), max_new_tokens=2, cache_implementation="static"
            )


def _without_inputs_embeds():
    lm = AutoModelForCausalLM.from_config(tiny_llama_config())

    class NoEmbeds(type(lm)):
        def forward(self, input_ids=None, attention_mask=None):
            return super().forward(input_ids, attention_mask)

    return NoEmbeds(lm.config)
