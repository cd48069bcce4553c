"""Text to tensors and back."""

import copy
import logging
import threading

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import AutoProcessor, ByT5Tokenizer, PreTrainedTokenizerFast

from helpers import make_model
from hf_vae import CVAEProcessor, DialogCVAEProcessor, ParaphraseVAEProcessor, VAEDataCollator, VAEProcessor
from hf_vae.processing_vae import load_tokenizer
from hf_vae.unknown_words import unknown_share

TEXTS = ["the cat sat on the mat", "a dog"]
TARGETS = ["the mat", "a dog ran in the park"]


def test_a_conditional_processor_gives_what_generate_needs(processor):
    inputs = processor(TEXTS)
    assert set(inputs) == {"input_ids", "attention_mask", "prompt_input_ids", "prompt_attention_mask"}
    # The prompt is padded on the left, so that the start token follows it directly; the encoder's input on the right.
    assert inputs["prompt_attention_mask"][:, -1].tolist() == [1, 1] and inputs["prompt_attention_mask"][1, 0] == 0
    assert inputs["attention_mask"][:, 0].tolist() == [1, 1] and inputs["attention_mask"][1, -1] == 0
    cross = ParaphraseVAEProcessor(processor.tokenizer, processor.encoder_tokenizer, source_conditioning="cross_attention")
    assert set(cross(TEXTS)) == {"input_ids", "attention_mask"}


def test_targets_add_labels_and_the_pair(processor):
    features = processor(TEXTS, TARGETS)
    eos = processor.tokenizer.eos_token_id
    for row, target in zip(features["labels"], TARGETS, strict=True):
        real = row[row != -100].tolist()
        assert real == [*processor.tokenizer(target)["input_ids"], eos]
    pair = processor.encoder_tokenizer(TEXTS[0], TARGETS[0])
    assert features["posterior_input_ids"][0, : len(pair["input_ids"])].tolist() == pair["input_ids"]
    assert set(features["posterior_token_type_ids"][0].tolist()) == {0, 1}


def test_a_vae_processor_has_no_prompt_and_no_pair(vae_processor):
    assert set(vae_processor(TEXTS, TEXTS)) >= {"input_ids", "attention_mask", "labels"}
    assert not any(name.startswith(("prompt", "posterior")) for name in vae_processor(TEXTS, TEXTS))


def test_words_never_seen_make_the_round_trip(processor):
    text = "zyzzyva naïve 漢字 🙂"
    ids = processor([text])["prompt_input_ids"]
    assert processor.batch_decode(ids, skip_special_tokens=True) == [text]


@pytest.mark.parametrize("return_tensors, text", [("pt", TEXTS[0]), ("pt", TEXTS), (None, TEXTS)])
def test_one_text_and_several_alone_or_as_lists(processor, return_tensors, text):
    inputs = processor(text, return_tensors=return_tensors)
    assert len(inputs["input_ids"]) == (1 if isinstance(text, str) else 2)


def test_what_comes_out_of_the_processor_goes_into_the_model(processor):
    model = make_model("paraphrase-prompt")
    model.encoder.resize_token_embeddings(len(processor.encoder_tokenizer))
    model.decoder.lm.resize_token_embeddings(len(processor.tokenizer))
    assert model(**processor(TEXTS, TARGETS)).loss.isfinite()
    sequences = model.generate(**processor(TEXTS), num_return_sequences=3, max_new_tokens=4)
    assert len(processor.batch_decode(sequences, skip_special_tokens=True)) == 6


def test_collator_equals_the_processor_on_a_batch(processor):
    rows = [dict(processor(x, y, return_tensors=None)) for x, y in zip(TEXTS, TARGETS)]
    batch, direct = VAEDataCollator(processor)(rows), processor(TEXTS, TARGETS)
    assert batch.keys() == direct.keys()
    assert all(torch.equal(batch[name], direct[name]) for name in direct)
    assert VAEDataCollator(processor, pad_to_multiple_of=8)(rows)["labels"].shape[1] % 8 == 0


