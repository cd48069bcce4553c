"""Whoever gives a model words that it does not know is told so, with the share: it cannot be seen in what comes back."""

import logging

import pytest
from transformers import pipeline

from helpers import PUBLISHED, PUBLISHED_TALK, TEXTS, make_published
from hf_vae import DialogSession
from hf_vae.cli.from_scratch import train_tokenizers
from hf_vae.latent_space import reconstruct
from hf_vae.unknown_words import texts_in

TASKS = {"vae": "latent-text-generation", "cvae": "latent-text-generation", "paraphrase": "paraphrase", "dialog": "dialog"}
WRITE = {"do_sample": False, "max_new_tokens": 3}
FOREIGN = "zebras like physics"


def make(name: str):
    """A tiny model whose vocabulary has the words of its texts and no others."""
    model, _, known = make_published(name)
    _, processor_class, _, options = PUBLISHED[name]
    texts = [*TEXTS, *(message["content"] for message in PUBLISHED_TALK), "user: assistant:"]
    return model, processor_class(*train_tokenizers(texts, 300, "word"), **options), known


def said(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if "not in the model's vocabulary" in record.getMessage()]


def foreign(name: str):
    return [{"role": "user", "content": FOREIGN}] if name == "dialog" else FOREIGN


@pytest.mark.parametrize("name", TASKS)
def test_a_pipeline_warns_once_a_call(name, caplog):
    model, processor, known = make(name)
    pipe = pipeline(TASKS[name], model=model, processor=processor, device=-1)
    with caplog.at_level(logging.WARNING):
        pipe(known, **WRITE)
        assert said(caplog) == []
        pipe([foreign(name), foreign(name)], **WRITE)
    [message] = said(caplog)
    assert message.startswith("100.0 %")


def test_a_pipeline_warns_once_of_inputs_that_are_read_one_at_a_time(caplog):
    model, processor, known = make("paraphrase")
    pipe = pipeline("paraphrase", model=model, processor=processor, device=-1)
    with caplog.at_level(logging.WARNING):
        list(pipe((text for text in (known, FOREIGN, FOREIGN)), **WRITE))
        assert len(said(caplog)) == 1
        list(pipe((text for text in (FOREIGN,)), **WRITE))
    assert len(said(caplog)) == 2


def test_reconstruction_warns_of_texts_and_of_sources(caplog):
    model, processor, known = make("paraphrase")
    with caplog.at_level(logging.WARNING):
        reconstruct(model, processor, [known], sources=[known], max_new_tokens=3)
        assert said(caplog) == []
        reconstruct(model, processor, [known], sources=[FOREIGN], max_new_tokens=3)
    assert len(said(caplog)) == 1


def test_a_conversation_warns_of_a_turn(caplog):
    model, processor, _ = make("dialog")
    session = DialogSession(model, processor)
    with caplog.at_level(logging.WARNING):
        session.say(FOREIGN)
    assert len(said(caplog)) == 1


def test_the_texts_of_a_dialogue_are_those_of_its_messages():
    turns = [message["content"] for message in PUBLISHED_TALK]
    assert list(texts_in(["a text", PUBLISHED_TALK, {"messages": PUBLISHED_TALK}])) == ["a text", *turns, *turns]
