"""Blanks filled in, against exact enumeration."""

import copy
import math
from itertools import pairwise, permutations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast

from helpers import posterior_means
from hf_vae import (
    VAEModel,
    VAEProcessor,
)
from hf_vae.latent_space import (
    encode_texts,
    imputation,
    impute,
)
from hf_vae.latent_space.imputation import UNKNOWN, open_blanks


def log_likelihood(model, processor, tokens, latents):
    labels = torch.tensor([[*tokens, processor.tokenizer.eos_token_id]])
    return -model(latents=latents, labels=labels).reconstruction_loss.item()


def test_blanks_leave_every_other_token_as_it_is(vae_processor):
    tokenizer = vae_processor.tokenizer

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    templates, opened = open_blanks(vae_processor, ["the ____ sat on ____, the mat", "____ cat ____"], "____", 2)
    # The comma follows the blank without a space, as it would follow a word.
    comma = tokenizer.convert_tokens_to_ids(",")
    first = [*ids("the"), UNKNOWN, UNKNOWN, *ids("sat on"), UNKNOWN, UNKNOWN, comma, *ids("the mat"), tokenizer.eos_token_id]
    second = [UNKNOWN, UNKNOWN, *ids("cat"), UNKNOWN, UNKNOWN, tokenizer.eos_token_id]
    assert templates[0].tolist() == first
    assert templates[1].tolist() == second + [tokenizer.pad_token_id] * (len(first) - len(second))
    assert opened[1] == "[UNK] [UNK] cat [UNK] [UNK]"
    unknown = vae_processor.encoder_tokenizer.unk_token_id
    assert vae_processor(opened[1])["input_ids"][0].tolist().count(unknown) == 4


@pytest.mark.parametrize("kind", ["words", "wordpiece", "bytes", "metaspace"])
def test_blanks_are_found_in_any_kind_of_vocabulary(kind, vae_processor):
    """Around a blank stand the tokens that stand around a word there; PAD and UNK may be EOS."""
    corpus = ["the cat sat on the mat, and a dog ran.", "a cat ran", "dog, cat"] * 3
    options = {"special_tokens": ["<end>", "<odd>"], "show_progress": False}
    tokenizer, trainer = {
        "words": (Tokenizer(models.WordLevel(unk_token="<odd>")), trainers.WordLevelTrainer(**options)),
        "wordpiece": (Tokenizer(models.WordPiece(unk_token="<odd>")), trainers.WordPieceTrainer(vocab_size=90, **options)),
        "bytes": (Tokenizer(models.BPE()), trainers.BpeTrainer(vocab_size=90, **options)),
        "metaspace": (Tokenizer(models.BPE()), trainers.BpeTrainer(vocab_size=90, **options)),
    }[kind]
    tokenizer.pre_tokenizer = {
        "bytes": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "metaspace": pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]),
    }.get(kind, pre_tokenizers.Whitespace())
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", unk_token="<odd>")
    processor = VAEProcessor(fast, vae_processor.encoder_tokenizer)
    for before, after in (("the ", " sat on"), ("a dog ", ", and a cat"), ("", " ran"), ("the mat ", "")):
        template = open_blanks(processor, f"{before}____{after}", "____", 1)[0][0].tolist()
        whole = fast(f"{before}cat{after}", add_special_tokens=False)["input_ids"]
        assert template.count(UNKNOWN) == 1 and template[-1] == fast.eos_token_id
        start, behind = template.index(UNKNOWN), len(template) - template.index(UNKNOWN) - 2
        # The word may be more than one token; what stands before and behind it must be the same, and it must be all that is left.
        assert template[:start] == whole[:start]
        assert template[start + 1 : -1] == whole[len(whole) - behind :]
        assert fast.decode(whole[start : len(whole) - behind]).replace(" ", "").strip("▁Ġ") == "cat"