def test_truncation_keeps_the_eos_and_the_models_limits(processor):
    features = processor([TEXTS[0]], [TARGETS[1]], max_length=3, max_target_length=3)
    assert features["input_ids"].shape[1] == features["prompt_input_ids"].shape[1] == 3
    assert features["labels"].shape[1] == 3 and features["labels"][0, -1] == processor.tokenizer.eos_token_id
    assert features["posterior_input_ids"].shape[1] <= 6
    processor.encoder_tokenizer.model_max_length = 4
    assert processor([TEXTS[0]], truncation=True)["input_ids"].shape[1] == 4
    assert processor([TEXTS[0]], max_length=3, truncation=False)["input_ids"].shape[1] > 4
    processor.encoder_tokenizer.model_max_length = 10**9


def test_threads_that_cut_at_different_lengths_have_their_own(processor, monkeypatch):
    text = "the cat sat on the mat in the park"
    tokenizer, set_options = processor.encoder_tokenizer, processor.encoder_tokenizer.set_truncation_and_padding
    results = {}

    def read(name: str, length: int) -> None:
        results[name] = processor(text, max_length=length, return_tensors=None)["input_ids"]

    first, second = (threading.Thread(target=read, args=(f"cut at {length}", length)) for length in (4, 8))

    def then_the_second_one_may_come_between(*args, **options):
        set_options(*args, **options)
        if threading.current_thread() is first and not second.ident:
            second.start()
            # It is still waiting then, and its turn comes.
            second.join(0.3)

    monkeypatch.setattr(tokenizer, "set_truncation_and_padding", then_the_second_one_may_come_between)
    first.start()
    first.join(60)
    second.join(60)
    assert {name: len(ids) for name, ids in results.items()} == {"cut at 4": 4, "cut at 8": 8}


def test_a_tokenizer_that_closes_its_texts_does_not_close_the_prompt(tokenizers):
    from tokenizers import processors

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers[0]._tokenizer, bos_token="[BOS]", eos_token="[EOS]", pad_token="[PAD]"
    )
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", tokenizer.bos_token_id), ("[EOS]", tokenizer.eos_token_id)]
    )
    inputs = ParaphraseVAEProcessor(tokenizer, tokenizers[1])(["the mat"])
    assert inputs["prompt_input_ids"][0, 0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in inputs["prompt_input_ids"]
    tokenizer._tokenizer.post_processor = processors.ByteLevel()


@pytest.mark.parametrize("kind", [VAEProcessor, ParaphraseVAEProcessor])
def test_saved_with_its_model_both_tokenizers_come_back(kind, tokenizers, tmp_path):
    processor = kind(*tokenizers)
    make_model("vae" if kind is VAEProcessor else "paraphrase-prompt").save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is kind
    for name, tensor in processor(TEXTS, TARGETS).items():
        assert torch.equal(loaded(TEXTS, TARGETS)[name], tensor)


def test_source_conditioning_is_saved(tokenizers, tmp_path):
    ParaphraseVAEProcessor(*tokenizers, source_conditioning="cross_attention").save_pretrained(tmp_path)
    assert ParaphraseVAEProcessor.from_pretrained(tmp_path).source_conditioning == "cross_attention"


def test_bad_texts_are_named(processor):
    with pytest.raises(ValueError, match=r"`text` holds no text at position\(s\) \[1\] \(found '  '\)"):
        processor(["the mat", "  "])
    with pytest.raises(ValueError, match=r"`text_target` holds no text at position\(s\) \[0\] \(found None\)"):
        processor(["the mat"], [None])
    with pytest.raises(ValueError, match="`text` is an empty list"):
        processor([])
    with pytest.raises(ValueError, match=r"no text at position\(s\) \[1, 2\] \(found 7\)"):
        processor(["the mat", 7, b"the mat"])
    with pytest.raises(ValueError, match="`text` has 1 and `text_target` 2"):
        processor(["the mat"], TARGETS)
    with pytest.raises(ValueError, match="`source_conditioning` is 'telepathy'"):
        ParaphraseVAEProcessor(processor.tokenizer, processor.encoder_tokenizer, source_conditioning="telepathy")


def test_bad_rows_are_named_before_the_model_sees_them(processor):
    row = dict(processor(TEXTS[0], TARGETS[0], return_tensors=None))
    collator = VAEDataCollator(processor)
    with pytest.raises(ValueError, match=r"`attention_mask` holds no token in row\(s\) \[1\]"):
        collator([row, {**row, "attention_mask": [0] * len(row["attention_mask"])}])
    with pytest.raises(ValueError, match=r"`labels` holds no token in row\(s\) \[0\]"):
        collator([{**row, "labels": []}, row])
    with pytest.raises(ValueError, match="Features hold colour"):
        collator([{**row, "colour": [1]}])


@pytest.mark.parametrize("family", ["GPT2", "OPT", "GPTNeoX", "Qwen2", "Gemma", "Bert", "Bart", "Llama"])
def test_a_part_saved_without_its_tokenizer_has_none(family, tmp_path):
    """transformers makes one up for most of them, which reads every text as nothing."""
    getattr(transformers, f"{family}Config")().save_pretrained(tmp_path)
    with pytest.raises((ValueError, OSError)):
        load_tokenizer(str(tmp_path))


def test_a_part_s_own_tokenizer_is_loaded(tokenizers, tmp_path):
    transformers.GPT2Config().save_pretrained(tmp_path)
    tokenizers[0].save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path))("a text").input_ids == tokenizers[0]("a text").input_ids


