"""Pipelines: each takes texts or dialogues and gives several texts for each, with their z on request."""

from types import GeneratorType
from typing import Any

from torch.utils.data import Dataset
from transformers import Pipeline
from transformers.utils import logging
from transformers.utils.chat_template_utils import Chat

from .generation_options import end_tokens
from .processing_vae import as_items
from .unknown_words import WARN_ABOVE, texts_in, warn_of_unknown_words

logger = logging.get_logger(__name__)


class LatentTextGenerationPipeline(Pipeline):
    """
    Several texts for each input, `pipeline("latent-text-generation", model=...)`: any model of the family with its processor.

    ```python
    generator = pipeline("latent-text-generation", model="outputs/vae")
    generator("the farmer bought a lamp .", num_return_sequences=3)  # its neighbours: z from q(z|y)
    generator(None, num_return_sequences=3)  # z from the prior
    ```

    A call takes an input, or several in a list, a tuple, a column of a dataset, a generator or a PyTorch dataset; of a model that
    reads given vectors, a vector or several in a tensor, an array or a list. And:

    - `return_latents` (`bool`, defaults to `False`): whether to return the z of each text beside it.
    - `max_source_length` (`int`, *optional*): the number of tokens that an input is truncated to.
    - `batch_size` (`int`, *optional*): the number of inputs at once.
    - all options of the model's `generate`: `num_return_sequences`, `latent_temperature`, `latents`, `generator`, beams, sampling.

    A warning says which share of the inputs' tokens is not in the model's vocabulary, if it is more than 1 %. Of a generator or a
    PyTorch dataset, whose inputs are read one at a time, it is that of the first such input.

    Returns:
        For each input a list of `num_return_sequences` records `{"generated_text": str}`, with `"latents"`, a list of `latent_size`
        numbers (of several such lists with `average_latents`), if they were asked for.

    Raises:
        ValueError: an input is empty, this pipeline is not for the model, or `generate` refuses an option.
    """

    default_task = "latent-text-generation"

    _load_processor: Any = True
    _load_tokenizer: Any = False
    _load_image_processor: Any = False
    _load_feature_extractor: Any = False
    _load_video_processor: Any = False
    processor: Any
    model: Any
    _warns_of_each = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # By their tasks, because a model that brings its own code along has its own copies of the classes.
        tasks = [getattr(each, "default_task", None) for each in self.model.pipeline_class.__mro__]
        if self.default_task not in tasks:
            raise ValueError(
                f"The pipeline {self.default_task!r} is not for a model of type {self.model.config.model_type!r}; use the pipeline "
                f"{tasks[0]!r}."
            )
        if self.processor is None:
            raise ValueError(f"The pipeline {self.default_task!r} needs the model's `processor`: pass it beside the model.")
        ends, end = end_tokens(self.model.generation_config.eos_token_id), self.processor.tokenizer.eos_token_id
        if end not in ends:
            raise ValueError(
                f"The processor's texts end with token {end}, and the model waits for {ends or 'none'}: pass the processor that "
                f"the model was trained with, or set `model.generation_config.eos_token_id` to {end}."
            )

        start, of_model = self.processor.start_token_id, self.model.config.decoder_start_token_id
        if start not in (None, of_model):
            logger.warning(
                f"The processor's prompts end in front of token {start}, and the model starts with token {of_model}: pass the "
                f"processor that the model was trained with, or build the model with `decoder_start_token_id={start}`."
            )

    def __call__(self, inputs: Any, *args, **kwargs):
        # Inputs that are read one at a time are checked one at a time.
        if inputs is not None and self.processor.embedding_size is not None:
            vectors, single = self.processor.batch(inputs)
            return super().__call__(vectors[0] if single else vectors, *args, **kwargs)
        self._warns_of_each = isinstance(inputs, (Chat, GeneratorType, Dataset))
        if inputs is not None and not self._warns_of_each:
            if not isinstance(inputs, (str, dict)):
                inputs = as_items("text", inputs, "an input or a list of inputs")
            # All inputs are checked before the first is answered, so that an error gives the position.
            items, _ = self.processor.batch(inputs)
            self._warn_of_unknown_words(items)
        return super().__call__(inputs, *args, **kwargs)

    def _warn_of_unknown_words(self, items: list) -> float:
        return warn_of_unknown_words(self.processor.encoder_tokenizer, texts_in(items))

    def _sanitize_parameters(self, return_latents: bool | None = None, max_source_length: int | None = None, **generate_kwargs):
        given = {"return_latents": return_latents}, {"max_length": max_source_length}
        postprocess, preprocess = ({name: value for name, value in each.items() if value is not None} for each in given)
        return preprocess, generate_kwargs, postprocess

    def preprocess(self, inputs: Any, **lengths) -> dict[str, Any]:
        """The features of one input. They stay lists, because the processor pads each feature on its own side."""
        if inputs is None:
            return {"features": {}}
        dialog = inputs.messages if isinstance(inputs, Chat) else inputs
        name = "text" if self.processor.embedding_size is None else "embeddings"
        features = dict(self.processor(**{name: dialog}, return_tensors=None, **lengths))
        if self._warns_of_each and self._warn_of_unknown_words(self.processor.batch(dialog)[0]) > WARN_ABOVE:
            # Once a call.
            self._warns_of_each = False
        return {"features": features}

    def _forward(self, model_inputs: dict[str, Any], **generate_kwargs) -> dict[str, Any]:
        features = model_inputs["features"]
        rows = features if isinstance(features, list) else [features]
        inputs = self.processor.pad(rows).to(self.model.device) if any(rows) else {}
        output = self.model.generate(**inputs, return_dict_in_generate=True, **generate_kwargs)
        return {name: output[name].unflatten(0, (len(rows), -1)) for name in ("sequences", "latents")}

    def postprocess(self, model_outputs: dict[str, Any], return_latents: bool = False) -> list[dict[str, Any]]:
        """The texts of one input."""
        [sequences], [latents] = model_outputs["sequences"], model_outputs["latents"]
        texts = self.processor.batch_decode(sequences, skip_special_tokens=True)
        records: list[dict[str, Any]] = [{"generated_text": text.strip()} for text in texts]
        if return_latents:
            for record, of_text in zip(records, latents.unflatten(0, (len(texts), -1))):
                record["latents"] = (of_text[0] if len(of_text) == 1 else of_text).tolist()
        return records

    def save_pretrained(self, save_directory, **kwargs):
        """Saves the model, the processor, and the place of the pipeline's code."""
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


