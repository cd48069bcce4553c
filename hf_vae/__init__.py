"""
Latent-variable text generation for transformers: a Gaussian latent between a pretrained encoder and a pretrained decoder.

Importing the package registers its models with `AutoConfig`, `AutoModel`, `AutoModelForSeq2SeqLM` and `AutoProcessor`, and
its pipelines.
"""

from .configuration_conditional_vae import ConditionalVAEConfig
from .configuration_cvae import CVAEConfig
from .configuration_dialog_cvae import DialogCVAEConfig
from .configuration_lstm import LSTMConfig
from .configuration_paraphrase_vae import ParaphraseVAEConfig
from .configuration_vae import VAEConfig
from .demos import demo
from .dialog_session import DialogSession
from .flow_prior import FlowPrior
from .gaussian import DiagonalGaussian
from .latent_attribute import LatentAttribute
from .latent_distribution import LatentDistribution
from .latent_injection import LatentInjection, register_latent_injection
from .modeling_conditional_vae import ConditionalVAEModel
from .modeling_cvae import CVAEModel
from .modeling_dialog_cvae import DialogCVAEModel
from .modeling_latent_decoder import LatentDecoder
from .modeling_lstm import LSTMForCausalLM, LSTMModel
from .modeling_outputs import ConditionalVAEOutput, DialogCVAEOutput, LatentOutput, VAEOutput
from .modeling_paraphrase_vae import ParaphraseVAEModel
from .modeling_vae import VAEModel
from .pipelines import DialogPipeline, LatentTextGenerationPipeline, ParaphrasePipeline
from .posterior import register_posterior
from .prior import GaussianMixturePrior, Prior, register_prior
from .processing_conditional_vae import ConditionalVAEProcessor, CVAEProcessor, ParaphraseVAEProcessor
from .processing_dialog import DialogCVAEProcessor
from .processing_vae import VAEProcessor
from .source import EncodedSource
from .source_cache import SourceCache
from .training import KLAnnealingCallback, VAEDataCollator
from .variants import Paper, register_variant

__version__ = "0.1.0"

register_variant(
    VAEConfig,
    VAEModel,
    VAEProcessor,
    pipeline=LatentTextGenerationPipeline,
    paper=Paper(
        key="bowman2015generating",
        title="Generating Sentences from a Continuous Space",
        authors="Bowman, Samuel R. and Vilnis, Luke and Vinyals, Oriol and Dai, Andrew and Jozefowicz, Rafal and Bengio, Samy",
        booktitle="arXiv:1511.06349",
        year=2015,
    ),
)
register_variant(
    CVAEConfig,
    CVAEModel,
    CVAEProcessor,
    paper=Paper(
        key="sohn2015learning",
        title="Learning Structured Output Representation using Deep Conditional Generative Models",
        authors="Sohn, Kihyuk and Yan, Xinchen and Lee, Honglak",
        booktitle="Advances in Neural Information Processing Systems",
        year=2015,
    ),
)
register_variant(
    DialogCVAEConfig,
    DialogCVAEModel,
    DialogCVAEProcessor,
    pipeline=DialogPipeline,
    paper=Paper(
        key="zhao2017learning",
        title="Learning Discourse-level Diversity for Neural Dialog Models using Conditional Variational Autoencoders",
        authors="Zhao, Tiancheng and Zhao, Ran and Eskenazi, Maxine",
        booktitle="Annual Meeting of the Association for Computational Linguistics",
        year=2017,
    ),
)
register_variant(
    ParaphraseVAEConfig,
    ParaphraseVAEModel,
    ParaphraseVAEProcessor,
    pipeline=ParaphrasePipeline,
    paper=Paper(
        key="gupta2018deep",
        title="A Deep Generative Framework for Paraphrase Generation",
        authors="Gupta, Ankush and Agarwal, Arvind and Singh, Prawaan and Rai, Piyush",
        booktitle="AAAI Conference on Artificial Intelligence",
        year=2018,
    ),
)

__all__ = [
    "CVAEConfig",
    "CVAEModel",
    "CVAEProcessor",
    "ConditionalVAEConfig",
    "ConditionalVAEModel",
    "ConditionalVAEOutput",
    "ConditionalVAEProcessor",
    "DiagonalGaussian",
    "DialogCVAEConfig",
    "DialogCVAEModel",
    "DialogCVAEOutput",
    "DialogCVAEProcessor",
    "DialogPipeline",
    "DialogSession",
    "EncodedSource",
    "FlowPrior",
    "GaussianMixturePrior",
    "KLAnnealingCallback",
    "LSTMConfig",
    "LSTMForCausalLM",
    "LSTMModel",
    "LatentAttribute",
    "LatentDecoder",
    "LatentDistribution",
    "LatentInjection",
    "LatentOutput",
    "LatentTextGenerationPipeline",
    "Paper",
    "ParaphrasePipeline",
    "ParaphraseVAEConfig",
    "ParaphraseVAEModel",
    "ParaphraseVAEProcessor",
    "Prior",
    "SourceCache",
    "VAEConfig",
    "VAEDataCollator",
    "VAEModel",
    "VAEOutput",
    "VAEProcessor",
    "demo",
    "register_latent_injection",
    "register_posterior",
    "register_prior",
    "register_variant",
]
