"""Configuration of the dialogue CVAE (Zhao et al. 2017)."""

from huggingface_hub.dataclasses import strict

from .checks import check_choice, check_count
from .configuration_conditional_vae import SOURCE_CONDITIONINGS, ConditionalVAEConfig

CONTEXT_ENCODINGS = ("flat", "hierarchical")


@strict
class DialogCVAEConfig(ConditionalVAEConfig):
    r"""
    Configuration of a [`DialogCVAEModel`]: x is a dialogue's turns, y the next one (Zhao et al. 2017). With `num_acts` it is the
    knowledge-guided form: p(y|x) = ∫ p(z|x) Σ_a p(a|x,z) p(y|x,z,a) dz over the acts a that a reply may perform.

    Args:
        context_encoding (`str`, defaults to `"flat"`): how the encoder reads the turns. `"flat"`: as one text, which pretrained
            encoders are made for; every word sees every turn. `"hierarchical"` (the paper's): each turn by itself, and a GRU over
            the turns, each with a bit that says whether its speaker is the one who replies.
        num_acts (`int`, *optional*): acts of the knowledge-guided form; without it there are none.
        act_embedding_size (`int`, defaults to 30): width of an act's embedding, which q and the decoder read.
        act_hidden_size (`int`, defaults to 400): width of the hidden layer of p(a|x,z).
        meta_categories (`list[int]`, *optional*): what is known of a dialogue besides its turns, such as its topic: for each such
            feature, the number of values that it may have.
        meta_embedding_size (`int`, defaults to 30): width of the embedding of each of them.
        num_meta_values (`int`, defaults to 0): how many further features are plain numbers.

    The other arguments are [`ConditionalVAEConfig`]'s; `prior_type` defaults to `"conditional"` here.

    Raises:
        StrictDataclassError: a choice that does not exist or a number out of range.
    """

    model_type = "dialog-cvae"

    prior_type: str = "conditional"
    context_encoding: str = "flat"
    num_acts: int | None = None
    act_embedding_size: int = 30
    act_hidden_size: int = 400
    meta_categories: list[int] | None = None
    meta_embedding_size: int = 30
    num_meta_values: int = 0

    @property
    def meta_size(self) -> int:
        """Width of what is known of a dialogue besides its turns."""
        return len(self.meta_categories or ()) * self.meta_embedding_size + self.num_meta_values

    @property
    def act_size(self) -> int:
        """Width of an act if there are acts, else 0."""
        return 0 if self.num_acts is None else self.act_embedding_size

    @property
    def decoder_latent_size(self) -> int:
        return self.total_latent_size + self.act_size + self.meta_size

    def validate_source_conditioning(self):
        # Here an encoder reads x whatever the decoder does: for the prior, the acts and the bag of words.
        check_choice("source_conditioning", self.source_conditioning, SOURCE_CONDITIONINGS)

    def validate_dialog(self):
        check_choice("context_encoding", self.context_encoding, CONTEXT_ENCODINGS)
        if self.num_acts is not None:
            # From two on there is something to choose.
            check_count("num_acts", self.num_acts, least=2)
        for name in ("act_embedding_size", "act_hidden_size", "meta_embedding_size"):
            check_count(name, getattr(self, name))
        for index, count in enumerate(self.meta_categories or ()):
            check_count(f"meta_categories[{index}]", count)
        check_count("num_meta_values", self.num_meta_values, least=0)


__all__ = ["DialogCVAEConfig"]
