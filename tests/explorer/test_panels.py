"""What the panels compute of models of all four kinds."""

import pytest
import torch

from explorer_models import make_explored
from helpers import TEXTS, make_model, make_published, resized, take_special_tokens, tiny_gpt2_config
from hf_vae import LatentAttribute, VAEConfig, VAEModel, VAEProcessor
from hf_vae.evaluation import LikelihoodEvaluator
from hf_vae.explorer import (
    Corpus,
    Explored,
    apply_latents,
    draw_outputs,
    draw_replies,
    load_explored,
    marked,
    measure_collapse,
    model_card,
    moved,
    reconstruction,
    units_by_kl,
    walk,
    word_nats,
)
from hf_vae.explorer.paths import Word
from hf_vae.explorer.report import facts


def test_words_that_change_are_marked():
    words = marked("at dawn the cat sat on a mat", "the dog sat on a new mat")
    assert [(word.text, word.change) for word in words if word.change] == [
        ("at", "gone"),
        ("dawn", "gone"),
        ("dog", "new"),
        ("new", "new"),
    ]
    assert " ".join(word.text for word in words if word.change != "gone") == "the dog sat on a new mat"
    assert marked("a b", "a b") == [Word("a"), Word("b")] and marked("", "") == []


def test_a_source_is_read_as_it_is_written(kind, explored, written):
    source = explored.as_source(written)
    if kind == "vae":
        assert source is None and explored.as_source("anything") is None and explored.written_source(0) == ""
        return
    assert explored.written_source(0) == written
    with pytest.raises(ValueError, match="source is empty"):
        explored.as_source("  ")
    if kind == "dialog":
        assert [turn["role"] for turn in explored.as_source("one\ntwo\n\nthree")["messages"]] == ["user", "assistant", "user"]


def test_every_model_draws_decodes_and_keeps_z(kind, explored, written):
    if kind == "dialog":
        talk = explored.as_source(written)["messages"]
        before = [dict(turn) for turn in talk]
        outputs = draw_replies(explored, talk, 3, seed=1)
        again = draw_replies(explored, talk, 3, seed=1)
        assert talk == before and {output.act for output in outputs} <= {"x", "y", "z"}
        assert draw_replies(explored, talk, 1, act="y", seed=1)[0].act == "y"
        with pytest.raises(ValueError, match="Nothing has been said"):
            draw_replies(explored, [])
    else:
        outputs, again = (draw_outputs(explored, written, 3, seed=1) for _ in range(2))
    assert len(outputs) == 3 and all(torch.equal(a.latents, b.latents) for a, b in zip(outputs, again, strict=True))
    # A z that is kept writes what it wrote, of the same source.
    assert apply_latents(explored, [each.latents for each in outputs], written) == [each.text for each in outputs]
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match=f"`seed` is {seed}; it must be at"):
            draw_replies(explored, talk, seed=seed) if kind == "dialog" else draw_outputs(explored, written, seed=seed)
    with pytest.raises(ValueError, match="No z is kept"):
        apply_latents(explored, [], written)


def test_a_path_goes_from_one_code_to_another(explored, written):
    first, last = explored.corpus.texts[:2]
    path = walk(explored, first, last, written, steps=3)
    source = explored.as_source(written)
    ends = explored.encode([first, last], None if source is None else [source] * 2).mode()
    torch.testing.assert_close(path.latents[[0, 2]], ends, atol=1e-6, rtol=0)
    assert path.texts == explored.decode(path.latents, source)
    with pytest.raises(ValueError, match="last text is empty"):
        walk(explored, first, " ", written)


def test_the_nats_of_words_add_up_to_the_likelihood(explored, written):
    text, source = explored.corpus.texts[0], explored.as_source(written)
    latents = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    found = word_nats(explored, text, latents, source)
    evaluator = LikelihoodEvaluator(explored.model, explored.processor, [text if source is None else source], [text])
    exact = evaluator.nll(latents.unsqueeze(0))[0]
    assert found.words == [*text.split(), "(end)"] and found.nats.shape == (2, len(found.words))
    torch.testing.assert_close(found.nats.sum(1), exact, rtol=1e-5, atol=1e-4)
    assert (found.nats > 0).all()


def test_words_are_told_apart_whatever_stands_between_them(vae):
    found = word_nats(vae, "the  cat\tsat, on", torch.zeros(1, 4))
    assert found.words == ["the", "cat", "sat,", "on", "(end)"]


def test_a_text_is_measured_with_its_own_z_and_with_none(explored, written):
    text, source = explored.corpus.texts[0], explored.as_source(written)
    found = reconstruction(explored, text, written)
    posterior = explored.encode([text], None if source is None else [source])
    nats = word_nats(explored, text, torch.cat([posterior.mode(), torch.zeros(1, 4)]), source).nats
    assert found.own == nats[0].tolist() and found.zero == nats[1].tolist() and found.kl > 0
    assert found.text == explored.decode(posterior.mode(), source)[0]
    with pytest.raises(ValueError, match="text is empty"):
        reconstruction(explored, "", written)


