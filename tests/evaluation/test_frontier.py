"""Quality against diversity: metrics with intervals, points of a model, and where one curve lies above the others."""

import itertools
import json
import random
import sys

import pytest
import torch
from transformers import AutoModel, BertConfig

from helpers import TARGETS, TEXTS, listening, make_model, resized
from hf_vae.evaluation import (
    LATENT_CURVES,
    Estimate,
    FrontierPoint,
    TextEmbedder,
    above,
    baseline_curves,
    bootstrapped_differences,
    bootstrapped_metrics,
    copying,
    frontier,
    frontier_table,
    generate_texts,
    paraphrase_metrics,
    reference_metrics,
)
from hf_vae.evaluation.embedder import source_cosines

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "some", "dogs", "ran", "in", "parks"]
REFERENCES = [[text] for text in TARGETS]


def texts_of(seed: int, sources: int, several: range, shortest: int = 0) -> list[list[str]]:
    drawn = random.Random(seed)

    def text() -> str:
        return " ".join(drawn.choices(WORDS, k=drawn.randint(shortest, 9))).capitalize()

    return [[text() for _ in range(drawn.choice(several))] for _ in range(sources)]


@pytest.mark.parametrize("tokenize", [None, "char"])
def test_metrics_are_those_of_the_whole_texts(tokenize):
    """They are made of counts of single outputs, of which some are empty, too short for a letter pair, or equal."""
    outputs = [[*texts, texts[0], "", "a"] for texts in texts_of(0, 30, range(3, 4))]
    references = texts_of(1, 30, range(1, 4), shortest=1)
    metrics = bootstrapped_metrics(outputs, references, tokenize)
    expected = reference_metrics(outputs, references, tokenize)
    assert metrics.keys() == {"bleu", "best_bleu", "chrf", "best_chrf", "self_bleu", "distinct_2"}
    for name, estimate in metrics.items():
        assert estimate.value == pytest.approx(expected[name], abs=1e-9), name
        assert estimate.low < estimate.value < estimate.high, name


def test_a_resample_has_the_metrics_of_its_texts():
    """Of two sources, each is drawn alone in about a quarter of the resamples, so the interval's ends are what each has alone."""
    outputs, references = texts_of(2, 2, range(3, 4), shortest=4), texts_of(3, 2, range(2, 3), shortest=4)
    metrics = bootstrapped_metrics(outputs, references, of_sources={"mine": [1.0, 3.0]})
    alone = [reference_metrics([texts] * 2, [wanted] * 2) for texts, wanted in zip(outputs, references)]
    for name in metrics.keys() - {"mine"}:
        ends = sorted(each[name] for each in alone)
        assert metrics[name][1:] == (
            pytest.approx(min(ends[0], metrics[name].value)),
            pytest.approx(max(ends[1], metrics[name].value)),
        )
    assert metrics["mine"] == Estimate(2.0, 1.0, 3.0)


def test_intervals_follow_from_the_seed_and_narrow_with_the_sources():
    outputs, references = texts_of(4, 100, range(2, 3), shortest=3), texts_of(5, 100, range(1, 2), shortest=3)
    whole = bootstrapped_metrics(outputs, references, seed=1)
    assert whole == bootstrapped_metrics(outputs, references, seed=1) != bootstrapped_metrics(outputs, references, seed=2)
    few = bootstrapped_metrics(outputs[:10], references[:10])
    assert all(whole[name].high - whole[name].low < few[name].high - few[name].low for name in ("chrf", "self_bleu"))


def test_differences_are_of_the_same_resamples():
    """The interval of two copies of the same outputs has no width, although each metric's own has."""
    outputs, others = (texts_of(seed, 2, range(3, 4), shortest=4) for seed in (6, 7))
    references = texts_of(8, 2, range(2, 3), shortest=4)
    same = bootstrapped_differences(outputs, outputs, references)
    assert set(same.values()) == {Estimate(0.0, 0.0, 0.0)}
    found = bootstrapped_differences(outputs, others, references, of_sources={"mine": [1.0, -3.0]})
    ours, theirs = reference_metrics(outputs, references), reference_metrics(others, references)
    # As above, the ends are what each of the two sources has alone.
    alone = []
    for row in range(2):
        mine, its = (reference_metrics([each[row]] * 2, [references[row]] * 2) for each in (outputs, others))
        alone.append({name: mine[name] - its[name] for name in found.keys() - {"mine"}})
    for name in found.keys() - {"mine"}:
        assert found[name].value == pytest.approx(ours[name] - theirs[name], abs=1e-9), name
        ends = sorted(each[name] for each in alone)
        assert found[name].low == pytest.approx(min(ends[0], found[name].value)), name
        assert found[name].high == pytest.approx(max(ends[1], found[name].value)), name
    assert found["mine"] == Estimate(-1.0, -3.0, 1.0)


