"""Tokenizers and configurations for models from scratch."""

import pytest
import torch
from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForCausalLM, DataCollatorForLanguageModeling

from hf_vae import LSTMConfig, VAEConfig, VAEModel, VAEProcessor
from hf_vae.cli.from_scratch import SPECIAL_TOKENS, small_configs, train_tokenizers

TEXTS = ["the cat sat on the mat .", "A dog did n't sit .", "the <unk> sat"] * 3


@pytest.fixture(params=["bpe", "word"])
def both(request):
    return train_tokenizers(TEXTS, 400, request.param)


def test_words_are_what_stands_between_spaces():
    tokenizer, _ = train_tokenizers(TEXTS, 400, "word")
    words = {word for text in TEXTS for word in text.split()}
    assert set(tokenizer.get_vocab()) == {*SPECIAL_TOKENS, *words}
    assert tokenizer.tokenize("The dog  did n't sat , .") == ["[UNK]", "dog", "did", "n't", "sat", "[UNK]", "."]
    # A corpus' own mark for a rare word is a word as any other.
    assert tokenizer("<unk>").input_ids != [tokenizer.unk_token_id]
    assert tokenizer.decode(tokenizer("A dog did n't sit .").input_ids) == "A dog did n't sit ."


def test_a_vocabulary_of_words_keeps_the_most_frequent():
    tokenizer, encoder_tokenizer = train_tokenizers(["a a a b b c"], len(SPECIAL_TOKENS) + 2, "word")
    assert set(tokenizer.get_vocab()) == {*SPECIAL_TOKENS, "a", "b"} == set(encoder_tokenizer.get_vocab())
    assert tokenizer("a b c").input_ids[-1] == tokenizer.unk_token_id


def test_bytes_spell_any_text_in_lower_case():
    tokenizer, _ = train_tokenizers(TEXTS, 400)
    text = "The Café costs 3 € 🙂"
    ids = tokenizer(text).input_ids
    assert tokenizer.unk_token_id not in ids and tokenizer.decode(ids) == text.lower()
    assert len(tokenizer("the cat").input_ids) == 2


def test_both_halves_share_a_vocabulary_and_the_encoder_s_marks_the_text(both):
    tokenizer, encoder_tokenizer = both
    assert tokenizer.get_vocab() == encoder_tokenizer.get_vocab()
    assert tokenizer.convert_ids_to_tokens(range(5)) == list(SPECIAL_TOKENS)
    plain = [tokenizer(text).input_ids for text in ("the cat", "sat .")]
    bos, sep = tokenizer.bos_token_id, encoder_tokenizer.sep_token_id
    assert encoder_tokenizer("the cat").input_ids == [bos, *plain[0], sep]
    pair = encoder_tokenizer("the cat", "sat .")
    assert pair.input_ids == [bos, *plain[0], sep, *plain[1], sep]
    assert pair.token_type_ids == [0] * (len(plain[0]) + 2) + [1] * (len(plain[1]) + 1)
    padded = encoder_tokenizer(["the cat sat", "the"], padding=True)
    assert padded.input_ids[1][-1] == tokenizer.pad_token_id and padded.attention_mask[1][-1] == 0


def test_the_encoder_has_a_token_to_hide_words_with(both):
    _, encoder_tokenizer = both
    # No row is added to the vocabulary for it.
    assert encoder_tokenizer.mask_token_id == encoder_tokenizer.unk_token_id < len(encoder_tokenizer)
    torch.manual_seed(0)
    rows = Dataset.from_dict({"input_ids": encoder_tokenizer(TEXTS * 20).input_ids})
    batch = DataCollatorForLanguageModeling(encoder_tokenizer, mlm_probability=0.5)(list(rows))
    hidden = batch["labels"] != -100
    assert hidden.float().mean() > 0.3 and (batch["input_ids"][hidden] == encoder_tokenizer.mask_token_id).float().mean() > 0.7
    special = torch.isin(batch["labels"], torch.tensor([encoder_tokenizer.bos_token_id, encoder_tokenizer.sep_token_id]))
    assert not special.any()


