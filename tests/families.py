"""
Tiny configurations of many families, and what is expected of each as encoder or decoder: `docs/measured/families.md` in code.

An expectation is `WORKS` or a key of `REFUSALS`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import transformers as hf
from transformers import BertConfig, GPT2Config, LlamaConfig, PreTrainedConfig
from transformers.models.roformer import modeling_roformer

from hf_vae import LSTMConfig
from hf_vae.compat import CACHE
from hf_vae.configuration_vae import LATENT_INJECTION_TYPES

VOCAB = 40
PAD, BOS, EOS, UNK = 0, 1, 2, 3


def tiny_encoder_config(**options) -> BertConfig:
    return BertConfig(
        vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=48, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.3, **options,
    )  # fmt: skip


def tiny_gpt2_config(**options) -> GPT2Config:
    return GPT2Config(
        vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=2, n_positions=48, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, initializer_range=0.3, **options,
    )  # fmt: skip


def tiny_llama_config(**options) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=48, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, initializer_range=0.3, **options,
    )  # fmt: skip


def tiny_lstm_config(**options) -> LSTMConfig:
    return LSTMConfig(
        **{
            "vocab_size": VOCAB, "embedding_size": 12, "hidden_size": 16, "bos_token_id": BOS, "eos_token_id": EOS,
            "pad_token_id": PAD, "initializer_range": 0.5, **options,
        }
    )  # fmt: skip


WORKS = "works"
# What is found of a decoder besides its ways in.
READ_ONCE = "source read once"


@dataclass(frozen=True)
class Refusal:
    """What the error says (a regular expression), and what the page says of it."""

    message: str
    remark: str


REFUSALS = {
    "layers that forget or compress": Refusal(
        r"names '(memory|prefix)', which needs a decoder whose every layer attends to everything before it; .* has layers that "
        r"forget or compress .* Choose 'embedding'",
        "a window, a convolution or a state passes what stands in front of the tokens, and z with it: choose `embedding`",
    ),
    "compressed keys and values": Refusal(
        "caches keys and values in a compressed form that a latent cannot take. Choose 'embedding' or 'prefix'",
        "multi-head latent attention has no place for a key and value of z: choose `embedding` or `prefix`",
    ),
    "no cache": Refusal(
        "takes no cache under the name `[a-z_]*`, so generation cannot go on from what it has read; choose a causal LM that does",
        "the model keeps what it has read in a form of its own, which a generation with z does not carry on",
    ),
    "no causal LM": Refusal(
        "has no causal LM under `AutoModelForCausalLM`; choose a family that has one",
        "transformers does not offer this encoder-decoder's decoder on its own",
    ),
    "no cross-attention": Refusal(
        "has no cross-attention. Choose 'prompt', which works with any decoder",
        "the model reads nothing but its own text: choose `prompt`",
    ),
    "fails at cross-attention": Refusal(
        "fails at cross-attention with a cache. It was built without cross-attention, or its class in this version of transformers",
        "transformers has a class with cross-attention, but it raises an error, or gives other numbers with a cache than without",
    ),
    "states that are overwritten": Refusal(
        r"keeps of a source what several continuations cannot share \(\w*LinearAttention\w*\): have each row read its source",
        "a convolution or a state goes on in place, for one z: each z then reads the source itself, to the same numbers",
    ),
    "an index beside the keys": Refusal(
        r"keeps of a source what several continuations cannot share \(DynamicIndexedLayer\): have each row read its source",
        "what sparse attention chooses by is not repeated with them: each z then reads the source itself, to the same numbers",
    ),
    "no state": Refusal(
        "has no state to start from. Choose 'prompt', which works with any decoder", "only recurrent decoders have one"
    ),
    "no pooler": Refusal("the encoder has no pooler; choose 'mean' or 'first'", "choose `mean` or `first`"),
    "encoder-decoder": Refusal(
        "is an encoder-decoder: pass an encoder on its own", "transformers does not offer this encoder-decoder's encoder on its own"
    ),
    "reads no tokens": Refusal("takes no `input_ids`: it reads something else than text", "an encoder of images or sound"),
}

TOKENS = {"vocab_size": VOCAB, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
SIZES = {**TOKENS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3}
BERT_LIKE = {
    **SIZES, "intermediate_size": 32, "max_position_embeddings": 48, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
# Its positions count from behind its padding's.
ROBERTA_LIKE = {**BERT_LIKE, "bos_token_id": 0, "pad_token_id": 1}
LLAMA_LIKE = {**SIZES, "intermediate_size": 32, "max_position_embeddings": 48, "num_key_value_heads": 2}
SLIDING = {**LLAMA_LIKE, "sliding_window": 4}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


def tiny_t5_config() -> hf.T5Config:
    return hf.T5Config(
        vocab_size=VOCAB, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.0, pad_token_id=PAD,
        eos_token_id=EOS, decoder_start_token_id=PAD, initializer_factor=0.5,
    )  # fmt: skip


BART_LIKE = {
    **TOKENS, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 48, "dropout": 0.0, "attention_dropout": 0.0,
    "activation_dropout": 0.0, "init_std": 0.3, "decoder_start_token_id": EOS, "forced_eos_token_id": None,
}  # fmt: skip


def tiny_bart_config() -> hf.BartConfig:
    return hf.BartConfig(**BART_LIKE)


@dataclass(frozen=True)
class Encoder:
    """
    `pooler` is what is expected with `pooling="pooler"`, `first_reads` how much of a text its first token's state depends on,
    `longest` how many tokens it has positions for (`None`: any number).
    """

    config: Callable[[], PreTrainedConfig]
    expected: str = WORKS
    pooler: str = WORKS
    first_reads: str = "the text"
    longest: int | None = None
    remark: str = ""


@dataclass(frozen=True)
class Decoder:
    """
    `expected` is for each way in but the last, `read_once` for reading a source once with z behind it; `padded_prompts` says
    whether prompts of unequal length may share a batch.
    """

    config: Callable[[], PreTrainedConfig]
    expected: tuple[str, str, str] = (WORKS, WORKS, WORKS)
    read_once: str = WORKS
    padded_prompts: bool = True
    remark: str = ""

    def expects(self, way: str) -> str:
        """Logits can be added to wherever embeddings can."""
        return dict(zip(LATENT_INJECTION_TYPES, (*self.expected, self.expected[0])))[way]


ENCODERS = {
    "BERT": Encoder(tiny_encoder_config, longest=48),
    "RoBERTa": Encoder(lambda: hf.RobertaConfig(**ROBERTA_LIKE), longest=46),
    "XLM-RoBERTa": Encoder(lambda: hf.XLMRobertaConfig(**ROBERTA_LIKE), longest=46),
    "MPNet": Encoder(lambda: hf.MPNetConfig(**ROBERTA_LIKE), longest=46),
    "DistilBERT": Encoder(
        lambda: hf.DistilBertConfig(
            vocab_size=VOCAB, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=48, dropout=0.0,
            attention_dropout=0.0, initializer_range=0.3, pad_token_id=PAD,
        ),
        pooler="no pooler",
        longest=48,
    ),
    "ALBERT": Encoder(lambda: hf.AlbertConfig(**BERT_LIKE, embedding_size=12), longest=48),
    "ELECTRA": Encoder(lambda: hf.ElectraConfig(**BERT_LIKE, embedding_size=12), pooler="no pooler", longest=48),
    "DeBERTa-v2": Encoder(
        lambda: hf.DebertaV2Config(
            **BERT_LIKE, relative_attention=True, position_biased_input=False, pos_att_type=["p2c", "c2p"], position_buckets=8
        ),
        pooler="no pooler",
        longest=48,
    ),
    "ModernBERT": Encoder(
        lambda: hf.ModernBertConfig(
            **SIZES, intermediate_size=32, max_position_embeddings=48, local_attention=4, global_attn_every_n_layers=2,
            cls_token_id=BOS, sep_token_id=EOS,
        ),
        pooler="no pooler",
        longest=48,
    ),
    "T5": Encoder(tiny_t5_config, pooler="no pooler", remark="its encoder alone"),
    "Llama": Encoder(tiny_llama_config, pooler="no pooler", first_reads="its first token", longest=48, remark="a causal model"),
    "LSTM": Encoder(lambda: tiny_lstm_config(bidirectional=True), remark="ours, both ways"),
    "BART": Encoder(tiny_bart_config, expected="encoder-decoder"),
    "ViT": Encoder(
        lambda: hf.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=8),
        expected="reads no tokens",
    ),
}  # fmt: skip

FORGETS = (WORKS, "layers that forget or compress", "layers that forget or compress")
OVERWRITES = "states that are overwritten"

DECODERS = {
    "GPT-2": Decoder(tiny_gpt2_config),
    "OPT": Decoder(
        lambda: hf.OPTConfig(
            **TOKENS, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=48,
            word_embed_proj_dim=16, dropout=0.0, init_std=0.3,
        )
    ),
    "GPT-NeoX": Decoder(lambda: hf.GPTNeoXConfig(**SIZES, intermediate_size=32, max_position_embeddings=48)),
    "BLOOM": Decoder(lambda: hf.BloomConfig(**TOKENS, hidden_size=16, n_layer=2, n_head=2, initializer_range=0.3), remark="ALiBi"),
    "Falcon": Decoder(lambda: hf.FalconConfig(**SIZES, multi_query=True), remark="multi-query"),
    "Llama": Decoder(tiny_llama_config, remark="grouped queries"),
    "Mistral": Decoder(lambda: hf.MistralConfig(**SLIDING), FORGETS, remark="sliding window"),
    "Qwen3": Decoder(lambda: hf.Qwen3Config(**LLAMA_LIKE, head_dim=8)),
    "Gemma 2": Decoder(
        lambda: hf.Gemma2Config(**SLIDING, head_dim=8, query_pre_attn_scalar=8), FORGETS, remark="windows in every other layer"
    ),
    "Gemma 3": Decoder(
        lambda: hf.Gemma3TextConfig(
            **SLIDING, head_dim=8, query_pre_attn_scalar=8, layer_types=["sliding_attention", "full_attention"]
        ),
        FORGETS,
        remark="windows in most layers",
    ),
    "Phi-3": Decoder(lambda: hf.Phi3Config(**LLAMA_LIKE)),
    "OLMo-2": Decoder(lambda: hf.Olmo2Config(**LLAMA_LIKE)),
    "gpt-oss": Decoder(
        lambda: hf.GptOssConfig(**SLIDING, head_dim=8, num_local_experts=2, num_experts_per_tok=1),
        FORGETS,
        remark="mixture of experts, windows",
    ),
    "Mixtral": Decoder(
        lambda: hf.MixtralConfig(**LLAMA_LIKE, num_local_experts=4, num_experts_per_tok=2), remark="mixture of experts"
    ),
    "Qwen3-MoE": Decoder(lambda: hf.Qwen3MoeConfig(**LLAMA_LIKE, **EXPERTS, head_dim=8), remark="mixture of experts"),
    "Gemma 3n": Decoder(
        lambda: hf.Gemma3nTextConfig(
            # Its gradient is NaN at an embedding of 0, which is what a new padding token has.
            **{**SLIDING, "num_hidden_layers": 4, "pad_token_id": VOCAB - 1}, head_dim=8, num_kv_shared_layers=2,
            layer_types=["sliding_attention", "full_attention"] * 2, vocab_size_per_layer_input=VOCAB,
            hidden_size_per_layer_input=8, altup_num_inputs=2, laurel_rank=4, activation_sparsity_pattern=[0.0] * 4,
        ),
        FORGETS,
        remark="windows in every other layer, layers that share keys",
    ),
    "DeepSeek-V3": Decoder(
        lambda: hf.DeepseekV3Config(
            **{**LLAMA_LIKE, "num_key_value_heads": 4}, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4,
            v_head_dim=4, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, first_k_dense_replace=1,
            moe_intermediate_size=16,
        ),
        (WORKS, "compressed keys and values", WORKS),
        remark="multi-head latent attention, mixture of experts",
    ),
    "DeepSeek-V3.2": Decoder(
        lambda: hf.DeepseekV32Config(
            **{**LLAMA_LIKE, "num_key_value_heads": 4}, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4,
            v_head_dim=4, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, first_k_dense_replace=1,
            moe_intermediate_size=16, index_n_heads=2, index_head_dim=8, index_topk=48,
        ),
        FORGETS,
        "an index beside the keys",
        remark="sparse latent attention, mixture of experts",
    ),
    "LFM2": Decoder(
        lambda: hf.Lfm2Config(**LLAMA_LIKE, layer_types=["conv", "full_attention"]),
        FORGETS,
        OVERWRITES,
        remark="convolutions and attention",
    ),
    "Falcon-H1": Decoder(
        lambda: hf.FalconH1Config(
            **LLAMA_LIKE, mamba_d_ssm=16, mamba_n_heads=2, mamba_d_head=8, mamba_n_groups=1, mamba_d_state=8, mamba_chunk_size=4
        ),
        FORGETS,
        OVERWRITES,
        remark="state space and attention",
    ),
    "Qwen3-Next": Decoder(
        lambda: hf.Qwen3NextConfig(
            **LLAMA_LIKE, **EXPERTS, head_dim=8, linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=8,
            linear_value_head_dim=8, shared_expert_intermediate_size=16, layer_types=["linear_attention", "full_attention"],
        ),
        FORGETS,
        OVERWRITES,
        remark="linear and full attention, mixture of experts",
    ),
    "Jamba": Decoder(
        lambda: hf.JambaConfig(
            **LLAMA_LIKE, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, num_experts=2,
            mamba_d_state=8,
        ),
        FORGETS,
        OVERWRITES,
        remark="state space and attention",
    ),
    "BERT": Decoder(lambda: hf.BertConfig(**BERT_LIKE), remark="as a causal LM"),
    "RoBERTa": Decoder(lambda: hf.RobertaConfig(**ROBERTA_LIKE), remark="as a causal LM"),
    "BART": Decoder(tiny_bart_config, padded_prompts=False, remark="its decoder alone"),
    "LSTM": Decoder(lambda: tiny_lstm_config(num_hidden_layers=2), remark="ours"),
    "T5": Decoder(tiny_t5_config, ("no causal LM",) * 3),
    "Mamba-2": Decoder(
        lambda: hf.Mamba2Config(
            **TOKENS, hidden_size=16, num_hidden_layers=2, num_heads=4, head_dim=8, state_size=8, n_groups=1, chunk_size=4
        ),
        # Its cache had a name of its own before 5.24.
        FORGETS if CACHE == "cache" else ("no cache",) * 3,
        OVERWRITES,
        remark="state space, with transformers 5.24 or later",
    ),
    "RWKV": Decoder(
        lambda: hf.RwkvConfig(**TOKENS, hidden_size=16, num_hidden_layers=2, attention_hidden_size=16, context_length=48),
        ("no cache",) * 3,
        remark="linear attention",
    ),
    "XLNet": Decoder(
        lambda: hf.XLNetConfig(**TOKENS, d_model=16, n_layer=2, n_head=2, d_inner=32), ("no cache",) * 3
    ),
}  # fmt: skip

# These two look ahead in transformers 5.16, where they make their masks themselves.
OWN_MASKS = WORKS if hasattr(modeling_roformer, "create_causal_mask") else "fails at cross-attention"

# The families that say that they have cross-attention, and what is expected of each as a decoder that reads x by it.
CROSS_ATTENTION: dict[str, tuple[Callable[[], PreTrainedConfig], str]] = {
    "GPT-2": (tiny_gpt2_config, WORKS),
    "BERT": (lambda: hf.BertConfig(**BERT_LIKE), WORKS),
    "BERT for generation": (lambda: hf.BertGenerationConfig(**BERT_LIKE), WORKS),
    "RoBERTa": (lambda: hf.RobertaConfig(**ROBERTA_LIKE), WORKS),
    "RoBERTa-PreLayerNorm": (lambda: hf.RobertaPreLayerNormConfig(**ROBERTA_LIKE), WORKS),
    "XLM-RoBERTa": (lambda: hf.XLMRobertaConfig(**ROBERTA_LIKE), WORKS),
    "XLM-RoBERTa-XL": (lambda: hf.XLMRobertaXLConfig(**ROBERTA_LIKE), WORKS),
    "X-MOD": (lambda: hf.XmodConfig(**ROBERTA_LIKE, languages=["en_XX"], default_language="en_XX"), WORKS),
    "CamemBERT": (lambda: hf.CamembertConfig(**ROBERTA_LIKE), WORKS),
    "data2vec": (lambda: hf.Data2VecTextConfig(**ROBERTA_LIKE), WORKS),
    "ELECTRA": (lambda: hf.ElectraConfig(**BERT_LIKE, embedding_size=12), WORKS),
    "ERNIE": (lambda: hf.ErnieConfig(**BERT_LIKE), WORKS),
    "RemBERT": (lambda: hf.RemBertConfig(**BERT_LIKE, input_embedding_size=12, output_embedding_size=20), OWN_MASKS),
    "RoCBert": (
        lambda: hf.RoCBertConfig(
            **BERT_LIKE, pronunciation_vocab_size=10, shape_vocab_size=10, pronunciation_embed_dim=8, shape_embed_dim=8
        ),
        WORKS,
    ),
    "RoFormer": (lambda: hf.RoFormerConfig(**BERT_LIKE, embedding_size=12), OWN_MASKS),
    "Megatron-BERT": (lambda: hf.MegatronBertConfig(**BERT_LIKE), "fails at cross-attention"),
    "BigBird": (lambda: hf.BigBirdConfig(**BERT_LIKE, attention_type="original_full"), "fails at cross-attention"),
    "BART": (tiny_bart_config, WORKS),
    "mBART": (lambda: hf.MBartConfig(**BART_LIKE), WORKS),
    "MVP": (lambda: hf.MvpConfig(**BART_LIKE), WORKS),
    "PLBart": (lambda: hf.PLBartConfig(**BART_LIKE), WORKS),
    "Marian": (lambda: hf.MarianConfig(**BART_LIKE, decoder_vocab_size=VOCAB), WORKS),
    "Pegasus": (lambda: hf.PegasusConfig(**BART_LIKE, scale_embedding=True), WORKS),
    "BigBird-Pegasus": (lambda: hf.BigBirdPegasusConfig(**BART_LIKE), WORKS),
    "Blenderbot": (lambda: hf.BlenderbotConfig(**BART_LIKE), WORKS),
    "Blenderbot-small": (lambda: hf.BlenderbotSmallConfig(**BART_LIKE), WORKS),
    "ProphetNet": (
        lambda: hf.ProphetNetConfig(
            **TOKENS, hidden_size=16, decoder_ffn_dim=32, num_decoder_layers=2, num_decoder_attention_heads=2,
            max_position_embeddings=48, num_buckets=8, relative_max_distance=16, decoder_start_token_id=BOS,
        ),
        "fails at cross-attention",
    ),
    "TrOCR": (
        lambda: hf.TrOCRConfig(
            **TOKENS, d_model=16, decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=32, max_position_embeddings=48,
            dropout=0.0, init_std=0.3, decoder_start_token_id=BOS, cross_attention_hidden_size=20,
        ),
        WORKS,
    ),
    "XGLM": (
        lambda: hf.XGLMConfig(
            **TOKENS, d_model=16, ffn_dim=32, num_layers=2, attention_heads=2, max_position_embeddings=48, dropout=0.0,
            attention_dropout=0.0, init_std=0.3,
        ),
        WORKS,
    ),
    "GPTBigCode": (
        lambda: hf.GPTBigCodeConfig(**TOKENS, n_embd=16, n_layer=2, n_head=2, n_positions=48, multi_query=False),
        "fails at cross-attention",
    ),
}  # fmt: skip

# (encoder, decoder, ways in): as they are used, besides each family with one cheap partner.
PAIRS = [
    ("BERT", "GPT-2", ("memory", "embedding")),
    ("RoBERTa", "Llama", ("embedding",)),
    ("ModernBERT", "Qwen3", ("prefix",)),
    ("DeBERTa-v2", "Gemma 3", ("embedding",)),
    ("T5", "Mixtral", ("embedding", "prefix")),
    ("LSTM", "LSTM", ("memory", "embedding")),
]


def expectations() -> dict[tuple[str, str, str], str]:
    """(part, family, aspect) -> what is expected of it."""
    entries = {}
    for name, encoder in ENCODERS.items():
        entries["encoder", name, "mean"] = encoder.expected
        if encoder.expected == WORKS:
            entries["encoder", name, "pooler"] = encoder.pooler
            entries["encoder", name, "first"] = encoder.first_reads
    for name, decoder in DECODERS.items():
        for way in LATENT_INJECTION_TYPES:
            entries["decoder", name, way] = decoder.expects(way)
        if decoder.expected[0] == WORKS:
            entries["decoder", name, READ_ONCE] = decoder.read_once
    for name, (_, expected) in CROSS_ATTENTION.items():
        for way in LATENT_INJECTION_TYPES:
            entries["cross_attention", name, way] = expected
    for name, decoder in DECODERS.items():
        if decoder.expected[0] == WORKS:
            entries["initial_state", name, "embedding"] = WORKS if name == "LSTM" else "no state"
            entries.setdefault(("cross_attention", name, "embedding"), "no cross-attention")
    for encoder, decoder, ways in PAIRS:
        entries["pair", f"{encoder} and {decoder}", ", ".join(ways)] = WORKS
    return entries
