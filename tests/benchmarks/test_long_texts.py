"""The benchmark of long texts: its data, what it counts, and that it runs on the grammar as on any texts."""

import itertools
import json
import random

import pytest
from transformers import AutoProcessor

import hf_vae
from benchmarks import long_texts
from benchmarks.long_texts import (
    BATCH,
    CORPORA,
    PARAGRAPHS,
    by_length,
    caption_sets,
    dialogues,
    main,
    marks,
    num_tokens,
    paragraphs,
    paragraphs_from_anywhere,
    short_first,
    shuffled_caption_sets,
)
from hf_vae.data import grammar

PICTURES = [
    {"source": "A dog runs .", "targets": ["Dog", "a brown dog ", "one dog", "the dog", "a sixth"]},
    {"source": "Two men .", "targets": ["men", "two of them", "men again", "both"]},
]


def first(texts, count):
    return list(itertools.islice(texts, count))


def test_the_captions_of_a_picture_stand_in_a_row_and_to_train_on_in_several_orders():
    held_out = list(caption_sets(PICTURES, random.Random(0)))
    assert held_out == ["a dog runs . dog a brown dog one dog the dog", "two men . men two of them men again both"]
    trained = first(shuffled_caption_sets(PICTURES, random.Random(0)), 80)
    own, of_any = trained[::2], trained[1::2]
    # The same five captions of one picture each time, one picture after the other.
    assert [sorted(text.split()) for text in own] == [sorted(text.split()) for text in held_out] * 20 and len(set(own)) > 20
    # Five of both pictures' captions: two texts hold each caption once.
    assert len(set(of_any)) > 20
    for pair in zip(of_any[::2], of_any[1::2]):
        assert sorted(" ".join(pair).split()) == sorted(" ".join(held_out).split())


def test_dialogues_are_joined_in_order_and_to_train_on_begin_with_any_turn():
    talk = {"turns": [{"text": "Hello "}, {"text": "Hi there"}]}
    assert list(dialogues([talk], random.Random(0))) == ["hello hi there"]
    assert first(CORPORA["dialogues"][1]([talk], random.Random(0)), 3) == ["hello hi there"] * 3
    words = [f"w{number}" for number in range(180)]
    turns = [words[place : place + 6] for place in range(0, len(words), 6)]
    trained = first(CORPORA["dialogues"][1]([{"turns": [{"text": " ".join(turn)} for turn in turns]}], random.Random(0)), 400)
    for text in trained:
        assert text in " ".join(words) and text.split()[0] in words[::6]
    lengths = [len(text.split()) for text in trained]
    assert len({text.split()[0] for text in trained}) > 20 and min(lengths) == 20 and max(lengths) > 120


def test_paragraphs_are_the_words_of_a_book_and_to_train_on_from_any_word_on():
    words = [f"w{number}" for number in range(2000)]
    sentences = [" ".join(words[place : place + 7]).upper() for place in range(0, len(words), 7)]
    made = list(paragraphs(sentences, random.Random(0)))
    assert {len(text.split()) for text in made} == set(PARAGRAPHS)
    assert " ".join(made) == " ".join(words[: sum(len(text.split()) for text in made)])
    trained = first(paragraphs_from_anywhere(sentences, random.Random(0)), 2000)
    assert all(text in " ".join(words) for text in trained)
    assert len({text.split()[0] for text in trained}) > 1000
    lengths = [len(text.split()) for text in trained]
    assert min(lengths) == 20 and max(lengths) == 160
    # As many have 20 words as have up to 40, up to 80 and up to 160.
    shares = [sum(low < length <= high for length in lengths) / 2000 for low, high in ((19, 20), (20, 40), (40, 80), (80, 160))]
    assert shares == pytest.approx([0.25, 0.25, 0.25, 0.25], abs=0.03)


