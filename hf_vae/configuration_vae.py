"""Configuration of the text VAE: an encoder's, a decoder's, and what stands between them."""

from typing import Any, cast

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

from .checks import check_choice, check_count, check_flow, check_number, check_token
from .compat import CompositeConfig, SubConfigSpec

# For what it registers: a part may be an LSTM, also if the model brings its own code along.
from .configuration_lstm import LSTMConfig  # noqa: F401

# What the fields of these names may say. Whoever registers a class under a new name adds the name here.
LATENT_INJECTION_TYPES = ["embedding", "memory", "prefix", "logits"]
LATENT_PLACEMENTS = ("before_source", "after_source")
POSTERIOR_TYPES = ["gaussian"]
# And whether the prior is one of x, p(z|x).
PRIOR_TYPES = {"standard": False, "conditional": True, "flow": False, "fitted": False}
FREE_BITS_PER = ("sentence", "vector", "dimension", "batch")
POOLINGS = ("mean", "target", "first", "pooler", "attention", "local_attention")
# Those of several vectors.
ATTENTION_POOLINGS = ("attention", "local_attention")
PARTS = ("encoder", "decoder")
# Goes up when what is saved means something that earlier versions of this code would not understand.
FORMAT_VERSION = 3


def without_places(config: Any) -> Any:
    """A configuration's dictionary without the path or Hub id that each part was loaded from, which may name a user's folders."""
    if not isinstance(config, dict):
        return config
    return {name: without_places(value) for name, value in config.items() if name != "_name_or_path"}


def default_pooling(num_latents: int) -> str | None:
    """The `pooling` that so many vectors ask for; `None` leaves it to the encoder."""
    return None if num_latents == 1 else "attention"


