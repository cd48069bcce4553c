"""`--lora`: a rank alone is enough."""

import pytest
from peft import LoraConfig, get_peft_model

from helpers import CONDITIONAL_VARIANTS, VARIANTS, built, make_model
from hf_vae.cli.build import freeze_or_adapt
from hf_vae.cli.lora import parse_lora, target_modules
from hf_vae.training import modules_to_save, new_weights

ANY_LAYER = r".*\.(c_attn|query|value|q_proj|v_proj|lm_head)"


@pytest.mark.parametrize("given, options", [("8", {"r": 8}), ('{"r": 2}', {"r": 2}), ({"r": 3}, {"r": 3}), (None, {})])
def test_a_rank_or_the_options_of_peft(given, options):
    assert parse_lora(given) == options


@pytest.mark.parametrize("given", ["0", "-3", "eight", "[1]"])
def test_what_is_neither_is_refused(given):
    with pytest.raises(ValueError, match="`--lora` is "):
        parse_lora(given)


def last(names):
    return {name.rpartition(".")[2] for name in names}


def test_layers_are_those_that_peft_names_for_a_family():
    model = make_model("paraphrase-prompt")
    names = target_modules(model, set())
    assert last(names) == {"query", "value", "c_attn"} and all(name.startswith(("encoder.", "decoder.lm.")) for name in names)
    assert last(target_modules(model, {"encoder"})) == {"c_attn"} and last(target_modules(model, {"decoder"})) == {"query", "value"}


def test_of_another_family_all_linear_layers_but_the_head_are_taken():
    model = make_model("vae", decoder="llama")
    model.config.decoder.model_type = "of nobody"
    names = last(target_modules(model, {"encoder"}))
    assert {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"} == names


def test_a_model_without_linear_layers_is_refused():
    with pytest.raises(ValueError, match="finds no linear layer"):
        target_modules(make_model("vae-lstm"), {"encoder", "decoder"})


def test_a_rank_trains_adapters_and_what_is_new():
    model_args, model, _ = built("--lora", "4")
    adapted = freeze_or_adapt(model, model_args)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    ranks = {parameter.shape[0] for name, parameter in adapted.named_parameters() if "lora_A" in name}
    assert ranks == {4} and any("posterior_head" in name for name in trained)
    assert not any(".lm." in name and "lora" not in name for name in trained)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bow_loss_weight": 1.0, "latent_injection": ["logits"]},
        {"num_latents": 2, "latent_injection": ["embedding", "prefix"]},
        {"num_latents": 2, "prior_type": "conditional"},
        {"prior_type": "flow", "flow_layers": 2, "flow_hidden_size": 8},
    ],
    ids=["plain", "logits", "two vectors", "two vectors and a prior that reads x", "flow"],
)
def test_everything_new_is_trained_in_the_copy_that_is_used(variant, options):
    """Peft goes by the ends of names: `resampler` is also that of the prior, whose own copy was saved and not used."""
    if options.get("prior_type") == "conditional" and variant not in CONDITIONAL_VARIANTS:
        pytest.skip("A sentence VAE has no source.")
    # An LSTM's z is its initial state, and those two read one pooled vector by themselves.
    several = {"pooling": "attention"} if "num_latents" in options else {}
    if "lstm" in variant:
        options = {name: value for name, value in options.items() if name != "latent_injection"}
    model = make_model(variant, **options, **several)
    new = new_weights(model)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=ANY_LAYER, modules_to_save=modules_to_save(model)))
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad and "lora" not in name}
    assert not any(name.count(".modules_to_save.") > 1 for name in trained)
    assert {name.removeprefix("base_model.model.").replace(".modules_to_save.default", "") for name in trained} == new
