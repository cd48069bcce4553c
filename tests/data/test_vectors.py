"""Vectors on disk: embedded once, read again, and never those of another embedder."""

import json

import pytest
import torch
from transformers import AutoModel

from helpers import TEXTS, tiny_encoder_config
from hf_vae.data import Fingerprint, embed_texts, load_vectors, read_fingerprint, save_vectors
from hf_vae.evaluation import TextEmbedder

CLOSED = Fingerprint(name="closed-embedder-3", size=3, normalized=False)


class Embedder:
    """The number of words, letters and vowels; it counts how many texts it was asked for."""

    def __init__(self):
        self.asked = 0

    def __call__(self, texts):
        self.asked += len(texts)
        return [[float(len(text.split())), float(len(text)), float(sum(text.count(each) for each in "aeiou"))] for text in texts]


@pytest.fixture
def folder(tmp_path, tokenizers):
    torch.manual_seed(0)
    config = tiny_encoder_config()
    config.vocab_size = len(tokenizers[1])
    AutoModel.from_config(config, add_pooling_layer=False).save_pretrained(tmp_path / "embedder")
    tokenizers[1].save_pretrained(tmp_path / "embedder")
    return tmp_path / "embedder"


def test_texts_are_embedded_once_in_batches_and_read_from_the_disk(tmp_path):
    embedder = Embedder()
    made = embed_texts(TEXTS, embedder, tmp_path / "vectors", CLOSED, batch_size=2)
    assert made.column_names == ["text", "embedding"] and made["text"][:] == TEXTS and made["embedding"][:] == embedder(TEXTS)
    embedder.asked = 0
    again = embed_texts(TEXTS, embedder, tmp_path / "vectors", CLOSED)
    assert embedder.asked == 0 and again.to_dict() == made.to_dict()
    assert read_fingerprint(tmp_path / "vectors") == CLOSED
    assert embed_texts(TEXTS, embedder).to_dict() == made.to_dict()
    with pytest.raises(ValueError, match=r"`folder` is .* which holds the vectors of 5 other texts"):
        embed_texts(TEXTS[::-1], embedder, tmp_path / "vectors", CLOSED)


def test_vectors_of_another_embedder_are_refused(tmp_path):
    other = Fingerprint(name="closed-embedder-4", size=3, normalized=False)
    save_vectors(embed_texts(TEXTS, Embedder()), tmp_path / "vectors", CLOSED)
    assert len(load_vectors(tmp_path / "vectors", CLOSED)) == len(TEXTS)
    with pytest.raises(ValueError, match=r"another embedder .`name` is 'closed-embedder-3' there and 'closed-embedder-4' here"):
        load_vectors(tmp_path / "vectors", other)
    with pytest.raises(ValueError, match="another embedder"):
        embed_texts(TEXTS, Embedder(), tmp_path / "vectors", other)


def test_a_fingerprint_says_all_that_changes_a_vector(folder, tmp_path):
    embedder = TextEmbedder(str(folder))
    vectors = embed_texts(TEXTS, embedder, tmp_path / "vectors")
    assert torch.equal(torch.tensor(vectors["embedding"][:]), embedder(TEXTS))
    found = read_fingerprint(tmp_path / "vectors")
    assert found == embedder.fingerprint
    assert (found.name, found.normalized, found.dtype, found.pooling) == ("embedder", True, "float32", "mean")
    # Under another name it is the same one; not normalised, or with another weight, it is not.
    moved = folder.rename(tmp_path / "moved")
    assert len(load_vectors(tmp_path / "vectors", TextEmbedder(str(moved)).fingerprint)) == len(TEXTS)
    with pytest.raises(ValueError, match="`normalized` is True there and False here"):
        load_vectors(tmp_path / "vectors", TextEmbedder(str(moved), normalize=False).fingerprint)
    changed = TextEmbedder(str(moved))
    with torch.no_grad():
        next(changed.model.parameters())[0, 0] += 1
    with pytest.raises(ValueError, match=r"`weights` is '.*' there and '.*' here"):
        load_vectors(tmp_path / "vectors", changed.fingerprint)


def test_an_embedder_normalises_as_its_folder_says(folder, tmp_path):
    plain = TextEmbedder(str(folder), normalize=None)
    assert not plain.normalize and not torch.allclose(plain(TEXTS).norm(dim=-1), torch.ones(len(TEXTS)))
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in kinds]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}), encoding="utf-8")
    embedder = TextEmbedder(str(folder), normalize=None)
    assert embedder.normalize and embedder.pooling == "first"
    # By hand: the first state of each text by itself, divided by its length.
    tokens = [embedder.tokenizer(text, return_tensors="pt") for text in TEXTS]
    with torch.no_grad():
        states = torch.cat([embedder.model(**each).last_hidden_state[:, 0] for each in tokens])
    torch.testing.assert_close(embedder(TEXTS), torch.nn.functional.normalize(states, dim=-1))


def test_what_an_embedder_gives_is_looked_at(tmp_path):
    with pytest.raises(ValueError, match="`fingerprint` is missing: `embedder` has none"):
        embed_texts(TEXTS, Embedder(), tmp_path / "vectors")
    with pytest.raises(ValueError, match="vectors of 4 floats"):
        embed_texts(TEXTS, Embedder(), fingerprint=Fingerprint("other", size=4, normalized=False))
    with pytest.raises(ValueError, match=r"`embedder` gave an array of shape .* for 5 texts"):
        embed_texts(TEXTS, lambda texts: torch.ones(2, 3), fingerprint=CLOSED)
    with pytest.raises(ValueError, match=r"`embedder\(texts\)` is not finite in row"):
        embed_texts(TEXTS, lambda texts: torch.full((len(texts), 3), float("nan")), fingerprint=CLOSED)
    with pytest.raises(ValueError, match="vectors have length 1, and `embedder` gave one of length"):
        embed_texts(TEXTS, Embedder(), fingerprint=Fingerprint("other", size=3, normalized=True))
    with pytest.raises(ValueError, match="`texts` holds no text"):
        embed_texts(["a", " "], Embedder())
    with pytest.raises(OSError, match=r"has no fingerprint.json"):
        load_vectors(tmp_path)
    (tmp_path / "fingerprint.json").write_text("{", encoding="utf-8")
    with pytest.raises(OSError, match="is damaged"):
        load_vectors(tmp_path)
