"""A flow as p(z): its density against autograd's Jacobian and integrals, its fit against entropies that are known."""

import math
import re

import pytest
import torch
from torch import nn
from transformers import AutoModel

from helpers import TARGETS, TEXTS, make_model, resized, trainer_for
from hf_vae import DiagonalGaussian, FlowPrior, KLAnnealingCallback, VAEConfig
from hf_vae.evaluation import LikelihoodEvaluator, information_metrics, likelihood_metrics
from hf_vae.latent_space import GaussianMixturePrior, encode_texts, fit_flow_prior, fit_prior, prior_gain, sample_prior
from hf_vae.objective import kl_divergence

QUICK = {"num_layers": 2, "hidden_size": 8, "max_steps": 5}


def random_flow(latent_size, num_layers=3, labels=None, seed=0):
    """One that is far from N(0, I), and spreads its mass over a few units."""
    torch.manual_seed(seed)
    flow = FlowPrior(latent_size, num_layers, hidden_size=8, labels=labels)
    with torch.no_grad():
        for layer in flow.layers:
            nn.init.normal_(layer.output.weight, std=0.3)
            layer.mixing += 0.2 * torch.randn(latent_size, latent_size)
        flow.center.copy_(torch.linspace(-0.5, 0.5, latent_size))
        flow.spread.fill_(0.8)
        flow.means.normal_(std=0.7)
        flow.logvars.normal_(std=0.3)
        flow.weights.copy_(torch.linspace(1, 2, len(flow.weights)) / torch.linspace(1, 2, len(flow.weights)).sum())
    return flow


def grid():
    """Points of the plane, and the area that each stands for."""
    line = torch.linspace(-12, 12, 401)
    return torch.cartesian_prod(line, line), (24 / 400) ** 2


@pytest.mark.parametrize("latent_size", [2, 5])
def test_a_flow_is_inverted_and_its_density_is_the_change_of_variables(latent_size):
    flow = random_flow(latent_size)
    noise = torch.randn(6, latent_size, generator=torch.Generator().manual_seed(1))
    latents = flow.to_latents(noise)
    back, log_determinant = flow.to_noise(latents)
    torch.testing.assert_close(back, noise, atol=1e-4, rtol=1e-4)
    jacobians = torch.stack([torch.autograd.functional.jacobian(lambda z: flow.to_noise(z)[0], z) for z in latents])
    torch.testing.assert_close(log_determinant, torch.linalg.slogdet(jacobians).logabsdet, atol=1e-4, rtol=1e-4)
    base = DiagonalGaussian(flow.means, flow.logvars).log_prob(noise)
    torch.testing.assert_close(flow.log_prob(latents), base + log_determinant, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("labels", [None, ["a", "b", "c"]])
def test_a_flows_density_integrates_to_one_and_is_that_of_its_draws(labels):
    flow = random_flow(2, labels=labels)
    points, area = grid()
    with torch.no_grad():
        density = flow.log_prob(points).double().exp() * area
        assert density.sum().item() == pytest.approx(1.0, abs=1e-3)
        draws = flow.sample(40_000, torch.Generator().manual_seed(0))
        several = flow(batch_size=3).draw(7, generator=torch.Generator().manual_seed(0))
    assert draws.shape == (40_000, 2) and several.shape == (3, 7, 2)
    mean = (density.unsqueeze(-1) * points).sum(0)
    torch.testing.assert_close(draws.double().mean(0), mean, atol=0.03, rtol=0)
    variance = (density.unsqueeze(-1) * (points - mean).square()).sum(0)
    torch.testing.assert_close(draws.double().var(0), variance, atol=0, rtol=0.05)
    # Of several draws a row each has its own density.
    torch.testing.assert_close(flow(batch_size=3).log_prob(several)[1], flow.log_prob(several[1]))


def test_each_label_has_a_density_and_together_they_are_the_prior():
    flow = random_flow(2, labels=["a", "b", "c"])
    points, area = grid()
    with torch.no_grad():
        each = torch.stack([flow.log_prob(points, label=label) for label in flow.labels]).double()
        torch.testing.assert_close((each.exp() * area).sum(1), torch.ones(3, dtype=torch.float64), atol=1e-3, rtol=0)
        together = (each + flow.weights.double().log().unsqueeze(1)).logsumexp(0)
        torch.testing.assert_close(together.float(), flow.log_prob(points), atol=1e-3, rtol=1e-4)
        draws = flow.sample(20_000, torch.Generator().manual_seed(0), label="b")
    expected = (each[1].exp().unsqueeze(-1) * points * area).sum(0)
    torch.testing.assert_close(draws.double().mean(0), expected, atol=0.03, rtol=0)


def test_a_new_flow_is_the_standard_normal_and_its_mode_has_no_noise():
    latents = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.bfloat16):
        flow = FlowPrior(4, num_layers=2, hidden_size=8, dtype=dtype)
        error = 1e-4 if dtype is torch.float32 else 0.3
        torch.testing.assert_close(flow.log_prob(latents), DiagonalGaussian.standard(5, 4).log_prob(latents), atol=error, rtol=0)
    flow = random_flow(4)
    torch.testing.assert_close(flow().mode(), flow().from_noise(torch.randn(1, 5), temperature=0.0))
    # What moves and selects rows keeps the network.
    some = flow(batch_size=4).select([0, 2]).repeat(2)
    assert len(some) == 4 and some.flow is flow


