"""p(a|z): what a text is like, read from its z by a small map that is saved with the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.utils import logging

from .checks import check_count, check_number, shaped_latents
from .rows import match_rows

logger = logging.get_logger(__name__)


class LatentAttribute(nn.Module):
    r"""
    p(a|z) for an attribute a of a text, linear in z or with one hidden layer of tanh: a softmax over `labels`, or, without labels,
    a number, \(\mathcal N(a; \mu(z), s^2)\). Its weights are persistent buffers: they are saved with the model that holds it, and
    no optimiser sees them. A new one knows nothing: all labels are equally likely. `hf_vae.latent_space.fit_attribute` makes one.

    Args:
        latent_size (`int`): dimensions of z.
        labels (`list` of `str`, `int` or `bool`, *optional*): the values of a. Without them a is a number.
        hidden_size (`int`, defaults to 0): width of the hidden layer; 0 for none.

    Attributes:
        score (`torch.Tensor`): what cross-validation found as it was fitted: the accuracy, or of a number R². NaN if nothing did.
        clarity (`torch.Tensor` of shape `(labels,)`): of each label the mean log-odds, in nats, of the texts that have it.
        std, lowest, highest (`torch.Tensor`): of a number, s and the range of what it was fitted to.

    Raises:
        ValueError: a size out of range, fewer than two labels, or two that are the same.
    """

    score: torch.Tensor
    hidden_weight: torch.Tensor
    hidden_bias: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    clarity: torch.Tensor
    std: torch.Tensor
    lowest: torch.Tensor
    highest: torch.Tensor

    def __init__(self, latent_size: int, labels: Sequence[Any] | None = None, hidden_size: int = 0):
        super().__init__()
        check_count("latent_size", latent_size)
        check_count("hidden_size", hidden_size, least=0)
        if labels is not None and (len(labels) < 2 or len(set(labels)) < len(labels)):
            raise ValueError(f"`labels` are {list(labels)}; give two or more, each once.")
        self.latent_size, self.hidden_size = latent_size, hidden_size
        self.labels = None if labels is None else list(labels)
        shapes: dict[str, tuple[int, ...]] = {"score": ()}
        if hidden_size:
            shapes.update(hidden_weight=(hidden_size, latent_size), hidden_bias=(hidden_size,))
        outputs = 1 if labels is None else len(labels)
        shapes.update(weight=(outputs, hidden_size or latent_size), bias=(outputs,))
        shapes.update({"std": (), "lowest": (), "highest": ()} if labels is None else {"clarity": (outputs,)})
        for name, shape in shapes.items():
            self.register_buffer(name, torch.empty(shape))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """
        It knows nothing. A model that is built without storage and whose checkpoint lacks the buffers calls this from its
        `_init_weights`; what a checkpoint has filled stays, because these are the functions that transformers guards.
        """
        for name, buffer in self.named_buffers():
            nn.init.constant_(buffer, {"score": float("nan"), "std": 1.0}.get(name, 0.0))

    @property
    def spec(self) -> dict[str, Any]:
        """What a configuration says of it, besides the size of z."""
        return {"labels": self.labels, "hidden_size": self.hidden_size}

    def extra_repr(self) -> str:
        what = "number" if self.labels is None else f"labels={self.labels}"
        return f"{what}, latent_size={self.latent_size}, hidden_size={self.hidden_size}, score={float(self.score):.3f}"

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """
        The logits of the labels `(rows, labels)`, or the mean of the number `(rows, 1)`, differentiable in z and in float32.

        Raises:
            ValueError: `latents` are not `(rows, latent_size)`.
        """
        inputs = shaped_latents(latents, None, self.latent_size).to(self.weight.device)
        if self.hidden_size:
            inputs = torch.tanh(nn.functional.linear(inputs, self.hidden_weight.to(inputs), self.hidden_bias.to(inputs)))
        return nn.functional.linear(inputs, self.weight.to(inputs), self.bias.to(inputs))

    def predict(self, latents: torch.Tensor) -> list[Any]:
        """The likeliest label of each z, or the number's mean."""
        outputs = self(latents).detach()
        if self.labels is None:
            return outputs.squeeze(-1).tolist()
        return [self.labels[number] for number in outputs.argmax(-1).tolist()]

    def target(self, value: Any, name: str = "target") -> torch.Tensor:
        """
        Labels as their numbers, or numbers as they are: `(1,)` of one value, or one row for each of a list.

        Args:
            value: what a is to be, or a list of such values, one for each row of z.
            name (`str`, defaults to `"target"`): what errors call it.

        Raises:
            ValueError: a label that the attribute does not have, or no finite number. For a number outside of what it was fitted
                to there is a warning.
        """
        values = value.tolist() if isinstance(value, torch.Tensor) else value
        values = list(values) if isinstance(values, (list, tuple)) else [values]
        if not values:
            raise ValueError(f"`{name}` is empty; give one value for all, or a list with one for each.")
        device = self.weight.device
        if self.labels is not None:
            for each in values:
                if each not in self.labels:
                    raise ValueError(f"`{name}` is {each!r}; choose one of {', '.join(map(repr, self.labels))}.")
            return torch.tensor([self.labels.index(each) for each in values], device=device)
        for each in values:
            check_number(name, each)
        lowest, highest = self.lowest.item(), self.highest.item()
        outside = [each for each in values if not lowest <= each <= highest]
        if outside:
            logger.warning(
                f"`{name}` is {outside[0]:g}, and what it was fitted to lies between {lowest:g} and {highest:g}: what z says "
                "outside of that is a guess."
            )
        return torch.tensor(values, dtype=torch.float32, device=device)

    def log_prob(self, latents: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        log p(a|z) in nats, `(rows,)`; of a number the log density.

        Args:
            latents (`torch.Tensor` of shape `(rows, latent_size)`): z.
            target (`torch.Tensor`): of [`~LatentAttribute.target`]; as many rows, or each for as many z in succession.

        Raises:
            ValueError: `latents` of another shape, or rows that do not fit.
        """
        outputs = self(latents)
        target = match_rows(target, len(outputs))
        if self.labels is None:
            std = self.std.to(outputs)
            squared = ((outputs.squeeze(-1) - target.to(outputs)) / std).square()
            return -0.5 * squared - std.log() - 0.5 * math.log(2 * math.pi)
        return outputs.log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)

    def margin(self, latents: torch.Tensor, target: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
        r"""
        By how much z has the attribute more clearly than asked for, `(rows,)`; below 0 it is not clear enough.

        Of labels it is the log-odds of `target` in nats, less `strength` times those of a typical text that has it (its `clarity`);
        so at 0 z is to lie on the border, and at 1 as far behind it as such texts do in the mean. Of a number it is in units of
        s, \(\max(0, 1 - \mathrm{strength}) - |\mu(z) - a| / s\): at 1 the mean is to be the number itself, at 0 within one s.

        Args:
            latents, target: as of [`~LatentAttribute.log_prob`].
            strength (`float`, defaults to 1.0): how clearly z is to have the attribute.
        """
        outputs = self(latents)
        target = match_rows(target, len(outputs))
        if self.labels is None:
            return max(0.0, 1 - strength) - (outputs.squeeze(-1) - target.to(outputs)).abs() / self.std.to(outputs)
        wanted = target.unsqueeze(-1)
        others = outputs.scatter(-1, wanted, -torch.inf).logsumexp(-1)
        # Of an attribute that z hardly shows, even its own texts may lie on the other side.
        typical = self.clarity.to(outputs).clamp(min=0)[target]
        return outputs.gather(-1, wanted).squeeze(-1) - others - strength * typical


__all__ = ["LatentAttribute"]
