"""Small tokenizers and configurations to train from nothing, where no pretrained model is at hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, LlamaConfig, PreTrainedConfig, PreTrainedTokenizerFast

PAD, UNK, BOS, EOS, SEP = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]", "[SEP]")


def train_tokenizers(texts: Iterable[str], vocab_size: int) -> tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]:
    """
    A decoder's and an encoder's tokenizer over one lower-cased byte-level BPE vocabulary, which has a token for any text.

    Args:
        texts (iterable of `str`): what the vocabulary is learnt from.
        vocab_size (`int`): most tokens, of which 261 are bytes and special tokens.

    Returns:
        The decoder's, which adds no special tokens, and the encoder's, which opens a text, closes it and separates a pair.

    Raises:
        ValueError: a vocabulary that cannot hold the bytes.
    """
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
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **special,
    )
    return decoder, encoder


def small_configs(
    tokenizer: PreTrainedTokenizerFast,
    hidden_size: int = 128,
    encoder_layers: int = 1,
    decoder_layers: int = 2,
    num_attention_heads: int = 4,
    initializer_range: float = 0.1,
    dropout: float = 0.0,
    max_position_embeddings: int = 128,
) -> tuple[PreTrainedConfig, PreTrainedConfig]:
    """
    A BERT encoder's and a Llama decoder's configuration over `tokenizer`'s vocabulary.

    The initialisation is wider than the usual 0.02: at widths of a hundred or two, weights of 0.02 pass on so little that a
    decoder takes thousands of steps to learn to look at its prompt at all.
    """
    vocabulary: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    size: dict[str, Any] = {
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_attention_heads": num_attention_heads,
        "initializer_range": initializer_range,
        "max_position_embeddings": max_position_embeddings,
    }
    encoder = BertConfig(
        num_hidden_layers=encoder_layers,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **vocabulary,
        **size,
    )
    decoder = LlamaConfig(
        num_hidden_layers=decoder_layers,
        num_key_value_heads=num_attention_heads,
        attention_dropout=dropout,
        tie_word_embeddings=True,
        **vocabulary,
        **size,
    )
    return encoder, decoder
