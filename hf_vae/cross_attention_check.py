"""Whether a language model's cross-attention serves, tried before anything is trained."""

import torch
from transformers import DynamicCache, PreTrainedModel

from .compat import CACHE
from .modeling_latent_decoder import LatentDecoder


def runs_on_the_cpu(model: PreTrainedModel) -> bool:
    """Whether a forward pass can be tried here: `model` has all its weights, in main memory, and an attention for it."""
    here = all(each.device.type == "cpu" and each.is_floating_point() and each.numel() for each in model.parameters())
    return here and model.config._attn_implementation in ("eager", "sdpa", None)


@torch.no_grad()
def check_cross_attention(decoder: LatentDecoder) -> None:
    """
    Has `decoder` read two tokens beside an encoder's states, at once and one after the other. A language model that cannot run
    where it is built is not tried.

    Raises:
        ValueError: it fails, or the two differ.
    """
    if not runs_on_the_cpu(decoder.lm):
        return
    trained = decoder.training
    decoder.eval()
    try:
        at_once, in_steps = _two_tokens_beside_a_source(decoder)
        # Another order of the same sums rounds otherwise.
        tolerance = torch.finfo(decoder.dtype).eps ** 0.5 * at_once.abs().max()
        serves, cause = bool((at_once - in_steps).abs().max() <= tolerance), None
    # Any class that says it has cross-attention is tried, and each fails in its own way; the error below carries the cause.
    except Exception as error:
        serves, cause = False, error
    finally:
        decoder.train(trained)
    if not serves:
        raise ValueError(
            f"`source_conditioning='cross_attention'`: {type(decoder.lm).__name__} fails at cross-attention with a cache. It was "
            "built without cross-attention, or its class in this version of transformers raises an error, or gives other "
            "numbers with a cache than without. Choose 'prompt', or another decoder."
        ) from cause


def _two_tokens_beside_a_source(decoder: LatentDecoder) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `(1, 2, vocab)` of two tokens that are read at once, without a cache, and of the same in two steps with one."""
    latents = torch.zeros(1, decoder.latent_size)
    # Two that differ: an LM that looks ahead reads the same twice otherwise.
    tokens, mask = torch.arange(2).unsqueeze(0), torch.ones(1, 2, dtype=torch.long)
    states = (torch.arange(3.0).unsqueeze(1) + torch.arange(decoder.encoder_states_size)).sin().to(decoder.dtype)
    source = {"encoder_hidden_states": states.unsqueeze(0), "encoder_attention_mask": torch.ones(1, 3, dtype=torch.long)}
    at_once = decoder(tokens, latents, mask, use_cache=False, **source).logits
    cache = DynamicCache(config=decoder.config)
    first = decoder(tokens[:, :1], latents, mask[:, :1], cache=cache, use_cache=True, **source)
    second = decoder(tokens[:, 1:], latents, mask, cache=first[CACHE], use_cache=True, **source)
    return at_once, torch.cat([first.logits, second.logits], dim=1)
