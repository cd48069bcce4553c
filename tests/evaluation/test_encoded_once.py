"""In an evaluation every x is encoded once, within a stated memory, and what is measured does not depend on it."""

import pytest
import torch
from datasets import Dataset
from transformers import Gemma2Config

from helpers import TARGETS, TEXTS, make_model, resized
from hf_vae import CVAEProcessor, DialogCVAEProcessor, ParaphraseVAEProcessor
from hf_vae import fused_linear_cross_entropy as fused
from hf_vae.cli.held_out import HeldOutPairs, predict_acts
from hf_vae.evaluation import (
    LikelihoodEvaluator,
    evaluate_vae,
    likelihood_metrics,
    reconstruction_at_mean,
    refine,
)

BATCHES = 2
DIALOGUES = [[{"role": "a", "content": text}, {"role": "b", "content": other}] for text, other in zip(TEXTS, TEXTS[::-1])]
# By name the variant, its options, and how often a batch makes the encoder of q and that of x run: both are one if they are tied.
CASES = {
    "prompt": ("paraphrase-prompt", {}, (1, 0)),
    "cross-attention": ("paraphrase-eq", {}, (2, 0)),
    "cross-attention, own encoder": ("paraphrase-cross", {}, (1, 1)),
    "initial state": ("paraphrase-lstm", {}, (1, 1)),
    "conditional prior": ("cvae", {}, (2, 0)),
    "conditional prior and cross-attention": ("cvae-cross", {}, (1, 1)),
    "flat dialogue": ("dialog", {"meta_categories": None, "num_meta_values": 0}, (2, 0)),
    "dialogue with acts": ("dialog-acts", {}, (2, 0)),
    "hierarchical dialogue": ("dialog-lstm", {}, (2, 0)),
    "hierarchical dialogue, own encoder": ("dialog-lstm", {"tie_encoders": False}, (1, 1)),
}


def texts_of(case):
    return DIALOGUES if CASES[case][0].startswith("dialog") else TEXTS


def evaluator_of(case, tokenizers, fields=None, **options):
    variant, model_options, _ = CASES[case]
    if variant.startswith("dialog"):
        acts = None if variant == "dialog" else ["x", "y", "z"]
        encoding = "hierarchical" if variant == "dialog-lstm" else "flat"
        conditioning = "initial_state" if variant == "dialog-lstm" else "prompt"
        processor = DialogCVAEProcessor(
            *tokenizers, acts=acts, max_turns=2, context_encoding=encoding, source_conditioning=conditioning
        )
    else:
        processor_class = CVAEProcessor if variant.startswith("cvae") else ParaphraseVAEProcessor
        conditioning = make_model(variant).config.source_conditioning
        processor = processor_class(*tokenizers, source_conditioning=conditioning)
    model = resized(make_model(variant, **model_options, **(fields or {})), processor)
    if not model.config.tie_encoders:
        model.source_encoder.resize_token_embeddings(len(processor.encoder_tokenizer))
    return LikelihoodEvaluator(model, processor, texts_of(case), TARGETS, batch_size=3, **options)


def counted(model):
    """How often the encoder of q and the encoder of x alone run from now on."""
    calls = {"encoder": 0, "source_encoder": 0}

    def count(name):
        def hook(module, args, kwargs, output):
            calls[name] += 1

        return hook

    for name in calls:
        if getattr(model, name, None) is not None:
            getattr(model, name).register_forward_hook(count(name), with_kwargs=True)
    return calls


@pytest.mark.parametrize("case", CASES)
def test_everything_that_is_measured_reads_x_once_and_the_pair_once(case, tokenizers):
    evaluator = evaluator_of(case, tokenizers)
    calls = counted(evaluator.model)
    once = dict(zip(calls, (BATCHES * each for each in CASES[case][2])))
    likelihood_metrics(evaluator, num_samples=3)
    assert calls == once
    evaluate_vae(evaluator, importance_samples=3, refine_steps=1)
    assert calls == {name: 2 * count for name, count in once.items()}


@pytest.mark.parametrize("case", CASES)
def test_no_memory_changes_no_metric(case, tokenizers):
    metrics = [
        evaluate_vae(evaluator_of(case, tokenizers, source_memory=memory), importance_samples=3, refine_steps=1)
        for memory in (2**30, 0)
    ]
    reports = [each.pop("collapse_report") for each in metrics]
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-6, rel=1e-6)
    assert reports[0]["verdict"] == reports[1]["verdict"]


