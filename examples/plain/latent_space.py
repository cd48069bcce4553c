"""
A walk through the latent space of a sentence VAE: reconstruct, move, calculate, find neighbours, fit a prior.

    python examples/plain/latent_space.py      (after sentence_vae.py; a sentence in each line of test.txt)
"""

import torch
from transformers import AutoModel, AutoProcessor

import hf_vae  # noqa: F401 (it registers the models with the Auto classes)
from hf_vae.data import load_texts
from hf_vae.latent_space import (
    arithmetic,
    decode_latents,
    encode_texts,
    fit_prior,
    interpolate,
    nearest_neighbours,
    reconstruct,
    sample_prior,
)

# 1. The model, and its code for each sentence: a mean and a standard deviation in every dimension.
model = AutoModel.from_pretrained("outputs/sentence_vae")
processor = AutoProcessor.from_pretrained("outputs/sentence_vae")
texts = load_texts("test.txt")[:500]
posterior = encode_texts(model, processor, texts)
first, second, third = texts[:3]

# 2. There and back: the texts of the posterior's mean, and of draws from it.
print("Reconstructed:", *reconstruct(model, processor, texts[:3]).texts, sep="\n  ")
draws = posterior.sample(torch.Generator().manual_seed(0))[:3]
print("\nFrom a draw each:", *decode_latents(model, processor, draws), sep="\n  ")

# 3. From one sentence to another, along an arc.
print("\nBetween two:", *interpolate(model, processor, first, second, steps=5, method="spherical").texts, sep="\n  ")

# 4. Arithmetic: what leads from the first to the second, added to the third.
print("\nsecond - first + third:", *arithmetic(model, processor, a=first, b=second, c=third).texts, sep="\n  ")

# 5. Neighbours: the sentences whose codes are nearest to the first one's.
found = nearest_neighbours(model, processor, [first], texts[1:], k=3)
print("\nNearest to the first:", *found.texts[0], sep="\n  ")

# 6. Another prior: a mixture of Gaussians where the codes are. It is saved with the model.
prior = fit_prior(model, processor, posterior.mode(), num_components=8)
model.set_fitted_prior(prior)
print("\nFrom N(0, I):", *sample_prior(model, processor, 3).texts, sep="\n  ")
print("\nFrom the fitted prior:", *sample_prior(model, processor, 3, fitted_prior=prior).texts, sep="\n  ")
model.save_pretrained("outputs/sentence_vae")
