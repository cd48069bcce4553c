"""Noise in the tokens that q reads."""

import pytest
import torch
from transformers import TrainerCallback

from helpers import make_model, resized, technique_trainer
from hf_vae.training import (
    DenoisingCallback,
    NoiseVocabulary,
    TokenNoise,
)

PAD, START, END, BLANK, FIRST_WORD, VOCAB = 0, 1, 2, 3, 4, 60


VOCABULARY = NoiseVocabulary(torch.tensor([PAD, START, END, BLANK]), torch.arange(FIRST_WORD, VOCAB), PAD, BLANK)


def pairs(rows: int = 400) -> dict[str, torch.Tensor]:
    """[start] x [end] y [end] padding, all words of a row different, with x of type 0 and y of type 1."""
    torch.manual_seed(0)
    words = torch.stack([torch.randperm(VOCAB - FIRST_WORD)[:12] + FIRST_WORD for _ in range(rows)])
    one = torch.ones(rows, 1, dtype=torch.long)
    ids = torch.cat([START * one, words[:, :7], END * one, words[:, 7:], END * one, PAD * one, PAD * one], dim=1)
    types = torch.tensor([0] * 9 + [1] * 6 + [0] * 2).expand(rows, -1)
    return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "token_type_ids": types}


def test_shuffling_moves_no_word_far_nor_out_of_its_text():
    given = pairs()
    noised = TokenNoise(shuffle=2)(VOCABULARY, **given)
    assert not torch.equal(noised["input_ids"], given["input_ids"])
    special = torch.isin(given["input_ids"], VOCABULARY.special_ids)
    assert torch.equal(noised["input_ids"][special], given["input_ids"][special])
    for name in ("attention_mask", "token_type_ids"):
        assert torch.equal(noised[name], given[name])
    furthest = 0
    for row, before in zip(noised["input_ids"], given["input_ids"]):
        for text in (slice(1, 8), slice(9, 14)):
            places = [row[text].tolist().index(word) for word in before[text].tolist()]
            furthest = max(furthest, *(abs(place - index) for index, place in enumerate(places)))
    assert furthest == 2


def test_dropping_keeps_order_mask_and_types_together():
    given = pairs()
    noised = TokenNoise(drop=0.4)(VOCABULARY, **given)
    assert noised["input_ids"].shape == given["input_ids"].shape
    kept = 0
    for row in range(len(given["input_ids"])):
        before = dict(zip(given["input_ids"][row].tolist(), given["token_type_ids"][row].tolist()))
        length = int(noised["attention_mask"][row].sum())
        after, types = noised["input_ids"][row].tolist(), noised["token_type_ids"][row].tolist()
        # What is left stands in front, in the old order and with its own type; padding follows.
        assert noised["attention_mask"][row].tolist() == [1] * length + [0] * (17 - length)
        assert after[length:] == [PAD] * (17 - length) and types[length:] == [0] * (17 - length)
        words = [word for word in after[:length] if word >= FIRST_WORD]
        assert words == [word for word in before if word in words]
        assert all(types[index] == before[word] for index, word in enumerate(after[:length]) if word >= FIRST_WORD)
        assert [word for word in after[:length] if word < FIRST_WORD] == [START, END, END]
        kept += len(words)
    # 4800 words: three standard deviations.
    assert kept / (400 * 12) == pytest.approx(0.6, abs=0.022)


def test_a_row_with_words_keeps_one():
    given = pairs()
    noised = TokenNoise(drop=1.0)(VOCABULARY, **given)
    words = noised["input_ids"] >= FIRST_WORD
    assert (words.sum(-1) == 1).all()
    # Any of the twelve, not always the same.
    places = {given["input_ids"][row].tolist().index(noised["input_ids"][row][words[row]].item()) for row in range(400)}
    assert len(places) == 12
    bare = torch.tensor([[START, END, PAD]])
    assert torch.equal(TokenNoise(drop=1.0)(VOCABULARY, bare)["input_ids"], bare)


