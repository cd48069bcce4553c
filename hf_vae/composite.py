"""An encoder and a decoder in one model: how they are put together, checked, and saved. What z has to do with it is elsewhere."""

from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from .configuration_lstm import LSTMConfig
from .configuration_vae import VAEConfig
from .encoders import build_encoder, check_tokens
from .generation_options import end_tokens
from .modeling_latent_decoder import LatentDecoder
from .modeling_lstm import register_lstm
from .parts import has_adapter, own_configuration, refuse_looking_ahead, refuse_other_kinds, refuse_shared_weights
from .pipelines import LatentTextGenerationPipeline
from .pretrained_parts import PretrainedParts

logger = logging.get_logger(__name__)

# Dtypes whose steps from one number to the next are larger than most steps of a training.
COARSE = (torch.bfloat16, torch.float16)


class EncoderDecoderComposite(PretrainedParts, PreTrainedModel):
    """
    Base of the models: an `encoder` and a `decoder` that reads z, of which each keeps its own configuration and vocabulary.

    Args:
        config ([`VAEConfig`]): configuration; `config.encoder` and `config.decoder` become those of the parts.
        encoder (`PreTrainedModel`, *optional*): any `AutoModel` encoder, built from `config.encoder` if it is not given. With
            `config.embedding_size` there is none.
        decoder (`PreTrainedModel`, *optional*): any causal LM, built from `config.decoder` if it is not given.
    """

    config: VAEConfig
    main_input_name = "input_ids"
    pipeline_class: type[LatentTextGenerationPipeline] = LatentTextGenerationPipeline
    # The Trainer then hands `num_items_in_batch` to `forward` and leaves the division to it.
    accepts_loss_kwargs = True
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

    def __init__(self, config: VAEConfig, encoder: PreTrainedModel | None = None, decoder: PreTrainedModel | None = None):
        expected = cast(type[VAEConfig], self.config_class).model_type
        if getattr(config, "model_type", None) != expected:
            raise ValueError(f"`config` is a {type(config).__name__}; {type(self).__name__} takes one of type {expected!r}.")
        refuse_other_kinds(encoder, decoder)
        if encoder is not None and config.embedding_size is not None:
            raise ValueError(
                f"`encoder` is given, and the configuration's `embedding_size` is {config.embedding_size}: such a model reads "
                "vectors and has no encoder. Leave one of them out."
            )
        config = own_configuration(config, encoder, decoder)
        for part in filter(None, (config.encoder, config.decoder)):
            # Without the package a configuration brings its own copy of `LSTMConfig` along, which no Auto class knows yet.
            if part.model_type == LSTMConfig.model_type:
                register_lstm(type(part))
        reads_both_ways = decoder is not None and not getattr(decoder.config, "is_decoder", True)
        self.prepare_decoder_config(config)
        super().__init__(config)
        if config.embedding_size is None:
            self.encoder = build_encoder(config.encoder, config.vector_pooling) if encoder is None else encoder
            config.encoder = self.encoder.config
        else:
            self.main_input_name = "embeddings"
        self.decoder = LatentDecoder(
            config.decoder,
            config.decoder_latent_size,
            decoder,
            config.latent_injection,
            cast(int, config.prefix_length),
            config.num_latents,
            config.decoder_latent_size - config.total_latent_size,
        )
        if reads_both_ways:
            refuse_looking_ahead(self.decoder.lm)
        # The very object, as that of the encoder, so that whatever changes a part's configuration changes the composite's.
        config.decoder = self.decoder.config
        # Until a training has begun and was found to fit together.
        self.parts_were_checked = False

    def name_own_code(self) -> None:
        """Notes in the configuration which of the files that travel with a saved model is its class, and which its pipeline."""
        if self._auto_class is None:
            return
        # Saving notes one Auto class of its own accord; this is the second one, and the pipeline.
        name = f"{type(self).__module__.rpartition('.')[2]}.{type(self).__name__}"
        self.config.auto_map = {"AutoModelForSeq2SeqLM": name, **(getattr(self.config, "auto_map", None) or {})}
        implementation = f"{self.pipeline_class.__module__.rpartition('.')[2]}.{self.pipeline_class.__name__}"
        task = {"impl": implementation, "pt": ["AutoModel"], "type": "text"}
        self.config.custom_pipelines = {self.pipeline_class.default_task: task}

    def initialize_weights(self):
        # In a model that is not transformers' own, a module without tensors of its own counts as initialised, and what it would
        # set in its layers stays unset (Falcon-H1's multipliers, after loading). By itself each part is done right.
        for part in self.modules():
            if isinstance(part, PreTrainedModel) and not part.is_custom_code():
                part.initialize_weights()
        super().initialize_weights()

    @staticmethod
    def prepare_decoder_config(config: VAEConfig) -> None:
        """Asks the decoder's configuration for what this model needs of it, before the decoder is built."""
        if hasattr(config.decoder, "is_decoder"):
            # Models of BERT's kind otherwise look at the words that they are to predict.
            config.decoder.is_decoder = True

    @property
    def device(self) -> torch.device:
        # The weights of a part that is offloaded are nowhere until it runs; accelerate's hook knows where that will be.
        place = getattr(getattr(self, "_hf_hook", None), "execution_device", None)
        return next(self.parameters()).device if place is None else torch.device(place)

    @property
    def encoder_hidden_size(self) -> int:
        return self.config.encoder.get_text_config().hidden_size

    @property
    def first_part(self) -> PreTrainedModel:
        """What reads the input: the encoder; the decoder's language model if vectors are given."""
        return self.encoder if self.config.embedding_size is None else self.decoder.lm

    def get_input_embeddings(self) -> nn.Module:
        return self.first_part.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.first_part.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.decoder.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module):
        self.decoder.set_output_embeddings(value)

    def resize_token_embeddings(self, *args, **kwargs):
        """
        Refused: encoder and decoder have a vocabulary each.

        Raises:
            NotImplementedError: always; it names what to call.
        """
        raise NotImplementedError(
            "Encoder and decoder have a vocabulary each: call `model.encoder.resize_token_embeddings` or "
            "`model.decoder.resize_token_embeddings`."
        )

    def check_parts(self) -> None:
        """
        Raises a `ValueError` if something was done to one part that the others have not followed: a vocabulary that was resized
        past its decoder, a weight that two came to have.
        """
        # Not `named_children`, which passes over a module that has two names.
        refuse_shared_weights({name: part for name, part in self._modules.items() if part is not None})
        self.config.validate_tokens()
        self.check_vocabulary()

    def check_vocabulary(self) -> None:
        """Raises a `ValueError` if the decoder's vocabulary was resized and what else has a row for each word has not followed."""
        vocabulary = self.config.decoder.get_text_config().vocab_size
        for head in self.decoder.heads_by_word:
            if head.vocab_size != vocabulary:
                raise ValueError(
                    f"The decoder's vocabulary has {vocabulary} tokens and the {head.description} {head.vocab_size}: call "
                    f"`model.decoder.resize_token_embeddings({vocabulary})`, which resizes both, before an optimizer is made."
                )

    def save_pretrained(self, save_directory, *args, **kwargs):
        """
        As `PreTrainedModel.save_pretrained`, without the parts in `config.frozen_parts`.

        Raises:
            ValueError: parts that do not go together, which could not be loaded as what they are.
        """
        self.check_parts()
        if has_adapter(self) and not self._hf_peft_config_loaded:
            raise ValueError(
                "A part of the model carries an adapter of peft, and its weights would not be found again: merge it "
                "(`merge_and_unload`), or save the `PeftModel` that holds it."
            )
        return super().save_pretrained(save_directory, *args, **kwargs)

    def _check_training(self, labels: torch.Tensor) -> None:
        """As a training begins: whether the parts go together, and warnings of coarse weights and of texts without end."""
        if torch.compiler.is_compiling() or not self.training or self.parts_were_checked:
            return
        self.check_parts()
        coarse = [name for name, weight in self.named_parameters() if weight.requires_grad and weight.dtype in COARSE]
        if coarse:
            logger.warning(
                f"{len(coarse)} weights are trained in {self.get_parameter(coarse[0]).dtype} (`{coarse[0]}`), in which small steps "
                "round to nothing unless the optimizer keeps a copy in float32: load the model with `dtype=torch.float32`, and "
                "train it with the Trainer's `bf16`."
            )
        last = [row[row != -100][-1].item() for row in labels]
        ends = end_tokens(self.generation_config.eos_token_id)
        if len(last) > 1 and len(set(last)) == 1 and last[0] not in ends:
            logger.warning(
                f"Every row of `labels` ends with token {last[0]}, and `generate` waits for {ends or 'none'}: no text would end. "
                f"Set `model.config.eos_token_id` and `model.generation_config.eos_token_id` to {last[0]}, the EOS of the "
                "processor's tokenizer, or end the labels with the model's EOS."
            )
        self.parts_were_checked = True

    def check_labels(self, labels: torch.LongTensor | None) -> torch.LongTensor:
        """
        `labels`, if they are target tokens of this decoder's vocabulary.

        Raises:
            ValueError: they are missing, malformed, or all padding in a row.
        """
        if labels is None:
            raise ValueError(
                "`labels` is missing: the objective needs y. (With `label_smoothing_factor` or `compute_loss_func` the Trainer "
                "takes `labels` away before the model sees them; an ELBO has no label smoothing, leave both unset.) To generate "
                "text, call `generate`."
            )
        check_tokens("labels", labels, self.decoder.config)
        if not torch.compiler.is_compiling():
            self.check_vocabulary()
            empty = (labels == -100).all(-1).nonzero().flatten().tolist()
            if empty:
                raise ValueError(f"`labels` is all padding in row(s) {empty}: every row needs at least one token.")
        self._check_training(labels)
        return labels


__all__ = ["EncoderDecoderComposite"]
