"""Metrics and the collapse callback in the plain Trainer."""

import dataclasses
import logging
import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments

from helpers import BOS, make_batch, make_model, resized
from hf_vae import DiagonalGaussian, DialogCVAEProcessor, KLAnnealingCallback, VAEDataCollator
from hf_vae.evaluation import (
    CollapseReportCallback,
    LikelihoodEvaluator,
    elbo_metrics,
    evaluate_vae,
    information_metrics,
)
from hf_vae.training import EvaluateEveryExampleCallback

TEXTS = ["the cat sat on the mat", "a dog ran in the park", "the mat", "a park", "the dog sat", "a cat ran", "the park the mat"]


@pytest.fixture
def vae(vae_processor):
    return resized(make_model("vae"), vae_processor)


def make_trainer(model, processor, tmp_path, **options):
    rows = Dataset.from_list([dict(processor(text, text, return_tensors=None)) for text in TEXTS])
    callbacks = options.pop("callbacks", [])
    compute_metrics = options.pop("compute_metrics", None)
    defaults = {
        "max_steps": 2, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 3, "report_to": "none", "use_cpu": True,
        "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1, "dataloader_pin_memory": False,
    }  # fmt: skip
    return Trainer(
        model, TrainingArguments(output_dir=str(tmp_path), **defaults | options), train_dataset=rows, eval_dataset=rows,
        data_collator=VAEDataCollator(processor), compute_metrics=compute_metrics, callbacks=callbacks,
    )  # fmt: skip


