"""Techniques against collapse that live in the training loop, with the plain Trainer."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import make_batch, make_model
from test_training import fixed_noise, ragged_dataset, resized
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_vae import KLAnnealingCallback, VAEDataCollator
from hf_vae.training import (
    AggressiveEncoderCallback,
    ConstantSchedule,
    CyclicalSchedule,
    DecoderResetCallback,
    DenoisingCallback,
    MinimumDesiredRateCallback,
    NoiseVocabulary,
    TokenNoise,
    reset_decoder,
)
from hf_vae.training.loss_parts import LossParts, uncounted

TESTS = Path(__file__).parent


def trainer_for(processor, output_dir, callbacks=(), model=None, rows=8, compute_metrics=None, **options):
    """As in `test_training`, with an evaluation set."""
    defaults = {
        "max_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 1e-2, "save_strategy": "no", "report_to": "none",
        "use_cpu": True, "disable_tqdm": True, "logging_steps": 1, "dataloader_pin_memory": False, "seed": 0,
        "lr_scheduler_type": "constant",
    }  # fmt: skip
    data = ragged_dataset(processor, rows)
    return Trainer(
        resized(make_model("vae"), processor) if model is None else model,
        TrainingArguments(output_dir=str(output_dir), **defaults | options),
        train_dataset=data,
        eval_dataset=data,
        data_collator=VAEDataCollator(processor),
        compute_metrics=compute_metrics,
        callbacks=list(callbacks),
    )


def stub(*values):
    """A mutual information that is given."""
    remaining = iter(values)
    return lambda prediction: {"mutual_information": next(remaining)}


def weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def changed(before, after) -> set[str]:
    """The parts of the model in which anything differs."""
    return {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}


class Look(TrainerCallback):
    """Calls functions of the model and the optimiser at events, after the other callbacks."""

    def __init__(self, **looks):
        self.looks, self.seen = looks, {event: [] for event in looks}

    def _look(self, event, model, optimizer):
        if event in self.looks:
            self.seen[event].append(self.looks[event](model, optimizer))

    def on_step_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        self._look("step_begin", model, optimizer)

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        self._look("step_end", model, optimizer)


# Noise --------------------------------------------------------------------------------------------------------------------

PAD, START, END, BLANK, FIRST_WORD, VOCAB = 0, 1, 2, 3, 4, 60
VOCABULARY = NoiseVocabulary(torch.tensor([PAD, START, END, BLANK]), torch.arange(FIRST_WORD, VOCAB), PAD, BLANK)


def pairs(rows: int = 400) -> dict[str, torch.Tensor]:
    """[start] x [end] y [end] padding, all words of a row different, with x of type 0 and y of type 1."""
    torch.manual_seed(0)
    words = torch.stack([torch.randperm(VOCAB - FIRST_WORD)[:12] + FIRST_WORD for _ in range(rows)])
    one = torch.ones(rows, 1, dtype=torch.long)
    ids = torch.cat([START * one, words[:, :7], END * one, words[:, 7:], END * one, PAD * one, PAD * one], dim=1)
    types = torch.tensor([0] * 9 + [1] * 6 + [0] * 2).expand(rows, -1)
    return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "token_type_ids": types}


def test_shuffling_moves_no_word_far_nor_out_of_its_text():
    given = pairs()
    noised = TokenNoise(shuffle=2)(VOCABULARY, **given)
    assert not torch.equal(noised["input_ids"], given["input_ids"])
    special = torch.isin(given["input_ids"], VOCABULARY.special_ids)
    assert torch.equal(noised["input_ids"][special], given["input_ids"][special])
    for name in ("attention_mask", "token_type_ids"):
        assert torch.equal(noised[name], given[name])
    furthest = 0
    for row, before in zip(noised["input_ids"], given["input_ids"]):
        for text in (slice(1, 8), slice(9, 14)):
            places = [row[text].tolist().index(word) for word in before[text].tolist()]
            furthest = max(furthest, *(abs(place - index) for index, place in enumerate(places)))
    assert furthest == 2


def test_dropping_keeps_order_mask_and_types_together():
    given = pairs()
    noised = TokenNoise(drop=0.4)(VOCABULARY, **given)
    assert noised["input_ids"].shape == given["input_ids"].shape
    kept = 0
    for row in range(len(given["input_ids"])):
        before = dict(zip(given["input_ids"][row].tolist(), given["token_type_ids"][row].tolist()))
        length = int(noised["attention_mask"][row].sum())
        after, types = noised["input_ids"][row].tolist(), noised["token_type_ids"][row].tolist()
        # What is left stands in front, in the old order and with its own type; padding follows.
        assert noised["attention_mask"][row].tolist() == [1] * length + [0] * (17 - length)
        assert after[length:] == [PAD] * (17 - length) and types[length:] == [0] * (17 - length)
        words = [word for word in after[:length] if word >= FIRST_WORD]
        assert words == [word for word in before if word in words]
        assert all(types[index] == before[word] for index, word in enumerate(after[:length]) if word >= FIRST_WORD)
        assert [word for word in after[:length] if word < FIRST_WORD] == [START, END, END]
        kept += len(words)
    # 4800 words: three standard deviations.
    assert kept / (400 * 12) == pytest.approx(0.6, abs=0.022)


def test_a_row_with_words_keeps_one():
    given = pairs()
    noised = TokenNoise(drop=1.0)(VOCABULARY, **given)
    words = noised["input_ids"] >= FIRST_WORD
    assert (words.sum(-1) == 1).all()
    # Any of the twelve, not always the same.
    places = {given["input_ids"][row].tolist().index(noised["input_ids"][row][words[row]].item()) for row in range(400)}
    assert len(places) == 12
    bare = torch.tensor([[START, END, PAD]])
    assert torch.equal(TokenNoise(drop=1.0)(VOCABULARY, bare)["input_ids"], bare)


def test_blanks_and_substitutes_stand_in_place_of_words_at_their_rate():
    given = pairs()
    words = given["input_ids"] >= FIRST_WORD
    blanked = TokenNoise(blank=0.3)(VOCABULARY, **given)["input_ids"]
    assert ((blanked == given["input_ids"]) | (words & (blanked == BLANK))).all()
    assert (blanked == BLANK).sum().item() / words.sum().item() == pytest.approx(0.3, abs=0.02)
    substituted = TokenNoise(substitute=1.0)(VOCABULARY, **given)["input_ids"]
    assert torch.equal(substituted[~words], given["input_ids"][~words])
    assert set(substituted[words].tolist()) == set(range(FIRST_WORD, VOCAB))


def test_noise_follows_torch_s_generator():
    noise, given = TokenNoise(drop=0.2, blank=0.2, substitute=0.2, shuffle=3), pairs(20)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(noise(VOCABULARY, **given)["input_ids"])
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_what_a_tokenizer_calls_special(tokenizers):
    _, tokenizer = tokenizers
    vocabulary = NoiseVocabulary.from_tokenizer(tokenizer)
    special = {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.sep_token_id}
    # An unknown word is a word, which noise may take away, but nothing to substitute for one.
    assert set(vocabulary.special_ids.tolist()) == special
    assert set(vocabulary.word_ids.tolist()) == set(range(len(tokenizer))) - special - {tokenizer.unk_token_id}
    assert vocabulary.blank_id == tokenizer.unk_token_id and vocabulary.pad_id == tokenizer.pad_token_id


def test_bad_noise_is_named():
    with pytest.raises(ValueError, match=r"`drop` is 1\.5"):
        TokenNoise(drop=1.5)
    with pytest.raises(ValueError, match="`shuffle` is -1"):
        TokenNoise(shuffle=-1)
    with pytest.raises(ValueError, match="No noise at all"):
        TokenNoise()
    with pytest.raises(ValueError, match="has neither"):
        TokenNoise(blank=0.1)(NoiseVocabulary(torch.tensor([0]), torch.tensor([1]), 0), torch.tensor([[1]]))


@pytest.mark.parametrize("variant", ["vae", "paraphrase-eq"])
def test_only_q_reads_noise_and_only_in_training(variant, vae_processor, processor, tmp_path):
    processor = vae_processor if variant == "vae" else processor
    model = resized(make_model(variant), processor)
    text = "input_ids" if variant == "vae" else "posterior_input_ids"
    seen = {True: [], False: []}

    def record(module, arguments, inputs, output):
        seen[module.training].append({name: tensor.clone() for name, tensor in inputs.items() if name in clean})

    noise = DenoisingCallback(TokenNoise(blank=1.0), processor.encoder_tokenizer)
    trainer = trainer_for(
        processor, tmp_path, [noise], model, eval_strategy="steps", eval_steps=1, per_device_train_batch_size=8,
        per_device_eval_batch_size=8, max_steps=2,
    )  # fmt: skip
    clean = trainer.data_collator([dict(row) for row in trainer.train_dataset])
    model.register_forward_hook(record, with_kwargs=True)
    trainer.train()
    model(**clean)
    assert len(seen[True]) == 2 and len(seen[False]) == 3
    for batch in seen[False]:
        assert torch.equal(batch[text], clean[text])
    blank = processor.encoder_tokenizer.unk_token_id
    for batch in seen[True]:
        assert (batch[text] == blank).any(-1).all()
        for name in set(clean) - {text}:
            # Everything else is as it was, in the order of this epoch.
            assert sorted(batch[name].tolist()) == sorted(clean[name].tolist()), name


def test_a_training_after_an_interrupted_one_noises_each_text_once(vae_processor, tmp_path, monkeypatch):
    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise RuntimeError("interrupted")

    model = resized(make_model("vae"), vae_processor)
    applied, add_noise = [], TokenNoise.__call__

    def counted(noise, *text, **rows):
        applied.append(noise.drop)
        return add_noise(noise, *text, **rows)

    monkeypatch.setattr(TokenNoise, "__call__", counted)

    def trainer(*chances):
        noises = [DenoisingCallback(TokenNoise(drop=chance), vae_processor.encoder_tokenizer) for chance in chances]
        return trainer_for(vae_processor, tmp_path, noises, model)

    interrupted = trainer(0.1)
    interrupted.add_callback(Interrupt())
    for _ in range(2):
        with pytest.raises(RuntimeError, match="interrupted"):
            interrupted.train()
    # Two callbacks of one training are no leftovers of one another.
    trainer(0.2, 0.3).train()
    assert applied == [0.1, 0.1, 0.2, 0.3]


# Aggressive encoder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulation", [1, 2])
def test_inner_steps_move_q_and_the_outer_step_the_rest(accumulation, vae_processor, tmp_path):
    look = Look(step_begin=lambda model, _: weights(model), step_end=lambda model, _: weights(model))
    callback = AggressiveEncoderCallback(max_inner_steps=3, check_every=2)
    trainer = trainer_for(
        vae_processor, tmp_path, [callback, KLAnnealingCallback(), look], compute_metrics=stub(1.0, 2.0, 2.0, 3.0), max_steps=4,
        gradient_accumulation_steps=accumulation, eval_strategy="steps", eval_steps=1, weight_decay=0.1,
    )  # fmt: skip
    before = weights(trainer.model)
    trainer.train()
    for step in range(4):
        inner, outer = look.seen["step_begin"][step], look.seen["step_end"][step]
        # The mutual information no longer rises at the third evaluation.
        assert changed(before, inner) == ({"encoder", "posterior"} if step < 3 else set())
        assert changed(inner, outer) == ({"decoder"} if step < 3 else {"encoder", "posterior", "decoder"})
        before = outer
    assert callback.state()["attributes"] == {"aggressive": False, "mutual_information": 2.0}
    logged = [entry["inner_steps"] for entry in trainer.state.log_history if "loss" in entry]
    assert all(2 <= steps <= 3 for steps in logged[:3]) and logged[3] == 0


def test_an_encoder_shared_with_the_decoder_is_q_s_and_the_prompt_s_decoder_is_not(processor, tmp_path):
    for variant, parts in (("paraphrase-eq", {"encoder", "posterior"}), ("paraphrase-cross", {"encoder", "posterior"})):
        look = Look(step_begin=lambda model, _: weights(model))
        model = resized(make_model(variant), processor)
        if variant == "paraphrase-cross":
            model.source_encoder.resize_token_embeddings(len(processor.encoder_tokenizer))
        before = weights(model)
        callback = AggressiveEncoderCallback(max_inner_steps=1)
        trainer_for(
            processor, tmp_path, [callback, look], model, compute_metrics=stub(1.0), eval_strategy="epoch", max_steps=1
        ).train()
        assert changed(before, look.seen["step_begin"][0]) == parts


def test_the_inner_loop_improves_the_bound(vae_processor, tmp_path, monkeypatch):
    fixed_noise(monkeypatch)
    model = resized(make_model("vae"), vae_processor)
    batch = VAEDataCollator(vae_processor)([dict(row) for row in ragged_dataset(vae_processor)])

    def bound(model, _=None):
        with torch.no_grad():
            return model.eval()(**batch).loss.item()

    before = bound(model)
    look = Look(step_begin=bound)
    callback = AggressiveEncoderCallback(max_inner_steps=40)
    options = {"compute_metrics": stub(1.0), "eval_strategy": "epoch", "per_device_train_batch_size": 4}
    trainer_for(vae_processor, tmp_path, [callback, look], model, **options).train()
    assert look.seen["step_begin"][0] < before - 0.05


@pytest.mark.parametrize("learning_rate, steps", [(0.0, 4), (1e-3, 7)])
def test_the_inner_loop_ends_where_the_loss_falls_no_more(learning_rate, steps, vae_processor, tmp_path, monkeypatch):
    fixed_noise(monkeypatch)
    callback = AggressiveEncoderCallback(max_inner_steps=7, check_every=2)
    # One sentence, so that the loss falls if anything is learnt, and stays to the last bit if nothing is.
    trainer = trainer_for(
        vae_processor, tmp_path, [callback], rows=1, learning_rate=learning_rate, eval_strategy="epoch", compute_metrics=stub(1.0)
    )
    trainer.train()
    assert trainer.state.log_history[0]["inner_steps"] == steps


def test_inner_gradients_do_not_depend_on_accumulation(vae_processor, tmp_path, monkeypatch):
    fixed_noise(monkeypatch)
    results = []
    for size, accumulation in ((8, 1), (2, 4)):
        look = Look(step_begin=lambda model, _: weights(model))
        trainer_for(
            vae_processor, tmp_path, [AggressiveEncoderCallback(max_inner_steps=1), look], optim="sgd", learning_rate=1.0,
            per_device_train_batch_size=size, gradient_accumulation_steps=accumulation, eval_strategy="epoch", max_grad_norm=1e9,
            compute_metrics=stub(1.0),
        ).train()  # fmt: skip
        results.append(look.seen["step_begin"][0])
    assert "encoder" in changed(weights(resized(make_model("vae"), vae_processor)), results[0])
    for name, parameter in results[0].items():
        torch.testing.assert_close(results[1][name], parameter, atol=2e-6, rtol=1e-5)


def test_inner_steps_are_in_no_figure_of_the_outer_ones(vae_processor, tmp_path):
    callbacks = [AggressiveEncoderCallback(max_inner_steps=5), KLAnnealingCallback(ConstantSchedule(0.3))]
    trainer = trainer_for(
        vae_processor, tmp_path, callbacks, per_device_train_batch_size=8, eval_strategy="epoch", compute_metrics=stub(1.0)
    )
    trainer.train()
    log = trainer.state.log_history[0]
    tokens = sum(len(row["labels"]) for row in trainer.train_dataset)
    assert log["loss"] * tokens / 8 == pytest.approx(log["reconstruction"] + 0.3 * log["kl"], rel=1e-3)
    assert log["inner_steps"] == 5


def test_only_counted_passes_in_training_are_averaged(vae_processor):
    model = make_model("vae")
    batch, parts = make_batch(model), LossParts(("reconstruction_loss", "kl"), optional=("bow_loss",))
    parts.attach(model)
    model(**batch)
    model.train()
    with uncounted():
        model(**batch)
    assert parts.means() == {}
    kl = torch.cat([model(**make_batch(model, rows, seed=rows)).kl for rows in (1, 4)])
    means = parts.means()
    assert means["kl"] == pytest.approx(kl.mean().item()) and set(means) == {"reconstruction_loss", "kl"}
    assert parts.means() == {}
    parts.detach()
    model(**batch)
    assert parts.means() == {}


def test_aggression_without_an_end_is_refused(vae_processor, tmp_path):
    with pytest.raises(ValueError, match="`eval_strategy` is 'no'"):
        trainer_for(vae_processor, tmp_path, [AggressiveEncoderCallback()]).train()
    with pytest.raises(ValueError, match="gave no `eval_mutual_information`"):
        trainer_for(vae_processor, tmp_path, [AggressiveEncoderCallback(max_inner_steps=1)], eval_strategy="epoch").train()
    with pytest.raises(ValueError, match="`check_every` is 0"):
        AggressiveEncoderCallback(check_every=0)


# Decoder reset ------------------------------------------------------------------------------------------------------------


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
    assert not torch.equal(again.decoder.project.weight, model.decoder.project.weight)


def test_a_reset_within_a_run_forgets_the_decoder_s_moments(vae_processor, tmp_path):
    def moments(model, optimizer):
        steps = {name: optimizer.state[p]["step"].item() for name, p in model.named_parameters() if p in optimizer.state}
        return {part: {n for name, n in steps.items() if name.startswith(part)} for part in ("encoder", "posterior", "decoder")}

    look = Look(step_begin=lambda model, _: weights(model), step_end=moments)
    reset = DecoderResetCallback(2)
    schedule = CyclicalSchedule(period=4, zero=0.5, rise=0.5, cycles=1)
    trainer = trainer_for(vae_processor, tmp_path, [KLAnnealingCallback(schedule), reset, look], max_steps=5)
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
        trainer_for(vae_processor, tmp_path, [DecoderResetCallback(1)]).train()
    frozen = trainer_for(vae_processor, tmp_path, [DecoderResetCallback(1)], max_steps=2)
    frozen.model.decoder.lm.requires_grad_(False)
    with pytest.raises(ValueError, match="The decoder is frozen in whole or in part"):
        frozen.train()
    with pytest.raises(ValueError, match="`model` is a Linear"):
        reset_decoder(torch.nn.Linear(1, 1), seed=0)


# Minimum desired rate -----------------------------------------------------------------------------------------------------


def test_the_multiplier_is_rmsprop_s_under_a_softplus(vae_processor, tmp_path):
    callback = MinimumDesiredRateCallback(rate=3.0, learning_rate=0.05)
    look = Look(step_begin=lambda model, _: model.kl_weight.item(), step_end=lambda *_: callback.multiplier)
    trainer = trainer_for(vae_processor, tmp_path, [callback, look], max_steps=6)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    raw = torch.tensor(1.01, dtype=torch.float64).expm1().log().requires_grad_()
    optimizer = torch.optim.RMSprop([raw], lr=0.05, maximize=True)
    assert look.seen["step_begin"][0] == pytest.approx(1 - 1.01)
    for step, log in enumerate(logs):
        optimizer.zero_grad()
        (torch.nn.functional.softplus(raw) * (3.0 - min(log["kl"], 6.0))).backward()
        optimizer.step()
        expected = torch.nn.functional.softplus(raw).item()
        assert look.seen["step_end"][step] == pytest.approx(expected, rel=1e-9)
        assert log["rate_multiplier"] == pytest.approx(expected, rel=1e-9)
        assert log["rate_violation"] == pytest.approx(max(0.0, 3.0 - log["kl"]))
        # The log's weight is the one that the step was trained with.
        assert log["kl_weight"] == look.seen["step_begin"][step]
        if step:
            weight = 1 - look.seen["step_end"][step - 1]
            assert log["kl_weight"] == pytest.approx(weight if logs[step - 1]["kl"] < 3.0 else max(weight, 0.0))


def test_the_constraint_lifts_the_kl_to_the_rate_and_then_lets_go(vae_processor, tmp_path):
    runs = {}
    for name, callback in (("elbo", KLAnnealingCallback()), ("rate", MinimumDesiredRateCallback(3.0, learning_rate=0.01))):
        trainer = trainer_for(vae_processor, tmp_path, [callback], max_steps=25, per_device_train_batch_size=8)
        trainer.train()
        runs[name] = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert runs["elbo"][-1]["kl"] < 0.5
    rates, multipliers = ([entry[key] for entry in runs["rate"]] for key in ("kl", "rate_multiplier"))
    assert min(rates) < 3.0 < max(rates)
    # u rises while the KL is below the rate and falls while it is above.
    for before, after, rate in zip(multipliers, multipliers[1:], rates[1:]):
        assert (after > before) == (rate < 3.0)


def test_a_kl_above_the_rate_is_not_rewarded(vae_processor, tmp_path):
    # A multiplier far above 1, which nothing brings down within these steps.
    callback = MinimumDesiredRateCallback(3.0, learning_rate=1e-9, initial_multiplier=3.0)
    trainer = trainer_for(vae_processor, tmp_path, [callback], max_steps=12, per_device_train_batch_size=8)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    weights = [(before["kl"], after["kl_weight"]) for before, after in pairwise(logs)]
    assert logs[0]["kl_weight"] == pytest.approx(-2.0)
    assert {kl < 3.0 for kl, _ in weights} == {True, False}
    for kl, weight in weights:
        assert weight == pytest.approx(-2.0 if kl < 3.0 else 0.0)


def test_a_kl_that_leaps_does_not_hold_the_multiplier_still(monkeypatch):
    # A KL that is rewarded may reach thousands of nats for a few steps; the multiplier must be as quick afterwards as before.
    travelled = {}
    for name, leap in (("calm", 4.0), ("leap", 5000.0)):
        callback = MinimumDesiredRateCallback(rate=2.0)
        kls = iter([leap] * 5 + [1.0] * 200)
        monkeypatch.setattr(callback._step, "means", lambda kls=kls: {"kl": next(kls)})
        path = []
        for _ in range(205):
            callback.on_step_end(None, None, None)
            path.append(callback.multiplier)
        assert path[4] < 1.01 < path[-1]
        travelled[name] = path[-1] - path[4]
    assert travelled["leap"] == pytest.approx(travelled["calm"])


def test_the_step_s_rate_is_the_mean_over_its_micro_batches(vae_processor, tmp_path, monkeypatch):
    fixed_noise(monkeypatch)
    multipliers = []
    for size, accumulation in ((8, 1), (2, 4)):
        callback = MinimumDesiredRateCallback(rate=0.5)
        options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "logging_steps": 1}
        trainer_for(vae_processor, tmp_path, [callback], **options).train()
        multipliers.append((callback.multiplier, callback.state()["attributes"]["_mean_square"]))
    assert multipliers[0] == pytest.approx(multipliers[1], rel=1e-5)


def test_a_rate_that_cannot_be_reached_by_weighing_the_kl_is_refused(vae_processor, tmp_path):
    with pytest.raises(ValueError, match="`rate` is 0"):
        MinimumDesiredRateCallback(rate=0)
    callbacks = [KLAnnealingCallback(), MinimumDesiredRateCallback(rate=1.0)]
    with pytest.raises(ValueError, match="KLAnnealingCallback and MinimumDesiredRateCallback each set `kl_weight`"):
        trainer_for(vae_processor, tmp_path, callbacks).train()
    model = resized(make_model("vae", free_bits=2.0), vae_processor)
    with pytest.raises(ValueError, match=r"`free_bits` is 2\.0"):
        trainer_for(vae_processor, tmp_path, callbacks[1:], model).train()


# Resuming -----------------------------------------------------------------------------------------------------------------


def techniques(name, processor):
    """Callbacks made anew, as a new process would."""
    return {
        "denoising": lambda: [DenoisingCallback(TokenNoise(drop=0.3, substitute=0.2, shuffle=2), processor.encoder_tokenizer)],
        "aggressive": lambda: [AggressiveEncoderCallback(max_inner_steps=3, check_every=1), KLAnnealingCallback()],
        "reset": lambda: [DecoderResetCallback(4)],
        "rate": lambda: [MinimumDesiredRateCallback(2.0, learning_rate=0.03, initial_multiplier=3.0)],
    }[name]()


# In the middle of the first epoch; at its end; in the second one, with the Trainer's own way to restore callbacks.
CUTS = [(3, False), pytest.param(4, False, marks=pytest.mark.slow), pytest.param(5, True, marks=pytest.mark.slow)]


@pytest.mark.parametrize("step, restore", CUTS)
@pytest.mark.parametrize("name", ["denoising", "aggressive", "reset", "rate"])
def test_a_resumed_run_ends_with_the_same_weights(name, step, restore, vae_processor, tmp_path):
    # Falls at the fourth step, whose evaluation needs to know of the third: where that is lost, aggression goes on.
    information = (1.0, 2.0, 3.0, 2.5, 9.0, 10.0)
    options = {
        "max_steps": 6, "save_strategy": "steps", "save_steps": step, "eval_strategy": "steps", "eval_steps": 1,
        "restore_callback_states_from_checkpoint": restore, "lr_scheduler_type": "linear",
    }  # fmt: skip
    runs = []
    for first, checkpoint in ((0, None), (step, str(tmp_path / f"checkpoint-{step}"))):
        trainer = trainer_for(
            vae_processor, tmp_path, techniques(name, vae_processor), compute_metrics=stub(*information[first:]), **options
        )
        trainer.train(resume_from_checkpoint=checkpoint)
        kept = ("loss", "kl", "kl_weight", "rate_multiplier", "inner_steps")
        logs = [{key: entry[key] for key in kept if key in entry} for entry in trainer.state.log_history]
        runs.append((weights(trainer.model), [entry for entry in logs if entry]))
    (whole, whole_logs), (resumed, resumed_logs) = runs
    assert resumed_logs == whole_logs and len(whole_logs) == 6
    for parameter, weight in resumed.items():
        torch.testing.assert_close(weight, whole[parameter], atol=0, rtol=0, msg=parameter)


def test_a_checkpoint_without_the_callback_starts_it_anew_and_saves(vae_processor, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1}
    trainer_for(vae_processor, tmp_path, [KLAnnealingCallback()], max_steps=1, **options).train()
    callback = MinimumDesiredRateCallback(2.0)
    trainer_for(vae_processor, tmp_path, [callback], max_steps=2, **options).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-1")
    )
    assert callback.multiplier != pytest.approx(1.01, abs=1e-6)
    assert (tmp_path / "checkpoint-2" / "trainer_state.json").exists()
    # A new training of the same Trainer starts anew too.
    trainer = trainer_for(vae_processor, tmp_path / "new", [callback], max_steps=1)
    trainer.train()
    assert trainer.state.log_history[0]["kl_weight"] == pytest.approx(1 - 1.01)


TWO_PROCESSES = """
import sys
import torch
from accelerate import PartialState
sys.path.insert(0, {tests!r})
from conftest import make_model
from test_training import resized
from test_training_techniques import Look, stub, trainer_for, weights
from hf_vae import VAEProcessor
from hf_vae.training import *
from hf_vae.training.from_scratch import train_tokenizers

