"""Numbers that cannot be meant, in every configuration and schedule: refused by the field's name."""

import dataclasses

import pytest
from huggingface_hub.errors import StrictDataclassError

from hf_vae import CVAEConfig, DialogCVAEConfig, LSTMConfig, ParaphraseVAEConfig, VAEConfig
from hf_vae.checks import MOST_SEED, check_count, check_number, next_seed
from hf_vae.training import TokenNoise, make_schedule

# What is needed besides, so that the field's own value is what is refused.
BESIDES = {
    "word_dropout": {"word_dropout_token_id": 3},
    "prior_regularization": {"prior_type": "conditional"},
    "meta_embedding_size": {"meta_categories": [2]},
}
# Tokens have a test of their own; the rest says how transformers builds and runs any model.
OTHERS = {"eos_token_id", "bos_token_id", "chunk_size_feed_forward", "_attn_implementation"}


def numeric_fields(config_class) -> list[str]:
    own = [field for field in dataclasses.fields(config_class) if field.name not in OTHERS]
    return [
        field.name for field in own if "int" in str(field.type) and "str" not in str(field.type) and "dict" not in str(field.type)
    ]


CASES = [
    (config_class, name)
    for config_class in (VAEConfig, CVAEConfig, ParaphraseVAEConfig, DialogCVAEConfig, LSTMConfig)
    for name in numeric_fields(config_class)
    if config_class is not LSTMConfig or not name.endswith("token_id")
]


@pytest.mark.parametrize("config_class, name", CASES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, -2, "many"])
def test_a_number_that_cannot_be_meant_is_refused(config_class, name, value):
    values = [value] if name == "meta_categories" else value
    with pytest.raises(StrictDataclassError, match=name):
        config_class(**{**BESIDES.get(name, {}), name: values})


def test_a_number_that_no_float_reaches_is_refused():
    with pytest.raises(StrictDataclassError, match=r"`free_bits` is 10+; it must be a finite number, at least 0"):
        VAEConfig(free_bits=10**400)


def test_the_fields_that_are_tried_are_all_of_them():
    assert {"latent_size", "free_bits", "capacity", "batch_norm_gamma", "word_dropout"} <= set(numeric_fields(VAEConfig))
    assert {"hybrid_alpha", "source_noise", "num_acts", "meta_categories"} <= set(numeric_fields(DialogCVAEConfig))
    assert {"hidden_size", "dropout", "recurrent_dropout", "initializer_range"} <= set(numeric_fields(LSTMConfig))


@pytest.mark.parametrize("name", ["pad_token_id", "decoder_start_token_id", "word_dropout_token_id"])
def test_a_token_is_one_of_the_decoder_s_vocabulary(name):
    with pytest.raises(StrictDataclassError, match=f"`{name}` is 50257, and the decoder's vocabulary has 50257 tokens"):
        VAEConfig(**{name: 50257})


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda value: make_schedule("constant", weight=value), "weight"),
        (lambda value: make_schedule("linear", steps=value), "steps"),
        (lambda value: make_schedule("linear", steps=10, start=value), "start"),
        (lambda value: make_schedule("sigmoid", midpoint=value, slope=0.1), "midpoint"),
        (lambda value: make_schedule("sigmoid", midpoint=10, slope=value), "slope"),
        (lambda value: make_schedule("tanh", midpoint=10, width=value), "width"),
        (lambda value: make_schedule("cyclical", period=value), "period"),
        (lambda value: make_schedule("cyclical", period=10, zero=value), "zero"),
        (lambda value: make_schedule("cyclical", period=10, rise=value), "rise"),
        (lambda value: make_schedule("cyclical", period=10, cycles=value), "cycles"),
        (lambda value: TokenNoise(drop=value), "drop"),
        (lambda value: TokenNoise(blank=value), "blank"),
        (lambda value: TokenNoise(substitute=value), "substitute"),
        (lambda value: TokenNoise(shuffle=value), "shuffle"),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "many"])
def test_schedules_and_noise_take_finite_numbers(make, name, value):
    with pytest.raises(ValueError, match=f"`{name}` is {value!r}; it must be a"):
        make(value)


def test_bounds_are_said_in_words():
    with pytest.raises(ValueError, match=r"^`rate` is 1.5; it must be a finite number, at least 0 and below 1\.$"):
        check_number("rate", 1.5, least=0, below=1)
    with pytest.raises(ValueError, match=r"^`size` is 0; it must be at least 1\.$"):
        check_count("size", 0)
    with pytest.raises(ValueError, match=r"^`size` is 2.5; it must be a whole number, at least 1\.$"):
        check_count("size", 2.5)


def test_the_largest_seed_has_a_next_one_too():
    assert [next_seed(seed) for seed in (0, 41, MOST_SEED - 1, MOST_SEED)] == [1, 42, MOST_SEED, 0]
