"""Metrics of texts, by hand and against their reference implementations."""

import copy

import pytest
import torch
from sacrebleu.metrics import TER

from helpers import make_model, resized
from hf_vae.evaluation import (
    LikelihoodEvaluator,
    bleu,
    chrf,
    count_tokens_and_words,
    dialog_metrics,
    distinct,
    evaluate_vae,
    generate_texts,
    paraphrase_metrics,
    reference_metrics,
    self_bleu,
)
from hf_vae.evaluation.evaluate_metric import ParaphraseMetric
from hf_vae.evaluation.generation import decode_tokens
from hf_vae.unknown_words import unknown_share


def test_bleu_of_one_and_of_several_references():
    assert bleu(["the cat sat on the mat"], [["The cat sat on the mat"]]) == pytest.approx(100)
    # Rows with different numbers of references: the second row's single reference is right, the first row's second one.
    assert bleu(["a b c d e", "f g h i j"], [["x", "a b c d e"], ["f g h i j"]]) == pytest.approx(100)


def test_bleu_of_short_texts_is_by_the_n_grams_that_they_have():
    short = ["a park", "the mat"]
    assert bleu(short, [[text] for text in short]) == pytest.approx(100)
    assert 0 < bleu(short, [["a park"], ["the dog"]]) < 100


def test_unknown_words_that_are_tokens_stay_in_what_is_generated(vae_processor):
    model = resized(make_model("vae"), vae_processor)
    unknown = vae_processor.tokenizer.unk_token_id
    only = {"bad_words_ids": [[token] for token in range(model.config.decoder.vocab_size) if token != unknown]}
    separator = vae_processor.tokenizer.convert_tokens_to_ids("[SEP]")
    assert separator not in vae_processor.tokenizer.all_special_ids
    assert decode_tokens(vae_processor, torch.tensor([separator, unknown, separator])) == "[UNK]"
    assert generate_texts(model, vae_processor, ["a"], 1, min_new_tokens=2, max_new_tokens=2, do_sample=False, **only) == [
        ["[UNK][UNK]"]
    ]


def test_distinct_counts_by_hand():
    assert distinct(["a b a b", "a b"], 1) == pytest.approx(2 / 6)
    assert distinct(["a b a b", "a b"], 2) == pytest.approx(2 / 4)
    assert distinct(["a"], 2) == 0.0


def test_self_bleu_is_100_for_repetition_and_less_for_variety():
    assert self_bleu([["a b c d e", "a b c d e"]]) == pytest.approx(100)
    assert self_bleu([["a b c d e", "v w x y z"]]) < 10


def test_outputs_without_a_source_are_scored_alike():
    outputs, references = [["a b c d", "a b"], ["c d", "d c"]], [["a b c d"], ["c d e", "d c"]]
    whole, metrics = paraphrase_metrics(["x", "y"], outputs, references), reference_metrics(outputs, references)
    assert whole.keys() - metrics.keys() == {"ibleu", "copy_bleu", "copy_ibleu"} and whole.items() >= metrics.items()
    with pytest.raises(ValueError, match="2 lists of outputs and 1 lists of references"):
        reference_metrics(outputs, references[:1])


def test_paraphrase_metrics():
    sources = ["how far is the moon from here", "who wrote this long book"]
    references = [["what is the distance to the moon"], ["who is the author of this long book", "this long book is by whom"]]
    outputs = [["what is the distance to the moon", "how far is the moon from here"], [references[1][1], references[1][0]]]
    metrics = paraphrase_metrics(sources, outputs, references)
    assert metrics["best_bleu"] == pytest.approx(100) and metrics["best_chrf"] == pytest.approx(100)
    expected = [bleu([texts[k] for texts in outputs], references) for k in range(2)]
    assert metrics["bleu"] == pytest.approx(sum(expected) / 2)
    against_source = [bleu([texts[k] for texts in outputs], [[source] for source in sources]) for k in range(2)]
    assert metrics["ibleu"] == pytest.approx(0.8 * metrics["bleu"] - 0.2 * sum(against_source) / 2)
    # Copying is what every figure must be read beside: full marks against itself cost it 20 of iBLEU.
    assert metrics["copy_bleu"] == pytest.approx(bleu(sources, references))
    assert metrics["copy_ibleu"] == pytest.approx(0.8 * metrics["copy_bleu"] - 20)


