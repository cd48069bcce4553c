"""A decoder that begins anew."""

import pytest
import torch

from helpers import Look, changed, make_model, resized, technique_trainer, weights
from hf_vae import KLAnnealingCallback
from hf_vae.training import (
    CyclicalSchedule,
    DecoderResetCallback,
    reset_decoder,
)


@pytest.mark.parametrize("decoder", ["gpt2", "llama"])
def test_a_reset_decoder_is_a_new_one_and_the_rest_is_kept(decoder):
    model = make_model("vae", decoder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    before = weights(model)
    state = torch.get_rng_state()
    reset_decoder(model, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert changed(before, weights(model)) == {"decoder"}
    for name, parameter in model.decoder.named_parameters():
        assert not (parameter == 7.0).any(), name
        if parameter.ndim == 2 and name.startswith("lm."):
            # GPT-2 scales its residual projections down.
            assert 0.4 < parameter.std() / 0.3 < 2, name
    tied = decoder == "gpt2"
    assert (model.get_output_embeddings().weight is model.decoder.get_input_embeddings().weight) == tied
    # The seed says which, wherever the run's generator stands.
    again = make_model("vae", decoder)
    torch.manual_seed(99)
    reset_decoder(again, seed=3)
    assert not changed({"decoder." + n: p for n, p in weights(model.decoder).items()}, weights(again))
    reset_decoder(again, seed=4)
    assert not torch.equal(
        again.decoder.latent_injection.embedding.projection.weight, model.decoder.latent_injection.embedding.projection.weight
    )


def test_a_reset_within_a_run_forgets_the_decoder_s_moments(vae_processor, tmp_path):
    def moments(model, optimizer):
        steps = {name: optimizer.state[p]["step"].item() for name, p in model.named_parameters() if p in optimizer.state}
        return {part: {n for name, n in steps.items() if name.startswith(part)} for part in ("encoder", "posterior", "decoder")}

    look = Look(step_begin=lambda model, _: weights(model), step_end=moments)
    reset = DecoderResetCallback(2)
    schedule = CyclicalSchedule(period=4, zero=0.5, rise=0.5, cycles=1)
    trainer = technique_trainer(vae_processor, tmp_path, [KLAnnealingCallback(schedule), reset, look], max_steps=5)
    trainer.train()
    assert [each["decoder"] for each in look.seen["step_end"]] == [{1}, {2}, {1}, {2}, {3}]
    assert [each["encoder"] for each in look.seen["step_end"]] == [{1}, {2}, {3}, {4}, {5}]
    fresh = resized(make_model("vae"), vae_processor)
    reset_decoder(fresh, seed=1)
    assert not changed(weights(fresh.decoder), {n: look.seen["step_begin"][2]["decoder." + n] for n in weights(fresh.decoder)})
    logged = [entry["kl_weight"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged == [0.0, 0.0, 0.0, 0.5, 1.0]


def test_a_reset_that_cannot_be_is_refused(vae_processor, tmp_path):
    with pytest.raises(ValueError, match="`step` is 0"):
        DecoderResetCallback(0)
    with pytest.raises(ValueError, match="training ends at step 1"):
        technique_trainer(vae_processor, tmp_path, [DecoderResetCallback(1)]).train()
    frozen = technique_trainer(vae_processor, tmp_path, [DecoderResetCallback(1)], max_steps=2)
    frozen.model.decoder.lm.requires_grad_(False)
    with pytest.raises(ValueError, match="The decoder is frozen in whole or in part"):
        frozen.train()
    with pytest.raises(ValueError, match="`model` is a Linear"):
        reset_decoder(torch.nn.Linear(1, 1), seed=0)
