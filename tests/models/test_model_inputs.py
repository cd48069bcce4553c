"""What every variant refuses, and what it says."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    DistilBertConfig,
    DPRConfig,
)
from transformers.utils import ModelOutput

from helpers import (
    BOS,
    EOS,
    VARIANTS,
    VOCAB,
    generation_inputs,
    make_batch,
    make_model,
    tiny_encoder_config,
    tiny_gpt2_config,
    tiny_llama_config,
)
from hf_vae import VAEConfig, VAEModel


def test_bad_inputs_are_named_before_any_compute(model, batch, variant):
    inputs = generation_inputs(batch)
    with pytest.raises(ValueError, match="`labels` is missing"):
        model(**inputs)
    with pytest.raises(ValueError, match=r"`latents` has shape \(3, 5\); expected \(3, 4\)"):
        model(**batch, latents=torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"expected \(6, 4\), or \(3, 4\) to share"):
        model.generate(**inputs, latents=torch.zeros(4, 4), num_return_sequences=2)
    with pytest.raises(ValueError, match=r"`latents` has shape \(4, 4\); expected \(3, 4\) or a multiple of its rows"):
        model.generate(**inputs, latents=torch.zeros(4, 4))
    with pytest.raises(ValueError, match=r"`latents` has shape \(3, 5\)"):
        model.generate(**inputs, latents=torch.zeros(3, 5))
    with pytest.raises(ValueError, match="`latents` are given"):
        model.generate(**inputs, latents=torch.zeros(3, 4), latent_temperature=0.5)
    with pytest.raises(ValueError, match="`num_return_sequences` is 0"):
        model.generate(**inputs, num_return_sequences=0)
    with pytest.raises(ValueError, match=r"`latent_temperature` is -1\.0"):
        model.generate(**inputs, latent_temperature=-1.0)
    with pytest.raises(ValueError, match="`latent_source` is 'aposteriori'; choose one of 'prior', 'posterior', 'fitted_prior'"):
        model.generate(**inputs, latent_source="aposteriori")
    with pytest.raises(ValueError, match="latent_tempreature"):
        model.generate(**inputs, latent_tempreature=1.0)
    if "lstm" not in variant:
        with pytest.raises(ValueError, match="48"):
            model(**{**batch, "labels": torch.ones(3, 60, dtype=torch.long)})


def test_rows_of_padding_are_named(model, batch):
    name = "posterior_attention_mask" if "posterior_attention_mask" in batch else "attention_mask"
    batch[name][1] = 0
    with pytest.raises(ValueError, match=rf"`{name}` is all padding in row\(s\) \[1\]"):
        model(**batch)


def test_rows_without_a_target_are_named(model, batch):
    batch["labels"][2] = -100
    with pytest.raises(ValueError, match=r"`labels` is all padding in row\(s\) \[2\]"):
        model(**batch)


def test_prompts_of_padding_are_named():
    model = make_model("paraphrase-prompt")
    batch = make_batch(model)
    batch["prompt_attention_mask"][0] = 0
    with pytest.raises(ValueError, match=r"`prompt_attention_mask` is all padding in row\(s\) \[0\]"):
        model(**batch)
    with pytest.raises(ValueError, match=r"`prompt_attention_mask` is all padding in row\(s\) \[0\]"):
        model.generate(**generation_inputs(batch))


def test_conditional_models_need_their_source_and_their_pair():
    for variant, name in (("paraphrase-prompt", "prompt_input_ids"), ("paraphrase-eq", "input_ids")):
        model = make_model(variant)
        batch = make_batch(model)
        with pytest.raises(ValueError, match=f"`{name}` is missing"):
            model.generate(**{key: tensor for key, tensor in generation_inputs(batch).items() if key != name})
        with pytest.raises(ValueError, match="`posterior_input_ids` is missing"):
            model.generate(**generation_inputs(batch), latent_source="posterior")


def test_a_vae_names_what_it_lacks():
    model = make_model("vae")
    with pytest.raises(ValueError, match="`input_ids` is missing"):
        model.generate(latent_source="posterior")
    with pytest.raises(ValueError, match="use `num_return_sequences`"):
        model.generate(torch.ones(1, 3, dtype=torch.long), num_samples=3)
    with pytest.raises(ValueError, match="`num_samples` is 0"):
        model.generate(num_samples=0)


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if "lstm" not in variant], indirect=True)
def test_a_source_longer_than_the_model_is_refused(model, batch):
    long = torch.full((3, 49), 7)
    name = "posterior_input_ids" if "posterior_input_ids" in batch else "input_ids"
    with pytest.raises(ValueError, match=f"`{name}` is 49 tokens long, but BertConfig holds 48"):
        model(**{**batch, name: long, name.replace("input_ids", "attention_mask"): torch.ones_like(long)})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"latent_size": 0}, "`latent_size` is 0"),
        ({"latent_injection": "osmosis"}, "`latent_injection` is 'osmosis'"),
        ({"latent_injection": []}, "name at least one way in"),
        ({"latent_injection": ["memory", "memory"]}, "each once"),
        ({"prefix_length": 0}, "`prefix_length` is 0"),
        ({"num_latents": 0}, "`num_latents` is 0"),
        ({"num_latents": 2, "pooling": "mean"}, "`num_latents` is 2 and `pooling` 'mean'"),
        ({"num_latents": 2, "prefix_length": 4}, "`num_latents` is 2 and `prefix_length` 4"),
        ({"num_latents": 1024, "latent_injection": "prefix"}, "z fills 1024 positions"),
        ({"num_latents": 512, "latent_injection": ["memory", "prefix"]}, "z fills 1024 positions"),
        ({"prefix_length": 1024, "latent_injection": "prefix"}, "`prefix_length` 1024"),
        ({"capacity": -1.0}, "`capacity` is -1.0"),
        ({"capacity": 1.0, "free_bits": 1.0}, "stands alone"),
        ({"batch_norm_gamma": 0.0}, "`batch_norm_gamma` is 0.0"),
        ({"bow_loss_weight": -0.1}, "`bow_loss_weight` is -0.1"),
        ({"pooling": "max"}, "`pooling` is 'max'"),
        ({"free_bits": -1.0}, "`free_bits` is -1.0"),
        ({"free_bits_per": "token"}, "`free_bits_per` is 'token'"),
        ({"word_dropout": 1.5, "word_dropout_token_id": 3}, "`word_dropout` is 1.5"),
        ({"word_dropout": 0.5}, "needs `word_dropout_token_id`"),
        ({"latent_size": "eight"}, "latent_size"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(StrictDataclassError, match=message):
        VAEConfig(**options)


def test_cross_attention_needs_a_decoder_that_has_it():
    with pytest.raises(ValueError, match="LlamaForCausalLM has no cross-attention"):
        make_model("paraphrase-eq", decoder="llama")
    with pytest.raises(StrictDataclassError, match="`tie_encoders=False` with `source_conditioning='prompt'`"):
        make_model("paraphrase-prompt", tie_encoders=False)


def test_start_token_falls_back_from_bos_to_eos_to_an_error():
    def config(**tokens):
        decoder = tiny_llama_config()
        for name, token in tokens.items():
            setattr(decoder, name, token)
        return VAEConfig(encoder=tiny_encoder_config(), decoder=decoder)

    assert config().decoder_start_token_id == BOS
    assert config(bos_token_id=None).decoder_start_token_id == EOS
    with pytest.raises(StrictDataclassError, match="marks where the generated text begins"):
        config(bos_token_id=None, eos_token_id=None)


def test_vocabularies_are_resized_where_they_are():
    model = make_model("paraphrase-prompt")
    with pytest.raises(NotImplementedError, match=r"model\.decoder\.resize_token_embeddings"):
        model.resize_token_embeddings(60)
    model.decoder.resize_token_embeddings(60)
    assert model.config.decoder.vocab_size == 60
    assert model(**make_batch(model)).logits.shape[-1] == 60


def test_an_encoder_without_hidden_states_is_refused():
    model = make_model("vae")
    model.encoder.forward = lambda **_: ModelOutput(pooler_output=torch.zeros(3, 16))
    with pytest.raises(ValueError, match="returns no `last_hidden_state`"):
        model(**make_batch(model))


@pytest.mark.parametrize(
    "config, options, message",
    [
        (DPRConfig, {}, "DPRQuestionEncoder returns no `last_hidden_state`"),
        (DistilBertConfig, {"pooling": "pooler"}, "the encoder has no pooler; choose 'mean' or 'first'"),
    ],
)
def test_encoders_that_cannot_serve_are_refused_when_the_model_is_made(tmp_path, config, options, message):
    sizes = {"vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    if config is DistilBertConfig:
        sizes = {"vocab_size": VOCAB, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}
    AutoModel.from_config(config(**sizes)).save_pretrained(tmp_path / "encoder")
    AutoModelForCausalLM.from_config(tiny_gpt2_config()).save_pretrained(tmp_path / "decoder")
    with pytest.raises(ValueError, match=message):
        VAEModel.from_encoder_decoder_pretrained(str(tmp_path / "encoder"), str(tmp_path / "decoder"), **options)
