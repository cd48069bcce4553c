"""From one vector of a text to a distribution over z: q, and the prior of conditional models."""

import torch
from torch import nn
from transformers import initialization

from .gaussian import DiagonalGaussian


class FixedScaleBatchNorm(nn.Module):
    r"""
    Batch normalisation of posterior means to standard deviation `gamma` over the batch, whatever the encoder does, with a trained
    shift (Zhu et al. 2020, BN-VAE). Since \(\mathrm{KL} \ge \frac12\mu^2\) in every dimension, the mean KL of a batch cannot fall
    below `latent_size` · `gamma`² / 2 nats per sentence: the posterior cannot collapse onto the prior.

    The statistics are a micro-batch's own in training, running averages in evaluation.
    """

    def __init__(self, latent_size: int, gamma: float, dtype: torch.dtype):
        super().__init__()
        self.gamma = gamma
        # PyTorch's 1e-5 is no small thing beside a variance: an encoder that shrinks its means below 0.003 gets round the bound.
        self.norm = nn.BatchNorm1d(latent_size, eps=1e-12, affine=False, dtype=dtype)
        self.shift = nn.Parameter(torch.zeros(latent_size, dtype=dtype))

    def init_weights(self) -> None:
        initialization.zeros_(self.shift)

    def forward(self, mean: torch.Tensor) -> torch.Tensor:
        """
        Means `(batch, latent_size)` to means of the same shape.

        Raises:
            ValueError: in training, a batch of one, which has no spread.
        """
        if self.training and len(mean) < 2:
            raise ValueError(
                "`batch_norm_gamma` normalises posterior means over the batch, and this one has a single row: train with at "
                "least two (`dataloader_drop_last=True` drops a last batch of one)."
            )
        return self.gamma * self.norm(mean) + self.shift


class GaussianHead(nn.Module):
    """
    Mean and log variance of a diagonal Gaussian over z, linear in the input.

    Args:
        hidden_size (`int`): width of the input.
        latent_size (`int`): dimensions of z.
        dtype (`torch.dtype`): of the weights.
        bias (`bool`, defaults to `True`): whether the linear layer has one.
        batch_norm_gamma (`float`, *optional*): the means pass [`FixedScaleBatchNorm`].
    """

    def __init__(
        self,
        hidden_size: int,
        latent_size: int,
        dtype: torch.dtype,
        bias: bool = True,
        batch_norm_gamma: float | None = None,
    ):
        super().__init__()
        self.linear = nn.Linear(hidden_size, 2 * latent_size, bias=bias, dtype=dtype)
        self.mean_norm = nn.Identity() if batch_norm_gamma is None else FixedScaleBatchNorm(latent_size, batch_norm_gamma, dtype)

    def forward(self, pooled: torch.Tensor) -> DiagonalGaussian:
        mean, logvar = self.linear(pooled).chunk(2, dim=-1)
        return DiagonalGaussian(self.mean_norm(mean), logvar)


class PriorNetwork(nn.Module):
    """
    p(z|x): one layer with a tanh over the vector that an encoder made of x, and a Gaussian of that (Sohn et al. 2015; Zhao et al.
    2017, whose recognition network has no such layer either).

    Args:
        hidden_size (`int`): width of the vector and of the layer.
        latent_size (`int`): dimensions of z.
        dtype (`torch.dtype`): of the weights.
    """

    def __init__(self, hidden_size: int, latent_size: int, dtype: torch.dtype):
        super().__init__()
        self.hidden = nn.Linear(hidden_size, hidden_size, dtype=dtype)
        self.head = GaussianHead(hidden_size, latent_size, dtype)

    def forward(self, pooled: torch.Tensor) -> DiagonalGaussian:
        return self.head(torch.tanh(self.hidden(pooled)))
