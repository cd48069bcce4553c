"""The benchmark of control in z on made-up files of the Yelp benchmark's layout."""

import json
import math
import random

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import hf_vae
from benchmarks import control_yelp
from benchmarks.control_yelp import (
    MARKS,
    Fluency,
    accuracy,
    corpus_bleu,
    draw_labelled,
    fit_scorer,
    length_of,
    main,
    read_data,
    score,
    some_of,
    standing,
    table,
)

# What makes a text one label's, and what both have.
WORDS = {0: ["awful", "bland", "rude"], 1: ["great", "tasty", "kind"]}
THINGS = ["the food was", "our waiter was", "the place is", "their soup was", "her service is", "this room is"]


def made_up(num: int, seed: int) -> list[dict]:
    draw = random.Random(seed)
    return [
        {"text": f"{draw.choice(THINGS)} {draw.choice(WORDS[label])} .", "label": label} for label in (0, 1) for _ in range(num)
    ]


def swapped(text: str) -> str:
    """With the word of the other label that stands at the same place."""
    pairs = dict(zip(WORDS[0] + WORDS[1], WORDS[1] + WORDS[0]))
    return " ".join(pairs.get(word, word) for word in text.split())


@pytest.fixture
def folder(tmp_path):
    test = made_up(6, 2)
    for row in test:
        right = swapped(row["text"])
        row["references"] = [right, f"well , {right}", right.replace(".", "!"), f"{right} yes"]
    for split, rows in {"train": made_up(40, 0), "validation": made_up(10, 1), "test": test}.items():
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "systems").mkdir()
    outputs = {
        "Swap": [swapped(row["text"]) for row in test],
        "LatentOps": [swapped(row["text"]) if number % 2 else row["text"] for number, row in enumerate(test)],
    }
    for name, lines in outputs.items():
        (tmp_path / "systems" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def language_model(tmp_path):
    """A causal language model with its tokenizer, which finds every word equally likely."""
    words = sorted({word for row in made_up(40, 0) for word in row["text"].split()})
    vocabulary = {word: number for number, word in enumerate(["<unk>", "<s>", "</s>", *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(vocabulary), **sizes))
    torch.nn.init.zeros_(model.lm_head.weight)
    target = tmp_path / "lm"
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return str(target), len(vocabulary)


def test_the_files_are_read_and_the_other_label_is_wanted(folder):
    data = read_data(str(folder))
    assert len(data.train[0]) == 80 and len(data.validation[0]) == 20 and len(data.test[0]) == 12
    assert data.test[1] == [0] * 6 + [1] * 6 and data.wanted == [1] * 6 + [0] * 6
    assert list(data.systems) == ["LatentOps", "Swap"] and all(len(row) == 4 for row in data.references)


def test_files_that_do_not_fit_are_refused(folder):
    system = folder / "systems" / "Swap.txt"
    system.write_text("one line\n")
    with pytest.raises(ValueError, match="has 1 lines for 12 test texts"):
        read_data(str(folder))
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    rows[0]["references"] = rows[0]["references"][:3]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"rows with \[3, 4\] `references`"):
        read_data(str(folder))


def test_some_of_the_texts_have_both_labels_and_their_own_references(folder):
    data = read_data(str(folder))
    some = some_of(data, 4)
    assert some.test == (data.test[0][1::3], [0, 0, 1, 1]) and some.references == data.references[1::3]
    assert some.systems["Swap"] == data.systems["Swap"][1::3] and some.train == data.train
    assert some_of(data, 1000) == data


def test_scores_of_what_is_known(folder):
    data = read_data(str(folder))
    scorer = fit_scorer(*data.train)
    assert accuracy(scorer, *data.validation) == 100
    found = score(data.systems["Swap"], data, scorer, None)
    # It writes the first reference itself.
    assert found["accuracy"] == 100 and found["bleu"] == pytest.approx(100) and found["mean"] == pytest.approx(100)
    half = score(data.systems["LatentOps"], data, scorer, None)
    assert half["accuracy"] == 50 and half["mean"] == pytest.approx(math.sqrt(50 * half["bleu"]))
    copy = score(data.test[0], data, scorer, None)
    assert copy["accuracy"] == copy["mean"] == 0 and copy["bleu_source"] == pytest.approx(100)


def test_bleu_is_of_words_between_spaces_against_each_reference_at_its_place():
    # 3 of 4 words, 2 of 3 pairs, 1 of 2 triples and 0 of 1, which sacrebleu smooths to 1/2.
    assert corpus_bleu(["a b c x"], [["a b c d"]]) == pytest.approx(100 * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25)
    # "don't." is one word.
    assert corpus_bleu(["we like it so don't."], [["we like it so don't ."]]) < 100
    assert corpus_bleu(["a b c d", "e f g h"], [["x y z w", "a b c d"], ["e f g h", "x y z w"]]) == pytest.approx(100)


def test_the_perplexity_of_equally_likely_words_is_their_number(language_model):
    folder, size = language_model
    texts = ["the food was great .", "rude .", "the place is awful .", "kind ."]
    assert Fluency(folder, 10)(texts) == pytest.approx(size)
    assert Fluency(folder, 10)([*texts, ""]) == pytest.approx(size)
    # Every second of the four.
    fluency = Fluency(folder, 2)
    assert fluency(texts) == pytest.approx(size)
    assert fluency.chosen(texts) == ["the food was great .", "the place is awful ."]


def test_as_many_texts_of_each_label_are_drawn_and_none_twice():
    texts, labels = [f"text {number}" for number in range(30)], [0] * 10 + [1] * 20
    drawn, of = draw_labelled(texts, labels, 8, seed=0)
    assert len(set(drawn)) == 16 and of == [0] * 8 + [1] * 8
    assert all(labels[texts.index(text)] == label for text, label in zip(drawn, of))
    assert draw_labelled(texts, labels, 8, seed=0)[0] == drawn != draw_labelled(texts, labels, 8, seed=1)[0]
    with pytest.raises(ValueError, match="`num` is 11, and 10 texts have the label 0"):
        draw_labelled(texts, labels, 11, seed=0)


def test_where_a_curve_stands():
    systems = {
        "LatentOps": {"accuracy": 75.0, "bleu": 24.0, "mean": math.sqrt(75 * 24)},
        "Weak": {"accuracy": 50.0, "bleu": 10.0, "mean": math.sqrt(500)},
    }
    # One point has the accuracy, the other the BLEU, and none both.
    curve = {
        "clear": {"accuracy": 90.0, "bleu": 10.0, "mean": 30.0},
        "faint": {"accuracy": 40.0, "bleu": 30.0, "mean": math.sqrt(1200)},
    }
    assert "34.6 (faint), lies above 1 of 2 systems" in standing(curve, systems)
    assert "both reached by no point of the curve" in standing(curve, systems)
    curve["between"] = {"accuracy": 75.0, "bleu": 24.5, "mean": math.sqrt(75 * 24.5)}
    assert "above 2 of 2 systems" in standing(curve, systems) and "both reached by between." in standing(curve, systems)
    assert "reached" not in standing(curve, {"Weak": systems["Weak"]})


def test_a_column_that_nothing_fills_is_left_out():
    lines = table({"a": {"accuracy": 50.0, "bleu": 12.34}, "b": {"accuracy": 40.0, "perplexity": 321.4}}).splitlines()
    assert lines[0] == "| | accuracy, % | BLEU, first reference | perplexity |"
    assert lines[2:] == ["| a | 50.0 | 12.3 | |", "| b | 40.0 | | 321 |"]


def test_it_runs_and_writes_into_the_page(folder, language_model, monkeypatch, capsys):
    page = folder / "control.md"
    page.write_text(f"before\n{MARKS[0]}\n{MARKS[1]}\nbehind\n")
    monkeypatch.setattr(control_yelp, "PAGE", page)
    monkeypatch.setattr(control_yelp, "OUTPUTS", 3)
    monkeypatch.setattr(control_yelp, "length_of", lambda text: "short" if "the" in text else "long")
    model = str(hf_vae.demo("sentences"))
    arguments = ["--data", str(folder), "--model", model, "--lm", language_model[0], "--labels", "20"]
    arguments += ["--strengths", "1", "--revision_strengths", "0.5"]
    main([*arguments, "--write"])
    printed = capsys.readouterr().out
    for row in (
        "| copying | 0.0 |",
        "| Swap | 100.0 | 100.0 |",
        "| `edit`, strength 1 |",
        "| `edit`, the default strengths |",
        "| `revise`, strength 0.5 |",
    ):
        assert row in printed
    assert "3 new texts of each of four pairs" in printed and "scorer's accuracy on the validation texts is 100.0 %" in printed
    written = page.read_text()
    assert written.startswith(f"before\n{MARKS[0]}\n| | accuracy") and written.endswith(f"{MARKS[1]}\nbehind\n")


def test_a_short_text_has_seven_words():
    assert length_of("a b c d e f g") == "short" and length_of("a b c d e f g h") == "long"