def test_tokenizers_are_the_same_when_loaded_again(both, tmp_path):
    processor = VAEProcessor(*both)
    processor.save_pretrained(tmp_path)
    again = VAEProcessor.from_pretrained(tmp_path)
    text = "the dog did n't sit on a <unk> ."
    inputs, expected = again(text, text), processor(text, text)
    assert inputs.keys() == expected.keys() and all(inputs[name].equal(expected[name]) for name in inputs)
    assert again.encoder_tokenizer.mask_token_id == both[1].mask_token_id


@pytest.mark.parametrize("decoder_type", ["llama", "gpt2", "lstm"])
@pytest.mark.parametrize("encoder_type", ["bert", "lstm"])
def test_every_pair_of_small_parts_runs(encoder_type, decoder_type):
    tokenizers = train_tokenizers(TEXTS, 300)
    processor = VAEProcessor(*tokenizers)
    encoder, decoder = small_configs(
        tokenizers[0], encoder_type, decoder_type, hidden_size=16, embedding_size=12, encoder_layers=1, decoder_layers=2,
        num_attention_heads=2, dropout=0.25, recurrent_dropout=0.5, tie_word_embeddings=False, max_position_embeddings=40,
    )  # fmt: skip
    assert encoder.hidden_size == decoder.hidden_size == 16 and (encoder.num_hidden_layers, decoder.num_hidden_layers) == (1, 2)
    for config in (encoder, decoder):
        assert config.vocab_size == len(tokenizers[0])
        assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 2, 3)
        if isinstance(config, LSTMConfig):
            assert (config.embedding_size, config.dropout, config.embedding_dropout) == (12, 0.25, 0.25)
            assert config.recurrent_dropout == 0.5
        else:
            assert config.max_position_embeddings == 40
    torch.manual_seed(0)
    model = VAEModel(VAEConfig(encoder=encoder, decoder=decoder, latent_size=4))
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates <= {0.25, 0.0} and (0.25 in rates or decoder.attention_dropout == 0.25)
    texts = ["the cat sat .", "a dog"]
    output = model.train()(**processor(texts, texts))
    output.loss.backward()
    assert torch.isfinite(output.loss) and model.posterior_head.linear.weight.grad.abs().sum() > 0
    sequences = model.eval().generate(**processor(texts), max_new_tokens=4, do_sample=False)
    assert sequences.shape[0] == 2 and (sequences[:, 0] == tokenizers[0].bos_token_id).all()


def test_an_lstm_s_embeddings_are_as_wide_as_its_states_unless_told_otherwise(tokenizers):
    encoder, decoder = small_configs(tokenizers[0], "lstm", "lstm", hidden_size=24)
    assert encoder.embedding_size == decoder.embedding_size == 24
    assert encoder.bidirectional and not decoder.bidirectional


@pytest.mark.parametrize("decoder_type", ["llama", "gpt2", "lstm"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_decoder_predicts_with_its_embeddings_where_it_is_tied(tokenizers, decoder_type, tied):
    _, decoder = small_configs(tokenizers[0], decoder_type=decoder_type, hidden_size=16, tie_word_embeddings=tied)
    language_model = AutoModelForCausalLM.from_config(decoder)
    shared = language_model.get_output_embeddings().weight is language_model.get_input_embeddings().weight
    assert shared is tied


def test_what_does_not_exist_is_named(tokenizers):
    for options, message in (
        ({"encoder_type": "gru"}, r"`encoder_type` is 'gru'; choose one of 'bert', 'lstm'"),
        ({"decoder_type": "bert"}, r"`decoder_type` is 'bert'; choose one of 'llama', 'gpt2', 'lstm'"),
    ):
        with pytest.raises(ValueError, match=message):
            small_configs(tokenizers[0], **options)
    with pytest.raises(StrictDataclassError, match=r"`embedding_size` \(12\) equal to `hidden_size` \(16\)"):
        small_configs(tokenizers[0], decoder_type="lstm", hidden_size=16, embedding_size=12)
    with pytest.raises(ValueError, match=r"`tokenizer_type` is 'char'"):
        train_tokenizers(TEXTS, 400, "char")
    with pytest.raises(ValueError, match="`vocab_size` is 100; bytes and special tokens alone are 261"):
        train_tokenizers(TEXTS, 100)