def test_outputs_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="`outputs` has one text for each source, and how much they differ takes two"):
        bootstrapped_metrics([["a"]], [["b"]])
    with pytest.raises(ValueError, match="`baseline` has one text for each source"):
        bootstrapped_differences([["a", "b"]], [["a"]], [["b"]])
    with pytest.raises(ValueError, match="2 lists of baseline and 1 lists of references"):
        bootstrapped_differences([["a", "b"]], [["a", "b"]] * 2, [["b"]])
    with pytest.raises(ValueError, match="1 lists of outputs and 2 lists of references"):
        bootstrapped_metrics([["a", "b"]], [["b"], ["c"]])
    with pytest.raises(ValueError, match="`num_resamples` is 0"):
        bootstrapped_metrics([["a", "b"]], [["b"]], num_resamples=0)


@pytest.fixture
def model(processor):
    return listening(resized(make_model("paraphrase-prompt"), processor))


def test_points_are_the_metrics_of_what_is_generated(model, processor):
    options = {"num_outputs": 4, "batch_size": 2, "max_new_tokens": 6, "seed": 3}
    points = frontier(model, processor, TEXTS, REFERENCES, **options)
    assert [point.curve for point in points] == ["z, greedy"] * 6 + ["z, 4 beams each"] * 4
    assert all(point.seconds > 0 for point in points)
    for point, options in zip(points, itertools.chain(*LATENT_CURVES.values())):
        outputs = generate_texts(model, processor, TEXTS, 4, seed=3, batch_size=2, max_new_tokens=6, **options)
        expected = paraphrase_metrics(TEXTS, outputs, REFERENCES)
        assert all(estimate.value == pytest.approx(expected[name]) for name, estimate in point.metrics.items())
    assert len({point.metrics["self_bleu"] for point in points}) > 1


def test_a_model_without_z_samples_or_searches_from_one_z(model, processor, monkeypatch):
    written = {}

    def remember(*args, **options):
        outputs = generate_texts(*args, **options)
        written[tuple(sorted(options.items()))] = outputs
        return outputs

    # The function of that name stands before its module.
    monkeypatch.setattr(sys.modules[frontier.__module__], "generate_texts", remember)
    curves = baseline_curves(3)
    points = frontier(model, processor, TEXTS, REFERENCES, curves, num_outputs=3, max_new_tokens=6, num_resamples=10)
    assert {point.curve for point in points} == {"sampling", "nucleus", "sampling, 4 beams each", "beams"}
    assert [dict(point.options) for point in points] == [each for curve in curves.values() for each in curve]
    beams = next(outputs for options, outputs in written.items() if ("num_beams", 3) in options)
    zeros = torch.zeros(len(TEXTS), 1, model.config.latent_size)
    assert beams == generate_texts(model, processor, TEXTS, 3, zeros, num_beams=3, do_sample=False, max_new_tokens=6)
    # With a z of its own each output would be the best beam, and all of them the same.
    assert all(len(set(texts)) == 3 for texts in beams)


def test_sources_that_do_not_fit_are_refused(model, processor):
    with pytest.raises(ValueError, match="5 sources and 4 lists of references"):
        frontier(model, processor, TEXTS, REFERENCES[:4])
    with pytest.raises(ValueError, match="`num_outputs` is 1"):
        frontier(model, processor, TEXTS, REFERENCES, num_outputs=1)
    with pytest.raises(ValueError, match="`latents_per_text` is 10 and `num_return_sequences` 5"):
        curve = {"sampling, 4 beams each": baseline_curves()["sampling, 4 beams each"]}
        frontier(model, processor, TEXTS, REFERENCES, curve, num_outputs=5)
    with pytest.raises(ValueError, match=r"`sources` has .* which is no text"):
        frontier(model, processor, [[{"role": "a", "content": "b"}]], REFERENCES[:1], embedder=lambda texts: None)


@pytest.fixture
def embedder(processor, tmp_path):
    tokenizer = processor.encoder_tokenizer
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=12, pad_token_id=tokenizer.pad_token_id, **sizes)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return TextEmbedder(str(tmp_path), batch_size=2)