def test_short_texts_come_first_and_then_batches_of_one_length():
    rng = random.Random(0)
    texts = [f"t{number} " + "w " * rng.randrange(9) for number in range(320)]
    ordered = short_first(texts, random.Random(0))
    assert sorted(ordered) == sorted(texts)
    lengths = [len(text.split()) for text in ordered]
    # The shortest eighth, in whole batches, of which there are two.
    assert lengths[: 2 * BATCH] == sorted(lengths)[: 2 * BATCH]
    batches = [lengths[place : place + BATCH] for place in range(2 * BATCH, 320, BATCH)]
    assert all(max(batch) - min(batch) <= 1 for batch in batches)
    longest = [max(batch) for batch in batches]
    assert longest != sorted(longest)


def test_a_text_counts_for_a_length_that_it_is_near():
    texts, counts = ["a", "b", "c", "d", "e"], [15, 25, 26, 39, 50]
    assert by_length(texts, counts, [20, 40], 9) == {"20": ["a", "b"], "40": ["d", "e"]}
    assert by_length(texts, counts, [40], 2) == {"40": ["d", "e"]} and by_length(texts, counts, [], 2) == {"all": ["a", "b"]}
    with pytest.raises(ValueError, match="`--lengths` has 80, and 0 texts are that long"):
        by_length(texts, counts, [80], 9)


def test_a_corpus_is_made_of_its_files(tmp_path):
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PICTURES))
    folder = tmp_path / "made" / "captions"
    main(["data", "captions", str(tmp_path), str(folder), "--num_train", "30"])
    made = {path.stem: [json.loads(line)["text"] for line in path.read_text().splitlines()] for path in folder.iterdir()}
    assert made["test"] == made["validation"] == list(caption_sets(PICTURES, random.Random(0)))
    words = {word for text in made["test"] for word in text.split()}
    assert len(made["train"]) == 30 and {word for text in made["train"] for word in text.split()} <= words
    # Half of them are of one picture. Of those some are as they were, in another order, and of others words are replaced.
    as_they_were = [sorted(text.split()) in [sorted(each.split()) for each in made["test"]] for text in made["train"][::2]]
    assert 2 <= sum(as_they_were) <= 13
    main(["data", "captions", str(tmp_path), str(folder), "--num_train", "30", "--shares", "0"])
    kept = [json.loads(line)["text"] for line in (folder / "train.jsonl").read_text().splitlines()]
    assert all(sorted(text.split()) in [sorted(each.split()) for each in made["test"]] for text in kept[::2])
    main(["data", "captions", str(tmp_path), str(folder), "--num_train", "160", "--shares", "0", "--short_first"])
    ordered = [json.loads(line)["text"] for line in (folder / "train.jsonl").read_text().splitlines()]
    lengths = [len(text.split()) for text in ordered]
    assert lengths[:BATCH] == sorted(lengths)[:BATCH] and lengths != sorted(lengths)


def test_too_little_to_train_on_is_refused():
    with pytest.raises(ValueError, match="There are 2 captions to train on, and a text has 5"):
        next(shuffled_caption_sets([{"source": "a", "targets": ["b"]}], random.Random(0)))
    with pytest.raises(ValueError, match="There are 3 words to train on, and a text has up to 160"):
        next(paragraphs_from_anywhere(["one two three"], random.Random(0)))


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
    near = [text for text, count in zip(texts, lengths) if 9 <= count <= 15]
    assert measured["texts"] == min(len(near), 12) and measured["length"] == "12" and measured["label"] == "demo"
    main(["measure", folder, *few, "--longest", "12", "--num_paths", "0", "--output", str(tmp_path / "short.json")])
    [short] = json.loads((tmp_path / "short.json").read_text())
    drawn = random.Random(0).sample(texts, len(texts))[:12]
    assert short["texts"] == sum(count <= 12 for count in num_tokens(AutoProcessor.from_pretrained(folder), drawn))
    assert 0 < short["texts"] < 12 and short["tokens"] <= 13 and "between" not in short
    # The demo gives its sentences back, and so a path begins and ends with the very texts.
    assert measured["reconstruction_at_mean_token_accuracy"] > 0.95 > 0.05 > measured["edit_distance"]
    assert measured["example"][0] in near
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
    assert f"      {measured['example'][0]}\ndemo  {measured['example'][1]}" in written