def test_a_tokenizer_without_padding_pads_with_eos(tokenizers):
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizers[0]._tokenizer, eos_token="[EOS]")
    assert VAEProcessor(bare, tokenizers[1]).tokenizer.pad_token == "[EOS]"
    with pytest.raises(ValueError, match="has no EOS token"):
        VAEProcessor(PreTrainedTokenizerFast(tokenizer_object=tokenizers[0]._tokenizer), tokenizers[1])
    assert bare.pad_token is None, "what was given stays as it is"


@pytest.mark.parametrize(
    "given",
    [{"source": "the mat"}, Dataset.from_dict({"text": ["the mat"]})[0], b"the mat", None, 7, np.zeros((2, 2)), torch.zeros(1, 3)],
)
def test_what_is_no_text_and_has_none_is_refused_by_its_type(processor, vae_processor, given):
    """A mapping's items are its keys, and those of a table its columns."""
    for call in (processor, vae_processor, lambda text: processor("the mat", text if text is not None else {})):
        with pytest.raises(ValueError, match=r"(?s)`text(_target)?` is .*, of type \w+; it should be a text or a list of texts"):
            call(given)
    with pytest.raises(ValueError, match=r"no text at position\(s\) \[1\]"):
        processor(["the mat", given])


def test_whatever_holds_texts_is_read_as_a_list(processor):
    expected = processor(TEXTS, TARGETS)
    column = Dataset.from_dict({"text": TEXTS})["text"]
    for several in (tuple(TEXTS), np.array(TEXTS), np.array(TEXTS, dtype=object), column, iter(TEXTS)):
        found = processor(several, tuple(TARGETS))
        assert all(torch.equal(found[name], expected[name]) for name in expected), type(several)


def test_padding_to_lengths_that_are_given(processor, vae_processor):
    lengths = {"max_length": 20, "max_target_length": 12}
    for text, target in ((TEXTS, TARGETS), (TEXTS[:1], TARGETS[:1])):
        short, batch = processor(text, target), processor(text, target, padding="max_length", **lengths)
        widths = {"input_ids": 20, "prompt_input_ids": 20, "posterior_input_ids": 32, "labels": 12}
        assert {name: batch[name].shape[1] for name in widths} == widths
        for name in widths:
            filler = {"labels": -100, "prompt_input_ids": processor.tokenizer.pad_token_id}
            padding = torch.full((len(text), widths[name] - short[name].shape[1]), filler.get(name, 0))
            if name in ("input_ids", "posterior_input_ids"):
                padding[:] = processor.encoder_tokenizer.pad_token_id
            parts = (padding, short[name]) if name.startswith("prompt") else (short[name], padding)
            assert torch.equal(batch[name], torch.cat(parts, dim=1)), name
    assert vae_processor(TEXTS[0], padding="max_length", max_length=9)["input_ids"].shape == (1, 9)
    with pytest.raises(ValueError, match="`padding='max_length'` pads to `max_length`, and with targets to `max_target_length`"):
        vae_processor(TEXTS, TARGETS, padding="max_length", max_length=9)
    with pytest.raises(ValueError, match="`return_tensors=None` gives unpadded lists"):
        vae_processor(TEXTS, padding="max_length", max_length=9, return_tensors=None)


