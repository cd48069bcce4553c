"""z as a prompt of embeddings, for servers that take such prompts."""

import base64
import io

import pytest
import torch

from helpers import make_batch, make_model

WRITE = {"do_sample": False, "max_new_tokens": 8}


def of_language_model(model, embeds):
    """What a server does: the decoder's language model by itself goes on from embeddings."""
    lm, eos = model.decoder.lm, model.config.eos_token_id
    return lm.generate(inputs_embeds=embeds, eos_token_id=eos, pad_token_id=model.config.pad_token_id, **WRITE)


@pytest.mark.parametrize("decoder", ["gpt2", "llama"])
def test_the_language_model_alone_writes_what_generate_writes(decoder):
    model = make_model("vae", decoder, latent_injection="prefix", prefix_length=3)
    latents = 3 * torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    embeds = model.prompt_embeds(latents)
    assert embeds.shape == (5, 3 + 1, 16)
    expected = model.generate(latents=latents, **WRITE)
    assert len({tuple(row) for row in expected.tolist()}) > 1
    # `generate` starts with the start token, which is in the prompt here.
    assert of_language_model(model, embeds).equal(expected[:, 1:])


@pytest.mark.parametrize("variant", ["paraphrase-prompt", "cvae", "dialog-acts"])
def test_what_is_given_stands_between_z_and_the_start_token(variant):
    model = make_model(variant, "llama", latent_injection="prefix")
    batch = make_batch(model)
    inputs = {name: batch[name][:1] for name in ("input_ids", "attention_mask", "prompt_input_ids", "prompt_attention_mask")}
    if variant == "dialog-acts":
        inputs.update({name: batch[name][:1] for name in ("same_speaker",) if name in batch})
    latents = 3 * torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    embeds = model.prompt_embeds(latents, **inputs)
    assert embeds.shape[:2] == (4, 4 + inputs["prompt_input_ids"].shape[1] + 1)
    expected = model.generate(**inputs, latents=latents, num_return_sequences=4, **WRITE)
    assert of_language_model(model, embeds).equal(expected[:, 1:])


def test_a_request_carries_it_unchanged():
    """The form in which a server's completions API takes a tensor."""
    model = make_model("vae", latent_injection="prefix")
    [embeds] = model.prompt_embeds(torch.ones(1, 4))
    buffer = io.BytesIO()
    torch.save(embeds, buffer)
    request = {"model": "decoder", "prompt_embeds": base64.b64encode(buffer.getvalue()).decode()}
    received = torch.load(io.BytesIO(base64.b64decode(request["prompt_embeds"])), weights_only=True)
    assert received.equal(embeds) and received.ndim == 2 and not received.requires_grad


def test_what_is_no_prompt_is_refused():
    latents = torch.ones(2, 4)
    for injection in ("embedding", ["prefix", "embedding"]):
        with pytest.raises(ValueError, match="only with 'prefix' alone does z reach the decoder as its prompt"):
            make_model("vae", latent_injection=injection).prompt_embeds(latents)
    with pytest.raises(ValueError, match="`word_dropout` is 1: the decoder reads no words"):
        make_model("vae", latent_injection="prefix", word_dropout=1.0, word_dropout_token_id=1).prompt_embeds(latents)
    model = make_model("vae", latent_injection="prefix")
    with pytest.raises(ValueError, match=r"`latents` has shape \(2, 5\); expected \(rows, 4\)"):
        model.prompt_embeds(torch.ones(2, 5))
    model = make_model("paraphrase-prompt", latent_injection="prefix")
    batch = make_batch(model)
    prompt = {name: batch[name] for name in ("prompt_input_ids", "prompt_attention_mask")}
    with pytest.raises(ValueError, match="has padding, and a prompt of embeddings no mask"):
        model.prompt_embeds(torch.ones(3, 4), **prompt)
    with pytest.raises(ValueError, match="`latents` has 2 rows, and there are 3 inputs"):
        model.prompt_embeds(latents, **prompt)
    crossed = make_model("paraphrase-cross", latent_injection="prefix")
    with pytest.raises(ValueError, match="reads encoder_hidden_states and encoder_attention_mask besides its prompt"):
        crossed.prompt_embeds(latents, **{name: batch[name][:1] for name in ("input_ids", "attention_mask")})
