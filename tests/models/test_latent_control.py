"""p(a|z) and the samplers of z that has it, against densities that are known in closed form."""

import math

import pytest
import torch
from transformers import AutoModel

from helpers import GREEDY, make_batch, make_model
from hf_vae import DiagonalGaussian, GaussianMixturePrior, VAEConfig
from hf_vae.flow_prior import FlowPrior
from hf_vae.latent_attribute import LatentAttribute
from hf_vae.latent_control import AttributeEnergy, add_energies, draw_latents, similarity_energy

# The ODE keeps how its noise is spread, so few draws have the moments.
EVEN = {"num_draws": 128, "spread": "quasi_random", "count": 512}


def linear(weight, bias=None, labels=None, std=1.0):
    """An attribute of these weights, each as clear as 2 nats."""
    weight = torch.tensor(weight)
    attribute = LatentAttribute(weight.shape[1], labels)
    attribute.weight.copy_(weight)
    attribute.bias.copy_(torch.tensor(bias or [0.0] * len(weight)))
    if labels is None:
        attribute.std.fill_(std)
        attribute.lowest.fill_(-10)
        attribute.highest.fill_(10)
    else:
        attribute.clarity.fill_(2.0)
    return attribute


def draw(distribution, energy, sampler, count=3_000, **options):
    generator = torch.Generator().manual_seed(0)
    return draw_latents(distribution, count, energy, sampler, generator=generator, **options)


@pytest.mark.parametrize("sampler, options", [("ode", EVEN), ("langevin", {"step_size": 0.6, "num_steps": 100})])
def test_a_number_with_gaussian_noise_has_the_posterior_of_linear_regression(sampler, options):
    """N(m, S) times N(a; w·z + b, s²) is a Gaussian of precision S⁻¹ + w wᵀ / s²."""
    mean, variance = torch.tensor([[1.0, -1.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.25], [2.0, 1.0]])
    weight, bias, std, target = torch.tensor([1.0, 2.0]), 0.5, 0.8, 2.0
    attribute = linear([weight.tolist()], [bias], std=std)
    energy = AttributeEnergy({"a": attribute}, {"a": target}, weight=1.0)
    draws = draw(DiagonalGaussian(mean, variance.log()), energy, sampler, **options)
    for row in range(2):
        precision = torch.diag(1 / variance[row]) + torch.outer(weight, weight) / std**2
        covariance = precision.inverse()
        expected = covariance @ (mean[row] / variance[row] + weight * (target - bias) / std**2)
        torch.testing.assert_close(draws[row].mean(0), expected, atol=0.06, rtol=0)
        torch.testing.assert_close(draws[row].T.cov(), covariance, atol=0.08, rtol=0)


@pytest.mark.parametrize("sampler, options", [("ode", EVEN), ("langevin", {"step_size": 0.8, "num_steps": 100})])
def test_two_labels_in_one_dimension_have_the_density_of_a_grid(sampler, options):
    attribute = linear([[0.0], [3.0]], [0.0, -1.0], ["no", "yes"])
    draws = draw(DiagonalGaussian.standard(1, 1), AttributeEnergy({"a": attribute}, {"a": "yes"}, weight=1.0), sampler, **options)
    z = torch.linspace(-6, 6, 4001)
    density = torch.exp(-0.5 * z.square()) * torch.sigmoid(3 * z - 1)
    density /= density.sum()
    mean = (density * z).sum()
    assert draws.mean().item() == pytest.approx(mean.item(), abs=0.03)
    assert draws.var().item() == pytest.approx((density * (z - mean).square()).sum().item(), abs=0.03)
    # And not only its moments.
    for level in (0.1, 0.5, 0.9):
        quantile = z[(density.cumsum(0) < level).sum()].item()
        assert (draws < quantile).float().mean().item() == pytest.approx(level, abs=0.03)