def test_compute_metrics_gives_the_corpus_s_own_elbo(vae, vae_processor, tmp_path, monkeypatch):
    monkeypatch.setattr(DiagonalGaussian, "sample", lambda self, *_: self.mean + self.std * torch.sin(37 * self.mean))
    metrics = make_trainer(vae, vae_processor, tmp_path, compute_metrics=elbo_metrics).evaluate()
    nats, kl, tokens, means, logvars = 0.0, 0.0, 0, [], []
    for text in TEXTS:
        batch = vae_processor(text, text)
        with torch.no_grad():
            q = vae.encode(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids")).latent_dist
            words = torch.cat([torch.tensor([[BOS]]), batch["labels"][:, :-1]], dim=1)
            log_p = vae.decoder(input_ids=words, latents=q.sample(), use_cache=False).logits.log_softmax(-1)
        assert vae.config.decoder_start_token_id == BOS
        nats -= log_p.gather(-1, batch["labels"].unsqueeze(-1)).sum().item()
        kl += (0.5 * (q.mean**2 + q.logvar.exp() - q.logvar - 1)).sum().item()
        tokens += batch["labels"].numel()
        means, logvars = [*means, q.mean], [*logvars, q.logvar]
    assert metrics["eval_reconstruction"] == pytest.approx(nats / len(TEXTS), rel=1e-5)
    assert metrics["eval_kl"] == pytest.approx(kl / len(TEXTS), rel=1e-5)
    assert metrics["eval_elbo"] == pytest.approx(-(nats + kl) / len(TEXTS), rel=1e-5)
    assert metrics["eval_ppl_per_token_elbo"] == pytest.approx(math.exp((nats + kl) / tokens), rel=1e-5)
    information = information_metrics(DiagonalGaussian(torch.cat(means), torch.cat(logvars)))
    for name in ("mutual_information", "mutual_information_ceiling", "active_units_0.01", "kl_minus_mutual_information"):
        assert metrics[f"eval_{name}"] == pytest.approx(information[name], abs=1e-4)


SAME = ("elbo", "reconstruction", "kl", "loss", "ppl_per_token_elbo", "mutual_information", "active_units_0.01")


@pytest.mark.parametrize(
    "options",
    [
        {"eval_do_concat_batches": False},
        {"eval_do_concat_batches": False, "eval_accumulation_steps": 1},
        {"eval_accumulation_steps": 2},
        {"batch_eval_metrics": True},
        {"batch_eval_metrics": True, "include_for_metrics": ["inputs", "loss"]},
        {"include_for_metrics": ["inputs", "loss"]},
        {"per_device_eval_batch_size": 7},
    ],
    ids=str,
)
def test_metrics_do_not_depend_on_how_the_trainer_hands_them_on(vae, vae_processor, tmp_path, monkeypatch, options):
    monkeypatch.setattr(DiagonalGaussian, "sample", lambda self, *_: self.mean + self.std * torch.sin(37 * self.mean))
    plain, other = (
        make_trainer(vae, vae_processor, tmp_path, compute_metrics=elbo_metrics, **each).evaluate() for each in ({}, options)
    )
    assert plain.keys() == other.keys()
    assert [other[f"eval_{name}"] for name in SAME] == pytest.approx([plain[f"eval_{name}"] for name in SAME], rel=1e-5)


@pytest.mark.parametrize("option", ["fp16_full_eval", "bf16_full_eval"])
def test_metrics_of_a_model_in_half_precision_are_close(vae, vae_processor, tmp_path, monkeypatch, option):
    monkeypatch.setattr(DiagonalGaussian, "sample", lambda self, *_: self.mean)
    plain = make_trainer(vae, vae_processor, tmp_path, compute_metrics=elbo_metrics).evaluate()
    half = make_trainer(vae, vae_processor, tmp_path, compute_metrics=elbo_metrics, **{option: True}).evaluate()
    assert [half[f"eval_{name}"] for name in SAME[:5]] == pytest.approx([plain[f"eval_{name}"] for name in SAME[:5]], rel=0.03)


def test_the_loss_of_an_evaluation_is_that_of_one_batch_of_everything(vae, vae_processor, tmp_path, monkeypatch):
    """A mean over batches of means over tokens it would be without the metrics."""
    monkeypatch.setattr(DiagonalGaussian, "sample", lambda self, *_: self.mean)
    with torch.no_grad():
        whole = vae.eval()(**vae_processor(TEXTS, TEXTS)).loss.item()
    trainer = make_trainer(
        vae, vae_processor, tmp_path, compute_metrics=elbo_metrics, per_device_eval_batch_size=3, eval_strategy="steps",
        eval_steps=1, save_strategy="steps", save_steps=1, load_best_model_at_end=True, learning_rate=0.0,
    )  # fmt: skip
    assert trainer.evaluate()["eval_loss"] == pytest.approx(whole, rel=1e-5)
    trainer.train()
    logged = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert logged == pytest.approx([whole] * len(logged), rel=1e-5)
    assert trainer.state.best_metric == pytest.approx(whole, rel=1e-5)
    assert trainer.predict(trainer.eval_dataset).metrics["test_loss"] == pytest.approx(whole, rel=1e-5)
    without = make_trainer(vae, vae_processor, tmp_path, per_device_eval_batch_size=3).evaluate()["eval_loss"]
    assert abs(without - whole) > 1e-4


def test_an_evaluation_that_broke_off_leaves_nothing_for_the_next_one(vae, vae_processor, tmp_path, monkeypatch):
    monkeypatch.setattr(DiagonalGaussian, "sample", lambda self, *_: self.mean)
    options = {"compute_metrics": elbo_metrics, "batch_eval_metrics": True}

    class Stop(TrainerCallback):
        def on_prediction_step(self, *_, eval_dataloader=None, **kwargs):
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_trainer(vae, vae_processor, tmp_path, callbacks=[Stop()], **options).evaluate()
    metrics = make_trainer(vae, vae_processor, tmp_path, **options).evaluate()
    assert metrics["eval_num_examples"] == len(TEXTS)


def test_outputs_that_were_left_out_are_not_taken_for_others():
    model = make_model("vae", bow_loss_weight=1.0)
    batch = make_batch(model)
    with torch.no_grad():
        output = model(**batch)

    def metrics(*ignored):
        kept = [output[name].numpy() for name in output if name not in ("loss", "logits", *ignored)]
        return elbo_metrics(EvalPrediction(predictions=tuple(kept), label_ids=batch["labels"].numpy()))

    assert metrics().keys() - metrics("posterior_mean").keys() >= {"mutual_information", "active_units_0.01"}
    assert metrics("posterior_mean")["kl"] == metrics()["kl"]
    for ignored in ("kl", "reconstruction_loss"):
        with pytest.raises(ValueError, match="ignore_keys"):
            metrics(ignored)


@pytest.mark.parametrize("source_conditioning", ["prompt", "cross_attention"])
@pytest.mark.parametrize("options", [{}, {"eval_do_concat_batches": False}, {"batch_eval_metrics": True}], ids=str)
def test_dialogues_turn_by_turn_hand_their_inputs_to_metrics(tmp_path, tokenizers, options, source_conditioning):
    ways = {"context_encoding": "hierarchical", "source_conditioning": source_conditioning}
    processor = DialogCVAEProcessor(*tokenizers, **ways)
    model = resized(make_model("dialog", meta_categories=[], num_meta_values=0, **ways), processor)
    talks = [[{"role": "AB"[turn % 2], "content": "the cat " * (1 + turn)} for turn in range(1 + row % 3)] for row in range(7)]
    rows = Dataset.from_list([dict(processor(talk, "the mat", return_tensors=None)) for talk in talks])
    seen = []

    def compute_metrics(prediction, compute_result=None):
        seen.append(prediction.inputs)
        return elbo_metrics(prediction, compute_result)

    arguments = TrainingArguments(
        str(tmp_path), per_device_eval_batch_size=2, report_to="none", use_cpu=True, include_for_metrics=["inputs"],
        label_names=["labels"], disable_tqdm=True, **options,
    )  # fmt: skip
    trainer = Trainer(
        model, arguments, eval_dataset=rows, data_collator=VAEDataCollator(processor), compute_metrics=compute_metrics
    )
    metrics = trainer.evaluate()
    assert metrics["eval_num_examples"] == 7 and seen[0] is not None
    if not options:
        assert seen[0].shape[0] == 7 and seen[0].ndim == 2


def test_outputs_are_in_the_order_of_their_fields(model, batch):
    """The Trainer hands them on by their order, and `elbo_metrics` finds them by it."""
    with torch.no_grad():
        output = model(**batch)
    fields = [field.name for field in dataclasses.fields(output)]
    assert list(output) == [name for name in fields if name in output]
    kept = [output[name].numpy() for name in output if name not in ("loss", *model.config.keys_to_ignore_at_inference)]
    labels = tuple(batch[name].numpy() for name in ("labels", "act_labels") if name in batch)
    metrics = elbo_metrics(EvalPrediction(predictions=tuple(kept), label_ids=labels if len(labels) > 1 else labels[0]))
    nats = (output.reconstruction_loss + output.kl).sum().item()
    assert metrics["kl"] == pytest.approx(output.kl.mean().item(), rel=1e-5)
    assert metrics["loss"] == pytest.approx(output.loss.item(), rel=1e-5)
    assert metrics["elbo"] == pytest.approx(-nats / 3, rel=1e-5)
    assert metrics["ppl_per_token_elbo"] == pytest.approx(math.exp(nats / (batch["labels"] != -100).sum().item()), rel=1e-5)
    prior = DiagonalGaussian(output.prior_mean, output.prior_logvar)
    own = information_metrics(DiagonalGaussian(output.posterior_mean, output.posterior_logvar), prior)
    assert metrics["mutual_information"] == pytest.approx(own["mutual_information"], rel=1e-5)
    assert "marginal_kl" not in metrics
    has_network = getattr(model.config, "prior_type", "standard") == "conditional"
    assert metrics.get("prior_depends_on_source", False) == has_network == ("kl_minus_mutual_information" not in metrics)


def test_a_process_with_several_gpus_is_refused(vae, vae_processor, tmp_path):
    trainer = make_trainer(vae, vae_processor, tmp_path, callbacks=[KLAnnealingCallback()])
    trainer.args._n_gpu = 2
    with pytest.raises(ValueError, match="One process has 2 GPUs"):
        KLAnnealingCallback().on_train_begin(trainer.args, trainer.state, trainer.control, model=vae)


def test_outputs_that_are_no_vae_s_are_refused():
    logits = np.zeros((4, 3, 9))
    with pytest.raises(ValueError, match=r"shapes \[\(4, 3, 9\)\]"):
        elbo_metrics(EvalPrediction(predictions=logits, label_ids=np.zeros((4, 3))))


def test_the_callback_logs_and_warns_where_z_is_ignored(vae, vae_processor, tmp_path, caplog):
    with torch.no_grad():
        for parameter in vae.posterior_head.parameters():
            parameter.zero_()
    callback = CollapseReportCallback(vae_processor, TEXTS)
    trainer = make_trainer(
        vae, vae_processor, tmp_path, callbacks=[callback], eval_strategy="steps", eval_steps=2, learning_rate=1e-6,
        report_to="tensorboard",
    )  # fmt: skip
    with caplog.at_level(logging.WARNING, logger="hf_vae.evaluation.callbacks"):
        trainer.train()
    warnings = [record.getMessage() for record in caplog.records if record.name == "hf_vae.evaluation.callbacks"]
    assert len(warnings) == 1 and warnings[0].startswith("Step 2: z is being ignored") and "What to try" in warnings[0]
    assert callback.report.ignored
    logged = next(entry for entry in trainer.state.log_history if "eval_loss" in entry)
    assert logged["eval_mutual_information"] == pytest.approx(0, abs=1e-3)
    assert logged["eval_shuffled_gap"] == pytest.approx(logged["eval_nll_shuffled"] - logged["eval_nll_posterior"])
    events = EventAccumulator(str(next(tmp_path.glob("**/events.out.*")).parent))
    events.Reload()
    assert [event.step for event in events.Scalars("eval/mutual_information")] == [2]
    # Also outside of training, and in what `evaluate` returns.
    assert trainer.evaluate()["eval_mutual_information"] == pytest.approx(0, abs=1e-3)


def test_the_callback_is_silent_where_z_is_used_and_leaves_training_as_it_was(vae, vae_processor, tmp_path, caplog):
    start = {name: value.clone() for name, value in vae.state_dict().items()}
    finals = []
    callback = CollapseReportCallback(vae_processor, TEXTS, batch_size=2)
    for callbacks in ([], [callback]):
        vae.load_state_dict(start)
        vae.kl_weight.fill_(0.05)
        # The last evaluation is of a model that has learnt its seven sentences.
        options = {"max_steps": 60, "eval_strategy": "steps", "eval_steps": 30, "learning_rate": 1e-2, "logging_steps": 60}
        trainer = make_trainer(vae, vae_processor, tmp_path, callbacks=callbacks, per_device_train_batch_size=7, **options)
        with caplog.at_level(logging.WARNING, logger="hf_vae.evaluation.callbacks"):
            trainer.train()
        finals.append(torch.cat([parameter.detach().flatten() for parameter in vae.parameters()]))
    assert callback.report.verdict == "used"
    assert not [record for record in caplog.records if record.name == "hf_vae.evaluation.callbacks" and "Step 60" in record.message]
    torch.testing.assert_close(finals[1], finals[0], atol=0, rtol=0)


def test_what_the_evaluation_has_measured_of_all_examples_stays(vae, vae_processor, tmp_path):
    callback = CollapseReportCallback(vae_processor, TEXTS[:2])
    options = {"compute_metrics": elbo_metrics, "eval_strategy": "steps", "eval_steps": 2}
    trainer = make_trainer(vae, vae_processor, tmp_path, callbacks=[callback], **options)
    trainer.train()
    logged = next(entry for entry in trainer.state.log_history if "eval_loss" in entry)
    for figures in (trainer.evaluate(), logged):
        assert figures["eval_elbo"] == pytest.approx(-(figures["eval_reconstruction"] + figures["eval_kl"]))
        assert figures["eval_mutual_information_ceiling"] == pytest.approx(math.log(len(TEXTS)))
        assert "eval_nll_shuffled" in figures and "eval_shuffled_gap" in figures


@pytest.mark.parametrize("eval_batch", [2, 16])
def test_every_example_is_evaluated_where_the_training_drops_its_last_batch(vae, vae_processor, tmp_path, eval_batch):
    options = {
        "dataloader_drop_last": True, "per_device_eval_batch_size": eval_batch, "eval_strategy": "steps", "eval_steps": 1,
        "eval_on_start": True, "max_steps": -1, "num_train_epochs": 1,
    }  # fmt: skip
    callbacks = [EvaluateEveryExampleCallback()]
    trainer = make_trainer(vae, vae_processor, tmp_path, callbacks=callbacks, compute_metrics=elbo_metrics, **options)
    trainer.train()
    ceilings = [entry["eval_mutual_information_ceiling"] for entry in trainer.state.log_history if "eval_elbo" in entry]
    # Seven sentences make one batch of four.
    assert trainer.state.global_step == 1 and ceilings == pytest.approx([math.log(len(TEXTS))] * 2)
    assert trainer.args.dataloader_drop_last


def test_a_gsnn_has_no_q_to_judge(processor, tmp_path):
    model = resized(make_model("cvae", objective="gsnn"), processor)
    trainer = make_trainer(model, processor, tmp_path, callbacks=[CollapseReportCallback(processor, TEXTS, TEXTS)])
    with pytest.raises(ValueError, match="has no q that could be ignored"):
        trainer.train()
    assert "collapse_report" not in evaluate_vae(LikelihoodEvaluator(model, processor, TEXTS[:2], TEXTS[:2]), 2)


def test_a_callback_needs_texts(vae_processor):
    with pytest.raises(ValueError, match="1 example"):
        CollapseReportCallback(vae_processor, TEXTS[:1])
    with pytest.raises(ValueError, match="7 `texts` and 2 `targets`"):
        CollapseReportCallback(vae_processor, TEXTS, TEXTS[:2])
