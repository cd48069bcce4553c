"""The benchmark of cached outputs on made-up pairs."""

from transformers import BertTokenizer

from benchmarks import cached_encoder
from benchmarks.cached_encoder import main
from families import tiny_encoder_config
from helpers import TARGETS, TEXTS, write_rows
from hf_vae.encoders import build_encoder


def test_both_ways_are_measured_for_each_model(tmp_path, monkeypatch):
    words = sorted({word for text in (*TEXTS, *TARGETS) for word in text.split()})
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n")
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "encoder")
    build_encoder(tiny_encoder_config(), "mean").save_pretrained(tmp_path / "encoder")
    file = write_rows(tmp_path / "train.jsonl", [{"source": x, "targets": [y]} for x, y in zip(TEXTS, TARGETS)] * 2)
    page = tmp_path / "page.md"
    page.write_text("{}\n{}\n".format(*cached_encoder.MARKS))
    monkeypatch.setattr(cached_encoder, "PAGE", page)
    sizes = ["--steps", "2", "--batch_size", "2", "--hidden_size", "16"]
    measured = main(["--encoder", str(tmp_path / "encoder"), "--train_file", file, *sizes, "--write"])
    # A VAE reads each target, a conditional one each pair, and x.
    assert [each["outputs"] for each in measured] == [5, 10, 10] and not any(each["misses"] for each in measured)
    assert page.read_text().count(" s |") == 9
