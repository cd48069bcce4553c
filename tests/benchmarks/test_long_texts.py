"""The benchmark of long texts: its data, what it counts, and that it runs on the grammar as on any texts."""

import json
import random

import pytest
from transformers import AutoProcessor

import hf_vae
from benchmarks import long_texts
from benchmarks.long_texts import by_length, caption_sets, dialogues, main, marks, num_tokens, paragraphs
from hf_vae.data import grammar

PICTURES = [
    {"source": "A dog runs .", "targets": ["Dog", "a brown dog ", "one dog", "the dog", "a sixth"]},
    {"source": "Two men .", "targets": ["men", "two of them", "men again", "both"]},
]


def test_the_captions_of_a_picture_stand_in_a_row_and_to_train_on_in_several_orders():
    held_out = list(caption_sets(PICTURES, "test", random.Random(0)))
    assert held_out == ["a dog runs . dog a brown dog one dog the dog", "two men . men two of them men again both"]
    trained = list(caption_sets(PICTURES * 20, "train", random.Random(0)))
    assert len(trained) == 4 * 40 and trained[:2] == held_out and 20 < len(set(trained)) <= 122
    # The same five captions of one picture each time.
    assert {tuple(sorted(text.split())) for text in trained} == {tuple(sorted(text.split())) for text in held_out}


def test_dialogues_and_paragraphs_are_joined_in_order():
    talk = {"turns": [{"text": "Hello "}, {"text": "Hi there"}]}
    assert list(dialogues([talk], "train", random.Random(0))) == ["hello hi there"]
    words = [f"w{number}" for number in range(2000)]
    sentences = [" ".join(words[place : place + 7]).upper() for place in range(0, len(words), 7)]
    made = list(paragraphs(sentences, "train", random.Random(0)))
    assert {len(text.split()) for text in made} == {20, 40, 80, 160}
    assert " ".join(made) == " ".join(words[: sum(len(text.split()) for text in made)])


def test_a_text_counts_for_a_length_that_it_is_near():
    texts, counts = ["a", "b", "c", "d", "e"], [15, 25, 26, 39, 50]
    assert by_length(texts, counts, [20, 40], 9) == {"20": ["a", "b"], "40": ["d", "e"]}
    assert by_length(texts, counts, [40], 2) == {"40": ["d", "e"]} and by_length(texts, counts, [], 2) == {"all": ["a", "b"]}
    with pytest.raises(ValueError, match="`--lengths` has 80, and 0 texts are that long"):
        by_length(texts, counts, [80], 9)


def test_a_corpus_is_made_of_its_files(tmp_path):
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PICTURES))
    main(["data", "captions", str(tmp_path), str(tmp_path / "made" / "captions")])
    rows = [json.loads(line) for line in (tmp_path / "made" / "captions" / "test.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == list(caption_sets(PICTURES, "test", random.Random(0)))
    assert len((tmp_path / "made" / "captions" / "train.jsonl").read_text().splitlines()) == 8


def test_models_are_measured_and_trained_further_and_put_into_the_page(tmp_path, monkeypatch):
    folder = hf_vae.demo("sentences")
    texts = grammar.draw_sentences(24, seed=0)
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    results = [tmp_path / "out" / "measured.json", tmp_path / "out" / "curve.json"]
    few = ["--test_file", str(file), "--num", "12", "--importance_samples", "4", "--label", "demo"]
    main(["measure", folder, *few, "--lengths", "12", "--num_paths", "3", "--output", str(results[0])])
    more = ["--train_file", str(file), "--weights", "30", "--steps", "25", "--batch_size", "8", "--learning_rate", "1e-2"]
    main(["curve", folder, *few, *more, "--output", str(results[1])])

    [measured] = json.loads(results[0].read_text())
    lengths = num_tokens(AutoProcessor.from_pretrained(folder), texts)
    near = [text for text, count in zip(texts, lengths) if 9 <= count <= 15][:12]
    assert measured["texts"] == len(near) and measured["length"] == "12" and measured["label"] == "demo"
    # The demo gives its sentences back, and so a path begins and ends with the very texts.
    assert measured["reconstruction_at_mean_token_accuracy"] > 0.95 > 0.05 > measured["edit_distance"]
    assert measured["example"][0] == near[0]
    path = measured["between"]
    assert path["to_start"][0] == path["to_end"][-1] == 1
    assert path["to_start"][-1] == pytest.approx(path["to_end"][0]) and path["to_end"][0] < 0.9
    assert path["example"][0] == measured["example"][1] and 2 <= path["different"] <= 5

    as_trained, heavier = json.loads(results[1].read_text())
    assert as_trained["weight"] is None and heavier["weight"] == 30
    # A KL that costs thirty times as much is bought with a worse reconstruction.
    assert heavier["kl"] < as_trained["kl"] and heavier["reconstruction"] > as_trained["reconstruction"]

    page = tmp_path / "page.md"
    page.write_text("before\n" + "\n".join(marks("captions")) + "\nafter\n")
    monkeypatch.setattr(long_texts, "PAGE", page)
    main(["write", "captions", *map(str, results)])
    written = page.read_text()
    assert written.startswith("before\n") and written.endswith("after\n") and written.count("| demo |") == 4
    assert f"| demo | as trained | {as_trained['kl']:.1f} | {as_trained['reconstruction']:.1f} |" in written
    assert f"| {100 * measured['reconstruction_at_mean_token_accuracy']:.1f} % |" in written
    assert f"            {near[0]}\ndemo        {measured['example'][1]}" in written
