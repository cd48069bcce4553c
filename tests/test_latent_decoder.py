"""p(y|x,z) with a cache equals p(y|x,z) without one, and z reaches every step."""

import pytest
import torch
from conftest import BOS, EOS, PAD, VOCAB, tiny_gpt2_config, tiny_llama_config
from transformers import AutoModelForCausalLM, Gemma3TextConfig, MistralConfig, OPTConfig

from hf_vae import LatentDecoder

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


@pytest.fixture(params=DECODERS)
def decoder(request):
    torch.manual_seed(0)
    return LatentDecoder(DECODERS[request.param](), latent_size=3).eval()


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


def test_z_reaches_every_step(decoder):
    """With the tokens fixed, the logits at the last of 30 steps still depend on z."""
    tokens = torch.randint(4, VOCAB, (1, 30), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        first, second = (decoder(tokens, latents=torch.full((1, 3), value)).logits[:, -1] for value in (1.0, -1.0))
    assert (first - second).abs().max() > 1e-2


def test_the_latent_neither_disturbs_a_fresh_decoder_much_nor_starts_dead():
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(tiny_llama_config())
    decoder = LatentDecoder(lm.config, latent_size=64, lm=lm)
    shift = decoder.project(torch.randn(2000, 64))
    # The spread of a fresh embedding, whatever the number of dimensions of z.
    assert shift.std().item() == pytest.approx(0.3, rel=0.1)


def test_refusals():
    with pytest.raises(ValueError, match="takes no `inputs_embeds`"):
        LatentDecoder(tiny_llama_config(), latent_size=3, lm=_without_inputs_embeds())
    decoder = LatentDecoder(tiny_llama_config(), latent_size=3)
    with pytest.raises(ValueError, match="`latents` is missing"):
        decoder(torch.ones(1, 2, dtype=torch.long))


def _without_inputs_embeds():
    lm = AutoModelForCausalLM.from_config(tiny_llama_config())

    class NoEmbeds(type(lm)):
        def forward(self, input_ids=None, attention_mask=None):
            return super().forward(input_ids, attention_mask)

    return NoEmbeds(lm.config)