def test_half_precision_and_autocast_leave_a_density():
    flow = random_flow(2).bfloat16()
    points, area = grid()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        log_prob = flow.log_prob(points)
        latents = flow.to_latents(points[:50])
    assert log_prob.dtype == torch.float32
    assert log_prob.double().exp().sum().item() * area == pytest.approx(1.0, abs=1e-2)
    torch.testing.assert_close(flow.to_noise(latents)[0], points[:50], atol=1e-3, rtol=1e-3)


def test_a_fit_comes_close_to_a_density_whose_entropy_is_known(vae_processor):
    r"""
    A ring of eight narrow Gaussians, which no single one can come near. They hardly overlap, so their entropy is
    \(\ln 8 + \ln(2\pi e\sigma^2)\).
    """
    model = make_model("vae", latent_size=2)
    angles = torch.arange(800) % 8 * math.pi / 4
    means = 2 * torch.stack([angles.cos(), angles.sin()], dim=-1)
    q = DiagonalGaussian(means, torch.full_like(means, math.log(0.2**2)))
    entropy = math.log(8) + math.log(2 * math.pi * math.e * 0.2**2)
    latents = q.sample(torch.Generator().manual_seed(9))
    variance = latents.var(0, keepdim=True)
    single = DiagonalGaussian(latents.mean(0, keepdim=True), variance.log())
    standard = DiagonalGaussian.standard(1, 2)
    flow = fit_flow_prior(model, vae_processor, q, num_layers=4, hidden_size=32, max_steps=150, learning_rate=1e-2)
    kl = {name: -entropy - p.log_prob(latents).mean().item() for name, p in (("n", standard), ("g", single), ("f", flow()))}
    assert kl["f"] < 0.5 * kl["g"] < 0.5 * kl["n"]
    assert kl["f"] > -0.05
    # The gain is the difference of the two divergences, whose entropy falls out.
    gain = prior_gain(model, vae_processor, flow, q, num_samples=5)
    assert gain["prior_gain"] == pytest.approx(kl["n"] - kl["f"], abs=0.1)
    assert gain["prior_gain"] == pytest.approx(gain["fitted"] - gain["standard"])
    measured = [information_metrics(q.select(range(0, 80)), p)["marginal_kl"] for p in (standard, flow())]
    assert measured[0] - measured[1] == pytest.approx(gain["prior_gain"], abs=0.1)