def test_ter_counts_edits_by_words():
    """A column's TER is its edits by its references' words; the best output of a source is the one with the fewest edits."""
    references = [["a b c d"], ["the cat sat", "a cat was sitting there"]]
    # The first outputs take 1 substitution of 4 words, and 1 insertion to the nearer reference of on average 4 words; the second
    # ones nothing, whatever the case, and 1 shift of a block and 2 words too many.
    outputs = [["a b c x", "A B c d"], ["the cat", "sat the cat right there"]]
    metrics = paraphrase_metrics(["s", "s"], outputs, references)
    assert metrics["ter"] == pytest.approx((100 * 2 / 8 + 100 * 3 / 8) / 2)
    assert metrics["best_ter"] == pytest.approx(100 * 1 / 8)
    streams = [["a b c d", "the cat sat"], [None, "a cat was sitting there"]]
    columns = [TER().corpus_score(list(column), streams).score for column in zip(*outputs)]
    assert metrics["ter"] == pytest.approx(sum(columns) / 2)
    # An empty output has every word of the reference missing.
    assert paraphrase_metrics(["s"], [["", ""]], [["a b"]])["ter"] == pytest.approx(100)


def test_ragged_outputs_are_refused():
    with pytest.raises(ValueError, match="lists of different lengths"):
        paraphrase_metrics(["a", "b"], [["a"], ["b", "c"]], [["a"], ["b"]])
    with pytest.raises(ValueError, match="1 sources, 2 lists of outputs"):
        paraphrase_metrics(["a"], [["a"], ["b"]], [["a"], ["b"]])


def test_what_is_no_list_of_texts_is_refused():
    """The letters of a text would be texts too."""
    outputs, references = [["a b", "c"], ["d", "e f"]], [["a b"], ["d e"]]
    bad = [
        (lambda: paraphrase_metrics(["s", "t"], outputs, ["a b", "d e"]), "`references` has no list for the sources 0, 1 "),
        (lambda: paraphrase_metrics(["s", "t"], ["ab", "cd"], references), "`outputs` has no list for the sources 0, 1 "),
        (lambda: paraphrase_metrics("st", outputs, references), "`sources` is the text 'st'"),
        (lambda: paraphrase_metrics(["s", None], outputs, references), "`sources` has None for row 1 "),
        (lambda: reference_metrics(outputs, [["a b"], []]), "`references` has none for the sources 1 "),
        (lambda: reference_metrics([[], []], references), "`outputs` has none for the sources 0, 1 "),
        (lambda: reference_metrics([["a", None], ["b", "c"]], references), "`outputs` has None for source 0 "),
        (lambda: reference_metrics(outputs, [["a b"], [3]]), "`references` has 3 for source 1 "),
        (lambda: bleu(["a b", "c"], [["a b"]]), "2 `hypotheses` and 1 lists of `references`"),
        (lambda: bleu(["a b"], ["a b"]), "`references` has no list for the rows 0 "),
        (lambda: bleu("a b", [["a b"]] * 3), "`hypotheses` is the text 'a b'"),
        (lambda: bleu([], []), "0 `hypotheses` and 0 lists"),
        (lambda: chrf(["a b"], [[]]), "`references` has none for the rows 0 "),
        (lambda: distinct("a b", 1), "`texts` is the text 'a b'"),
        (lambda: distinct(["a b"], 0), "`n` is 0"),
        (lambda: self_bleu([["a b"]]), "`outputs` must be lists of two or more texts"),
        (lambda: self_bleu(["a b"]), "`outputs` must be lists of two or more texts"),
        (lambda: self_bleu([]), "`outputs` must be lists of two or more texts"),
    ]
    for call, message in bad:
        with pytest.raises(ValueError, match=message):
            call()
    assert self_bleu([["a b c d", "a b c d"], ["x", "y", "z"]]) == pytest.approx(40)


def test_the_evaluate_metric_gives_the_same_figures(tmp_path):
    sources, outputs, references = ["how far is it", "who is he"], [["a b", "c d"], ["e", "f"]], [["a b c"], ["e", "g h"]]
    metric = ParaphraseMetric(cache_dir=str(tmp_path))
    assert metric.compute(predictions=outputs, references=references, sources=sources) == paraphrase_metrics(
        sources, outputs, references
    )


CHINESE = ["小明在市场买了苹果", "在市场小明买了苹果呢", "在市场小明买了苹果吧", "老王老王老王老王"]