def test_known_tokens_are_forced_and_every_z_is_the_last_texts(vae, vae_processor, monkeypatch):
    blanked = ["the ____ sat on the ____", "a ____ ran ____ ____ park", "the ____"]
    with torch.no_grad():
        # What is no token would win.
        vae.get_output_embeddings().weight[len(vae_processor.tokenizer) :] *= 10
    templates, opened = open_blanks(vae_processor, blanked, "____", 1)
    one = impute(vae, vae_processor, blanked, max_rounds=1)
    torch.testing.assert_close(one.latents, posterior_means(vae, vae_processor, opened))
    two = impute(vae, vae_processor, blanked, max_rounds=2)
    assert [texts[0] for texts in two.rounds] == one.texts
    torch.testing.assert_close(two.latents, posterior_means(vae, vae_processor, one.texts))
    assert [texts[-1] for texts in two.rounds] == two.texts
    assert all("[UNK]" not in text and "____" not in text for text in two.texts)
    # Every token that was known is there, in its place, and p(y|z) is that of these very tokens.
    seen = []

    def spy(latents, labels, **options):
        seen.append(labels)
        return VAEModel.decode(vae, latents, labels, **options)

    with monkeypatch.context() as patch:
        patch.setattr(vae, "decode", spy)
        again = impute(vae, vae_processor, blanked, max_rounds=1, batch_size=2)
    assert again.texts == one.texts
    tokens = [row[row != -100][:-1].tolist() for labels in seen for row in labels]
    for row, (found, template) in enumerate(zip(tokens, templates.tolist())):
        known = template[: template.index(vae_processor.tokenizer.eos_token_id)]
        assert len(found) == len(known)
        assert all(wanted in (UNKNOWN, token) for wanted, token in zip(known, found))
        assert not set(found) & set(vae_processor.tokenizer.all_special_ids)
        assert max(found) < len(vae_processor.tokenizer)
        expected = log_likelihood(vae, vae_processor, found, one.latents[row : row + 1])
        assert again.log_likelihoods[row][0] == pytest.approx(expected, abs=1e-3)


def test_a_beam_as_wide_as_the_vocabulary_finds_the_conditional_mode(vae, vae_processor):
    """All fillings of one blank enumerated: the known words behind the blank have their say."""
    blanked = "the ____ sat on the mat"
    output = impute(vae, vae_processor, blanked, max_rounds=1, num_beams=250)
    ((*template, _),) = open_blanks(vae_processor, blanked, "____", 1)[0].tolist()
    allowed = [i for i in range(len(vae_processor.tokenizer)) if i not in vae_processor.tokenizer.all_special_ids]
    fillings = torch.tensor([[i if token == UNKNOWN else token for token in template] for i in allowed])
    labels = nn.functional.pad(fillings, (0, 1), value=vae_processor.tokenizer.eos_token_id)
    with torch.no_grad():
        scores = -vae(latents=output.latents.expand(len(labels), -1), labels=labels).reconstruction_loss
    assert output.log_likelihoods[0][0] == pytest.approx(scores.max().item(), abs=1e-3)
    assert output.texts[0] == vae_processor.tokenizer.decode(fillings[scores.argmax()])
    greedy = impute(vae, vae_processor, blanked, max_rounds=1, num_beams=1)
    assert greedy.log_likelihoods[0][0] <= output.log_likelihoods[0][0] + 1e-3


def test_a_text_stops_at_a_round_that_leaves_it_as_it_was(vae, vae_processor):
    blanked = ["the ____ ____ on the ____", "a ____ ran ____ the ____", "____ ____ mat", "a dog ____"]
    output = impute(vae, vae_processor, blanked, max_rounds=6)
    stopped = [texts for texts in output.rounds if len(texts) < 6]
    assert stopped and any(len(texts) > 2 for texts in output.rounds)
    assert all(texts[-1] == texts[-2] for texts in stopped)
    for texts, scores in zip(output.rounds, output.log_likelihoods):
        assert len(texts) == len(scores)
        assert all(first != second for first, second in pairwise(texts[:-1]))


