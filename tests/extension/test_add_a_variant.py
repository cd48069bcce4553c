"""A variant from outside the package: paraphrases in a style that is asked for, which the decoder reads beside z."""

from dataclasses import dataclass

import pytest
import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import AutoProcessor, BatchEncoding

from hf_vae import (
    ConditionalVAEConfig,
    ConditionalVAEModel,
    ConditionalVAEProcessor,
    EncodedSource,
    Paper,
    register_variant,
)

from .contract import SENTENCES, check_evaluates, check_generates, check_saves_and_loads, check_trains, processor, vae

STYLED = [{"text": text, "style": number % 3} for number, text in enumerate(SENTENCES)]


@strict
class StyledConfig(ConditionalVAEConfig):
    model_type = "styled-vae"

    num_styles: int = 3
    style_size: int = 4

    @property
    def decoder_latent_size(self) -> int:
        return self.latent_size + self.style_size


@dataclass
class StyledSource(EncodedSource):
    style: torch.Tensor | None = None


class StyledModel(ConditionalVAEModel):
    config: StyledConfig

    def __init__(self, config, encoder=None, decoder=None):
        super().__init__(config, encoder, decoder)
        self.style_embedding = nn.Embedding(config.num_styles, config.style_size)
        self.post_init()

    def read_source(
        self,
        input_ids=None,
        attention_mask=None,
        prompt_input_ids=None,
        prompt_attention_mask=None,
        style_ids=None,
        with_prior=True,
    ):
        if style_ids is None:
            raise ValueError("`style_ids` is missing: say in which style each text is to be.")
        source = super().read_source(input_ids, attention_mask, prompt_input_ids, prompt_attention_mask, with_prior)
        return StyledSource(**source.tensors(), style=self.style_embedding(style_ids))

    def condition(self, source=None, **x):
        source = self.read_source(**x, with_prior=False) if source is None else source
        return {**super().condition(source), "style": source.style}

    def decoder_latents(self, latents, style=None, **conditioning):
        return torch.cat([latents, style.to(latents)], dim=-1), conditioning

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        style_ids=None,
        labels=None,
        posterior_input_ids=None,
        posterior_attention_mask=None,
        posterior_token_type_ids=None,
        prompt_input_ids=None,
        prompt_attention_mask=None,
        latents=None,
        num_items_in_batch=None,
        output_logits=None,
        return_dict=None,
    ):
        labels = self.check_labels(labels)
        source = self.read_source(input_ids, attention_mask, prompt_input_ids, prompt_attention_mask, style_ids)
        posterior = prior = None
        if latents is None:
            prior = self.prior(source, len(labels)).latent_dist
            posterior = self.encode(posterior_input_ids, posterior_attention_mask, posterior_token_type_ids, source).latent_dist
        conditioning = self.condition(source)
        return self.objective(labels, latents, posterior, prior, conditioning, num_items_in_batch, output_logits, return_dict)


class StyledProcessor(ConditionalVAEProcessor):
    def batch(self, text):
        return [text] if isinstance(text, dict) else list(text), isinstance(text, dict)

    def features(self, texts, targets, cuts):
        features = super().features([each["text"] for each in texts], targets, cuts)
        return {**features, "style_ids": [each["style"] for each in texts]}

    def pad(self, features, return_tensors="pt", **options):
        styles = [row["style_ids"] for row in features]
        rest = [{name: value for name, value in row.items() if name != "style_ids"} for row in features]
        padded = super().pad(rest, return_tensors=return_tensors, **options)
        return BatchEncoding({**padded, **BatchEncoding({"style_ids": styles}, tensor_type=return_tensors)})


PAPER = Paper("you2026styles", "Paraphrases in a Style", "You, Yourself", "A Workshop", 2026)
register_variant(StyledConfig, StyledModel, StyledProcessor, paper=PAPER)


@pytest.mark.parametrize("options", [{}, {"prior_type": "conditional"}], ids=["N(0, I)", "p(z|x)"])
def test_it_trains_saves_generates_and_is_evaluated(options, tmp_path):
    model, styled = vae(StyledModel, StyledConfig, **options), processor(StyledProcessor)
    check_trains(model, tmp_path, styled(STYLED, SENTENCES, return_tensors=None), of=styled)
    inputs = styled(STYLED[0])
    check_saves_and_loads(model, tmp_path, **inputs)
    check_generates(model, **inputs)
    check_evaluates(model, STYLED, styled)
    styled.save_pretrained(tmp_path / "saved")
    assert isinstance(AutoProcessor.from_pretrained(tmp_path / "saved"), StyledProcessor)


def test_its_style_reaches_the_decoder_and_its_source_can_be_repeated():
    model, styled = vae(StyledModel, StyledConfig).eval(), processor(StyledProcessor)
    source = model.read_source(**styled(STYLED[:3]))
    assert source.repeat(2).style.shape == (6, 4)
    nn.init.normal_(model.style_embedding.weight)
    batch = [styled([{**STYLED[0], "style": style}], SENTENCES[:1]) for style in range(2)]
    losses = [model(**each, latents=torch.zeros(1, 4)).reconstruction_loss for each in batch]
    assert (losses[0] - losses[1]).abs() > 1e-4
    with pytest.raises(ValueError, match="`style_ids` is missing"):
        model.generate(**{name: tensor for name, tensor in batch[0].items() if name != "style_ids"})