def test_a_gain_is_that_of_two_gaussians_in_closed_form(vae_processor):
    model = make_model("vae", latent_size=4)
    mean, logvar = torch.full((1, 4), 0.7), torch.full((1, 4), -1.0)
    q = DiagonalGaussian(mean.expand(50, -1), logvar.expand(50, -1))
    prior = GaussianMixturePrior.from_components(torch.ones(1), mean, logvar)
    gain = prior_gain(model, vae_processor, prior, q, num_samples=200)
    exact = DiagonalGaussian(mean, logvar).kl(DiagonalGaussian.standard(1, 4)).sum().item()
    assert gain["prior_gain"] == pytest.approx(exact, abs=4 * gain["prior_gain_error"])
    assert 0 < gain["prior_gain_error"] < 0.05


def test_a_fit_follows_from_its_seed_and_leaves_everything_as_it_was(vae, vae_processor):
    vae.train()
    state, rng = {name: each.clone() for name, each in vae.state_dict().items()}, torch.get_rng_state()
    texts = TEXTS * 5
    first, second = (fit_flow_prior(vae, vae_processor, texts, seed=3, **QUICK) for _ in range(2))
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name]), name
    other = fit_flow_prior(vae, vae_processor, texts, seed=4, **QUICK)
    assert not torch.equal(first.layers[0].mixing, other.layers[0].mixing)
    assert vae.training and torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(weight, state[name]) for name, weight in vae.state_dict().items())
    assert not list(first.parameters()) and not first().log_prob(torch.zeros(1, 4)).requires_grad
    # From texts or from their posteriors it is the same fit.
    again = fit_flow_prior(vae, vae_processor, encode_texts(vae, vae_processor, texts), seed=3, **QUICK)
    torch.testing.assert_close(again.layers[0].mixing, first.layers[0].mixing)


def test_labels_tell_the_codes_apart(vae_processor):
    model = make_model("vae", latent_size=2)
    sides = torch.tensor([-2.0, 2.0, 2.0]).repeat(20)
    q = DiagonalGaussian(torch.stack([sides, 0 * sides], dim=-1), torch.full((60, 2), -2.0))
    labels = ["left" if side < 0 else "right" for side in sides]
    flow = fit_flow_prior(model, vae_processor, q, labels=labels, **QUICK)
    assert flow.labels == ["left", "right"]
    assert flow.weights[1].item() == pytest.approx(2 / 3, abs=0.05)
    with torch.no_grad():
        draws = {label: flow.sample(200, torch.Generator().manual_seed(0), label=label) for label in flow.labels}
    assert (draws["left"][:, 0] < 0).float().mean() > 0.95 and (draws["right"][:, 0] > 0).float().mean() > 0.95
    model.set_fitted_prior(flow)
    assert model.config.fitted_prior_flow == {"num_layers": 2, "hidden_size": 8, "labels": ["left", "right"]}


def test_a_model_keeps_its_flow_and_draws_from_it(vae, vae_processor, tmp_path):
    flow = random_flow(4)
    vae.eval().set_fitted_prior(flow)
    assert "fitted_prior.layers.0.mixing" in vae.state_dict()
    # No optimiser sees it.
    assert not [name for name, _ in vae.named_parameters() if name.startswith("fitted_prior")]
    vae.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    latents = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert isinstance(loaded.fitted_prior, FlowPrior) and not list(loaded.fitted_prior.parameters())
    assert torch.equal(loaded.fitted_prior.log_prob(latents), flow.log_prob(latents))
    options = {"latent_source": "fitted_prior", "num_samples": 3, "max_new_tokens": 5, "return_dict_in_generate": True}
    drawn = [each.generate(**options, generator=torch.Generator().manual_seed(1))["latents"] for each in (vae, loaded)]
    assert torch.equal(*drawn)
    expected = flow().draw(3, generator=torch.Generator().manual_seed(1)).squeeze(0)
    torch.testing.assert_close(drawn[0], expected)
    texts = sample_prior(loaded, vae_processor, 3, fitted_prior=loaded.fitted_prior, seed=0, max_new_tokens=5)
    assert texts.latents.shape == (3, 4)
    loaded.config.prior_type = "fitted"
    torch.testing.assert_close(loaded.prior(batch_size=2).latent_dist.log_prob(latents[:2]), flow.log_prob(latents[:2]))
    # A mixture takes its place, and then there is no flow any more.
    vae.set_fitted_prior(fit_prior(vae, vae_processor, TEXTS, 2))
    vae.save_pretrained(tmp_path / "mixture")
    assert isinstance(AutoModel.from_pretrained(tmp_path / "mixture").fitted_prior, GaussianMixturePrior)