def test_the_other_paddings_and_arrays(processor):
    expected = processor(TEXTS, TARGETS)
    longest, arrays = processor(TEXTS, TARGETS, padding="longest"), processor(TEXTS, TARGETS, return_tensors="np")
    for name in expected:
        assert torch.equal(longest[name], expected[name])
        assert isinstance(arrays[name], np.ndarray) and (arrays[name] == expected[name].numpy()).all()
    alone = processor(TEXTS[0], TARGETS[0], padding=False)
    assert all(torch.equal(alone[name], tensor) for name, tensor in processor(TEXTS[0], TARGETS[0]).items())
    with pytest.raises(ValueError, match="padding"):
        processor(TEXTS, TARGETS, padding=False)
    rows = [dict(processor(x, y, return_tensors=None)) for x, y in zip(TEXTS, TARGETS)]
    lists = processor.pad(rows, return_tensors=None)
    assert all(lists[name] == expected[name].tolist() for name in expected)


def test_one_tokenizer_for_both(tokenizers, tmp_path):
    tokenizer = copy.deepcopy(tokenizers[1])
    tokenizer.eos_token = "[EOS]"
    processor = VAEProcessor(tokenizer, tokenizer)
    assert processor.tokenizer is tokenizer and processor.encoder_tokenizer is not tokenizer
    processor.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, apart = AutoProcessor.from_pretrained(tmp_path), VAEProcessor(tokenizer, copy.deepcopy(tokenizer))
    for name, tensor in apart(TEXTS, TARGETS).items():
        assert torch.equal(processor(TEXTS, TARGETS)[name], tensor) and torch.equal(loaded(TEXTS, TARGETS)[name], tensor)
    # Another processor of the same object, as of another model, is none the worse.
    other = ParaphraseVAEProcessor(tokenizer, tokenizer)
    other.save_pretrained(tmp_path / "other")
    processor.save_pretrained(tmp_path)
    assert AutoProcessor.from_pretrained(tmp_path / "other")(TEXTS).keys() == other(TEXTS).keys()


def test_an_eos_that_is_written_in_a_target_is_told_of(processor, caplog):
    with caplog.at_level(logging.WARNING):
        processor(TEXTS, TARGETS)
        assert not caplog.records
        eos = processor.tokenizer.eos_token
        ids = processor(["the mat"], [f"the {eos} mat"])["labels"][0].tolist()
    assert ids.count(processor.tokenizer.eos_token_id) == 2
    assert f"A target holds {eos!r}" in caplog.text


@pytest.mark.parametrize("length", [0, -1, 1, 2, 2.5, True, "5"])
def test_a_length_leaves_room_for_the_text(processor, vae_processor, length):
    """Tokenizers read texts whole if a length has no room for their special tokens."""
    for each in (processor, vae_processor):
        with pytest.raises(ValueError, match="`max_length` is "):
            each("the cat", max_length=length)
        assert each("the cat sat on the mat", max_length=3)["input_ids"].shape[1] == 3
    with pytest.raises(ValueError, match="`max_target_length` is 0"):
        processor("the cat", "a dog", max_target_length=0)
    with pytest.raises(ValueError, match="`padding` is 'most'; choose one of True, False, 'longest'"):
        processor("the cat", padding="most")


@pytest.mark.parametrize("given", [{"the cat"}, frozenset(["the cat"]), ["a\ud83d"], "\udc00"])
def test_texts_have_an_order_and_characters(processor, given):
    with pytest.raises(ValueError, match=r"`text` (is|holds)"):
        processor(given)


def test_of_a_long_target_the_beginning_is_kept(processor, tokenizers):
    whole = processor("the cat", "the cat sat on the mat")["labels"][0].tolist()
    tokenizer = copy.deepcopy(tokenizers[0])
    tokenizer.truncation_side = "left"
    left = ParaphraseVAEProcessor(tokenizer, tokenizers[1])
    expected = [*whole[:3], whole[-1]]
    for each in (processor, left):
        assert each("the cat", "the cat sat on the mat", max_target_length=4)["labels"][0].tolist() == expected
    tokenizer.model_max_length = 4
    assert left("the cat", "the cat sat on the mat", truncation=True)["labels"][0].tolist() == expected


