"""Bounds and estimates of the likelihood, against what is known exactly."""

import json
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaForCausalLM

from helpers import (
    BOS,
    GRID,
    TARGETS,
    TEXTS,
    exact_nll,
    make_model,
    nll_on_grid,
    on_a_line,
    resized,
    tiny_llama_config,
)
from hf_vae import CVAEModel, CVAEProcessor, DiagonalGaussian, DialogCVAEProcessor
from hf_vae.cli.plots import plot_rate_distortion
from hf_vae.evaluation import (
    LikelihoodEvaluator,
    Reconstruction,
    count_tokens_and_words,
    evaluate_vae,
    generate_texts,
    importance_weighted_nll,
    language_model_nll,
    likelihood_metrics,
    perplexities,
    rate_distortion_points,
    rate_distortion_table,
    reconstruction_at_mean,
    token_accuracy,
)
from hf_vae.evaluation.distributed import NOISE_BLOCK, example_noise, sample_noise
from hf_vae.evaluation.importance_sampling import error_of_mean


def test_importance_weighted_bound_falls_with_k_towards_the_integral(evaluated):
    exact = exact_nll(evaluated).mean().item()
    bounds = [likelihood_metrics(evaluated, num_samples, seed=0)["iw_nll"] for num_samples in (1, 5, 50, 2_000)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > exact + 0.05
    assert bounds[-1] == pytest.approx(exact, abs=0.01)


def test_samples_from_the_prior_give_the_integral_too(evaluated):
    exact = exact_nll(evaluated).mean().item()
    estimates = [likelihood_metrics(evaluated, num_samples, seed=0)["mc_nll"] for num_samples in (1, 2_000)]
    assert estimates[0] > exact + 0.05
    assert estimates[1] == pytest.approx(exact, abs=0.03)


def test_one_importance_sample_is_the_elbo_in_expectation(evaluated):
    posterior = evaluated.posterior()
    noise = torch.randn(len(evaluated), 4_000, 1, generator=torch.Generator().manual_seed(0))
    samples = posterior.mean.unsqueeze(1) + posterior.std.unsqueeze(1) * noise
    prior = DiagonalGaussian.standard(len(evaluated), 1)
    elbo = -(evaluated.nll(samples).mean(1) + posterior.kl(prior).sum(-1)).mean()
    prior = evaluated.prior()
    ones = [evaluated.importance_weighted(evaluated.posterior(), prior, 1, seed)[0].mean().item() for seed in range(60)]
    # Monte Carlo error of 300 samples.
    assert sum(ones) / len(ones) == pytest.approx(-elbo.item(), abs=0.15)


def test_linear_gaussian_model_has_its_known_evidence():
    """y = z + e, both standard normal: log p(y) = log N(y; 0, 2), whatever q is."""
    torch.manual_seed(0)
    y = torch.tensor([[0.3], [-1.2], [2.0]])
    q, prior = DiagonalGaussian(y * 0.4, torch.full((3, 1), -0.3)), DiagonalGaussian.standard(3, 1)
    z = torch.stack([q.sample() for _ in range(20_000)], dim=1)
    likelihood = DiagonalGaussian(y, torch.zeros(3, 1)).log_prob(z)
    log_weights = likelihood + prior.log_prob(z) - q.log_prob(z)
    exact = -DiagonalGaussian(torch.zeros(3, 1), torch.full((3, 1), math.log(2.0))).log_prob(y)
    torch.testing.assert_close(importance_weighted_nll(log_weights), exact, atol=0.01, rtol=0)


def test_figures_do_not_depend_on_batches_and_chunks(evaluated, processor):
    again = LikelihoodEvaluator(evaluated.model, processor, TEXTS, TARGETS, batch_size=5, samples_per_pass=3)
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
        evaluated.model.decoder.latent_injection.embedding.projection.weight.zero_()
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


def test_noise_follows_from_seed_example_and_sample_alone():
    """Whatever else is drawn with it, and across the blocks in which it is drawn."""
    whole = example_noise(6, 3 * NOISE_BLOCK, 3, seed=4)
    assert torch.equal(example_noise(2, 5, 3, seed=4), whole[:2, :5])
    part = sample_noise([5, 2], range(NOISE_BLOCK - 3, 2 * NOISE_BLOCK + 1), 3, seed=4)
    assert torch.equal(part, whole[[5, 2], NOISE_BLOCK - 3 : 2 * NOISE_BLOCK + 1])
    blocks = whole.view(18, NOISE_BLOCK, 3)
    assert all(not torch.equal(blocks[i], blocks[j]) for i in range(18) for j in range(i))
    assert not torch.equal(example_noise(2, 5, 3, seed=5), whole[:2, :5])
    # Blocks are independent: standard normal and uncorrelated.
    many = sample_noise(range(400), range(2 * NOISE_BLOCK), 1, seed=0).squeeze(-1)
    assert many.mean().item() == pytest.approx(0, abs=0.02) and many.var().item() == pytest.approx(1, abs=0.02)
    assert (many[:, 0] * many[:, NOISE_BLOCK]).mean().item() == pytest.approx(0, abs=0.15)


class LargestTensor(TorchDispatchMode):
    """Notes how many numbers the largest tensor held that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(leaf.numel() for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor))])
        return output


def test_memory_grows_neither_with_samples_nor_with_examples(vae_processor):
    # A large z, so that its samples are the largest thing there is.
    model = resized(make_model("vae", latent_size=512), vae_processor)
    largest = []
    for num_samples, copies in ((NOISE_BLOCK, 1), (2 * NOISE_BLOCK, 1), (NOISE_BLOCK, 2)):
        evaluator = LikelihoodEvaluator(model, vae_processor, TEXTS * copies, TEXTS * copies, batch_size=2, samples_per_pass=16)
        posterior, prior = evaluator.posterior(), evaluator.prior()
        with LargestTensor() as mode:
            evaluator.importance_weighted(posterior, prior, num_samples)
        largest.append(mode.numel)
    assert largest == [2 * NOISE_BLOCK * 512] * 3


def test_a_bound_of_more_samples_than_a_block_is_the_whole_formula(evaluated):
    num_samples = NOISE_BLOCK + 30
    posterior, prior = evaluated.posterior(), evaluated.prior()
    z = posterior.mean.unsqueeze(1) + posterior.std.unsqueeze(1) * example_noise(5, num_samples, 1, seed=2)
    rows = [(prior.log_prob(sample) - posterior.log_prob(sample)).squeeze(-1) for sample in z.unbind(1)]
    nll = evaluated.nll(z)
    expected = importance_weighted_nll(torch.stack(rows, dim=1) - nll)
    bound = evaluated.importance_weighted(posterior, prior, num_samples, seed=2)
    torch.testing.assert_close(bound.nll, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(bound.reconstruction, nll[:, 0], atol=1e-4, rtol=0)


@pytest.fixture
def with_prior_network(processor):
    """A CVAE in which each source has another p(z|x)."""
    evaluator = on_a_line(CVAEModel, CVAEProcessor(processor.tokenizer, processor.encoder_tokenizer), seed=1)
    with torch.no_grad():
        evaluator.model.prior_network.head.linear.weight *= 0.5
        # A q that covers the prior: importance weights then have a spread that 200 of them show.
        evaluator.model.posterior_head.linear.weight *= 0.2
    return evaluator


def test_conditional_likelihood_under_a_prior_network_is_the_integral(with_prior_network):
    evaluator = with_prior_network
    prior = evaluator.prior()
    assert prior.mean.std() > 0.05 and prior.logvar.std() > 0.05
    log_prior = prior.log_prob(GRID.view(1, -1, 1))
    exact = -(torch.logsumexp(log_prior - nll_on_grid(evaluator), dim=1) + math.log(16 / 800))
    figures = likelihood_metrics(evaluator, num_samples=2_000)
    for name in ("iw_nll", "mc_nll"):
        assert 0 < figures[f"{name}_error"] < 0.02
        assert figures[name] == pytest.approx(exact.mean().item(), abs=4 * figures[f"{name}_error"] + 1e-3)
    assert figures["kl"] == pytest.approx(evaluator.posterior().kl(prior).sum(-1).mean().item())


def test_the_standard_error_is_the_spread_over_draws_of_z(with_prior_network):
    posterior, prior = with_prior_network.posterior(), with_prior_network.prior()
    for proposal in (posterior, prior):
        runs = [with_prior_network.importance_weighted(proposal, prior, 200, seed) for seed in range(40)]
        spread = torch.stack([run.nll for run in runs]).std(0)
        told = torch.stack([run.error for run in runs]).mean(0)
        torch.testing.assert_close(told, spread, rtol=0.45, atol=0)
    means = torch.tensor([run.nll.mean() for run in runs])
    assert error_of_mean(runs[0].error) == pytest.approx(means.std().item(), rel=0.4)


def test_a_gsnn_is_measured_with_z_from_its_prior(with_prior_network):
    """Its q was never trained."""
    with_prior_network.model.config.objective = "gsnn"
    figures = likelihood_metrics(with_prior_network, num_samples=400)
    assert figures["kl"] == pytest.approx(0, abs=1e-6) and figures["iw_nll"] == pytest.approx(figures["mc_nll"], abs=0.1)


def test_perplexities_name_their_denominators(vae_processor):
    texts = ["the cat sat", "a dog  ran in"]
    evaluator = LikelihoodEvaluator(resized(make_model("vae"), vae_processor), vae_processor, texts, texts)
    counts = count_tokens_and_words(evaluator)
    tokens = sum(len(vae_processor.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1 for text in texts)
    assert counts == {"tokens": tokens, "words": 3 + 1 + 4 + 1}
    figures = perplexities({"elbo": -9.0, "iw_nll": 7.2}, num_examples=2, tokens=12, words=9)
    expected = {"token_elbo": 18 / 12, "token_iw": 14.4 / 12, "word_elbo": 18 / 9, "word_iw": 14.4 / 9}
    assert figures == pytest.approx({f"ppl_per_{name}": math.exp(nats) for name, nats in expected.items()})
    assert perplexities({"elbo": -1e5, "iw_nll": 1.0}, 1, 1, 1)["ppl_per_word_elbo"] == math.inf


def test_words_of_a_cut_target_are_those_that_are_scored(vae_processor):
    texts = ["the cat sat on the mat", "the mat"]
    evaluator = LikelihoodEvaluator(resized(make_model("vae"), vae_processor), vae_processor, texts, texts, max_target_length=3)
    pieces = vae_processor.tokenizer(texts[0], add_special_tokens=False)["input_ids"][:2]
    words = len(vae_processor.tokenizer.decode(pieces).split())
    assert count_tokens_and_words(evaluator) == {"tokens": 3 + 3, "words": words + 1 + 3} and words < 6


def test_reconstruction_at_the_mean(evaluated):
    found = reconstruction_at_mean(evaluated)
    assert found.targets == TARGETS and len(found.texts) == 5
    posterior = evaluated.posterior()
    # One by one, by the model's own `generate`, up to the longest target's tokens.
    limit = max(map(len, evaluated.label_ids()))
    for i, text in enumerate(found.texts):
        sequence = evaluated.model.generate(
            **evaluated.processor(TEXTS[i]), latents=posterior.mean[i : i + 1], do_sample=False, max_new_tokens=limit
        )
        assert text == evaluated.processor.batch_decode(sequence, skip_special_tokens=True)[0].strip()
        assert found.tokens[i] == sequence[0, 1:].tolist()[: len(found.tokens[i])]
    assert found.target_tokens == evaluated.label_ids()
    assert found.metrics()["reconstruction_at_mean_exact_match"] == 0
    found.texts[1:3] = TARGETS[1:3]
    assert found.metrics()["reconstruction_at_mean_exact_match"] == 2 / 5
    whole = Reconstruction(TEXTS[:2], TEXTS[:2], found.target_tokens[:2], found.target_tokens[:2])
    assert whole.metrics() == {
        "reconstruction_at_mean_exact_match": 1.0,
        "reconstruction_at_mean_token_accuracy": 1.0,
        "reconstruction_at_mean_bleu": pytest.approx(100),
    }


def test_tokens_are_counted_at_their_places():
    eos = 2
    assert token_accuracy([5, 6, 7, eos], [5, 6, 7, eos]) == 1
    # A word too many puts the rest off, a wrong one does not; and what ends early has not the rest.
    assert token_accuracy([5, 9, 6, 7, eos], [5, 6, 7, eos]) == 1 / 4
    assert token_accuracy([5, 9, 7, eos], [5, 6, 7, eos]) == 3 / 4
    assert token_accuracy([5, eos], [5, 6, 7, eos]) == token_accuracy([5], [5, 6, 7, eos]) == 1 / 4
    # The end is one of them: a decoding that goes on past it has missed it.
    assert token_accuracy([5, 6, 7, 8], [5, 6, 7, eos]) == 3 / 4


def test_a_language_model_s_nll_counts_eos_and_not_the_start():
    torch.manual_seed(0)
    model = LlamaForCausalLM(tiny_llama_config()).eval()
    rows = [[5, 6, 7, 2], [8, 2], [9, 10, 2]]
    expected = []
    for row in rows:
        with torch.no_grad():
            log_p = model(torch.tensor([[BOS, *row[:-1]]])).logits.log_softmax(-1)[0]
        expected.append(-log_p[range(len(row)), row].sum())
    torch.testing.assert_close(language_model_nll(model, rows, BOS, batch_size=2), torch.stack(expected), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="a token 40, but LlamaForCausalLM has 40"):
        language_model_nll(model, [[40, 2]], BOS)


def test_rate_distortion_points(tmp_path):
    saved = tmp_path / "metrics.json"
    saved.write_text(json.dumps({"kl": 9.0, "reconstruction": 84.0, "bleu": 1}), encoding="utf-8")
    others = {"small": {"kl": 4.9, "reconstruction": 86.4}, "worse": {"kl": 9.5, "reconstruction": 85.0}}
    points = rate_distortion_points({"saved": saved, **others})
    assert [(point.name, point.pareto) for point in points] == [("small", True), ("saved", True), ("worse", False)]
    assert rate_distortion_table(points).splitlines()[2:] == [
        "| small | 4.90 | 86.40 | 91.30 | * |",
        "| saved | 9.00 | 84.00 | 93.00 | * |",
        "| worse | 9.50 | 85.00 | 94.50 |  |",
    ]
    plot_rate_distortion(points, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="hold no finite 'reconstruction'"):
        rate_distortion_points({"x": {"kl": 1.0}})


def test_everything_at_once_encodes_once_and_agrees_with_its_parts(evaluated):
    rows = []
    evaluated.model.encoder.register_forward_hook(
        lambda module, args, kwargs, output: rows.append(len(output[0])), with_kwargs=True
    )
    figures = evaluate_vae(evaluated, importance_samples=10, seed=1, refine_steps=2, language_model_nll=30.0)
    assert sum(rows) == len(TEXTS)
    assert figures.items() >= likelihood_metrics(evaluated, 10, seed=1).items()
    assert figures["refinement_gap"] >= 0 and figures["language_model_nll"] == 30.0 and figures["importance_samples"] == 10
    assert figures["ppl_per_token_iw"] == pytest.approx(math.exp(figures["iw_nll"] * 5 / figures["tokens"]))
    assert figures["mutual_information"] <= figures["mutual_information_ceiling"] == math.log(5)
    assert figures["latent_size"] == 1 and figures["active_units_0.01"] in (0, 1)
    assert figures["collapse_report"]["verdict"] in ("ignored", "partly used", "used")
    assert json.loads(json.dumps(figures)) == figures


def test_another_example_is_one_with_another_target(vae_processor):
    model = make_model("vae")
    for texts, others in (
        (["a", "a", "b", "c", "a"], [2, 2, 3, 4, 2]),
        (["a", "b", "a"], [1, 2, 1]),
        (["a", "a", "a"], [1, 2, 0]),
        (["a", "a", "b", "b", "a", "a"], [2, 2, 4, 4, 2, 2]),
    ):
        assert LikelihoodEvaluator(model, vae_processor, texts, texts).shuffled_partners() == others


def test_what_the_model_does_not_hold_is_refused_before_anything_is_read(vae_processor, processor, monkeypatch):
    long = " ".join(["the cat"] * 40)
    model = make_model("vae")
    evaluator = LikelihoodEvaluator(resized(model, vae_processor), vae_processor, ["a", long], ["a", "a"])
    for part in (model.encoder, model.decoder):
        monkeypatch.setattr(part, "forward", None)
    message = r"1 of 2 examples make more tokens than the encoder holds \(48\), up to \d+: example\(s\) 1, counted from 0"
    for measure in (likelihood_metrics, evaluate_vae):
        with pytest.raises(ValueError, match=message):
            measure(evaluator)
    with pytest.raises(ValueError, match=r"2 of 3 examples make more tokens than the decoder holds \(48\)"):
        LikelihoodEvaluator(model, vae_processor, ["a", "a", "a"], [long, "a", long]).check_lengths()
    LikelihoodEvaluator(model, vae_processor, ["a", long], ["a", long], max_length=48, max_target_length=48).check_lengths()
    with pytest.raises(ValueError, match=r"1 of 2 examples make more tokens than the encoder holds"):
        LikelihoodEvaluator(make_model("paraphrase-prompt"), processor, [long, "a"], ["a", "a"]).check_lengths()


def test_long_turns_are_refused_before_they_are_read(tokenizers):
    processor = DialogCVAEProcessor(*tokenizers, source_conditioning="cross_attention", context_encoding="hierarchical")
    model = make_model("dialog", context_encoding="hierarchical", source_conditioning="cross_attention", meta_categories=None,
                       num_meta_values=0)  # fmt: skip
    talk = [{"role": "ann", "content": "a"}, {"role": "bob", "content": " ".join(["the cat"] * 40)}]
    evaluator = LikelihoodEvaluator(model, processor, [talk[:1], talk], ["a", "a"])
    with pytest.raises(ValueError, match=r"1 of 2 examples make more tokens than the encoder holds .*`max_turn_length`"):
        likelihood_metrics(evaluator)


def test_a_reconstruction_stays_within_the_positions(processor):
    """A long prompt beside a long target in one batch: each has room for its own target, and not for the other's."""
    texts, targets = [" ".join(["the cat"] * 14), "a"], ["a", " ".join(["the cat"] * 14)]
    model = resized(make_model("paraphrase-prompt"), processor)
    evaluator = LikelihoodEvaluator(model, processor, texts, targets)
    longest = max(map(len, evaluator.label_ids()))
    prompt = processor(texts)["prompt_input_ids"].shape[1]
    assert prompt + longest > 48 and evaluator.max_new_tokens_each(longest) == [48 - prompt, longest]
    together = reconstruction_at_mean(evaluator).texts
    alone = [reconstruction_at_mean(LikelihoodEvaluator(model, processor, [x], [y]), max_new_tokens=longest).texts
             for x, y in zip(texts, targets)]  # fmt: skip
    assert [together[:1], together[1:]] == alone


def test_bad_evaluations_are_named(evaluated, processor):
    with pytest.raises(ValueError, match="`importance_samples` is 0"):
        evaluate_vae(evaluated, importance_samples=0)
    with pytest.raises(ValueError, match="1 example: it cannot be given another one's z"):
        evaluate_vae(LikelihoodEvaluator(evaluated.model, processor, TEXTS[:1], TARGETS[:1]))
    with pytest.raises(ValueError, match="`batch_size` is 0"):
        LikelihoodEvaluator(evaluated.model, processor, TEXTS, TARGETS, batch_size=0)
    with pytest.raises(ValueError, match="`num_samples` is 0"):
        likelihood_metrics(evaluated, 0)
    with pytest.raises(ValueError, match="5 `texts` and 2 `targets`"):
        LikelihoodEvaluator(evaluated.model, processor, TEXTS, TARGETS[:2])
    with pytest.raises(ValueError, match="cannot be given another one's z"):
        likelihood_metrics(LikelihoodEvaluator(evaluated.model, processor, TEXTS[:1], TARGETS[:1]))
