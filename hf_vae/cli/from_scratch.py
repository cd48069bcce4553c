"""Small tokenizers and configurations to train from scratch, if no pretrained model is at hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, GPT2Config, LlamaConfig, PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..configuration_lstm import LSTMConfig
from ..configuration_vae import check_choice

PAD, UNK, BOS, EOS, SEP = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]", "[SEP]")


def train_tokenizers(
    texts: Iterable[str], vocab_size: int, tokenizer_type: str = "bpe"
) -> tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]:
    """
    A decoder's and an encoder's tokenizer over one vocabulary.

    Args:
        texts (iterable of `str`): what the vocabulary is learnt from.
        vocab_size (`int`): most tokens, special tokens counted.
        tokenizer_type (`str`, defaults to `"bpe"`): `"bpe"` is lower-cased byte-level BPE, which has a token for any text; `"word"`
            takes the words between spaces as they are, for text that was tokenised before, and all others for one unknown word.

    Returns:
        The decoder's, which adds no special tokens, and the encoder's, which opens a text, closes it and separates a pair.

    Raises:
        ValueError: a type that does not exist, or a vocabulary that cannot hold the bytes.
    """
    check_choice("tokenizer_type", tokenizer_type, tuple(_TRAINED))
    tokenizer = _TRAINED[tokenizer_type](texts, vocab_size)
    special: dict[str, Any] = {"pad_token": PAD, "unk_token": UNK, "bos_token": BOS, "eos_token": EOS}
    decoder = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **special)
    paired = Tokenizer.from_str(tokenizer.to_str())
    paired.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {SEP}",
        pair=f"{BOS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (BOS, SEP)],
    )
    encoder = PreTrainedTokenizerFast(
        tokenizer_object=paired,
        sep_token=SEP,
        # Byte-level BPE has a token for any text and tokenised corpora mark unknown words themselves, so this one is free.
        mask_token=UNK,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **special,
    )
    return decoder, encoder


def _train_words(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    smallest = len(alphabet) + len(SPECIAL_TOKENS)
    if vocab_size < smallest:
        raise ValueError(f"`vocab_size` is {vocab_size}; bytes and special tokens alone are {smallest}.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    # The space that the pre-tokenizer puts in front of a text is taken away again.
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


_TRAINED = {"bpe": _train_bpe, "word": _train_words}


def small_configs(
    tokenizer: PreTrainedTokenizerBase,
    encoder_type: str = "bert",
    decoder_type: str = "llama",
    hidden_size: int = 128,
    embedding_size: int | None = None,
    encoder_layers: int = 1,
    decoder_layers: int = 2,
    num_attention_heads: int = 4,
    initializer_range: float = 0.1,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    tie_word_embeddings: bool = True,
    max_position_embeddings: int = 128,
) -> tuple[PreTrainedConfig, PreTrainedConfig]:
    """
    An encoder's and a decoder's configuration over `tokenizer`'s vocabulary.

    The initialisation is wider than the usual 0.02: at widths of a hundred or two, weights of 0.02 pass on so little that a
    decoder takes thousands of steps to learn to look at its prompt at all.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): of the encoder or of the decoder; they share a vocabulary.
        encoder_type (`str`, defaults to `"bert"`): or `"lstm"`, which reads both ways.
        decoder_type (`str`, defaults to `"llama"`): or `"gpt2"` or `"lstm"`.
        hidden_size, encoder_layers, decoder_layers, num_attention_heads, initializer_range (`int` or `float`): as their names say.
        embedding_size (`int`, *optional*): of the LSTMs' embeddings; `hidden_size` by default.
        dropout (`float`, defaults to 0.0): of everything that has it.
        recurrent_dropout (`float`, defaults to 0.0): of the LSTMs' weights from state to state.
        tie_word_embeddings (`bool`, defaults to `True`): the decoder predicts with its embeddings' own weights.
        max_position_embeddings (`int`, defaults to 128): longest text; an LSTM has no such limit.

    Raises:
        ValueError: a type that does not exist, or an LSTM that cannot be tied because its embeddings have another width.
    """
    check_choice("encoder_type", encoder_type, ("bert", "lstm"))
    check_choice("decoder_type", decoder_type, ("llama", "gpt2", "lstm"))
    vocabulary: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    lstm: dict[str, Any] = {
        "hidden_size": hidden_size,
        "embedding_size": hidden_size if embedding_size is None else embedding_size,
        "initializer_range": initializer_range,
        "embedding_dropout": dropout,
        "dropout": dropout,
        "recurrent_dropout": recurrent_dropout,
        **vocabulary,
    }
    size: dict[str, Any] = {
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_attention_heads": num_attention_heads,
        "initializer_range": initializer_range,
        "max_position_embeddings": max_position_embeddings,
        **vocabulary,
    }
    encoder: PreTrainedConfig
    decoder: PreTrainedConfig
    if encoder_type == "lstm":
        encoder = LSTMConfig(num_hidden_layers=encoder_layers, bidirectional=True, **lstm)
    else:
        encoder = BertConfig(
            num_hidden_layers=encoder_layers, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, **size
        )
    if decoder_type == "lstm":
        decoder = LSTMConfig(num_hidden_layers=decoder_layers, tie_word_embeddings=tie_word_embeddings, **lstm)
    elif decoder_type == "gpt2":
        size.update(num_hidden_layers=decoder_layers, n_inner=size.pop("intermediate_size"))
        decoder = GPT2Config(
            resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout, tie_word_embeddings=tie_word_embeddings, **size
        )
    else:
        decoder = LlamaConfig(
            num_hidden_layers=decoder_layers,
            num_key_value_heads=num_attention_heads,
            attention_dropout=dropout,
            tie_word_embeddings=tie_word_embeddings,
            **size,
        )
    return encoder, decoder