WORDS = [f"w{number}" for number in range(80)]


def of_words(template: bool = True, side: str = "right") -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, with the template of BERT or, as GPT-2's, with none."""
    special = ["[PAD]", "[CLS]", "[SEP]"]
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate([*special, *WORDS])}, unk_token="[PAD]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if template:
        words.post_processor = TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 1), ("[SEP]", 2)])
    names = {"pad_token": "[PAD]", "sep_token": "[SEP]", "eos_token": "[SEP]"} | ({"cls_token": "[CLS]"} if template else {})
    return PreTrainedTokenizerFast(tokenizer_object=words, truncation_side=side, **names)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("template", [True, False])
@pytest.mark.parametrize(
    "source, target, cut", [(40, 3, (20, 10)), (40, 30, (20, 10)), (40, 30, (10, 20)), (4, 30, (20, 10)), (4, 3, (20, 10))]
)
def test_q_reads_of_x_what_p_reads_and_of_y_the_beginning_that_is_scored(side, template, source, target, cut):
    processor = ParaphraseVAEProcessor(of_words(), of_words(template, side))
    text, text_target = " ".join(WORDS[:source]), " ".join(WORDS[40 : 40 + target])
    row = processor(text, text_target, max_length=cut[0], max_target_length=cut[1], return_tensors=None)
    pair, of_target, read = row["posterior_input_ids"], row["posterior_token_type_ids"], row["input_ids"]
    words = processor.encoder_tokenizer.convert_ids_to_tokens
    read_of_y = [word for word, part in zip(words(pair), of_target) if part and word != "[SEP]"]
    assert read_of_y == WORDS[40 : 40 + len(read_of_y)]
    scored = [word for word in processor.tokenizer.convert_ids_to_tokens(row["labels"]) if word != "[SEP]"]
    assert scored == read_of_y[: len(scored)] and scored
    assert words(pair)[: len(read)] == words(read) if template else words(pair)[: len(read) + 1] == [*words(read), "[SEP]"]
    assert len(pair) <= sum(cut)
    if source + target < 20:
        # What is short enough stays as it is.
        assert len(read_of_y) == target and len(pair) == source + target + (3 if template else 1)


@pytest.mark.parametrize("longer", ["x", "y", "both"])
def test_without_lengths_x_and_y_share_what_the_encoder_holds(longer):
    encoder_tokenizer = of_words()
    encoder_tokenizer.model_max_length = 23
    processor = ParaphraseVAEProcessor(of_words(), encoder_tokenizer)
    lengths = {"x": (40, 4), "y": (4, 40), "both": (40, 40)}[longer]
    text, text_target = (" ".join(WORDS[:length]) for length in lengths)
    row = processor(text, text_target, truncation=True, return_tensors=None)
    words = encoder_tokenizer.convert_ids_to_tokens(row["posterior_input_ids"], skip_special_tokens=True)
    expected = {"x": (16, 4), "y": (4, 16), "both": (10, 10)}[longer]
    assert words == [*WORDS[: expected[0]], *WORDS[: expected[1]]] and len(row["posterior_input_ids"]) == 23


def test_a_tokenizer_in_python_says_which_tokens_are_the_target_s_too():
    slow = ByT5Tokenizer()
    row = ParaphraseVAEProcessor(of_words(), slow)("abc" * 9, "w1", max_length=11, max_target_length=9, return_tensors=None)
    read = [token for token, part in zip(row["posterior_input_ids"], row["posterior_token_type_ids"]) if part]
    assert slow.decode(read, skip_special_tokens=True) == "w1" and len(row["posterior_input_ids"]) == 14