def test_blanks_and_substitutes_stand_in_place_of_words_at_their_rate():
    given = pairs()
    words = given["input_ids"] >= FIRST_WORD
    blanked = TokenNoise(blank=0.3)(VOCABULARY, **given)["input_ids"]
    assert ((blanked == given["input_ids"]) | (words & (blanked == BLANK))).all()
    assert (blanked == BLANK).sum().item() / words.sum().item() == pytest.approx(0.3, abs=0.02)
    substituted = TokenNoise(substitute=1.0)(VOCABULARY, **given)["input_ids"]
    assert torch.equal(substituted[~words], given["input_ids"][~words])
    assert set(substituted[words].tolist()) == set(range(FIRST_WORD, VOCAB))


def test_noise_follows_torch_s_generator():
    noise, given = TokenNoise(drop=0.2, blank=0.2, substitute=0.2, shuffle=3), pairs(20)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(noise(VOCABULARY, **given)["input_ids"])
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_what_a_tokenizer_calls_special(tokenizers):
    _, tokenizer = tokenizers
    vocabulary = NoiseVocabulary.from_tokenizer(tokenizer)
    special = {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.sep_token_id}
    # An unknown word is a word, which noise may take away, but nothing to substitute for one.
    assert set(vocabulary.special_ids.tolist()) == special
    assert set(vocabulary.word_ids.tolist()) == set(range(len(tokenizer))) - special - {tokenizer.unk_token_id}
    assert vocabulary.blank_id == tokenizer.unk_token_id and vocabulary.pad_id == tokenizer.pad_token_id


def test_bad_noise_is_named():
    with pytest.raises(ValueError, match=r"`drop` is 1\.5"):
        TokenNoise(drop=1.5)
    with pytest.raises(ValueError, match="`shuffle` is -1"):
        TokenNoise(shuffle=-1)
    with pytest.raises(ValueError, match="No noise at all"):
        TokenNoise()
    with pytest.raises(ValueError, match="has neither"):
        TokenNoise(blank=0.1)(NoiseVocabulary(torch.tensor([0]), torch.tensor([1]), 0), torch.tensor([[1]]))


@pytest.mark.parametrize("variant", ["vae", "paraphrase-eq"])
def test_only_q_reads_noise_and_only_in_training(variant, vae_processor, processor, tmp_path):
    processor = vae_processor if variant == "vae" else processor
    model = resized(make_model(variant), processor)
    text = "input_ids" if variant == "vae" else "posterior_input_ids"
    seen = {True: [], False: []}

    def record(module, arguments, inputs, output):
        seen[module.training].append({name: tensor.clone() for name, tensor in inputs.items() if name in clean})

    noise = DenoisingCallback(TokenNoise(blank=1.0), processor.encoder_tokenizer)
    trainer = technique_trainer(
        processor, tmp_path, [noise], model, eval_strategy="steps", eval_steps=1, per_device_train_batch_size=8,
        per_device_eval_batch_size=8, max_steps=2,
    )  # fmt: skip
    clean = trainer.data_collator([dict(row) for row in trainer.train_dataset])
    model.register_forward_hook(record, with_kwargs=True)
    trainer.train()
    model(**clean)
    assert len(seen[True]) == 2 and len(seen[False]) == 3
    for batch in seen[False]:
        assert torch.equal(batch[text], clean[text])
    blank = processor.encoder_tokenizer.unk_token_id
    for batch in seen[True]:
        assert (batch[text] == blank).any(-1).all()
        for name in set(clean) - {text}:
            # Everything else is as it was, in the order of this epoch.
            assert sorted(batch[name].tolist()) == sorted(clean[name].tolist()), name


def test_a_training_after_an_interrupted_one_noises_each_text_once(vae_processor, tmp_path, monkeypatch):
    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise RuntimeError("interrupted")

    model = resized(make_model("vae"), vae_processor)
    applied, add_noise = [], TokenNoise.__call__

    def counted(noise, *text, **rows):
        applied.append(noise.drop)
        return add_noise(noise, *text, **rows)

    monkeypatch.setattr(TokenNoise, "__call__", counted)

    def trainer(*chances):
        noises = [DenoisingCallback(TokenNoise(drop=chance), vae_processor.encoder_tokenizer) for chance in chances]
        return technique_trainer(vae_processor, tmp_path, noises, model)

    interrupted = trainer(0.1)
    interrupted.add_callback(Interrupt())
    for _ in range(2):
        with pytest.raises(RuntimeError, match="interrupted"):
            interrupted.train()
    # Two callbacks of one training are no leftovers of one another.
    trainer(0.2, 0.3).train()
    assert applied == [0.1, 0.1, 0.2, 0.3]
