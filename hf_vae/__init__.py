"""
Latent-variable text generation for transformers: a Gaussian latent between a pretrained encoder and a pretrained decoder.

Importing the package registers its models with `AutoConfig`, `AutoModel`, `AutoModelForSeq2SeqLM` and `AutoProcessor`, and
its pipelines.
"""

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_conditional_vae import ConditionalVAEConfig
from .configuration_cvae import CVAEConfig
from .configuration_dialog_cvae import DialogCVAEConfig
from .configuration_lstm import LSTMConfig
from .configuration_paraphrase_vae import ParaphraseVAEConfig
from .configuration_vae import VAEConfig
from .dialog_session import DialogSession
from .gaussian import DiagonalGaussian
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
from .processing_dialog import DialogCVAEProcessor
from .processing_vae import ConditionalVAEProcessor, CVAEProcessor, ParaphraseVAEProcessor, VAEProcessor
from .source import EncodedSource
from .training import KLAnnealingCallback, VAEDataCollator

__version__ = "0.1.0"

for _config, _model, _processor in (
    (VAEConfig, VAEModel, VAEProcessor),
    (CVAEConfig, CVAEModel, CVAEProcessor),
    (DialogCVAEConfig, DialogCVAEModel, DialogCVAEProcessor),
    (ParaphraseVAEConfig, ParaphraseVAEModel, ParaphraseVAEProcessor),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)
    AutoModelForSeq2SeqLM.register(_config, _model, exist_ok=True)
    AutoProcessor.register(_config, _processor, exist_ok=True)
    # What is saved carries its own code, for machines without this package (`trust_remote_code=True`).
    _config.register_for_auto_class()
    _model.register_for_auto_class("AutoModel")
    _processor.register_for_auto_class("AutoProcessor")

for _pipeline in (LatentTextGenerationPipeline, ParaphrasePipeline, DialogPipeline):
    PIPELINE_REGISTRY.register_pipeline(_pipeline.default_task, pipeline_class=_pipeline, pt_model=AutoModel, type="text")

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
    "GaussianMixturePrior",
    "KLAnnealingCallback",
    "LSTMConfig",
    "LSTMForCausalLM",
    "LSTMModel",
    "LatentDecoder",
    "LatentDistribution",
    "LatentInjection",
    "LatentOutput",
    "LatentTextGenerationPipeline",
    "ParaphrasePipeline",
    "ParaphraseVAEConfig",
    "ParaphraseVAEModel",
    "ParaphraseVAEProcessor",
    "Prior",
    "VAEConfig",
    "VAEDataCollator",
    "VAEModel",
    "VAEOutput",
    "VAEProcessor",
    "register_latent_injection",
    "register_posterior",
    "register_prior",
]
