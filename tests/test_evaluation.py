"""Estimators against exact values, and metrics against cases counted by hand."""

import math

import pytest
import torch
from conftest import tiny_encoder_config, tiny_llama_config

from hf_vae import DiagonalGaussian, ParaphraseVAEConfig, ParaphraseVAEModel
from hf_vae.evaluation import (
    LikelihoodEvaluator,
    bleu,
    distinct,
    generate_texts,
    importance_weighted_nll,
    likelihood_metrics,
    paraphrase_metrics,
    self_bleu,
)
from hf_vae.evaluation.evaluate_metric import ParaphraseMetric

TEXTS = ["the cat sat on the mat", "a dog ran in the park", "the mat", "a park", "the dog sat"]
TARGETS = ["a cat", "the dog ran", "the mat sat", "a dog", "the park"]


@pytest.fixture
def evaluated(processor):
    """A model with one latent dimension that its decoder listens to, so that p(y|x) is an integral over a line."""
    torch.manual_seed(0)
    encoder, decoder = tiny_encoder_config(), tiny_llama_config()
    encoder.vocab_size, decoder.vocab_size = len(processor.encoder_tokenizer), len(processor.tokenizer)
    model = ParaphraseVAEModel(ParaphraseVAEConfig(encoder=encoder, decoder=decoder, latent_size=1)).eval()
    with torch.no_grad():
        model.decoder.project.weight *= 3
    return LikelihoodEvaluator(model, processor, TEXTS, TARGETS, batch_size=2, chunk=16)


def exact_nll(evaluator):
    """-log ∫ p(y|x,z) N(z; 0, 1) dz by the trapezoidal rule on 801 points of [-8, 8]."""
    grid = torch.linspace(-8, 8, 801)
    nll = evaluator.nll(grid.view(1, -1, 1).expand(len(evaluator), -1, -1))
    log_prior = DiagonalGaussian.standard(1, 1).log_prob(grid.view(-1, 1)).squeeze(-1)
    return -(torch.logsumexp(log_prior - nll, dim=1) + math.log(16 / 800))