def test_texts_that_are_too_long_are_refused_on_a_page_and_cut_in_a_file():
    explored = make_explored("cvae")
    long = " ".join(["the cat sat on the mat"] * 40)
    with pytest.raises(ValueError, match="tokens long"):
        walk(explored, long, TEXTS[0], "a dog")
    explored.corpus = Corpus([*TEXTS, long], "", ["a dog"] * 6)
    assert explored.codes.shape == (6, 4) and explored.cut == 1 and explored.unit_kl is not None


def test_whether_z_is_used_is_measured_on_the_texts(explored):
    report, count = measure_collapse(explored, most=4)
    assert report.verdict in ("ignored", "partly used", "used", "unknown words") and count == 4
    explored.corpus = Corpus(["the cat"] * 3, "", explored.corpus.sources and explored.corpus.sources[:3])
    with pytest.raises(ValueError, match="two different texts"):
        measure_collapse(explored)
    assert "level" in facts(explored)["attributes"]


def test_draws_from_the_prior_have_their_own_z(explored, written):
    drawn = explored.draw(4, seed=2, written_source=written)
    assert drawn.latents.shape == (4, 4) and torch.equal(explored.draw(4, 2, written).latents, drawn.latents)
    if explored.is_conditional:
        with pytest.raises(ValueError, match="source is empty"):
            explored.draw(4, seed=2)


def test_a_model_without_a_posterior_says_so_and_draws():
    model, processor, _ = make_published("cvae")
    model.config.objective = "gsnn"
    explored = Explored(model, processor, max_new_tokens=3, corpus=Corpus(["a", "b"], "", ["a", "b"]))
    with pytest.raises(ValueError, match="no posterior"):
        explored.codes  # noqa: B018
    for function in (lambda: walk(explored, "a", "b", "a"), lambda: measure_collapse(explored)):
        with pytest.raises(ValueError, match="no posterior"):
            function()
    assert explored.unit_kl is None and len(draw_outputs(explored, "the cat", 2)) == 2


def test_a_model_that_reads_given_vectors_shows_draws(tmp_path, vae_processor):
    processor = VAEProcessor(vae_processor.tokenizer, embedding_size=6)
    decoder = tiny_gpt2_config()
    decoder.vocab_size = len(processor.tokenizer)
    take_special_tokens(decoder, processor.tokenizer)
    VAEModel(VAEConfig(decoder=decoder, embedding_size=6, latent_size=4)).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"vectors of 6 numbers in the place of texts, .* Leave `--file` out"):
        load_explored(str(tmp_path), file="texts.txt")
    explored = load_explored(str(tmp_path), most=3)
    assert explored.codes.shape == (3, 4) and explored.cut == 0 and explored.unit_kl is None
    assert facts(explored)["encoder, decoder"] == "vectors of 6 numbers, gpt2" and explored.note_on("the cat") == ""
    assert len(draw_outputs(explored, None, 2)) == 2
    for function in (
        lambda: draw_outputs(explored, "the cat"),
        lambda: reconstruction(explored, "the cat"),
        lambda: measure_collapse(explored),
    ):
        with pytest.raises(ValueError, match=r"vectors of 6 numbers .* Draw from the prior"):
            function()


def test_unknown_words_are_told():
    explored = load_explored("sentences", most=4)
    assert explored.note_on("the farmer bought the lamp") == "" == explored.note_on("", None)
    assert "50 % of these words" in explored.note_on("the zebra")


def test_the_packaged_models_need_no_file():
    explored = load_explored(most=20)
    assert len(explored.corpus) == 20 and "voice" in explored.corpus.columns and explored.codes.shape == (20, 64)
    card = model_card(explored.name)
    assert card.startswith("#") and "![" not in card and "license:" not in card
    assert model_card("no/such-model") is None


def test_what_is_no_model_of_the_family_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="'bert', which is not a model of hf_vae"):
        load_explored(str(tmp_path))
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path, tmp_path / "empty"):
        with pytest.raises(ValueError, match=f"{folder} holds no model that transformers knows: name a folder"):
            load_explored(str(folder))


def test_a_number_is_an_attribute_too(vae):
    attribute = LatentAttribute(4)
    attribute.weight[0, 1] = 1.0
    attribute.std.fill_(0.5)
    attribute.highest.fill_(9.0)
    vae.model.set_attribute("size", attribute)
    z = moved(vae, torch.zeros(4), attributes={"size": 3.0}, strength=1.0)
    torch.testing.assert_close(z, torch.tensor([0.0, 3.0, 0.0, 0.0]), atol=1e-2, rtol=0)


def test_several_latent_vectors_stand_side_by_side(vae_processor):
    model = resized(make_model("vae", num_latents=2, pooling="attention"), vae_processor)
    explored = Explored(model, vae_processor, max_new_tokens=3, corpus=Corpus(TEXTS, ""))
    assert explored.codes.shape == (5, 8) and len(units_by_kl(explored)) == 8 and facts(explored)["units of z"] == "8"
    assert len(walk(explored, *TEXTS[:2], steps=3).texts) == 3
    assert reconstruction(explored, TEXTS[0]).words[-1] == "(end)"