def test_langevin_weighs_the_components_of_a_mixture():
    """Components at -2 and 2 with equal weights, of which the attribute prefers the second."""
    mixture = GaussianMixturePrior.from_components(
        torch.tensor([0.5, 0.5]), torch.tensor([[-2.0], [2.0]]), torch.tensor([[-2.0], [-2.0]])
    )
    attribute = linear([[-0.5], [0.5]], labels=["low", "high"])
    energy = AttributeEnergy({"a": attribute}, {"a": "high"}, weight=1.0)
    # By default, because the ODE cannot jump between them.
    draws = draw(mixture(batch_size=1), energy, None, count=2_000, step_size=0.7, num_steps=150)
    z = torch.linspace(-8, 8, 4001)
    density = mixture.log_prob(z.unsqueeze(-1)).exp() * torch.sigmoid(z)
    expected = (density[z > 0].sum() / density.sum()).item()
    assert (draws > 0).float().mean().item() == pytest.approx(expected, abs=0.03)
    with pytest.raises(ValueError, match="GaussianMixture is not smooth in its noise"):
        draw(mixture(batch_size=1), energy, "ode")
    # One component is a Gaussian, and so is a new flow.
    for prior in (GaussianMixturePrior(1, 2), FlowPrior(2, num_layers=2, hidden_size=8)):
        attribute = linear([[1.0, 0.0]])
        draws = draw(prior(batch_size=1), AttributeEnergy({"a": attribute}, {"a": 2.0}, weight=1.0), "ode", count=1_500)[0]
        torch.testing.assert_close(draws.mean(0), torch.tensor([1.0, 0.0]), atol=0.1, rtol=0)
        torch.testing.assert_close(draws.var(0), torch.tensor([0.5, 1.0]), atol=0.1, rtol=0)


def test_energies_add_up():
    """Two numbers and the likeness to a text: the precisions add up, and so do the precisions times the means."""
    first, second = linear([[1.0, 0.0]]), linear([[0.0, 1.0]], std=0.5)
    wanted = AttributeEnergy({"first": first, "second": second}, {"first": 2.0, "second": -1.0}, weight=1.0)
    energy = add_energies(wanted, similarity_energy(torch.tensor([[1.0, 1.0]]), std=2.0))
    draws = draw(DiagonalGaussian.standard(1, 2), energy, "ode", **EVEN)[0]
    precision = torch.tensor([1 + 1 + 0.25, 1 + 4 + 0.25])
    torch.testing.assert_close(draws.mean(0), torch.tensor([2.0 + 0.25, -4.0 + 0.25]) / precision, atol=0.05, rtol=0)
    torch.testing.assert_close(draws.var(0), 1 / precision, atol=0.04, rtol=0)
    z = torch.randn(5, 2)
    nats = -first.log_prob(z, first.target(2.0)) - second.log_prob(z, second.target(-1.0)) + (z - 1).square().sum(-1) / 8
    torch.testing.assert_close(energy(z), nats)


def test_the_samplers_follow_the_generator_and_keep_other_rows_apart():
    attribute = linear([[1.0, 0.0], [-1.0, 0.0]], labels=["a", "b"])
    rows = DiagonalGaussian.standard(2, 2)
    energy = AttributeEnergy({"x": attribute}, {"x": ["a", "b"]}, batch_size=2)
    for sampler in ("ode", "langevin"):
        draws = draw(rows, energy, sampler, count=40)
        assert draws.shape == (2, 40, 2) and not draws.requires_grad
        assert (draws[0, :, 0] > 0).all() and (draws[1, :, 0] < 0).all()
        assert torch.equal(draws, draw(rows, energy, sampler, count=40))
    with torch.inference_mode():
        torch.testing.assert_close(draw(DiagonalGaussian.standard(2, 2), energy, "langevin", count=40), draws)
    # Opposites stay on different sides of what the attribute leaves alone.
    pairs = draw(rows, energy, "ode", count=2, spread="antithetic")
    assert (pairs[:, 0, 1] * pairs[:, 1, 1] < 0).all()


def test_what_cannot_be_drawn_is_named():
    attribute = linear([[100.0]], std=0.01)
    prior = DiagonalGaussian.standard(1, 1)
    steep = AttributeEnergy({"a": attribute}, {"a": 1.0})
    with pytest.raises(ValueError, match="The ODE in z has diverged"):
        draw(prior, steep, "ode", count=4)
    with pytest.raises(ValueError, match=r"Langevin dynamics in z stands still: .* `step_size`=0.2"):
        draw(prior, steep, "langevin", count=4)
    for options, message in (
        ({"sampler": "heun"}, "`sampler` is 'heun'; choose one of 'ode', 'langevin'"),
        ({"sampler": "ode", "num_steps": 0}, "`num_steps` is 0"),
        ({"sampler": "langevin", "step_size": 0.0}, "`step_size` is 0.0"),
        ({"sampler": "ode", "temperature": 0.0}, "`latent_temperature` is 0 beside attributes"),
    ):
        with pytest.raises(ValueError, match=message):
            draw(prior, steep, count=4, **options)
    with pytest.raises(ValueError, match="`std` is 0"):
        similarity_energy(torch.zeros(1, 1), std=0)