@pytest.mark.parametrize("variant", ["vae", "paraphrase-prompt"])
def test_a_flow_is_trained_with_the_elbo(variant, vae_processor, processor, tmp_path):
    own_processor = vae_processor if variant == "vae" else processor
    model = resized(make_model(variant, prior_type="flow", flow_layers=2, flow_hidden_size=8), own_processor)
    before = {name: weight.detach().clone() for name, weight in model.prior_network.named_parameters()}
    trainer_for(model, own_processor, tmp_path, callbacks=[KLAnnealingCallback()], max_steps=3).train()
    still = [name for name, weight in model.prior_network.named_parameters() if torch.equal(weight, before[name])]
    assert still == []
    model.eval().save_pretrained(tmp_path / "saved")
    loaded = AutoModel.from_pretrained(tmp_path / "saved")
    latents = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.prior_network.log_prob(latents), model.prior_network.log_prob(latents))
    if variant == "vae":
        texts = sample_prior(loaded, vae_processor, 3, seed=0, max_new_tokens=5)
        assert not texts.latents.requires_grad


def test_the_loss_has_the_density_of_the_flow(vae_processor):
    """With z as it is drawn, the KL is log q(z) - log p(z), and its gradient is that of the flow's density alone."""
    model = resized(make_model("vae", prior_type="flow", flow_layers=2, flow_hidden_size=8), vae_processor).train()
    posterior = DiagonalGaussian(torch.randn(3, 4), torch.zeros(3, 4))
    latents = posterior.sample()
    flow = model.prior_network
    kl = kl_divergence(posterior, model.prior(batch_size=3).latent_dist, latents)
    torch.testing.assert_close(kl.squeeze(1), posterior.log_prob(latents) - flow.log_prob(latents))
    own = torch.autograd.grad(kl.sum(), flow.layers[0].output.bias)[0]
    torch.testing.assert_close(own, -torch.autograd.grad(flow.log_prob(latents).sum(), flow.layers[0].output.bias)[0])


def test_a_flow_that_no_checkpoint_holds_is_the_standard_normal(vae, tmp_path):
    vae.save_pretrained(tmp_path)
    config = VAEConfig.from_pretrained(tmp_path, fitted_prior_flow={"num_layers": 2, "hidden_size": 8})
    loaded, info = AutoModel.from_pretrained(tmp_path, config=config, output_loading_info=True)
    assert {name for name in info["missing_keys"] if "mixing" in name} == {f"fitted_prior.layers.{i}.mixing" for i in (0, 1)}
    latents = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    standard = DiagonalGaussian.standard(5, 4).log_prob(latents)
    torch.testing.assert_close(loaded.fitted_prior.log_prob(latents), standard, atol=1e-4, rtol=0)


def test_the_bound_under_a_flow_is_the_integral_under_it(vae_processor):
    torch.manual_seed(3)
    model = resized(make_model("vae", latent_size=2), vae_processor)
    with torch.no_grad():
        model.decoder.latent_injection.embedding.projection.weight *= 10
        model.posterior_head.linear.weight *= 0.2
    flow = random_flow(2, num_layers=2)
    model.set_fitted_prior(flow)
    evaluator = LikelihoodEvaluator(model, vae_processor, TARGETS, TARGETS, batch_size=3, samples_per_pass=500)
    line = torch.linspace(-7, 7, 61)
    points, log_area = torch.cartesian_prod(line, line), 2 * math.log(14 / 60)
    nll = evaluator.nll(points.expand(len(evaluator), -1, -1))
    exact = -(torch.logsumexp(flow.log_prob(points) - nll, dim=1) + log_area).mean().item()
    metrics = likelihood_metrics(evaluator, num_samples=2_000, prior=evaluator.prior("fitted_prior"))
    assert metrics["iw_nll"] == pytest.approx(exact, abs=4 * metrics["iw_nll_error"] + 5e-3)


