"""The auxiliary bag-of-words loss: z has to say which words y has, without their order."""

import torch
from torch import nn


class BagOfWordsHead(nn.Module):
    r"""
    \(\sum_t -\log p_{\mathrm{bow}}(y_t|x,z)\) with one distribution over the vocabulary for all positions, from a layer with a tanh
    that reads z and, if there is an x, one vector of it (Zhao et al. 2017, equation 7).

    Args:
        latent_size (`int`): dimensions of z.
        context_size (`int`): width of x's vector; 0 if there is no x.
        hidden_size (`int`): width of the hidden layer.
        vocab_size (`int`): of the decoder.
        dtype (`torch.dtype`): of the weights.
    """

    def __init__(self, latent_size: int, context_size: int, hidden_size: int, vocab_size: int, dtype: torch.dtype):
        super().__init__()
        self.hidden = nn.Linear(latent_size + context_size, hidden_size, dtype=dtype)
        self.words = nn.Linear(hidden_size, vocab_size, dtype=dtype)

    description = "bag of words"

    @property
    def vocab_size(self) -> int:
        return self.words.out_features

    @torch.no_grad()
    def resize(self, vocab_size: int) -> None:
        """Makes the head one over `vocab_size` words: the first ones stay, and a new one is as likely as they are on average."""
        old, kept = self.words, min(vocab_size, self.words.out_features)
        if vocab_size == old.out_features:
            return
        self.words = nn.Linear(old.in_features, vocab_size, dtype=old.weight.dtype, device=old.weight.device)
        for new, former in ((self.words.weight, old.weight), (self.words.bias, old.bias)):
            new.copy_(former.float().mean(0).to(new).expand_as(new))
            new[:kept] = former[:kept]
            new.requires_grad_(former.requires_grad)

    def forward(self, latents: torch.Tensor, context: torch.Tensor | None, labels: torch.LongTensor) -> torch.Tensor:
        """
        Args:
            latents (`torch.Tensor` of shape `(batch, latent_size)`).
            context (`torch.Tensor` of shape `(batch, context_size)`, *optional*): one vector of x.
            labels (`torch.LongTensor` of shape `(batch, target)`): y, -100 on padding.

        Returns:
            `torch.Tensor` of shape `(batch,)`, nats per sentence.
        """
        inputs = latents if context is None else torch.cat([latents.to(context), context], dim=-1)
        logits = self.words(torch.tanh(self.hidden(inputs.to(self.hidden.weight.dtype))))
        log_probs = logits.float().log_softmax(-1).gather(1, labels.clamp(min=0))
        return -log_probs.masked_fill(labels == -100, 0.0).sum(-1)
