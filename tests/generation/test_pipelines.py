"""Pipelines: batches, several texts for each input, z beside them, and what they refuse."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import pipeline

from helpers import PUBLISHED_TALK, make_published
from hf_vae import DialogPipeline, LatentAttribute, LatentTextGenerationPipeline, ParaphrasePipeline

TASKS = {"vae": "latent-text-generation", "cvae": "latent-text-generation", "paraphrase": "paraphrase", "dialog": "dialog"}
OTHER = {"dialog": [{"role": "user", "content": "the mat"}]}
WRITE = {"do_sample": False, "max_new_tokens": 5}


def make_pipeline(name: str, task: str | None = None):
    model, processor, text = make_published(name)
    return (
        pipeline(task or TASKS[name], model=model, processor=processor, device=-1),
        text,
        OTHER.get(name, "a dog ran in the park"),
    )


@pytest.mark.parametrize("name", TASKS)
def test_attributes_pass_through(name):
    pipe, text, _ = make_pipeline(name)
    tone = LatentAttribute(4, ["cold", "warm"])
    tone.weight.copy_(torch.tensor([[-2.0, 0, 0, 0], [2.0, 0, 0, 0]]))
    pipe.model.set_attribute("tone", tone)
    options = {**WRITE, "num_return_sequences": 4, "return_latents": True, "latent_source": "prior", "attribute_weight": 20.0}
    for label in ("cold", "warm"):
        generator = torch.Generator().manual_seed(0)
        records = pipe(text, attributes={"tone": label}, generator=generator, **options)
        assert tone.predict(torch.tensor([each["latents"] for each in records])) == [label] * 4


@pytest.mark.parametrize("name", TASKS)
def test_inputs_in_a_batch_are_answered_as_one_by_one(name):
    pipe, text, other = make_pipeline(name)
    options = {**WRITE, "num_return_sequences": 3, "return_latents": True}
    latents = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    together = pipe([text, other], batch_size=2, latents=latents, **options)
    assert [len(row) for row in together] == [3, 3]
    for row, each, own in zip(together, (text, other), latents.split(3)):
        assert row == pipe(each, latents=own, **options)
        torch.testing.assert_close(torch.tensor([record["latents"] for record in row]), own)
    inputs = pipe.processor(text)
    expected = pipe.model.generate(**inputs, latents=latents[:3], num_return_sequences=3, **WRITE)
    decoded = pipe.processor.batch_decode(expected, skip_special_tokens=True)
    assert [record["generated_text"] for record in together[0]] == [each.strip() for each in decoded]
    assert len({record["generated_text"] for record in together[0]}) > 1
    assert set(pipe(text, **WRITE)[0]) == {"generated_text"}


def test_a_generator_of_inputs_streams():
    pipe, text, other = make_pipeline("paraphrase")
    rows = pipe((each for each in (text, other, text)), num_return_sequences=2, latent_temperature=0.0, **WRITE)
    first = next(iter(rows))
    assert first == pipe(text, num_return_sequences=2, latent_temperature=0.0, **WRITE)


def test_without_an_input_a_vae_writes_from_the_prior():
    pipe, *_ = make_pipeline("vae")
    records = pipe(None, num_return_sequences=4, return_latents=True, generator=torch.Generator().manual_seed(3), **WRITE)
    drawn = torch.randn(4, 4, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(torch.tensor([record["latents"] for record in records]), drawn)


def test_an_average_over_z_has_several_z_to_a_text():
    pipe, text, _ = make_pipeline("cvae")
    [record] = pipe(text, average_latents=6, return_latents=True, **WRITE)
    assert torch.tensor(record["latents"]).shape == (6, 4)


def test_a_reply_may_be_asked_for_by_its_act():
    pipe, *_ = make_pipeline("dialog")
    inputs = {"messages": PUBLISHED_TALK, "role": "user", "act": "y"}
    latents = torch.ones(1, 4)
    expected = pipe.model.generate(**pipe.processor(inputs), latents=latents, **WRITE)
    [text] = pipe.processor.batch_decode(expected, skip_special_tokens=True)
    assert pipe(inputs, latents=latents, **WRITE) == [{"generated_text": text.strip()}]


def test_inputs_are_cut_where_it_is_asked_for():
    pipe, *_ = make_pipeline("vae")
    long, short = "the cat sat on the mat " * 9, pipe.processor("the cat sat on the mat " * 9, max_length=5)
    expected = pipe.model.generate(**short, latent_temperature=0.0, **WRITE)
    [text] = pipe.processor.batch_decode(expected, skip_special_tokens=True)
    assert pipe(long, max_source_length=5, latent_temperature=0.0, **WRITE) == [{"generated_text": text.strip()}]


def test_each_is_for_its_own_models():
    assert isinstance(make_pipeline("paraphrase")[0], ParaphrasePipeline)
    assert isinstance(make_pipeline("dialog")[0], DialogPipeline)
    # The general one takes any of the family.
    pipe, text, _ = make_pipeline("dialog", "latent-text-generation")
    assert type(pipe) is LatentTextGenerationPipeline and len(pipe(text, num_return_sequences=2, **WRITE)) == 2
    with pytest.raises(ValueError, match=r"'dialog' is not for a model of type 'text-vae'; use .* 'latent-text-generation'"):
        make_pipeline("vae", "dialog")
    model, *_ = make_published("vae")
    with pytest.raises(ValueError, match="needs the model's `processor`"):
        LatentTextGenerationPipeline(model=model)
    pipe, *_ = make_pipeline("paraphrase")
    with pytest.raises(ValueError, match="`text` holds no text"):
        pipe(["fine", "  "])
    with pytest.raises(ValueError, match=r"`(prompt_)?input_ids` is missing"):
        pipe(None)


@pytest.mark.parametrize("name", TASKS)
def test_saved_with_everything_that_it_needs(name, tmp_path):
    pipe, text, _ = make_pipeline(name)
    pipe.save_pretrained(tmp_path)
    again = pipeline(TASKS[name], model=str(tmp_path), device=-1)
    assert type(again) is type(pipe)
    assert again(text, latent_temperature=0.0, **WRITE) == pipe(text, latent_temperature=0.0, **WRITE)
    assert (tmp_path / "pipelines.py").exists()


def test_whatever_holds_texts_is_answered_as_a_list():
    pipe, *texts = make_pipeline("paraphrase")
    options = {"latent_temperature": 0.0, **WRITE}
    expected = pipe(texts, **options)
    for several in (tuple(texts), np.array(texts), Dataset.from_dict({"text": texts})["text"]):
        assert pipe(several, **options) == expected, type(several)
    pipe, *talks = make_pipeline("dialog")
    expected = pipe(talks, **options)
    column = Dataset.from_dict({"messages": talks})["messages"]
    assert pipe(column, **options) == expected and pipe(tuple(talks[0]), **options) == expected[0]
    assert pipe([{"messages": talk} for talk in talks], **options) == expected


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("paraphrase", {"text": "the mat"}, "`text` is {'text': 'the mat'}, of type dict"),
        ("paraphrase", [], "`text` is an empty list"),
        ("paraphrase", (), "`text` is an empty list"),
        ("paraphrase", ["the mat", None], r"no text at position\(s\) \[1\] \(found None\)"),
        ("paraphrase", ["the mat", {"text": "the mat"}], r"no text at position\(s\) \[1\]"),
        ("vae", [None, "the mat"], r"no text at position\(s\) \[0\]"),
        ("dialog", [], "`text` is an empty list"),
        ("dialog", "hello", "it should be a dialogue, which is a list of messages"),
        ("dialog", {"turns": []}, "it should be a dialogue|has turns; it may have messages"),
        ("dialog", ["hello"], "`dialogue 0` is 'hello'"),
    ],
)
def test_what_holds_no_text_is_refused_before_anything_is_answered(name, given, message):
    pipe, *_ = make_pipeline(name)
    with pytest.raises(ValueError, match=message):
        pipe(given)


def test_a_dialogue_that_outgrows_the_model_is_read_from_its_end():
    pipe, *_ = make_pipeline("dialog")
    talk = [{"role": "ab"[turn % 2], "content": f"the cat sat on the mat {turn}"} for turn in range(40)]
    pipe.processor.max_turns = 40
    options = {"latent_temperature": 0.0, **WRITE}
    room = pipe.model.longest_context(WRITE["max_new_tokens"])
    whole = pipe.processor(talk)["prompt_input_ids"].shape[1]
    assert room < whole
    assert pipe(talk, **options) == pipe(talk, max_source_length=room, **options)
    pipe.processor.max_context_length = 20
    assert pipe(talk, **options) == pipe(talk, max_source_length=20, **options)
