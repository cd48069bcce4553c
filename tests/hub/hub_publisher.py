"""Pushes a tiny model of every variant, with its processor, to the Hub of `HF_ENDPOINT`, and prints what each one writes."""

import json

import torch

from helpers import PUBLISHED, make_published


def written(model, processor, text) -> list[list[int]]:
    """Greedy text for the mean of z, and for a z of ones."""
    inputs = processor(text)
    options = {"do_sample": False, "max_new_tokens": 6}
    at_mean = model.generate(**inputs, latent_temperature=0.0, **options)
    return [at_mean[0].tolist(), model.generate(**inputs, latents=torch.ones(1, 4), **options)[0].tolist()]


if __name__ == "__main__":
    for name in PUBLISHED:
        model, processor, text = make_published(name)
        model.push_to_hub(f"someone/{name}", private=name == "dialog")
        processor.push_to_hub(f"someone/{name}")
        print(json.dumps({"name": name, "written": written(model, processor, text)}))
    model, processor, text = make_published("vae")
    model.decoder.latent_injection.embedding.projection.weight.data.mul_(-3)
    model.push_to_hub("someone/vae", commit_message="other weights")
    print(json.dumps({"name": "vae, later", "written": written(model, processor, text)}))
