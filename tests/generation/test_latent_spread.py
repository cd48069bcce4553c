"""How the z of one input lie to each other: by itself each is a draw from the prior, and together they are spread."""

import math

import pytest
import torch
from transformers import AutoModel

from helpers import GREEDY, TEXTS, generation_inputs, listening, make_batch, make_model, resized
from hf_vae import DiagonalGaussian, GaussianMixturePrior
from hf_vae.calls import call_with
from hf_vae.evaluation import generate_texts
from hf_vae.evaluation.distributed import spread_samples
from hf_vae.latent_spread import LATENT_SPREADS, spread_noise

SPREADS = tuple(LATENT_SPREADS)
SPREAD = tuple(name for name in SPREADS if name != "independent")


def noise(spread, rows, samples, size, seed=0):
    return spread_noise(spread, rows, samples, size, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("size", [1, 3])
def test_each_draw_by_itself_is_standard_normal(spread, size):
    """Moments and tails of every sample's number alone, over many inputs, and no correlation of its numbers with each other."""
    rows = 20_000
    drawn = noise(spread, rows, 5, size)
    assert drawn.shape == (rows, 5, size) and drawn.isfinite().all()
    # Four standard errors.
    assert drawn.mean(0).abs().max() < 4 / math.sqrt(rows)
    assert (drawn.square().mean(0) - 1).abs().max() < 4 * math.sqrt(2 / rows)
    assert ((drawn > 1.2816).float().mean(0) - 0.1).abs().max() < 4 * math.sqrt(0.09 / rows)
    if size > 1:
        assert (drawn[..., 0] * drawn[..., 1]).mean(0).abs().max() < 4 / math.sqrt(rows)


@pytest.mark.parametrize("spread", SPREADS)
def test_inputs_are_independent_of_each_other(spread):
    """For each pair of samples the numbers of one input say nothing of those of the next."""
    drawn = noise(spread, 8_000, 4, 2)
    products = drawn[0::2].unsqueeze(2) * drawn[1::2].unsqueeze(1)
    assert products.mean(0).abs().max() < 4.5 / math.sqrt(4_000)


@pytest.mark.parametrize("spread, gain", [("quasi_random", 20), ("antithetic", 1_000), ("repelled", 5)])
def test_a_mean_over_a_spread_varies_less(spread, gain):
    """16 draws whose sum is all that is asked: a spread says it better than independent draws by this factor of variance."""
    variance = {name: noise(name, 2_000, 16, 4).mean(1).square().mean() for name in ("independent", spread)}
    assert variance["independent"] > gain * variance[spread]


def test_quasi_random_draws_fill_every_part_once():
    """Of 16 draws each sixteenth of the prior has one, in every number of z; of two numbers every quarter by quarter."""
    uniform = torch.special.ndtr(noise("quasi_random", 7, 16, 5).double())
    for number in range(5):
        assert (uniform[..., number] * 16).floor().sort(-1).values.equal(torch.arange(16.0, dtype=torch.float64).expand(7, -1))
    cells = (uniform[..., 0] * 4).floor() * 4 + (uniform[..., 1] * 4).floor()
    assert all(len(row.unique()) == 16 for row in cells)


def test_repelled_draws_have_the_widest_angles():
    """Up to one more than z has numbers, all have the same angle, whose cosine is -1/(K - 1): the regular simplex."""
    for samples, size in ((2, 1), (3, 2), (10, 16)):
        drawn = torch.nn.functional.normalize(noise("repelled", 3, samples, size), dim=-1)
        cosine = (drawn @ drawn.mT)[:, ~torch.eye(samples, dtype=torch.bool)]
        torch.testing.assert_close(cosine, torch.full_like(cosine, -1 / (samples - 1)), atol=1e-3, rtol=0)
    # Ten on a circle stand 36 degrees apart.
    drawn = torch.nn.functional.normalize(noise("repelled", 1, 10, 2)[0], dim=-1)
    assert (drawn @ drawn.T - 2 * torch.eye(10)).max() == pytest.approx(math.cos(math.pi / 5), abs=1e-2)


def test_antithetic_draws_are_pairs_of_opposites():
    drawn = noise("antithetic", 2, 5, 3)
    assert torch.equal(drawn[:, 0], -drawn[:, 1]) and torch.equal(drawn[:, 2], -drawn[:, 3]) and drawn.shape == (2, 5, 3)


@pytest.mark.parametrize("spread", SPREADS)
def test_one_draw_and_the_seed(spread):
    assert noise(spread, 2, 1, 3).shape == (2, 1, 3)
    assert torch.equal(noise(spread, 2, 4, 3), noise(spread, 2, 4, 3))
    assert not torch.equal(noise(spread, 2, 4, 3), noise(spread, 2, 4, 3, seed=1))
    torch.manual_seed(0)
    first = spread_noise(spread, 2, 4, 3)
    torch.manual_seed(0)
    assert torch.equal(first, spread_noise(spread, 2, 4, 3))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("even", 1, 2, 3), "`latent_spread` is 'even'; choose one of 'independent', 'quasi_random', 'repelled', 'antithetic'"),
        (("quasi_random", 1, 0, 3), "`samples` is 0; it must be at least 1"),
        (("quasi_random", 1, 2, 21_202), "holds for at most 21201 numbers, and a draw of z takes 21202"),
        (("repelled", 1, 2_049, 3), "at most 2048 z of an input apart, and 2049 are asked for"),
    ],
)
def test_what_cannot_be_spread_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        spread_noise(*arguments)