class ParaphrasePipeline(LatentTextGenerationPipeline):
    """
    Paraphrases of each text, `pipeline("paraphrase", model=...)`, called as [`LatentTextGenerationPipeline`].

    ```python
    paraphrase = pipeline("paraphrase", model="outputs/paraphrase")
    paraphrase(["how old are you ?", "where is it ?"], num_return_sequences=5, batch_size=2)
    ```
    """

    default_task = "paraphrase"


class DialogPipeline(LatentTextGenerationPipeline):
    """
    Replies to each dialogue, `pipeline("dialog", model=...)`, called as [`LatentTextGenerationPipeline`] with dialogues as
    [`DialogCVAEProcessor`] takes them: a list of messages, or a dictionary with `messages` and who is to reply, or by which act.

    ```python
    reply = pipeline("dialog", model="outputs/dialog")
    reply([{"role": "user", "content": "the farmer bought a lamp ."}], num_return_sequences=5)
    ```

    Without `max_source_length`, as many of the latest turns are read as the model holds beside the reply.
    """

    default_task = "dialog"

    def _sanitize_parameters(self, **kwargs):
        preprocess, generate, postprocess = super()._sanitize_parameters(**kwargs)
        reply = {name: generate[name] for name in ("max_new_tokens", "generation_config") if generate.get(name) is not None}
        return {**preprocess, **reply}, generate, postprocess

    def preprocess(self, inputs: Any, max_length: int | None = None, **reply) -> dict[str, Any]:
        """The features of one dialogue: of the latest turns that the model holds beside the reply."""
        if max_length is None:
            limits = (self.model.longest_context(**reply), self.processor.max_context_length)
            max_length = min((limit for limit in limits if limit), default=None)
        return super().preprocess(inputs, max_length=max_length)


__all__ = ["DialogPipeline", "LatentTextGenerationPipeline", "ParaphrasePipeline"]
