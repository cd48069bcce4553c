"""What decides which texts are written: the options as model and caller settle them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ..checks import check_number
from ..generation_options import LatentGenerationOptions
from ..generation_vae import DEFAULT_NEW_TOKENS
from ..modeling_vae import VAEModel
from ..processing_vae import VAEProcessor
from .batch_writer import BatchWriter, Sampling

# Of the model's own defaults, what changes no text, or is settled by itself.
_NO_MATTER = {
    "transformers_version", "_from_model_config", "use_cache", "output_attentions", "output_hidden_states", "output_scores",
    "output_logits", "return_dict_in_generate", "latent_source", "latent_temperature", "latent_spread", "max_length",
    "max_new_tokens", "do_sample", "temperature", "top_k", "top_p",
}  # fmt: skip
# How tokens are drawn, and ways to draw tokens that do not go row by row.
_SAMPLING = ("temperature", "top_k", "top_p")
_UNSUPPORTED = ("min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")

# What the caller may say to `generate` and not here, and why.
_REFUSED = {
    "num_return_sequences": "`num` says how many texts each source gets",
    "return_dict_in_generate": "texts are written, and nothing beside them but their nats",
}
# What no rows can be written with, whoever says it, and why.
_UNWRITTEN = {
    "stop_strings": "what is behind a text's EOS is not counted in its nats, and such a text has none",
    "prompt_lookup_num_tokens": "transformers speculates for one text at a time",
}


def settle(
    model: VAEModel,
    processor: VAEProcessor,
    num: int,
    seed: int,
    latent_source: str | None,
    latent_temperature: float | None,
    latent_spread: str | None,
    max_length: int | None,
    options: Mapping[str, Any],
) -> tuple[BatchWriter, dict[str, Any]]:
    """
    A writer, and the settings that its rows follow from, as JSON has them, but for the model's weights.

    Raises:
        ValueError: an option that does not exist, is out of range, or would tie a row's text to others or to the clock.
    """
    for name, value in options.items():
        if not _is_plain(value):
            raise ValueError(
                f"`{name}` is a {type(value).__name__}, and a file's settings are numbers, texts and lists: leave it out, "
                "or set in `model.generation_config` what belongs to the model."
            )
    for name, reason in _REFUSED.items():
        if options.get(name) is not None:
            raise ValueError(f"`{name}` is {options[name]!r}, and {reason}: leave it out.")
    given = (latent_source, latent_temperature, latent_spread)
    resolved, unknown = LatentGenerationOptions.resolve(model.generation_config, None, None, *given, num, None, dict(options))
    if unknown:
        raise ValueError(f"`{next(iter(unknown))}` is no option that texts in number can be generated with: leave it out.")
    config = resolved.config
    if config.max_time is not None:
        raise ValueError(f"`max_time` is {config.max_time}, and what the clock ends cannot be generated again: leave it out.")
    for name, reason in _UNWRITTEN.items():
        value = getattr(config, name, None)
        if value is not None:
            raise ValueError(f"`{name}` is {value!r}, and {reason}: leave it out, also of `model.generation_config`.")
    origin = resolved.latent_source or ("prior" if model.config.is_conditional else "posterior")
    if origin == "posterior" and model.config.is_conditional:
        raise ValueError(
            "`latent_source` is 'posterior', and q(z|x,y) of a conditional model reads the target, which is to be written: choose "
            "'prior' or 'fitted_prior'."
        )
    if origin != "posterior":
        # It raises an error if the model has no such prior.
        model.prior_named(origin)
    longest = model.decoder.longest_text
    # Not as much as there is room for behind the longest prompt of a batch: a row's length would depend on the others.
    default = DEFAULT_NEW_TOKENS if longest is None else min(DEFAULT_NEW_TOKENS, max(longest // 2, 1))
    max_new_tokens = config.max_new_tokens or default
    idle = [name for name in _SAMPLING if options.get(name) is not None]
    if idle and not config.do_sample:
        raise ValueError(
            f"`{idle[0]}` is {options[idle[0]]}, and without `do_sample` no token is drawn: leave it out, or add that."
        )
    sampling = _sampling(config) if config.do_sample else None
    passed = {name: value for name, value in options.items() if name not in ("do_sample", *_SAMPLING, *_REFUSED)}
    if sampling is not None:
        # Else transformers says of each that it has no effect on a greedy search.
        passed.update(temperature=1.0, top_k=50, top_p=1.0)
    passed["max_new_tokens"] = max_new_tokens
    writer = BatchWriter(
        model, processor, num, seed, origin, resolved.latent_temperature, resolved.latent_spread, max_length, sampling, passed
    )
    own = {name: value for name, value in model.generation_config.to_diff_dict().items() if name not in _NO_MATTER}
    settings = {
        **{name: value for name, value in {**own, **passed}.items() if value is not None and name not in _NO_MATTER},
        "num": num,
        "seed": seed,
        "latent_source": origin,
        "latent_temperature": resolved.latent_temperature,
        "latent_spread": resolved.latent_spread,
        "max_length": max_length,
        "max_new_tokens": max_new_tokens,
        "do_sample": sampling is not None,
        **({} if sampling is None else vars(sampling)),
    }
    # As it is read again, with lists for tuples.
    return writer, json.loads(json.dumps(settings))


def _sampling(config: Any) -> Sampling:
    if (config.num_beams or 1) > 1:
        raise ValueError(
            f"`num_beams` is {config.num_beams} with `do_sample`, and beams are not drawn row by row: leave one of them out."
        )
    for name in _UNSUPPORTED:
        value = getattr(config, name, None)
        if value not in (None, 0, 0.0, 1.0):
            raise ValueError(f"`{name}` is {value}; tokens are drawn by `temperature`, `top_k` and `top_p`: leave it out.")
    # transformers' own defaults.
    temperature = 1.0 if config.temperature is None else config.temperature
    check_number("temperature", temperature, above=0)
    return Sampling(temperature, 50 if config.top_k is None else config.top_k, 1.0 if config.top_p is None else config.top_p)


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def fingerprint(model: VAEModel) -> str:
    """What tells the model's weights, in their number format, from others."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        for part in _plain_parts(tensor.detach()):
            digest.update(part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def _plain_parts(tensor: Any) -> Iterator[torch.Tensor]:
    """The tensor, or the tensors that a quantized one is made of."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _plain_parts(getattr(tensor, name))
