"""Configuration of the LSTM encoder and decoder."""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

from .checks import check_count, check_number
from .compat import CACHE


@strict
class LSTMConfig(PreTrainedConfig):
    r"""
    Configuration of an [`LSTMModel`], the encoder, and of an [`LSTMForCausalLM`], the decoder: the networks of Bowman et al. 2015,
    Zhao et al. 2017 and Gupta et al. 2018.

    Args:
        vocab_size (`int`, defaults to 10000): number of tokens.
        embedding_size (`int`, defaults to 256): width of a token's embedding.
        hidden_size (`int`, defaults to 256): width of the states that come out. Each direction of a bidirectional LSTM has
            half of it.
        num_hidden_layers (`int`, defaults to 1): LSTMs on top of each other.
        bidirectional (`bool`, defaults to `False`): read the text both ways; for encoders only.
        embedding_dropout (`float`, defaults to 0.0): rate at which components of an embedding are dropped in training.
        dropout (`float`, defaults to 0.0): rate at which components of every layer's output are dropped in training.
        recurrent_dropout (`float`, defaults to 0.0): rate at which weights from one state to the next are dropped in training, the
            same ones for all of a batch's steps (Merity et al. 2018, section 3.1).
        initializer_range (`float`, defaults to 0.1): fresh weights are uniform within plus and minus this.
        tie_word_embeddings (`bool`, defaults to `False`): the decoder predicts with the embeddings' own weights, which must then be
            as wide as its states.
        use_cache (`bool`, defaults to `True`): whether the decoder returns its state.
        pad_token_id, bos_token_id, eos_token_id (`int`, *optional*): special tokens.

    Raises:
        StrictDataclassError: of huggingface_hub, for a size or a rate out of range.
    """

    model_type = "lstm"
    keys_to_ignore_at_inference = [CACHE]

    vocab_size: int = 10_000
    embedding_size: int = 256
    hidden_size: int = 256
    num_hidden_layers: int = 1
    bidirectional: bool = False
    embedding_dropout: int | float = 0.0
    dropout: int | float = 0.0
    recurrent_dropout: int | float = 0.0
    initializer_range: int | float = 0.1
    tie_word_embeddings: bool = False
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    @property
    def layer_types(self) -> list[str]:
        """What a cache keeps for each layer; `modeling_lstm.py` registers the name."""
        return ["lstm"] * self.num_hidden_layers

    def validate_layer_type(self):
        """transformers lists the layers of its own models; an LSTM's is not among them."""

    def validate_sizes(self):
        for name in ("vocab_size", "embedding_size", "hidden_size", "num_hidden_layers"):
            check_count(name, getattr(self, name))
        for name in ("embedding_dropout", "dropout", "recurrent_dropout"):
            check_number(name, getattr(self, name), least=0, below=1)
        check_number("initializer_range", self.initializer_range, least=0)
        if self.bidirectional and self.hidden_size % 2:
            raise ValueError(f"`hidden_size` is {self.hidden_size}; two directions share it, so it must be even.")
        if self.tie_word_embeddings and self.embedding_size != self.hidden_size:
            raise ValueError(
                f"`tie_word_embeddings` needs `embedding_size` ({self.embedding_size}) equal to `hidden_size` ({self.hidden_size})."
            )


# Here and not in the package's `__init__`, which never runs if a model brings its own code along.
AutoConfig.register(LSTMConfig.model_type, LSTMConfig, exist_ok=True)

__all__ = ["LSTMConfig"]