def test_every_family_takes_a_spread():
    """A mixture's component is chosen by a number of the same noise: of 16 draws exactly half are of each of two equal parts."""
    gaussian = DiagonalGaussian(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 2))
    for spread in SPREADS:
        generator = torch.Generator().manual_seed(3)
        assert torch.equal(gaussian.draw(4, spread, generator), noise(spread, 2, 4, 2, seed=3) + gaussian.mean.unsqueeze(1))
    prior = GaussianMixturePrior.from_components(torch.ones(2), torch.tensor([[9.0], [-9.0]]), torch.zeros(2, 1))
    assert ((prior().draw(16, "quasi_random") > 0).sum(1) == 8).all()


@pytest.mark.parametrize("spread", SPREAD)
def test_generate_spreads_the_z_of_each_input(model, batch, spread):
    inputs = {**generation_inputs(batch), **GREEDY}
    options = {"num_return_sequences": 4, "latent_source": "prior", "return_dict_in_generate": True}

    def latents(**given):
        return model.generate(**inputs, **options, **given, generator=torch.Generator().manual_seed(0)).latents

    drawn = latents(latent_spread=spread)
    prior = model.prior(call_with(model.read_source, batch), 3).latent_dist
    expected = prior.draw(4, spread, torch.Generator().manual_seed(0)).flatten(0, 1)
    torch.testing.assert_close(drawn, expected)
    model.generation_config.latent_spread = spread
    assert torch.equal(latents(), drawn)
    assert torch.equal(latents(latent_spread="independent"), prior.repeat(4).sample(torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="`latents` are given: `latent_source`, `latent_temperature` and `latent_spread`"):
        model.generate(**inputs, latents=drawn, latent_spread=spread)
    # A default stands back behind what is given.
    assert model.generate(**inputs, latents=drawn).shape[0] == 12


def test_draws_without_input_are_spread_together(tmp_path):
    model = make_model("vae")
    options = {"return_dict_in_generate": True, **GREEDY}
    drawn = model.generate(num_samples=8, latent_spread="antithetic", **options).latents
    assert torch.equal(drawn[::2], -drawn[1::2])
    drawn = model.generate(num_samples=4, num_return_sequences=2, latent_spread="antithetic", **options).latents
    assert torch.equal(drawn[::2], -drawn[1::2])
    model.generation_config.latent_spread = "antithetic"
    model.save_pretrained(tmp_path)
    drawn = AutoModel.from_pretrained(tmp_path).generate(num_return_sequences=4, **options).latents
    assert torch.equal(drawn[::2], -drawn[1::2])
    with pytest.raises(ValueError, match="`latent_spread` is 'even'; choose one of 'independent', 'quasi_random'"):
        model.generate(num_samples=2, latent_spread="even", **GREEDY)


def test_an_average_over_latents_may_be_spread():
    model = make_model("paraphrase-prompt")
    inputs = generation_inputs(make_batch(model))
    options = {"average_latents": 4, "latent_spread": "antithetic", "return_dict_in_generate": True}
    drawn = model.generate(**inputs, **options, **GREEDY).latents
    assert drawn.shape == (12, 4) and torch.equal(drawn[::2], -drawn[1::2])


def test_spread_texts_do_not_depend_on_the_batches(processor):
    model = listening(resized(make_model("paraphrase-prompt"), processor))
    options = {"num_return_sequences": 4, "latent_spread": "quasi_random", "seed": 3, "do_sample": False, "max_new_tokens": 5}
    together = generate_texts(model, processor, TEXTS, **options)
    assert generate_texts(model, processor, TEXTS, batch_size=2, **options) == together
    assert generate_texts(model, processor, TEXTS, **options | {"seed": 4}) != together
    drawn = spread_samples([4, 1], 4, 3, seed=0, spread="antithetic")
    assert torch.equal(drawn[:, 0], -drawn[:, 1])
    assert torch.equal(drawn[1:], spread_samples([1], 4, 3, seed=0, spread="antithetic"))