def test_memory_is_kept_to(tokenizers):
    """One batch fits and the other does not, so that one of them is read in every pass."""
    evaluator = evaluator_of("cross-attention, own encoder", tokenizers)
    sizes = []
    with evaluator.reading_once():
        evaluator.nll(torch.zeros(len(evaluator), 1, 4))
        sizes = [batch.num_bytes for batch in evaluator._batches.values()]
        assert len(sizes) == BATCHES
    evaluator.source_memory = max(sizes)
    calls = counted(evaluator.model)
    with evaluator.reading_once():
        for _ in range(3):
            evaluator.nll(torch.zeros(len(evaluator), 1, 4))
            assert sum(batch.num_bytes for batch in evaluator._batches.values()) <= max(sizes)
    assert calls["source_encoder"] == 1 + 3


def test_outside_every_pass_reads_what_the_weights_say_then(tokenizers):
    evaluator = evaluator_of("conditional prior", tokenizers)
    before, prior = likelihood_metrics(evaluator, 2), evaluator.prior()
    with torch.no_grad():
        for parameter in evaluator.model.encoder.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    assert not torch.allclose(evaluator.prior().mean, prior.mean)
    assert likelihood_metrics(evaluator, 2)["nll_posterior"] != before["nll_posterior"]


def test_an_error_in_a_pass_leaves_nothing_behind(tokenizers):
    evaluator = evaluator_of("conditional prior", tokenizers)
    with pytest.raises(RuntimeError, match="half way"), evaluator.reading_once():
        evaluator.posterior()
        raise RuntimeError("half way")
    assert not evaluator._batches and not evaluator._distributions and not evaluator._is_reading_once


def test_a_reconstruction_and_a_refinement_read_x_once_by_themselves(tokenizers):
    for measure in (reconstruction_at_mean, lambda evaluator: refine(evaluator, num_steps=2)):
        evaluator = evaluator_of("conditional prior and cross-attention", tokenizers)
        calls = counted(evaluator.model)
        measure(evaluator)
        assert calls == {"encoder": BATCHES, "source_encoder": BATCHES}


@pytest.mark.parametrize("case", ["conditional prior", "hierarchical dialogue, own encoder"])
def test_what_a_command_measures_reads_x_once(case, tokenizers):
    """Bounds, outputs, q and p for the picture, and acts."""
    evaluator = evaluator_of(case, tokenizers)
    pairs = Dataset.from_dict({"source": evaluator.texts, "targets": [[target] for target in TARGETS]})
    held_out = HeldOutPairs(evaluator.processor, pairs, lambda outputs: {}, num_outputs=2, max_new_tokens=3, importance_samples=3)
    calls = counted(evaluator.model)
    with held_out.evaluator(evaluator.model).reading_once():
        metrics, outputs = held_out.measure(evaluator.model)
        held_out.distributions(evaluator.model)
        if evaluator.model.config.model_type == "dialog-cvae":
            assert [len(row) for row in predict_acts(held_out, evaluator.model)] == [2] * len(TEXTS)
    assert len(outputs) == len(TEXTS) and metrics["iw_nll"] > 0
    # All examples are in one batch here.
    assert calls == dict(zip(calls, CASES[case][2]))


DECODER_READS = ("conditional prior", "dialogue with acts", "cross-attention")


@pytest.mark.parametrize("case", DECODER_READS)
def test_the_decoder_reads_each_source_once_and_behind_it_nothing_but_targets(case, tokenizers):
    """Whatever is measured: both bounds, another's z and none, and the steps of the refinement."""
    evaluator = evaluator_of(case, tokenizers, {"latent_placement": "after_source"})
    decoder, prefilled, lengths = evaluator.model.decoder, [], []
    prefill = decoder.prefill
    decoder.prefill = lambda *args, **states: prefilled.append(args) or prefill(*args, **states)
    decoder.lm.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    with evaluator.reading_once():
        likelihood_metrics(evaluator, num_samples=3)
        refine(evaluator, num_steps=2)
    assert len(prefilled) == BATCHES
    sources = [1 if tokens is None else tokens.shape[1] for tokens, *_ in prefilled]
    for source in sources:
        lengths.remove(source)
    assert max(lengths) <= evaluator.processor(texts_of(case), TARGETS)["labels"].shape[1]


@pytest.mark.parametrize("case", DECODER_READS)
def test_a_source_read_once_is_measured_as_one_read_with_every_z(case, tokenizers):
    metrics = []
    for reads_once in (True, False):
        evaluator = evaluator_of(case, tokenizers, {"latent_placement": "after_source"}, samples_per_pass=2)
        if not reads_once:
            evaluator.model.prefill = lambda conditioning: conditioning
        metrics.append(evaluate_vae(evaluator, importance_samples=3, refine_steps=2))
    reports = [each.pop("collapse_report") for each in metrics]
    assert metrics[0] == pytest.approx(metrics[1], abs=2e-5, rel=2e-5)
    assert reports[0]["verdict"] == reports[1]["verdict"]