def test_of_a_long_sentence_q_reads_the_beginning_that_is_scored():
    encoder_tokenizer = of_words(side="left")
    row = VAEProcessor(of_words(), encoder_tokenizer)(
        " ".join(WORDS), " ".join(WORDS), max_length=12, max_target_length=11, return_tensors=None
    )
    assert encoder_tokenizer.convert_ids_to_tokens(row["input_ids"]) == ["[CLS]", *WORDS[:10], "[SEP]"]
    assert encoder_tokenizer.convert_ids_to_tokens(row["labels"])[:-1] == WORDS[:10]
    assert encoder_tokenizer.truncation_side == "left"


def test_tokenizers_that_cannot_serve_are_named(tokenizers):
    without = PreTrainedTokenizerFast(tokenizer_object=copy.deepcopy(tokenizers[0].backend_tokenizer))
    with pytest.raises(ValueError, match="`encoder_tokenizer` has no padding token, and no EOS token to pad with"):
        VAEProcessor(tokenizers[0], without)
    with pytest.raises(ValueError, match="`encoder_tokenizer` is 'bert'; load a tokenizer"):
        VAEProcessor(tokenizers[0], "bert")


def test_words_that_a_tokenizer_reads_as_nothing_are_unknown():
    """Tokenizers that do not name their unknown token, or have none."""
    vocabulary = {"[UNK]": 0, "a": 1, "b": 2, "[EOS]": 3}
    unnamed = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    none = Tokenizer(models.BPE(vocabulary, []))
    for each, is_read in ((unnamed, [1, 0, 2, 0]), (none, [1, 2])):
        each.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=each, eos_token="[EOS]")
        assert tokenizer("a x b yz")["input_ids"] == is_read
        assert unknown_share(tokenizer, ["a x", "b yz"]) == 0.5
        assert unknown_share(tokenizer, ["a b"]) == 0.0 and unknown_share(tokenizer, []) == 0.0


def test_arrow_arrays_hold_texts(processor):
    pyarrow = pytest.importorskip("pyarrow")
    texts = ["the cat", "a dog"]
    for given in (pyarrow.array(texts), pyarrow.chunked_array([texts[:1], texts[1:]])):
        assert torch.equal(processor(given)["input_ids"], processor(texts)["input_ids"])


def test_which_tokens_of_the_pair_are_the_target_s_whatever_the_tokenizer(processor):
    """With a template of pairs that names no types, and without any template."""
    tokenizer = processor.encoder_tokenizer
    typed = processor(TEXTS, TARGETS)
    untyped = copy.deepcopy(tokenizer)
    untyped.model_input_names = ["input_ids", "attention_mask"]
    features = ParaphraseVAEProcessor(processor.tokenizer, untyped)(TEXTS, TARGETS)
    # BERT counts the separator at the end to the target.
    ours, its = features["posterior_token_type_ids"], typed["posterior_token_type_ids"]
    assert (ours <= its).all() and (its - ours).sum(-1).tolist() == [1, 1]
    assert tokenizer.decode(features["posterior_input_ids"][1][ours[1] == 1]).strip() == TARGETS[1]
    bare = processor.tokenizer
    assert not bare.num_special_tokens_to_add(pair=True)
    features = ParaphraseVAEProcessor(processor.tokenizer, bare)(TEXTS, TARGETS)
    of_target = features["posterior_token_type_ids"][1] == 1
    assert bare.decode(features["posterior_input_ids"][1][of_target]).strip() == TARGETS[1]


@pytest.mark.parametrize("kind", [VAEProcessor, CVAEProcessor, ParaphraseVAEProcessor, DialogCVAEProcessor])
def test_a_processor_is_made_of_the_names_that_make_the_model(kind, tokenizers, tmp_path):
    """In the same order: the encoder's first."""
    decoder, encoder = tokenizers
    encoder.save_pretrained(tmp_path / "encoder")
    decoder.save_pretrained(tmp_path / "decoder")
    options = {} if kind is VAEProcessor else {"source_conditioning": "cross_attention"}
    made = kind.from_encoder_decoder_pretrained(tmp_path / "encoder", tmp_path / "decoder", **options)
    text = "the cat"
    for own, given in ((made.tokenizer, decoder), (made.encoder_tokenizer, encoder)):
        assert own(text)["input_ids"] == given(text)["input_ids"]
    assert decoder(text)["input_ids"] != encoder(text)["input_ids"]
    assert kind is VAEProcessor or made.source_conditioning == "cross_attention"
