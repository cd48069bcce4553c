"""`--lora`: a rank alone is enough."""

import pytest

from helpers import built, make_model
from hf_vae.cli.build import freeze_or_adapt
from hf_vae.cli.lora import parse_lora, target_modules


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
