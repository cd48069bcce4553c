"""VAE-SVG, the paraphrase VAE of Gupta et al. 2018."""

from .configuration_paraphrase_vae import ParaphraseVAEConfig
from .modeling_conditional_vae import ConditionalVAEModel
from .pipelines import ParaphrasePipeline


class ParaphraseVAEModel(ConditionalVAEModel):
    r"""
    q(z|x,y) reads source and paraphrase together, the prior is N(0, I), p(y|x,z) has z at every step (Gupta et al. 2018,
    VAE-SVG). Its `-eq` form, one encoder of x for q and for the decoder, is `source_conditioning="cross_attention"` or, with LSTMs
    as in the paper, `"initial_state"`; with `tie_encoders=False` there are two.

    At inference y is unknown, so z comes from the prior: several z give several paraphrases.
    """

    config: ParaphraseVAEConfig
    pipeline_class = ParaphrasePipeline


__all__ = ["ParaphraseVAEModel"]