def test_bad_flows_are_named(vae, vae_processor):
    q = encode_texts(vae, vae_processor, TEXTS * 5)
    flow, labelled = FlowPrior(3, 1, 4), FlowPrior(4, 1, 4, labels=["a", "b"])
    broken = DiagonalGaussian(q.mean.clone(), q.logvar)
    broken.mean[7, 0] = float("nan")
    for call, message in (
        (lambda: FlowPrior(1), "`latent_size` is 1, and a flow changes half of z"),
        (lambda: FlowPrior(4, num_layers=0), "`num_layers` is 0"),
        (lambda: FlowPrior(4, hidden_size=1.5), "`hidden_size` is 1.5"),
        (lambda: FlowPrior(4, labels=[]), "`labels` is '[]'; give a list"),
        (lambda: FlowPrior(4, labels=["a", "a"]), "name each label once"),
        (lambda: labelled.sample(1, label="c"), "`label` is 'c'; choose one of 'a', 'b'"),
        (lambda: flow.sample(1, label="c"), "this flow was fitted without labels"),
        (lambda: flow.sample(0), "`num` is 0"),
        (lambda: flow.log_prob(torch.zeros(2, 4)), "expected (rows, 3)"),
        (lambda: vae.set_fitted_prior(flow), "`prior` is over 3 dimensions; the model's z has 4"),
        (lambda: prior_gain(vae, vae_processor, flow, q), "`prior` is over 3 dimensions; the model's z has 4"),
        (lambda: prior_gain(vae, vae_processor, labelled, TEXTS[:1]), "`texts` holds 1; a standard error takes two or more"),
        (lambda: fit_flow_prior(vae, vae_processor, TEXTS), "`texts` holds 5; a flow takes at least 20 texts"),
        (lambda: fit_flow_prior(vae, vae_processor, q.mean), "`texts` is a tensor, and a flow is fitted to samples of q"),
        (lambda: fit_flow_prior(vae, vae_processor, broken), "not finite in row(s) [7]"),
        (lambda: fit_flow_prior(vae, vae_processor, DiagonalGaussian.standard(30, 3)), "`texts` is over 3 dimensions"),
        (lambda: fit_flow_prior(vae, vae_processor, q, labels=["a"]), "`labels` is a list of 1, and `texts` holds 25"),
        (lambda: fit_flow_prior(vae, vae_processor, q, labels=[0] * 25), "`labels` holds 0; labels are texts"),
        (lambda: fit_flow_prior(vae, vae_processor, q, max_steps=0), "`max_steps` is 0"),
        (lambda: fit_flow_prior(vae, vae_processor, q, learning_rate=0.0), "`learning_rate` is 0.0"),
        (lambda: make_model("vae", fitted_prior_flow={"num_layers": 2}, fitted_prior_components=2), "are both given"),
        (lambda: make_model("vae", fitted_prior_flow={"depth": 2}), "it has `num_layers`, `hidden_size` and `labels`"),
        (lambda: make_model("vae", prior_type="flow", flow_layers=0), "`flow_layers` is 0"),
        (lambda: make_model("vae", prior_type="flow", latent_size=1), "`latent_size` is 1, and a flow changes half of z"),
        (lambda: make_model("vae", prior_type="fitted"), "no `fitted_prior_components` and no `fitted_prior_flow`"),
    ):
        with pytest.raises(Exception, match=re.escape(message)):
            call()


def test_a_fit_that_diverges_says_so(vae, vae_processor):
    with pytest.raises(FloatingPointError, match="The fit of the flow diverged by step 5 of 5"):
        fit_flow_prior(vae, vae_processor, TEXTS * 5, **{**QUICK, "learning_rate": 1e30})