def test_a_tokenizer_splits_texts_without_spaces(caplog):
    source, reference, near, nonsense = CHINESE
    scores = [
        paraphrase_metrics([source], [[output] * 2], [[reference]], tokenize="zh") for output in (reference, near, nonsense, "")
    ]
    bleus = [score["bleu"] for score in scores]
    # Nine of ten words, eight of nine pairs, seven of eight triples, six of seven quadruples.
    exact = 100 * (9 / 10 * 8 / 9 * 7 / 8 * 6 / 7) ** 0.25
    assert bleus == [pytest.approx(100), pytest.approx(exact), pytest.approx(0, abs=1), 0]
    assert scores[1]["ter"] == pytest.approx(10) and scores[0]["ter"] == 0
    assert scores[0]["distinct_1"] == pytest.approx(10 / 20) and scores[2]["distinct_1"] == pytest.approx(2 / 16)
    assert scores[0]["distinct_2"] == pytest.approx(9 / 18)
    assert not caplog.records


def test_dialogue_metrics_take_the_same_tokenizer():
    _, reference, near, nonsense = CHINESE
    figures = [dialog_metrics([[reply]], [[reference]], tokenize="char") for reply in (near, nonsense)]
    assert figures[0]["bleu_1_precision"] > 0.8 > 0.1 > figures[1]["bleu_1_precision"]
    assert figures[1]["distinct_1_intra"] == pytest.approx(2 / 8)


@pytest.mark.parametrize(
    "texts",
    [CHINESE, ["これは本です", "私は学生です"], ["ｺﾝﾋﾟｭｰﾀｰｦﾂｶｲﾏｽ"], ["ฉันรักภาษาไทยมาก", "สวัสดีครับทุกคน"], ["a cat sat"] * 20 + CHINESE],
    ids=["Chinese", "Japanese", "narrow Japanese", "Thai", "mixed"],
)
def test_texts_without_spaces_give_a_warning(texts, caplog):
    reference_metrics([[text] for text in texts], [[text] for text in texts])
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1 and "no spaces between words" in messages[0] and "--metrics_tokenizer" in messages[0]
    caplog.clear()
    reference_metrics([[text] for text in texts], [[text] for text in texts], tokenize="char")
    assert not caplog.records


@pytest.mark.parametrize(
    "texts",
    [["나는 학생 입니다", "한국어를 공부합니다"], ["小明 在 市场 买 了 苹果"], ["a cat", ""], ["a cat sat"] * 200 + ["北京大学"]],
    ids=str,
)
def test_texts_with_spaces_give_none(texts, caplog):
    bleu(texts, [[text or "a"] for text in texts])
    distinct(texts, 1)
    assert not caplog.records


def test_perplexity_per_word_counts_the_tokenizer_s_words(vae_processor, caplog):
    evaluator = LikelihoodEvaluator(make_model("vae"), vae_processor, CHINESE, CHINESE)
    counts = count_tokens_and_words(evaluator)
    assert counts["words"] == 2 * len(CHINESE) and "no spaces" in caplog.text
    assert count_tokens_and_words(evaluator, "zh")["words"] == sum(map(len, CHINESE)) + len(CHINESE)


def test_a_tokenizer_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"'nope'; choose one of sacrebleu's: .*zh"):
        reference_metrics([["a"]], [["a"]], tokenize="nope")
    with pytest.raises(ValueError, match="'nope'"):
        dialog_metrics([["a"]], [["a"]], tokenize="nope")


def test_the_share_of_unknown_tokens_is_measured(vae_processor, caplog):
    model, unknown = resized(make_model("vae"), vae_processor), vae_processor.tokenizer.unk_token
    texts = [f"the cat {unknown}", f"{unknown} mat"]
    tokens = sum(len(vae_processor.tokenizer.tokenize(text)) for text in texts)
    assert evaluate_vae(LikelihoodEvaluator(model, vae_processor, texts, texts), 2)["unknown_tokens"] == pytest.approx(2 / tokens)
    assert f"{200 / tokens:.1f} % of the texts' tokens" in caplog.text
    caplog.clear()
    known = ["the cat", "the mat"]
    assert evaluate_vae(LikelihoodEvaluator(model, vae_processor, known, known), 2)["unknown_tokens"] == 0
    assert not caplog.records
    # A vocabulary of bytes calls its EOS unknown, and knows everything.
    of_bytes = copy.deepcopy(vae_processor.tokenizer)
    of_bytes.unk_token = of_bytes.eos_token
    assert unknown_share(of_bytes, texts) == 0
