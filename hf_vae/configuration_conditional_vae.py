"""What the configurations of all conditional models share: how the decoder sees the source x, and which encoder reads what."""

from huggingface_hub.dataclasses import strict

from .checks import check_choice, check_number
from .configuration_vae import VAEConfig

OBJECTIVES = ("cvae", "gsnn", "hybrid")
SOURCE_CONDITIONINGS = ("prompt", "cross_attention", "initial_state")


@strict
class ConditionalVAEConfig(VAEConfig):
    r"""
    Base of the conditional configurations: q(z|x,y), p(z|x) or N(0, I), p(y|x,z). Not registered with the Auto classes.

    Args:
        source_conditioning (`str`, defaults to `"prompt"`): how the decoder sees x. `"prompt"`: as the tokens before the
            start token (any decoder); `"cross_attention"`: through the states of an encoder of x (decoders that have it);
            `"initial_state"`: as the state that an LSTM decoder starts from, made of what an encoder of x has pooled.
        tie_encoders (`bool`, defaults to `True`): whether the encoder that serves q (on the pair x, y) also reads x, for the
            decoder and for a conditional prior. With `False` they have a `source_encoder` of their own. With `"prompt"` and the
            standard prior no encoder reads x: there is nothing to untie.
        prior_regularization (`float`, defaults to 0.0): weight of KL(p(z|x) ‖ N(0, I)) in the training loss.
        source_noise (`float`, defaults to 0.0): rate at which tokens of x are hidden in training from the decoder and from the
            prior (Sohn et al. 2015, section 4.2). The pair that q reads is whole; of a dialogue q reads what the prior reads, too.
        objective (`str`, defaults to `"cvae"`): what training minimises (Sohn et al. 2015). `"cvae"` is the negative ELBO;
            `"gsnn"` sets q := p, so z comes from the prior as it will in use and there is no KL; `"hybrid"` is
            `hybrid_alpha` times the first plus 1 - `hybrid_alpha` times the second.
        hybrid_alpha (`float`, defaults to 0.5): share of the ELBO in the hybrid objective.

    The other arguments are [`VAEConfig`]'s.

    Raises:
        StrictDataclassError: a choice that does not exist, a number out of range, or `tie_encoders=False` if no encoder reads x.
    """

    source_conditioning: str = "prompt"
    tie_encoders: bool = True
    prior_regularization: int | float = 0.0
    source_noise: int | float = 0.0
    objective: str = "cvae"
    hybrid_alpha: int | float = 0.5

    @property
    def is_conditional(self) -> bool:
        return True

    @property
    def has_posterior(self) -> bool:
        """Whether there is a q of its own to draw z from in training; with `objective="gsnn"` q is the prior."""
        return self.objective != "gsnn"

    def validate_objective(self):
        check_choice("objective", self.objective, OBJECTIVES)
        check_number("hybrid_alpha", self.hybrid_alpha, least=0, most=1)
        if not self.has_posterior and (self.free_bits or self.capacity is not None):
            raise ValueError("`objective='gsnn'` has no KL: leave `free_bits` and `capacity` out.")

    def validate_source_conditioning(self):
        check_choice("source_conditioning", self.source_conditioning, SOURCE_CONDITIONINGS)
        if self.source_conditioning == "prompt" and not self.prior_reads_source and not self.tie_encoders:
            raise ValueError(
                "`tie_encoders=False` with `source_conditioning='prompt'` and a prior that does not read x: the decoder reads the "
                "source as its prompt, and no encoder reads it. Leave `tie_encoders=True`, or choose "
                "`source_conditioning='cross_attention'`."
            )

    def validate_regularization(self):
        check_number("prior_regularization", self.prior_regularization, least=0)
        if self.prior_regularization and self.prior_type == "standard":
            raise ValueError("`prior_regularization` has nothing to do: `prior_type='standard'` is N(0, I) already.")
        check_number("source_noise", self.source_noise, least=0, below=1)


__all__ = ["ConditionalVAEConfig"]