def test_an_attribute_is_a_softmax_or_a_gaussian():
    z = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    labels = linear([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [0.5, 0.0, 0.0], ["a", "b", "c"])
    logits = z @ labels.weight.T + labels.bias
    torch.testing.assert_close(labels.log_prob(z, labels.target("a")), logits.log_softmax(-1)[:, 0])
    torch.testing.assert_close(labels.log_prob(z, labels.target(["a", "c"])), logits.log_softmax(-1)[range(2), [0, 2]])
    assert labels.predict(z) == ["a", "a"]
    # Log-odds, less `strength` times the 2 nats of a typical text.
    probability = logits.softmax(-1)[:, 1]
    log_odds = probability.log() - (1 - probability).log()
    torch.testing.assert_close(labels.margin(z, labels.target("b"), strength=0.5), log_odds - 1.0)
    number = linear([[2.0, 0.0]], [1.0], std=0.5)
    assert number.predict(z) == [3.0, 1.0]
    expected = torch.distributions.Normal(torch.tensor([3.0, 1.0]), 0.5).log_prob(torch.tensor(2.0))
    torch.testing.assert_close(number.log_prob(z, number.target(2.0)), expected)
    torch.testing.assert_close(number.margin(z, number.target(2.0), 0.0), torch.tensor([-1.0, -1.0]))
    hidden = LatentAttribute(2, ["a", "b"], hidden_size=3)
    for name in ("hidden_weight", "hidden_bias", "weight", "bias"):
        getattr(hidden, name).normal_(generator=torch.Generator().manual_seed(len(name)))
    inside = torch.tanh(z @ hidden.hidden_weight.T + hidden.hidden_bias)
    torch.testing.assert_close(hidden(z), inside @ hidden.weight.T + hidden.bias)
    assert not list(hidden.parameters())


def test_values_and_latents_that_do_not_fit_are_named(caplog):
    labels, number = linear([[1.0], [0.0]], labels=["a", "b"]), linear([[1.0]])
    for call, message in (
        (lambda: labels.target("c"), "`target` is 'c'; choose one of 'a', 'b'"),
        (lambda: labels.target([]), "`target` is empty"),
        (lambda: number.target(math.nan), "`target` is nan"),
        (lambda: number.target("a"), "`target` is 'a'"),
        (lambda: labels(torch.zeros(2, 3)), r"expected \(rows, 1\)"),
        (lambda: labels.log_prob(torch.zeros(3, 1), labels.target(["a", "b"])), "There are 3 z for 2 rows"),
        (lambda: LatentAttribute(1, ["a"]), "`labels` are \\['a'\\]; give two or more"),
        (lambda: LatentAttribute(1, ["a", "a"]), "give two or more, each once"),
        (lambda: LatentAttribute(0), "`latent_size` is 0"),
        (lambda: AttributeEnergy({"a": labels}, {"b": "a"}), "`attributes` names 'b', and this model has 'a'"),
        (lambda: AttributeEnergy({}, {"b": "a"}), "and this model has none: fit it with `hf_vae.latent_space.fit_attribute`"),
        (lambda: AttributeEnergy({"a": labels}, {}), "give a dictionary such as"),
        (lambda: AttributeEnergy({"a": labels}, ["a"]), "give a dictionary such as"),
        (lambda: AttributeEnergy({"a": labels}, {"a": "a"}, weight=0), "`attribute_weight` is 0"),
        (lambda: AttributeEnergy({"a": labels}, {"a": ["a"] * 3}, batch_size=2), "has 3 values for 2 input"),
        (lambda: AttributeEnergy({"a": labels}, {"a": "c"}), r"`attributes\['a'\]` is 'c'"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    number.target(11.0)
    assert "`target` is 11, and what it was fitted to lies between -10 and 10" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attributes_are_saved_with_the_model(tmp_path, dtype):
    model = make_model("vae")
    model.set_attribute("tone", linear([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]], labels=["warm", "cold"]))
    model.set_attribute("length", linear([[0.0, 1, 0, 0]], std=0.5))
    nonlinear = LatentAttribute(4, [0, 1], hidden_size=3)
    nonlinear.hidden_weight.fill_(0.5)
    model.set_attribute("sentiment", nonlinear)
    model.to(dtype).save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert again.config.latent_attributes == {
        "tone": {"labels": ["warm", "cold"], "hidden_size": 0},
        "length": {"labels": None, "hidden_size": 0},
        "sentiment": {"labels": [0, 1], "hidden_size": 3},
    }
    saved = dict(model.named_buffers())
    for name, buffer in again.latent_attributes.named_buffers(prefix="latent_attributes"):
        torch.testing.assert_close(buffer, saved[name], equal_nan=True)
    assert again.latent_attributes["tone"](torch.ones(2, 4)).dtype == torch.float32


def test_a_model_without_attributes_is_what_it_was():
    model = make_model("vae")
    assert not any(name.startswith("latent_attributes") for name in model.state_dict())
    assert model.config.latent_attributes is None
    for spec in ({"a": {"labels": ["x", "y"]}}, {"a": 3}):
        with pytest.raises(Exception, match=r"`latent_attributes\['a'\]` is"):
            VAEConfig(**{**model.config.to_dict(), "latent_attributes": spec})


def test_what_is_no_attribute_of_the_model_is_named():
    model = make_model("vae")
    for name, attribute, message in (
        ("tone", 3, "`attribute` is a int; fit a `LatentAttribute`"),
        ("tone", LatentAttribute(3), "over 3 dimensions, the model's z has 4"),
        ("two words", LatentAttribute(4), "`name` is 'two words'"),
        ("keys", LatentAttribute(4), "`name` is 'keys'"),
    ):
        with pytest.raises(ValueError, match=message):
            model.set_attribute(name, attribute)


@pytest.mark.parametrize("variant", ["vae", "cvae", "paraphrase-prompt", "dialog"])
def test_generate_draws_z_that_has_the_attributes(variant):
    model = make_model(variant)
    model.set_attribute("tone", linear([[2.0, 0, 0, 0], [-2.0, 0, 0, 0]], labels=["warm", "cold"]))
    batch = make_batch(model, rows=2)
    inputs = {name: each for name, each in batch.items() if name in ("input_ids", "attention_mask") or name.startswith("prompt")}
    inputs |= {name: batch[name] for name in batch if name not in inputs and variant == "dialog" and "label" not in name}
    inputs = {name: each for name, each in inputs.items() if not name.startswith("posterior")}
    options = {**GREEDY, "num_return_sequences": 5, "return_dict_in_generate": True, "latent_source": "prior"}

    def z(**more):
        return model.generate(**inputs, **options, generator=torch.Generator().manual_seed(0), **more).latents[:, 0]

    assert z().std() > 0.3
    assert (z(attributes={"tone": "cold"}) < 0.1).all() and (z(attributes={"tone": "warm"}) > -0.1).all()
    each = z(attributes={"tone": ["cold", "warm"]}, attribute_weight=20.0)
    assert each[:5].max() < each[5:].min()
    assert torch.equal(each, z(attributes={"tone": ["cold", "warm"]}, attribute_weight=20.0))


def test_generate_refuses_what_has_no_meaning(caplog):
    model = make_model("vae")
    model.set_attribute("tone", linear([[2.0, 0, 0, 0], [-2.0, 0, 0, 0]], labels=["warm", "cold"]))
    model.set_attribute("other", linear([[2.0, 0, 0, 0], [-2.0, 0, 0, 0]], labels=["warm", "cold"]))
    for options, message in (
        ({"attributes": {"tone": "warm"}, "latents": torch.zeros(1, 4)}, "`latents` are given, and `attributes` would"),
        ({"attribute_weight": 2.0}, "`attribute_weight` is given without `attributes`"),
        ({"attributes": {"tone": "warm"}, "latent_temperature": 0.0}, "`latent_temperature` is 0 beside attributes"),
        ({"attributes": {"mood": "warm"}}, "names 'mood', and this model has 'tone', 'other'"),
        ({"attributes": {"tone": ["warm", "cold"]}, "num_samples": 3}, "has 2 values for 3 input"),
    ):
        with pytest.raises(ValueError, match=message):
            model.generate(**options, **GREEDY)
    model.generate(num_samples=8, attributes={"tone": "warm", "other": "cold"}, **GREEDY)
    assert "contradict each other" in caplog.text and "in the mean over the z that were drawn" in caplog.text