def test_a_search_that_ends_below_the_text_that_is_there_is_not_followed(vae, vae_processor, monkeypatch):
    """Searches that find one given token in the first round and another in the second."""
    the, sat = (vae_processor.tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("the", "sat"))
    followed = []
    for pair in permutations(vae_processor.tokenizer.convert_tokens_to_ids(["b", "q", "z", "7"]), 2):
        finds = iter(pair)
        monkeypatch.setattr(
            imputation,
            "_fill",
            lambda model, processor, templates, *_, finds=finds: templates.masked_fill(templates < 0, next(finds)),
        )
        output = impute(vae, vae_processor, "the ____ sat", max_rounds=2)
        latents = posterior_means(vae, vae_processor, output.rounds[0][:1])
        before, found = (log_likelihood(vae, vae_processor, [*the, token, *sat], latents) for token in pair)
        assert output.log_likelihoods[0][1] == pytest.approx(max(before, found), abs=1e-3)
        followed.append(output.rounds[0][1] != output.rounds[0][0])
        assert followed[-1] == (found > before)
    assert set(followed) == {True, False}


@pytest.mark.parametrize("padding_is_eos", [False, True])
def test_imputation_does_not_depend_on_batches_nor_on_the_models_defaults(vae, tokenizers, padding_is_eos):
    vae_processor = VAEProcessor(*copy.deepcopy(tokenizers))
    if padding_is_eos:
        vae_processor.tokenizer.pad_token = vae_processor.tokenizer.eos_token
        vae.config.pad_token_id = vae.generation_config.pad_token_id = vae_processor.tokenizer.eos_token_id
    blanked = ["the ____ sat on the ____", "a ____", "the dog ____ in ____ park", "____ mat"]
    together = impute(vae, vae_processor, blanked)
    alone = [impute(vae, vae_processor, text) for text in blanked]
    assert together.rounds == [each.rounds[0] for each in alone]
    torch.testing.assert_close(together.latents, torch.cat([each.latents for each in alone]))
    for row, each in enumerate(alone):
        assert together.log_likelihoods[row] == pytest.approx(each.log_likelihoods[0], abs=1e-3)
    vae.generation_config.update(no_repeat_ngram_size=1, bad_words_ids=[[vae.config.eos_token_id]])
    ruled = impute(vae, vae_processor, "the cat the cat ____", max_rounds=1)
    assert ruled.texts[0].startswith("the cat the cat") and math.isfinite(ruled.log_likelihoods[0][0])


def test_a_conditional_model_fills_in_given_its_source(conditional, processor):
    blanked, sources = ["the ____ sat", "a dog ____ in the ____"], ["a long source text in the park", "the mat"]
    output = impute(conditional, processor, blanked, sources=sources, max_rounds=2)
    alone = impute(conditional, processor, blanked[1], sources=sources[1], max_rounds=2)
    assert output.texts[1] == alone.texts[0] and output.texts[1].startswith("a dog")
    assert output.log_likelihoods[1] == pytest.approx(alone.log_likelihoods[0], abs=1e-3)
    first = [texts[0] for texts in output.rounds]
    torch.testing.assert_close(output.latents, encode_texts(conditional, processor, first, sources).mean)
    other = impute(conditional, processor, blanked, sources=sources[::-1], max_rounds=2)
    assert other.log_likelihoods[0] != pytest.approx(output.log_likelihoods[0], abs=1e-3)


def test_bad_blanks_are_named(vae, vae_processor):
    for texts, options, message in (
        ("the cat", {}, r"no blank '____' at position\(s\) \[0\]"),
        (["a ____", "____ ____"], {}, "position 1 holds nothing but blanks"),
        ("the ____at sat", {}, "position 0: a blank is part of a word"),
        (["a ____", "the c____"], {}, "position 1: a blank is part of a word"),
        ("a ____", {"blank": ""}, "`blank` is empty"),
        ("a ____", {"tokens_per_blank": 0}, "`tokens_per_blank` is 0"),
        ("a ____", {"num_beams": 0}, "`num_beams` is 0"),
        ("a ____", {"max_rounds": 0}, "`max_rounds` is 0"),
        ("a ____", {"tokens_per_blank": 48}, "holds 48"),
        ([], {}, "`texts_with_blanks` is an empty list"),
    ):
        with pytest.raises(ValueError, match=message):
            impute(vae, vae_processor, texts, **options)
