"""METEOR in the paraphrase metrics: there where nltk's WordNet is on the machine, absent without a word where it is not."""

import shutil
import socket

import nltk
import nltk.corpus
import pytest
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from nltk.corpus.util import LazyCorpusLoader

from hf_vae.evaluation import paraphrase_metrics

SOURCES = ["where are tickets sold", "who is he"]
REFERENCES = [["where can i buy a ticket"], ["who may he be", "tell me who he is"]]
OUTPUTS = [["where can i obtain a ticket", "tickets"], ["Who may he be", "no idea"]]

# A WordNet whose only synset is that of "buy" and "obtain". nltk looks synonyms up by their stems, which these words are.
WORDNET = {
    "index.verb": "buy v 1 0 1 0 00000000\nobtain v 1 0 1 0 00000000\n",
    "data.verb": "00000000 00 v 02 buy 0 obtain 0 000 00 | acquire for money\n",
    "index.sense": "buy%2:00:00:: 00000000 1 0\nobtain%2:00:00:: 00000000 1 0\n",
    "lexnames": "00\tverb.possession\t2\n",
}


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """nltk looks for data in an empty folder, by a loader that has not found any before, and no connection can be made."""

    def refuse(*args, **kwargs):
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setattr(
        nltk.corpus, "wordnet", LazyCorpusLoader("wordnet", WordNetCorpusReader, LazyCorpusLoader("omw-1.4", WordNetCorpusReader))
    )
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path


@pytest.fixture(params=["folder", "archive"])
def tiny_wordnet(no_data, request):
    """As unpacked, and as nltk's downloader leaves it."""
    corpora = no_data / "corpora"
    (corpora / "wordnet").mkdir(parents=True)
    for name in WordNetCorpusReader._FILES:
        (corpora / "wordnet" / name).write_text(WORDNET.get(name, ""))
    if request.param == "archive":
        shutil.make_archive(str(corpora / "wordnet"), "zip", corpora, "wordnet")
        shutil.rmtree(corpora / "wordnet")


def test_without_the_data_it_is_left_out(no_data, recwarn):
    metrics = paraphrase_metrics(SOURCES, OUTPUTS, REFERENCES)
    assert "bleu" in metrics and not [name for name in metrics if "meteor" in name]
    assert not list(recwarn)


def test_with_the_data_by_hand(tiny_wordnet):
    metrics = paraphrase_metrics(SOURCES, OUTPUTS, REFERENCES)
    # Lavie & Agarwal 2007: F = P R / (0.9 P + 0.1 R), times 1 - 0.5 (chunks / matches)^3.
    # All 6 words of the first match, "obtain" as a synonym; "tickets" by its stem, P = 1 and R = 1/6. The third equals a
    # reference in all but case, the fourth shares no word with any.
    synonym = 1 - 0.5 / 6**3
    stem = (1 / 6) / (0.9 + 0.1 / 6) * 0.5
    equal = 1 - 0.5 / 4**3
    assert metrics["meteor"] == pytest.approx(100 * ((synonym + stem) / 2 + (equal + 0) / 2) / 2)
    assert metrics["best_meteor"] == pytest.approx(100 * (synonym + equal) / 2)
    # What it adds are two figures; the others stay.
    assert {name for name in metrics if "meteor" in name} == {"meteor", "best_meteor"}
    assert metrics["bleu"] > 0