def test_importance_weighted_bound_falls_with_k_towards_the_integral(evaluated):
    exact = exact_nll(evaluated).mean().item()
    bounds = [likelihood_metrics(evaluated, num_samples, seed=0)["iw_nll"] for num_samples in (1, 5, 50, 2_000)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > exact + 0.05
    assert bounds[-1] == pytest.approx(exact, abs=0.01)


def test_one_importance_sample_is_the_elbo_in_expectation(evaluated):
    posterior = evaluated.posterior()
    noise = torch.randn(len(evaluated), 4_000, 1, generator=torch.Generator().manual_seed(0))
    samples = posterior.mean.unsqueeze(1) + posterior.std.unsqueeze(1) * noise
    prior = DiagonalGaussian.standard(len(evaluated), 1)
    elbo = -(evaluated.nll(samples).mean(1) + posterior.kl(prior).sum(-1)).mean()
    ones = [likelihood_metrics(evaluated, 1, seed)["iw_nll"] for seed in range(60)]
    # Monte Carlo error of 300 samples.
    assert sum(ones) / len(ones) == pytest.approx(-elbo.item(), abs=0.15)


def test_linear_gaussian_model_has_its_known_evidence():
    """y = z + e, both standard normal: log p(y) = log N(y; 0, 2), whatever q is."""
    torch.manual_seed(0)
    y = torch.tensor([[0.3], [-1.2], [2.0]])
    q, prior = DiagonalGaussian(y * 0.4, torch.full((3, 1), -0.3)), DiagonalGaussian.standard(3, 1)
    z = torch.stack([q.sample() for _ in range(20_000)])
    likelihood = DiagonalGaussian(z.flatten(0, 1), torch.zeros(60_000, 1)).log_prob(y.repeat(20_000, 1)).view(20_000, 3)
    log_weights = likelihood + (prior.log_prob(z) - q.log_prob(z)).squeeze(-1)
    exact = -DiagonalGaussian(torch.zeros(3, 1), torch.full((3, 1), math.log(2.0))).log_prob(y).squeeze(-1)
    torch.testing.assert_close(importance_weighted_nll(log_weights.T), exact, atol=0.01, rtol=0)


def test_figures_do_not_depend_on_batches_and_chunks(evaluated, processor):
    again = LikelihoodEvaluator(evaluated.model, processor, TEXTS, TARGETS, batch_size=5, chunk=3)
    first, second = (likelihood_metrics(each, num_samples=7, seed=1) for each in (evaluated, again))
    assert first == pytest.approx(second, abs=1e-4)
    outputs = [
        generate_texts(evaluated.model, processor, TEXTS, 3, batch_size=size, max_new_tokens=5, do_sample=False) for size in (1, 5)
    ]
    assert outputs[0] == outputs[1]


def test_parts_fit_together_and_an_ignored_z_shows(evaluated):
    figures = likelihood_metrics(evaluated, num_samples=20)
    assert figures["elbo"] == pytest.approx(-(figures["reconstruction"] + figures["kl"]))
    assert figures["nll_posterior"] == figures["reconstruction"]
    assert abs(figures["nll_shuffled"] - figures["nll_posterior"]) > 1e-3
    with torch.no_grad():
        evaluated.model.decoder.project.weight.zero_()
    ignored = likelihood_metrics(evaluated, num_samples=20)
    for name in ("nll_prior", "nll_shuffled", "nll_zero", "iw_nll"):
        assert ignored[name] == pytest.approx(ignored["nll_posterior"], abs=0.5 if name == "iw_nll" else 1e-4)


def test_the_encoder_runs_once_for_each_example(evaluated):
    rows = []
    evaluated.model.encoder.register_forward_hook(
        lambda module, args, kwargs, output: rows.append(len(output[0])), with_kwargs=True
    )
    likelihood_metrics(evaluated, num_samples=50)
    assert sum(rows) == len(TEXTS)


def test_bad_evaluations_are_named(evaluated, processor):
    with pytest.raises(ValueError, match="`num_samples` is 0"):
        likelihood_metrics(evaluated, 0)
    with pytest.raises(ValueError, match="5 `texts` and 2 `targets`"):
        LikelihoodEvaluator(evaluated.model, processor, TEXTS, TARGETS[:2])
    with pytest.raises(ValueError, match="cannot be given another one's z"):
        likelihood_metrics(LikelihoodEvaluator(evaluated.model, processor, TEXTS[:1], TARGETS[:1]))


# Text metrics -------------------------------------------------------------------------------------------------------------


def test_bleu_of_one_and_of_several_references():
    assert bleu(["the cat sat on the mat"], [["The cat sat on the mat"]]) == pytest.approx(100)
    # Rows with different numbers of references: the second row's single reference is right, the first row's second one.
    assert bleu(["a b c d e", "f g h i j"], [["x", "a b c d e"], ["f g h i j"]]) == pytest.approx(100)


def test_distinct_counts_by_hand():
    assert distinct(["a b a b", "a b"], 1) == pytest.approx(2 / 6)
    assert distinct(["a b a b", "a b"], 2) == pytest.approx(2 / 4)
    assert distinct(["a"], 2) == 0.0


def test_self_bleu_is_100_for_repetition_and_less_for_variety():
    assert self_bleu([["a b c d e", "a b c d e"]]) == pytest.approx(100)
    assert self_bleu([["a b c d e", "v w x y z"]]) < 10


def test_paraphrase_metrics():
    sources = ["how far is the moon from here", "who wrote this long book"]
    references = [["what is the distance to the moon"], ["who is the author of this long book", "this long book is by whom"]]
    outputs = [["what is the distance to the moon", "how far is the moon from here"], [references[1][1], references[1][0]]]
    metrics = paraphrase_metrics(sources, outputs, references)
    assert metrics["best_bleu"] == pytest.approx(100) and metrics["best_chrf"] == pytest.approx(100)
    expected = [bleu([texts[k] for texts in outputs], references) for k in range(2)]
    assert metrics["bleu"] == pytest.approx(sum(expected) / 2)
    against_source = [bleu([texts[k] for texts in outputs], [[source] for source in sources]) for k in range(2)]
    assert metrics["ibleu"] == pytest.approx(0.8 * metrics["bleu"] - 0.2 * sum(against_source) / 2)
    # Copying is what every figure must be read beside: full marks against itself cost it 20 of iBLEU.
    assert metrics["copy_bleu"] == pytest.approx(bleu(sources, references))
    assert metrics["copy_ibleu"] == pytest.approx(0.8 * metrics["copy_bleu"] - 20)


def test_ragged_outputs_are_refused():
    with pytest.raises(ValueError, match="lists of different lengths"):
        paraphrase_metrics(["a", "b"], [["a"], ["b", "c"]], [["a"], ["b"]])
    with pytest.raises(ValueError, match="1 sources, 2 lists of outputs"):
        paraphrase_metrics(["a"], [["a"], ["b"]], [["a"], ["b"]])


def test_the_evaluate_metric_gives_the_same_figures(tmp_path):
    sources, outputs, references = ["how far is it", "who is he"], [["a b", "c d"], ["e", "f"]], [["a b c"], ["e", "g h"]]
    metric = ParaphraseMetric(cache_dir=str(tmp_path))
    assert metric.compute(predictions=outputs, references=references, sources=sources) == paraphrase_metrics(
        sources, outputs, references
    )
