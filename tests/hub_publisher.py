"""Pushes a tiny model of every variant, with its processor, to the Hub of `HF_ENDPOINT`, and prints what each one writes."""

import json

import torch
from conftest import make_model

from hf_vae import CVAEProcessor, DialogCVAEProcessor, ParaphraseVAEProcessor, VAEProcessor
from hf_vae.training.from_scratch import train_tokenizers

TEXT = "the cat sat on the mat"
TALK = [{"role": "user", "content": "a dog ran"}, {"role": "assistant", "content": "the mat"}]
VARIANTS = {
    "vae": ("vae-lstm", VAEProcessor, TEXT, {}),
    "cvae": ("cvae", CVAEProcessor, TEXT, {}),
    "paraphrase": ("paraphrase-cross", ParaphraseVAEProcessor, TEXT, {"source_conditioning": "cross_attention"}),
    "dialog": ("dialog-acts", DialogCVAEProcessor, TALK, {"acts": ["x", "y", "z"]}),
}


def make(name: str):
    variant, processor_class, text, options = VARIANTS[name]
    tokenizers = train_tokenizers([TEXT, "a dog ran in the park", "the mat"] * 5, vocab_size=300)
    config = make_model(variant).config
    for part, tokenizer in zip((config.decoder, config.encoder, config), (*tokenizers, tokenizers[0])):
        part.vocab_size, part.bos_token_id = len(tokenizer), tokenizer.bos_token_id
        part.eos_token_id, part.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    config.decoder_start_token_id = config.bos_token_id
    torch.manual_seed(0)
    model = type(make_model(variant))(config).eval()
    return model, processor_class(*tokenizers, **options), text


def written(model, processor, text) -> list[list[int]]:
    """Greedy text for the mean of z, and for a z of ones."""
    inputs = processor(text)
    options = {"do_sample": False, "max_new_tokens": 6}
    at_mean = model.generate(**inputs, latent_temperature=0.0, **options)
    return [at_mean[0].tolist(), model.generate(**inputs, latents=torch.ones(1, 4), **options)[0].tolist()]


if __name__ == "__main__":
    for name in VARIANTS:
        model, processor, text = make(name)
        model.push_to_hub(f"someone/{name}", private=name == "dialog")
        processor.push_to_hub(f"someone/{name}")
        print(json.dumps({"name": name, "written": written(model, processor, text)}))
    model, processor, text = make("vae")
    model.decoder.project.weight.data.mul_(-3)
    model.push_to_hub("someone/vae", commit_message="other weights")
    print(json.dumps({"name": "vae, later", "written": written(model, processor, text)}))