processor = VAEProcessor(*train_tokenizers(["the cat sat on the mat", "a dog ran in the park"] * 5, 300))
torch.manual_seed(PartialState().process_index)
rate = MinimumDesiredRateCallback(2.0, learning_rate=0.3)
aggressive = AggressiveEncoderCallback(max_inner_steps=4, check_every=2)
callbacks = [rate, aggressive, DecoderResetCallback(2), Look()]
model = resized(make_model("vae"), processor)
before = weights(model)
trainer = trainer_for(
    processor, sys.argv[1], callbacks, model, max_steps=3, eval_strategy="steps", eval_steps=1,
    compute_metrics=stub(1.0, 2.0, 1.0), gradient_accumulation_steps=2,
)
trainer.train()
after = weights(model)
assert not torch.equal(after["posterior.linear.weight"], before["posterior.linear.weight"])
torch.save((after, rate.multiplier), f"{{sys.argv[1]}}/{{PartialState().process_index}}.pt")
"""


@pytest.mark.slow
def test_two_processes_stay_in_step(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(TWO_PROCESSES.format(tests=str(TESTS)), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script), str(tmp_path)]
    subprocess.run(command, check=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"})
    (first, first_rate), (second, second_rate) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first_rate == second_rate
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, atol=0, rtol=0, msg=name)