def test_a_text_s_vector_is_the_mean_of_its_tokens_states(embedder):
    vectors = embedder([*TEXTS, "the cat " * 40])
    assert vectors.norm(dim=-1) == pytest.approx(torch.ones(6).numpy(), abs=1e-5)
    inputs = embedder.tokenizer(TEXTS[2], return_tensors="pt")
    with torch.no_grad():
        mean = embedder.model(**inputs).last_hidden_state.mean(1)[0]
    # In a batch with longer ones.
    torch.testing.assert_close(vectors[2], mean / mean.norm(), atol=1e-5, rtol=1e-4)


def test_an_embedder_of_sentence_transformers_pools_as_it_was_trained(embedder, tmp_path):
    modules = [{"idx": 0, "type": "models.Transformer", "path": ""}, {"idx": 1, "type": "models.Pooling", "path": "1_Pooling"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    config = tmp_path / "1_Pooling" / "config.json"
    config.write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    with torch.no_grad():
        first = embedder.model(**embedder.tokenizer(TEXTS[2], return_tensors="pt")).last_hidden_state[0, 0]
    torch.testing.assert_close(TextEmbedder(str(tmp_path))([TEXTS[2]])[0], first / first.norm(), atol=1e-5, rtol=1e-4)
    config.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(ValueError, match="was trained with max"):
        TextEmbedder(str(tmp_path))


def test_what_is_kept_of_a_source_is_a_cosine(embedder, model, processor):
    first, second = source_cosines(embedder, TEXTS[:2], [[TEXTS[0], TEXTS[0]], [TEXTS[1], TEXTS[0]]])
    vectors = embedder(TEXTS[:2])
    assert first == pytest.approx(1) and second == pytest.approx((1 + float(vectors[0] @ vectors[1])) / 2)
    [point] = frontier(
        model, processor, TEXTS, REFERENCES, {"z": [{}]}, num_outputs=2, embedder=embedder, max_new_tokens=4, num_resamples=10
    )
    low, high = point.metrics["source_cosine"][1:]
    assert -1 <= low <= point.metrics["source_cosine"].value <= high <= 1


def curve(name: str, *points: tuple[float, float]) -> list[FrontierPoint]:
    return [
        FrontierPoint(name, {"at": at}, {"self_bleu": Estimate(at, at, at), "bleu": Estimate(value, value, value)})
        for at, value in points
    ]


@pytest.mark.parametrize(
    "others, expected",
    [
        # The lines cross half-way between 20 and 40.
        (curve("a", (20, 8), (40, 12), (60, 12)), [(20, 30)]),
        # Another one begins at 25, higher; and nothing is known beyond 60 and below 20.
        (curve("a", (0, 0), (60, 0)) + curve("b", (25, 20), (80, 20)), [(20, 25)]),
        (curve("a", (0, 0), (100, 0)), [(20, 60)]),
        (curve("a", (0, 0), (30, 0)) + curve("b", (50, 5), (100, 5)), [(20, 30), (50, 60)]),
        # Beams are one point: it parts the stretch if it is higher, and not if it is lower.
        (curve("a", (0, 0), (100, 0)) + curve("beams", (50, 11)), [(20, 50), (50, 60)]),
        (curve("a", (0, 0), (100, 0)) + curve("beams", (50, 9)), [(20, 60)]),
        # Of points of one self-BLEU the better counts.
        (curve("a", (20, 10), (40, 20), (40, 0), (100, 20)), []),
        (curve("a", (0, 20), (100, 20)), []),
        (curve("a", (70, 0), (100, 0)), []),
        ([], []),
    ],
)
def test_a_curve_is_above_others_where_both_are_known(others, expected):
    own = curve("z", (60, 10), (20, 10), (40, 10))
    assert [pytest.approx(each) for each in expected] == above(own, others)


def test_the_table_tells_points_by_what_differs():
    points = [*curve("z, greedy", (60, 10), (20, 10)), copying(TEXTS, REFERENCES, 3, num_resamples=10)]
    assert points[-1].metrics["self_bleu"].value == pytest.approx(100)
    assert points[-1].metrics["bleu"].value == points[-1].metrics["best_bleu"].value
    expected = paraphrase_metrics(TEXTS, [[text] * 3 for text in TEXTS], REFERENCES)
    assert points[-1].metrics["bleu"].value == pytest.approx(expected["copy_bleu"])
    header, _, *rows = frontier_table(points).splitlines()
    assert header.startswith("| decoding | setting | self-BLEU | BLEU, average |") and "cosine" not in header
    assert rows[0].startswith("| z, greedy | at 60 | 60.0 (60.0-60.0) | 10.0 (10.0-10.0) |")
    assert rows[2].startswith("| copying the source |  | 100.0 (100.0-100.0) |")
