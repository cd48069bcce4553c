"""x is encoded once, and handed on."""

from collections import Counter

import pytest
import torch

from helpers import CONDITIONAL_VARIANTS, GREEDY, generation_inputs, make_batch, make_model
from hf_vae.calls import call_with


def count_readings(model):
    """Passes of each encoder, and of the act head, by name."""
    counted = Counter()
    for name in ("encoder", "source_encoder", "turn_encoder", "act_head", "bow_head"):
        module = getattr(model, name, None)
        if module is not None:
            module.register_forward_hook(lambda *_, name=name: counted.update([name]))
    return counted


def readings_of_x(model) -> dict[str, int]:
    """One pass over x by whoever encodes it, if anybody does."""
    hierarchical = {"turn_encoder": 1} if hasattr(model, "turn_encoder") else {}
    reader = "encoder" if model.config.tie_encoders else "source_encoder"
    return {reader: 1, **hierarchical} if model.source_readers else {}


@pytest.mark.parametrize("prior_type", ["standard", "conditional"])
@pytest.mark.parametrize("variant", CONDITIONAL_VARIANTS)
def test_a_training_step_reads_x_once_and_the_pair_once(variant, prior_type):
    model = make_model(variant, prior_type=prior_type, bow_loss_weight=1.0).train()
    counted = count_readings(model)
    model(**make_batch(model)).loss.backward()
    expected = Counter(readings_of_x(model)) + Counter({"encoder": 1, "bow_head": 1})
    assert counted == expected + Counter({"act_head": 1} if hasattr(model, "act_head") else {})


@pytest.mark.parametrize("prior_type", ["standard", "conditional"])
@pytest.mark.parametrize("variant", CONDITIONAL_VARIANTS)
def test_generate_reads_x_once_however_many_sequences(variant, prior_type):
    model = make_model(variant, prior_type=prior_type)
    inputs = generation_inputs(make_batch(model))
    counted = count_readings(model)
    model.generate(**inputs, num_return_sequences=4, **GREEDY)
    assert {name: count for name, count in counted.items() if name != "act_head"} == readings_of_x(model)


@pytest.mark.parametrize("variant", CONDITIONAL_VARIANTS)
def test_a_source_in_hand_is_not_read_again(variant):
    model = make_model(variant)
    batch, counted = make_batch(model), count_readings(model)
    source = call_with(model.read_source, batch)
    assert counted == Counter(readings_of_x(model)) and len(source) == (3 if source.tensors() else 0)
    counted.clear()
    prior, conditioning = model.prior(source, 3).latent_dist, model.condition(source)
    assert not counted
    # The same as if x had been given.
    x = {
        name: batch[name] for name in ("input_ids", "attention_mask", "prompt_input_ids", "prompt_attention_mask") if name in batch
    }
    x |= {name: batch[name] for name in ("same_speaker", "meta_categories", "meta_values") if name in batch}
    torch.testing.assert_close(model.prior(batch_size=3, **x).latent_dist.mean, prior.mean)
    torch.testing.assert_close(model.condition(**x), conditioning)


@pytest.mark.parametrize("variant", CONDITIONAL_VARIANTS)
def test_rows_of_a_source_are_sources(variant):
    model = make_model(variant)
    source = call_with(model.read_source, make_batch(model))
    if not source.tensors():
        pytest.skip("nothing of x is read")
    twice = source.repeat(2)
    assert len(twice) == 6 and twice.num_bytes == 2 * source.num_bytes
    for name, tensor in twice.select([0, 2, 4]).tensors().items():
        torch.testing.assert_close(tensor, source.tensors()[name])


def test_what_is_not_a_source_is_refused_by_every_verb():
    model = make_model("dialog")
    batch = make_batch(model)
    pair = {name: tensor for name, tensor in batch.items() if name.startswith("posterior")}
    for call in (
        lambda source: model.prior(source),
        lambda source: model.condition(source),
        lambda source: model.encode(**pair, source=source),
        lambda source: model.generate(source=source, **GREEDY),
    ):
        with pytest.raises(ValueError, match=r"`source` is a Tensor; give what `model.read_source` returns"):
            call(batch["input_ids"])
    with pytest.raises(ValueError, match="`source` is a int"):
        make_model("vae").prior(3)


def test_a_source_that_was_read_without_the_prior_is_refused_by_it():
    model = make_model("cvae")
    source = call_with(model.read_source, make_batch(model), with_prior=False)
    with pytest.raises(ValueError, match="`source` was read without the vector that p"):
        model.prior(source)