def test_what_the_decoder_keeps_of_a_source_counts_as_memory(tokenizers):
    evaluator = evaluator_of("conditional prior", tokenizers, {"latent_placement": "after_source"})
    with evaluator.reading_once():
        evaluator.nll(torch.zeros(len(evaluator), 1, 4))
        for batch in evaluator._batches.values():
            cache = batch.conditioning["source_cache"]
            held = sum(tensor.numel() * tensor.element_size() for tensor in cache.tensors())
            assert cache.nbytes == held > 0
            assert batch.num_bytes >= held + sum(tensor.nbytes for tensor in batch.inputs.values())


def passes_of(lm) -> list[int]:
    """The rows of tokens in each pass of the LM from now on."""
    rows: list[int] = []
    lm.register_forward_pre_hook(lambda lm, args, kwargs: rows.append(len(kwargs["inputs_embeds"])), with_kwargs=True)
    return rows


@pytest.mark.parametrize("case", CASES)
def test_layers_that_z_does_not_reach_read_the_target_once_for_all_z(case, tokenizers, monkeypatch):
    monkeypatch.setattr(fused, "MIN_LOGITS", 1)
    torch.manual_seed(0)
    evaluator = evaluator_of(case, tokenizers, {"latent_injection": "logits"})
    model = evaluator.model
    for parameter in model.decoder.latent_injection.parameters():
        torch.nn.init.normal_(parameter)
    latents = torch.randn(len(TARGETS), 7, model.config.latent_size)
    with evaluator.reading_once():
        expected = torch.cat([evaluator.nll(latents[:, number : number + 1]) for number in range(7)], dim=1)
        assert expected.std(dim=1).min() > 1e-3
        rows = passes_of(model.decoder.lm)
        torch.testing.assert_close(evaluator.nll(latents), expected, atol=1e-4, rtol=1e-5)
    # The first z shows that the loss is fused, and the six others are scored together; with acts, for each act.
    assert len(rows) == 2 * BATCHES * (getattr(model.config, "num_acts", None) or 1)
    posterior, prior = evaluator.posterior(), evaluator.prior()
    bound = evaluator.importance_weighted(posterior, prior, 7)
    monkeypatch.setattr(type(model), "latents_per_pass", lambda model, labels: 1)
    torch.testing.assert_close(bound.nll, evaluator.importance_weighted(posterior, prior, 7).nll, atol=1e-4, rtol=1e-5)


def test_no_more_z_share_a_pass_than_memory_is_set_aside_for(tokenizers, monkeypatch):
    monkeypatch.setattr(fused, "MIN_LOGITS", 1)
    evaluator = evaluator_of("conditional prior", tokenizers, {"latent_injection": "logits"})
    latents = torch.randn(len(TARGETS), 9, evaluator.model.config.latent_size)
    at_once = evaluator.nll(latents)
    labels = len(evaluator.processor(TEXTS, TARGETS)["labels"][0])
    monkeypatch.setattr("hf_vae.decoding_vae.MANY_STATES", 2 * 3 * labels * evaluator.model.decoder.shape.head_size)
    rows = passes_of(evaluator.model.decoder.lm)
    torch.testing.assert_close(evaluator.nll(latents), at_once, atol=1e-4, rtol=1e-5)
    assert rows[:5] == [3] * 5


def test_a_decoder_that_bends_its_logits_or_reads_z_is_given_one_z_at_a_time(tokenizers, monkeypatch):
    monkeypatch.setattr(fused, "MIN_LOGITS", 1)
    bent = Gemma2Config(
        vocab_size=60, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        head_dim=8, final_logit_softcapping=3.0, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    for fields in ({"latent_injection": "logits", "decoder": bent}, {"latent_injection": ["logits", "embedding"]}):
        evaluator = evaluator_of("conditional prior", tokenizers, fields)
        latents = torch.randn(len(TARGETS), 3, evaluator.model.config.latent_size)
        rows = passes_of(evaluator.model.decoder.lm)
        found = evaluator.nll(latents)
        assert len(rows) >= 3 * BATCHES and max(rows) <= 3
        one = torch.cat([evaluator.nll(latents[:, number : number + 1]) for number in range(3)], dim=1)
        torch.testing.assert_close(found, one)