@strict
class VAEConfig(CompositeConfig):
    r"""
    Configuration of a [`VAEModel`]: q(z|y) from `encoder`, N(0, I), p(y|z) from `decoder`. One encoder, which serves q.

    Args:
        encoder (`PreTrainedConfig` or `dict`, defaults to BERT's): of any model under `AutoModel`.
        decoder (`PreTrainedConfig` or `dict`, defaults to GPT-2's): of any model under `AutoModelForCausalLM`.
        embedding_size (`int`, *optional*): q reads a given vector of this size, of any embedder, in the place of tokens. There is
            no encoder then, and `config.encoder` is `None`.
        normalize_embeddings (`bool`, defaults to `False`): whether these vectors have length 1, as most embedders give them. Others
            are refused.
        latent_size (`int`, defaults to 32): number of dimensions of z, or of each of its vectors if there are several.
        num_latents (`int`, defaults to 1): vectors that z consists of. Wherever z is given or returned they stand side by side, as
            `total_latent_size` numbers. From two on `pooling` is an attention.
        latent_injection (`str` or `list[str]`, defaults to `"embedding"`): how z enters the decoder, in one or several ways:
            `"embedding"`, `"memory"`, `"prefix"` or `"logits"` (see [`LatentDecoder`]).
        latent_placement (`str`, defaults to `"before_source"`): where z begins, if the decoder reads a prompt. `"before_source"`:
            whatever it reads knows z. `"after_source"`: it reads the prompt without z, which enters at the start token; so
            one reading of x serves any number of z.
        prefix_length (`int`, *optional*): embeddings that stand for z with `"prefix"`: 4, or one for each of several vectors.
        pooling (`str`, *optional*): what the posterior's head reads: `"mean"` of the encoder's last hidden states over the tokens
            that are no padding; their mean over y alone of the pair that q(z|x,y) reads, `"target"`, which is the mean of any
            other text; the `"first"` token's state; the encoder's trained `"pooler"`; `"attention"`: `num_latents` learned
            queries attend to the states ([`Resampler`]), for q and for p(z|x), and whatever else reads a vector of x reads the
            mean; or, of a [`VAEModel`], `"local_attention"`: each query attends to its share of the text above all. Defaults to
            `"mean"`, and to `"attention"` with several vectors.
        posterior_bias (`bool`, defaults to `True`): whether the posterior's head has a bias; Optimus' has none.
        posterior_type (`str`, defaults to `"gaussian"`): the family of q, or a name that was given to `register_posterior`.
        prior_type (`str`, defaults to `"standard"`): `"standard"` is N(0, I); `"conditional"`, of conditional models, a network
            p(z|x); `"flow"` a [`FlowPrior`] that is trained with the model; `"fitted"` the prior that was fitted to the codes, so
            that a further training charges for the KL to that; or a name that was given to `register_prior`.
        flow_layers (`int`, defaults to 8): couplings of `prior_type="flow"`.
        flow_hidden_size (`int`, defaults to 128): width of the networks in them.
        free_bits (`float`, defaults to 0.0): nats of KL that the training loss does not charge for.
        free_bits_per (`str`, defaults to `"sentence"`): whether `free_bits` are granted to a `"sentence"` in total, to each
            `"vector"` of z, to each latent `"dimension"`, or to the mean over the `"batch"` of each dimension. Changes the loss in
            training, never the reported `kl`, nor anything in evaluation.
        capacity (`float`, *optional*): instead of the KL, training charges for the distance of the batch's mean KL from this
            number of nats per sentence (Burgess et al. 2018).
        batch_norm_gamma (`float`, *optional*): posterior means are normalised over the batch to this standard deviation (Zhu et
            al. 2020). The KL to N(0, I) is then at least `total_latent_size` · `batch_norm_gamma`² / 2; to a p(z|x) it may be less.
        bow_loss_weight (`float`, defaults to 0.0): weight, in training, of the bag-of-words loss (Zhao et al. 2017): z, and x where
            there is one, predict y's words without their order. 1.0 in the paper.
        fitted_prior_components (`int`, *optional*): components of a `fitted_prior`, a Gaussian mixture that was fitted to the
            encoder's codes after training (`hf_vae.latent_space.fit_prior`) and that `generate` can draw z from.
        latent_attributes (`dict`, *optional*): what of each `LatentAttribute` that the model holds is not in its weights: the
            `labels` and the `hidden_size`, by the attribute's name. `set_attribute` sets it.
        fitted_prior_flow (`dict`, *optional*): `num_layers`, `hidden_size` and `labels` of a `fitted_prior` that is a
            [`FlowPrior`] (`hf_vae.latent_space.fit_flow_prior`).
        word_dropout (`float`, defaults to 0.0): probability with which, in training, a target token that the decoder reads
            is replaced (Bowman et al. 2015). Never the start token, the prompt or padding. 1.0 is the inputless decoder, which
            reads no word outside training either: not in evaluation, and not those that it has generated itself.
        word_dropout_token_id (`int`, *optional*): what replaces a dropped word; required with `word_dropout`.
        pad_token_id, eos_token_id, decoder_start_token_id (`int`, *optional*): the decoder's. The start token marks where y
            begins; it defaults to the decoder's BOS, then its EOS. Settled when the configuration is made.
        frozen_parts (`dict`, *optional*): parts that were never trained and are not saved with the model: `"encoder"`,
            `"decoder"` or both, each with the `name_or_path` and `revision` to load it from. If it came from a folder,
            `name_or_path` is the folder's name, `revision` is `None`, and `sha256` is the digest of its weights.
            `from_encoder_decoder_pretrained` sets it if it is asked to `freeze`.
        format_version (`int`): of what is saved. A later one than this code knows is refused.

    Raises:
        StrictDataclassError: of huggingface_hub, for a value of the wrong type, a choice that does not exist, a size or rate out of
            range, or if there is no token to start with.
    """

    model_type = "text-vae"
    sub_configs_defaults = {
        "encoder": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
        "decoder": SubConfigSpec(config_class=AutoConfig, model_type="gpt2"),
    }
    # What `Trainer.predict` and `compute_metrics` need not collect.
    keys_to_ignore_at_inference = ["logits"]

    # A dictionary or nothing becomes a configuration as this one is made.
    encoder: Any = None
    decoder: Any = None
    embedding_size: int | None = None
    normalize_embeddings: bool = False
    latent_size: int = 32
    num_latents: int = 1
    latent_injection: str | list[str] = "embedding"
    latent_placement: str = "before_source"
    prefix_length: int | None = None
    pooling: str | None = None
    posterior_bias: bool = True
    posterior_type: str = "gaussian"
    prior_type: str = "standard"
    flow_layers: int = 8
    flow_hidden_size: int = 128
    free_bits: int | float = 0.0
    free_bits_per: str = "sentence"
    capacity: int | float | None = None
    batch_norm_gamma: int | float | None = None
    bow_loss_weight: int | float = 0.0
    fitted_prior_components: int | None = None
    latent_attributes: dict[str, Any] | None = None
    fitted_prior_flow: dict[str, Any] | None = None
    word_dropout: int | float = 0.0
    word_dropout_token_id: int | None = None
    pad_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    decoder_start_token_id: int | None = None
    is_encoder_decoder: bool = True
    frozen_parts: dict[str, Any] | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self, **kwargs):
        for name in PARTS:
            part = getattr(self, name)
            if part is not None and not isinstance(part, (dict, PreTrainedConfig)):
                raise ValueError(
                    f"`{name}` is {str(part)[:50]!r}; give its configuration, such as `AutoConfig.from_pretrained(name)`, or a "
                    "dictionary."
                )
        if self.embedding_size is not None and self.encoder is not None:
            raise ValueError(
                f"`encoder` is given, and `embedding_size` is {self.embedding_size}: q reads tokens with an encoder or a given "
                "vector. Leave one of them out."
            )
        super().__post_init__(**kwargs)
        if self.embedding_size is not None:
            # transformers fills in the default of a part that is not given.
            self.encoder = None
        if isinstance(self.latent_injection, str):
            self.latent_injection = [self.latent_injection]
        if self.pooling is None:
            self.pooling = default_pooling(self.num_latents) or "mean"
        if self.prefix_length is None:
            self.prefix_length = 4 if self.num_latents == 1 else self.num_latents

        def token(name: str) -> Any:
            """The decoder's; some families keep theirs with the text model, and some write -1 if there is none."""
            return next(
                (
                    value
                    for config in (self.decoder, self.decoder.get_text_config())
                    if (value := getattr(config, name, None)) is not None and value != -1
                ),
                None,
            )

        if self.eos_token_id is None:
            self.eos_token_id = token("eos_token_id")
        eos = next(iter(self.eos_token_id), None) if isinstance(self.eos_token_id, list) else self.eos_token_id
        if self.decoder_start_token_id is None:
            candidates = (token("decoder_start_token_id"), token("bos_token_id"), eos)
            self.decoder_start_token_id = next((value for value in candidates if value is not None), None)
        if self.pad_token_id is None:
            # Padding is masked, so any token may stand there.
            candidates = (token("pad_token_id"), eos, self.decoder_start_token_id)
            self.pad_token_id = next((value for value in candidates if value is not None), None)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs):
        """
        As `PreTrainedConfig.from_dict`.

        Raises:
            ValueError: it is the configuration of another type of model.
        """
        found = config_dict.get("model_type", cls.model_type)
        if cls.model_type and found != cls.model_type:
            raise ValueError(
                f"This is the configuration of a model of type {found!r}, and {cls.__name__} is for {cls.model_type!r}: load it "
                "with `AutoModel` or `AutoConfig`, which find the right class."
            )
        if cls.__module__.partition(".")[0] != TRANSFORMERS_DYNAMIC_MODULE_NAME:
            # The package is here, and its own pipelines with it: `pipeline` need not run the copy that was saved with the model.
            config_dict = {name: value for name, value in config_dict.items() if name != "custom_pipelines"}
        if config_dict.get("format_version", FORMAT_VERSION) < 3:
            # There was but one placement then.
            config_dict = {"latent_placement": "before_source", **config_dict}
        return super().from_dict(config_dict, **kwargs)

    def to_diff_dict(self) -> dict[str, Any]:
        """
        As `PreTrainedConfig.to_diff_dict`, always with the `format_version` and the `latent_placement`, and without the places that
        the parts came from.
        """
        always = {"format_version": self.format_version, "latent_placement": self.latent_placement}
        return {**without_places(super().to_diff_dict()), **always}

    @property
    def total_latent_size(self) -> int:
        """Width of z wherever it is given or returned: its vectors side by side."""
        return self.num_latents * self.latent_size

    @property
    def decoder_latent_size(self) -> int:
        """Width of what the decoder reads as its latent: z, and whatever else enters with it."""
        return self.total_latent_size

    @property
    def vector_pooling(self) -> str:
        """How an encoder's states become one vector for what reads but one, whatever q reads."""
        return "mean" if self.pooling in ATTENTION_POOLINGS else cast(str, self.pooling)

    @property
    def is_conditional(self) -> bool:
        """Whether there is an x that is given."""
        return False

    @property
    def prior_reads_source(self) -> bool:
        """Whether the prior is p(z|x)."""
        return PRIOR_TYPES[self.prior_type]

    @property
    def has_posterior(self) -> bool:
        """Whether there is a q of its own to draw z from in training."""
        return True

    @property
    def inputless(self) -> bool:
        """Whether the decoder reads no word of y at all, so that z alone says what comes next (Bowman et al. 2015)."""
        return self.word_dropout == 1

    def validate_numbers(self):
        """Runs when a configuration is made or loaded, as all that `validate` something."""
        for name in ("latent_size", "num_latents", "prefix_length", "format_version"):
            check_count(name, getattr(self, name))
        for name in ("free_bits", "bow_loss_weight"):
            check_number(name, getattr(self, name), least=0)
        check_number("word_dropout", self.word_dropout, least=0, most=1)
        if self.capacity is not None:
            check_number("capacity", self.capacity, least=0)
        if self.batch_norm_gamma is not None:
            check_number("batch_norm_gamma", self.batch_norm_gamma, above=0)
        if self.fitted_prior_components is not None:
            check_count("fitted_prior_components", self.fitted_prior_components)

    def validate_embeddings(self):
        if self.embedding_size is None:
            if self.normalize_embeddings:
                raise ValueError(
                    "`normalize_embeddings` is True, and there is no `embedding_size`: q reads tokens with an encoder. Give the "
                    "size of the vectors, or leave it out."
                )
            return
        check_count("embedding_size", self.embedding_size)
        if self.is_conditional:
            raise ValueError(
                f"`embedding_size` is {self.embedding_size}, and a {type(self).__name__} reads its source as tokens: only a "
                "`VAEConfig` takes given vectors."
            )
        if self.pooling in ATTENTION_POOLINGS:
            raise ValueError(
                f"`embedding_size` is {self.embedding_size}, so q reads one vector, and `pooling={self.pooling!r}` or several "
                "latent vectors (`num_latents`) need the states of an encoder: leave them out."
            )
        if "encoder" in (self.frozen_parts or {}):
            raise ValueError(f"`frozen_parts` names the encoder, and with `embedding_size={self.embedding_size}` there is none.")

    def validate_latent_attributes(self):
        for name, spec in (self.latent_attributes or {}).items():
            if not isinstance(spec, dict) or spec.keys() != {"labels", "hidden_size"}:
                raise ValueError(f"`latent_attributes[{name!r}]` is {spec}; it has `labels` and a `hidden_size`.")

    def validate_tokens(self):
        """Each token that is put into the decoder's text is one of its vocabulary."""
        for name in ("pad_token_id", "decoder_start_token_id", "word_dropout_token_id"):
            check_token(name, getattr(self, name), self.decoder)

    def validate_latent_options(self):
        if self.format_version > FORMAT_VERSION:
            raise ValueError(
                f"`format_version` is {self.format_version}: a later hf_vae than this one has written the configuration, and this "
                f"one understands {FORMAT_VERSION} at most. Upgrade hf_vae."
            )
        for way in self.latent_injection:
            check_choice("latent_injection", way, tuple(LATENT_INJECTION_TYPES))
        if not self.latent_injection or len(set(self.latent_injection)) < len(self.latent_injection):
            raise ValueError(f"`latent_injection` is {self.latent_injection}; name at least one way in, and each once.")
        check_choice("latent_placement", self.latent_placement, LATENT_PLACEMENTS)
        check_choice("pooling", self.pooling, POOLINGS)
        for part, base in (self.frozen_parts or {}).items():
            check_choice("frozen_parts", part, PARTS)
            named = isinstance(base, dict) and isinstance(base.get("name_or_path"), str)
            if not named or set(base) - {"sha256"} != {"name_or_path", "revision"}:
                raise ValueError(f"`frozen_parts[{part!r}]` is {base}; it has a `name_or_path` and a `revision`.")
            if "sha256" in base and (base["revision"] is not None or set("/\\") & set(base["name_or_path"])):
                raise ValueError(
                    f"`frozen_parts[{part!r}]` is {base}; with a `sha256` it is the bare name of a folder, without a revision."
                )
        check_choice("free_bits_per", self.free_bits_per, FREE_BITS_PER)
        if self.capacity is not None and self.free_bits:
            raise ValueError(f"`capacity` is {self.capacity} and `free_bits` {self.free_bits}; a capacity stands alone.")
        if self.word_dropout and self.word_dropout_token_id is None:
            raise ValueError(
                "`word_dropout` needs `word_dropout_token_id`, the token that stands for a dropped word (the decoder's "
                "tokenizer's unknown or mask token, or its padding if it has neither)."
            )

    def validate_num_latents(self):
        if self.num_latents > 1 and self.pooling not in ATTENTION_POOLINGS:
            raise ValueError(
                f"`num_latents` is {self.num_latents} and `pooling` {self.pooling!r}, which makes one vector of a text: choose "
                "'attention', or leave `pooling` out."
            )
        if self.pooling == "local_attention" and self.is_conditional:
            raise ValueError(
                "`pooling` is 'local_attention', which shares out one text, and the posterior of a "
                f"{type(self).__name__} reads two, x and y: choose 'attention'."
            )
        if self.num_latents > 1 and self.prefix_length != self.num_latents:
            raise ValueError(
                f"`num_latents` is {self.num_latents} and `prefix_length` {self.prefix_length}: of several vectors each becomes "
                "one embedding. Leave `prefix_length` out."
            )
        filled = {"prefix": cast(int, self.prefix_length), "memory": self.num_latents}
        ways = [way for way in self.latent_injection if way in filled]
        positions = getattr(self.decoder.get_text_config(), "max_position_embeddings", None)
        if positions is not None and 0 < positions <= (total := sum(filled[way] for way in ways)):
            raise ValueError(
                f"z fills {total} positions (`latent_injection` names {' and '.join(map(repr, ways))}, `num_latents` is "
                f"{self.num_latents}, `prefix_length` {self.prefix_length}), and the decoder holds {positions} "
                "(`max_position_embeddings`), which leaves none for a text: choose fewer, or 'embedding', which fills none."
            )

    def validate_distributions(self):
        check_choice("posterior_type", self.posterior_type, tuple(POSTERIOR_TYPES))
        check_choice("prior_type", self.prior_type, tuple(PRIOR_TYPES))
        if self.prior_reads_source and not self.is_conditional:
            raise ValueError(f"`prior_type` is {self.prior_type!r}, a prior of x, and a {type(self).__name__} has no x.")
        for name in ("flow_layers", "flow_hidden_size"):
            check_count(name, getattr(self, name))
        if self.prior_type == "flow":
            check_flow(self.total_latent_size, self.flow_layers, self.flow_hidden_size)
        if self.fitted_prior_flow is not None:
            if self.fitted_prior_components is not None:
                raise ValueError(
                    "`fitted_prior_components` and `fitted_prior_flow` are both given; a model keeps one fitted prior."
                )
            if not set(self.fitted_prior_flow) <= {"num_layers", "hidden_size", "labels"}:
                raise ValueError(
                    f"`fitted_prior_flow` is {self.fitted_prior_flow}; it has `num_layers`, `hidden_size` and `labels`."
                )
            check_flow(self.total_latent_size, **{"num_layers": 8, "hidden_size": 128, **self.fitted_prior_flow})
        if self.prior_type == "fitted" and self.fitted_prior_components is None and self.fitted_prior_flow is None:
            raise ValueError(
                "`prior_type` is 'fitted', and there is no `fitted_prior_components` and no `fitted_prior_flow`: fit a prior with "
                "`hf_vae.latent_space.fit_prior` or `fit_flow_prior` and keep it with `model.set_fitted_prior` first."
            )

    def validate_decoder_start(self):
        if self.decoder_start_token_id is None:
            raise ValueError(
                "The decoder's configuration has neither `decoder_start_token_id`, `bos_token_id` nor `eos_token_id`: pass "
                "`decoder_start_token_id`, the token that marks where the generated text begins."
            )


__all__ = ["VAEConfig"]
