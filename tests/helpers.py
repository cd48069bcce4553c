"""What the tests share: tiny models, batches, trainers and scripts."""

import importlib
import json
import math
import os
from pathlib import Path
from types import ModuleType

import torch
from datasets import Dataset
from transformers import HfArgumentParser, Trainer, TrainerCallback, TrainingArguments

from families import (  # noqa: F401 (most tests need no other family than these)
    BOS,
    DECODERS,
    EOS,
    PAD,
    UNK,
    VOCAB,
    tiny_encoder_config,
    tiny_gpt2_config,
    tiny_llama_config,
    tiny_lstm_config,
)
from hf_vae import (
    ConditionalVAEModel,
    CVAEConfig,
    CVAEModel,
    CVAEProcessor,
    DiagonalGaussian,
    DialogCVAEConfig,
    DialogCVAEModel,
    DialogCVAEProcessor,
    ParaphraseVAEConfig,
    ParaphraseVAEModel,
    ParaphraseVAEProcessor,
    VAEConfig,
    VAEDataCollator,
    VAEModel,
    VAEProcessor,
)
from hf_vae.cli.build import build_model
from hf_vae.cli.from_scratch import train_tokenizers
from hf_vae.data import grammar
from hf_vae.evaluation import LikelihoodEvaluator
from hf_vae.options.model import ModelArguments

TESTS = Path(__file__).parent
ROOT = TESTS.parent
EXAMPLES = ROOT / "examples"
# Of all recipes, those that need no data are the package's.
_FOLDERS = (EXAMPLES / "recipes", ROOT / "hf_vae" / "cli" / "recipes")
RECIPES = {path.stem: path for folder in _FOLDERS for path in folder.glob("*.yaml")}

TEXTS = ["the cat sat on the mat", "a dog ran in the park", "the mat", "a park", "the dog sat"]
TARGETS = ["a cat", "the dog ran", "the mat sat", "a dog", "the park"]
TALK = [
    {"role": "ann", "content": "hello"},
    {"role": "bob", "content": "good morning"},
    {"role": "ann", "content": "was it noon ?"},
]
SENTENCES = grammar.draw_sentences(12, seed=0)
GREEDY = {"do_sample": False, "max_new_tokens": 8, "min_new_tokens": 8}
# A run of any of the training scripts that takes seconds.
SMALL = [
    "--max_steps", "4", "--max_test_samples", "4", "--importance_samples", "3", "--hidden_size", "16", "--max_new_tokens", "8",
    "--latent_free_steps", "2", "--per_device_train_batch_size", "4", "--disable_tqdm", "true", "--use_cpu", "--report_to", "none",
]  # fmt: skip
# A run of `train_vae` through all its stages, which saves as it goes.
RESUMABLE = [
    *SMALL, "--save_steps", "2", "--grammar_sentences", "60", "--importance_samples", "2", "--latent_size", "4",
    "--num_attention_heads", "2", "--decoder_layers", "1", "--max_new_tokens", "6", "--seed", "0", "--latent_free_steps", "3",
    "--encoder_pretraining_steps", "3", "--posterior_fit_steps", "3", "--eval_strategy", "no", "--collapse_report_samples", "0",
    "--logging_steps", "50", "--lr_scheduler_type", "constant", "--dropout", "0.1", "--save_strategy", "steps",
    "--latent_injection", "embedding", "prefix", "--soft_token_fit_steps", "3", "--decoder_fit_steps", "3",
]  # fmt: skip


def make_model(variant: str, decoder="gpt2", **options):
    """
    One of the family, in evaluation mode, with weights that follow from the variant's name alone. `decoder` is `"gpt2"`,
    `"llama"` or a configuration.
    """
    torch.manual_seed(0)
    tiny = {"gpt2": tiny_gpt2_config, "llama": tiny_llama_config}
    parts = {
        "encoder": tiny_encoder_config(),
        "decoder": tiny[decoder]() if isinstance(decoder, str) else decoder,
        "latent_size": 4,
    }
    if variant == "vae":
        return VAEModel(VAEConfig(**{**parts, **options})).eval()
    if variant == "vae-optimus":
        optimus = {"latent_injection": ["memory", "embedding"], "pooling": "pooler", "posterior_bias": False}
        return VAEModel(VAEConfig(**{**parts, **optimus, **options})).eval()
    if variant == "vae-lstm":
        parts.update(encoder=tiny_lstm_config(bidirectional=True), decoder=tiny_lstm_config(num_hidden_layers=2))
        bowman = {"latent_injection": ["memory", "embedding"], "pooling": "pooler"}
        return VAEModel(VAEConfig(**{**parts, **bowman, **options})).eval()
    if variant.startswith("cvae"):
        conditional = {"cvae": {}, "cvae-cross": {"source_conditioning": "cross_attention", "tie_encoders": False}}[variant]
        return CVAEModel(CVAEConfig(**{**parts, **conditional, **options})).eval()
    if variant.startswith("dialog"):
        dialog = {
            "dialog": {"meta_categories": [3, 2], "num_meta_values": 1, "meta_embedding_size": 2},
            "dialog-acts": {"num_acts": 3, "act_embedding_size": 5, "act_hidden_size": 8},
            "dialog-lstm": {
                "context_encoding": "hierarchical", "source_conditioning": "initial_state", "pooling": "pooler", "num_acts": 3,
                "act_embedding_size": 5, "act_hidden_size": 8,
            },
        }[variant]  # fmt: skip
        if variant == "dialog-lstm":
            parts.update(encoder=tiny_lstm_config(bidirectional=True), decoder=tiny_lstm_config(num_hidden_layers=2))
        return DialogCVAEModel(DialogCVAEConfig(**{**parts, **dialog, **options})).eval()
    conditioning = {
        "paraphrase-prompt": {},
        "paraphrase-eq": {"source_conditioning": "cross_attention"},
        "paraphrase-cross": {"source_conditioning": "cross_attention", "tie_encoders": False},
        "paraphrase-lstm": {"source_conditioning": "initial_state", "tie_encoders": False, "pooling": "pooler"},
    }[variant]
    if variant == "paraphrase-lstm":
        parts.update(encoder=tiny_lstm_config(bidirectional=True), decoder=tiny_lstm_config(num_hidden_layers=2))
    return ParaphraseVAEModel(ParaphraseVAEConfig(**{**parts, **conditioning, **options})).eval()


VARIANTS = (
    "vae", "vae-optimus", "vae-lstm", "cvae", "cvae-cross", "paraphrase-prompt", "paraphrase-eq", "paraphrase-cross",
    "paraphrase-lstm", "dialog", "dialog-acts", "dialog-lstm",
)  # fmt: skip
CONDITIONAL_VARIANTS = tuple(variant for variant in VARIANTS if not variant.startswith("vae"))


def make_batch(model, rows: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random inputs with ragged rows: sources padded on the right, prompts on the left, labels with -100."""
    generator = torch.Generator().manual_seed(seed)

    def ragged(length: int, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.randint(4, VOCAB, (rows, length), generator=generator)
        lengths = torch.randint(2, length + 1, (rows,), generator=generator)
        lengths[0] = length
        order = torch.arange(length).expand(rows, length)
        mask = (order >= length - lengths[:, None]) if left else (order < lengths[:, None])
        return ids.masked_fill(~mask, PAD), mask.long()

    batch = {}
    batch["input_ids"], batch["attention_mask"] = ragged(7)
    labels, mask = ragged(6)
    labels[range(rows), mask.sum(-1) - 1] = EOS
    batch["labels"] = labels.masked_fill(mask == 0, -100)
    if isinstance(model, ConditionalVAEModel):
        batch["posterior_input_ids"], batch["posterior_attention_mask"] = ragged(11)
        if model.config.source_conditioning == "prompt":
            batch["prompt_input_ids"], batch["prompt_attention_mask"] = ragged(5, left=True)
    if isinstance(model, DialogCVAEModel):
        config = model.config
        if config.context_encoding == "hierarchical":
            turns = [(batch["input_ids"], batch["attention_mask"]), ragged(7), ragged(7)]
            batch["input_ids"], batch["attention_mask"] = (torch.stack(each, 1) for each in zip(*turns))
            # One row has fewer turns.
            batch["attention_mask"][1:2, 2] = 0
            batch["same_speaker"] = torch.randint(2, (rows, 3), generator=generator)
        if config.meta_size:
            columns = [torch.randint(count, (rows,), generator=generator) for count in config.meta_categories]
            batch["meta_categories"] = torch.stack(columns, 1)
            batch["meta_values"] = torch.rand(rows, config.num_meta_values, generator=generator)
        if config.num_acts is not None:
            batch["act_labels"] = torch.randint(config.num_acts, (rows,), generator=generator)
    return batch


def generation_inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    measured = ("labels", "act_labels")
    return {name: tensor for name, tensor in batch.items() if name not in measured and not name.startswith("posterior")}


def listening(model):
    """A model whose decoder says something else for every z, and whose encoder spreads its codes."""
    with torch.no_grad():
        for name, parameter in [*model.decoder.named_parameters(), *model.posterior_head.named_parameters()]:
            if not name.startswith("lm."):
                parameter *= 20
    return model.eval()


def posterior_means(model, processor, texts):
    with torch.no_grad():
        inputs = processor(texts)
        return model.encode(**{name: inputs[name] for name in ("input_ids", "attention_mask")}).latent_dist.mean


def ragged_dataset(processor, rows: int = 8) -> Dataset:
    """Pairs whose lengths differ much, so that a wrong weighting of micro-batches shows."""
    words = ["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "in", "park"]
    pairs = [(" ".join(words[: 2 + i % 4]), " ".join(words[i % 5 : i % 5 + 1 + (i * 3) % 7])) for i in range(rows)]
    return Dataset.from_list([dict(processor(x, y, return_tensors=None)) for x, y in pairs])


def trainer_for(model, processor, output_dir, callbacks=(), rows: int = 8, compute_metrics=None, **options) -> Trainer:
    """The plain Trainer on `ragged_dataset`, which is what it evaluates on too."""
    defaults = {
        "max_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 1e-2, "save_strategy": "no", "report_to": "none",
        "use_cpu": True, "disable_tqdm": True, "logging_steps": 1, "dataloader_pin_memory": False, "seed": 0,
    }  # fmt: skip
    data = ragged_dataset(processor, rows)
    return Trainer(
        model,
        TrainingArguments(output_dir=str(output_dir), **defaults | options),
        train_dataset=data,
        eval_dataset=data,
        data_collator=VAEDataCollator(processor),
        compute_metrics=compute_metrics,
        callbacks=list(callbacks),
    )


def training_arguments(tmp_path, **options) -> TrainingArguments:
    """Of a stage after a training, on batches of four."""
    return TrainingArguments(
        output_dir=str(tmp_path / "out"), per_device_train_batch_size=4, use_cpu=True, disable_tqdm=True, report_to="none",
        weight_decay=0.0, **options,
    )  # fmt: skip


def technique_trainer(processor, output_dir, callbacks=(), model=None, **options) -> Trainer:
    """`trainer_for` a VAE, at a constant rate."""
    model = resized(make_model("vae"), processor) if model is None else model
    return trainer_for(model, processor, output_dir, callbacks, **{"lr_scheduler_type": "constant"} | options)


def noise_of_the_mean(gaussian: DiagonalGaussian, *_) -> torch.Tensor:
    """A sample whose noise follows from the mean alone, so that a row has the same in every batch and on any process."""
    return gaussian.mean + gaussian.std * torch.sin(37 * gaussian.mean.detach())


def fixed_noise(monkeypatch) -> None:
    monkeypatch.setattr(DiagonalGaussian, "sample", noise_of_the_mean)


def gradients_of(model, trainer):
    """The gradient that the optimiser sees."""
    seen = {}

    def keep(*_):
        seen.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})

    trainer.create_optimizer()
    trainer.optimizer.register_step_pre_hook(keep)
    trainer.train()
    return seen


def assert_same_gradients(found, expected):
    """To 1e-6 of the gradient's norm, in every entry: what float32 sums in another order agree to."""
    assert found.keys() == expected.keys() and len(found) > 20
    norm = torch.stack([gradient.norm() for gradient in expected.values()]).norm().item()
    for name, gradient in expected.items():
        error = (found[name] - gradient).abs().max().item()
        assert error <= 1e-6 * norm, f"{name}: {error:.1e}, the whole gradient's norm is {norm:.1e}"


def resized(model, processor):
    """The tiny models know 40 tokens; these texts have more."""
    model.encoder.resize_token_embeddings(len(processor.encoder_tokenizer))
    model.decoder.lm.resize_token_embeddings(len(processor.tokenizer))
    return model


def prefixed(processor, variant="paraphrase-prompt", decoder="llama", **options):
    """A tiny model whose z enters as a prefix, and is heard."""
    model = resized(make_model(variant, decoder, latent_injection=["prefix"], prefix_length=2, **options), processor)
    if not getattr(model.config, "tie_encoders", True):
        model.source_encoder.resize_token_embeddings(len(processor.encoder_tokenizer))
    with torch.no_grad():
        for way in model.decoder.injections:
            way.projection.weight *= 50
    # The tiny configurations name other tokens than these tokenizers have.
    tokens = processor.tokenizer
    names = {"pad_token_id": tokens.pad_token_id, "eos_token_id": tokens.eos_token_id}
    model.config.update({**names, "decoder_start_token_id": tokens.bos_token_id})
    model.generation_config.update(**names, decoder_start_token_id=tokens.bos_token_id)
    return model.eval()


def stub(*values):
    """A mutual information that is given."""
    remaining = iter(values)
    return lambda prediction: {"mutual_information": next(remaining)}


def weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def changed(before, after) -> set[str]:
    """The parts of the model in which anything differs."""
    return {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}


def moved_by(stage, model) -> set[str]:
    """The names of the weights that `stage()` changes."""
    before = weights(model)
    stage()
    return {name for name, tensor in weights(model).items() if not torch.equal(tensor, before[name])}


class Look(TrainerCallback):
    """Calls functions of the model and the optimiser at events, after the other callbacks."""

    def __init__(self, **looks):
        self.looks, self.seen = looks, {event: [] for event in looks}

    def _look(self, event, model, optimizer):
        if event in self.looks:
            self.seen[event].append(self.looks[event](model, optimizer))

    def on_step_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        self._look("step_begin", model, optimizer)

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        self._look("step_end", model, optimizer)


def child_environment() -> dict[str, str]:
    """For a Python process that a test starts: it finds this checkout and this module."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, TESTS)))}


class StoppedError(Exception):
    """What a test stops a run with."""


def load_script(name: str) -> ModuleType:
    """The module of the command that `examples/{name}.py` calls."""
    task = name.removeprefix("train_")
    return importlib.import_module(f"hf_vae.cli.{task}" if task == name else f"hf_vae.cli.tasks.{task}")


def built(*argv):
    """Model arguments, the small model that they ask for, and its processor."""
    sizes = ["--hidden_size", "16", "--num_attention_heads", "2", "--latent_size", "4", "--vocab_size", "400"]
    [model_args] = HfArgumentParser(ModelArguments).parse_args_into_dataclasses([*sizes, *argv])
    return (model_args, *build_model(VAEModel, VAEProcessor, model_args, SENTENCES, encoder_tokens=64, decoder_tokens=64))


def write_rows(path: Path, rows: list[dict]) -> str:
    """Rows as JSON lines; the file's name, as an option takes it."""
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return str(path)


def take_special_tokens(config, tokenizer) -> None:
    """The tokens that begin, end and pad a text are those of `tokenizer`."""
    for name in ("pad", "bos", "eos"):
        setattr(config, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id"))


PUBLISHED_TALK = [{"role": "user", "content": "a dog ran"}, {"role": "assistant", "content": "the mat"}]
# Each kind of model as it is published, with its processor and what it is given.
PUBLISHED = {
    "vae": ("vae-lstm", VAEProcessor, TEXTS[0], {}),
    "cvae": ("cvae", CVAEProcessor, TEXTS[0], {}),
    "paraphrase": ("paraphrase-cross", ParaphraseVAEProcessor, TEXTS[0], {"source_conditioning": "cross_attention"}),
    "dialog": ("dialog-acts", DialogCVAEProcessor, PUBLISHED_TALK, {"acts": ["x", "y", "z"]}),
}


def make_published(name: str):
    """A tiny model of this kind, with random weights, its processor, and what it is given."""
    variant, processor_class, text, options = PUBLISHED[name]
    tokenizers = train_tokenizers([TEXTS[0], "a dog ran in the park", "the mat"] * 5, vocab_size=300)
    config = make_model(variant).config
    for part, tokenizer in zip((config.decoder, config.encoder, config), (*tokenizers, tokenizers[0])):
        part.vocab_size = len(tokenizer)
        take_special_tokens(part, tokenizer)
    config.decoder_start_token_id = config.bos_token_id
    torch.manual_seed(0)
    model = type(make_model(variant))(config).eval()
    return model, processor_class(*tokenizers, **options), text


def on_a_line(model_class, processor, seed):
    """A model with one latent dimension that its decoder listens to, so that p(y|x) is an integral over a line."""
    torch.manual_seed(seed)
    encoder, decoder = tiny_encoder_config(), tiny_llama_config()
    encoder.vocab_size, decoder.vocab_size = len(processor.encoder_tokenizer), len(processor.tokenizer)
    model = model_class(model_class.config_class(encoder=encoder, decoder=decoder, latent_size=1)).eval()
    with torch.no_grad():
        model.decoder.latent_injection.embedding.projection.weight *= 3
    return LikelihoodEvaluator(model, processor, TEXTS, TARGETS, batch_size=3, samples_per_pass=100)


GRID = torch.linspace(-8, 8, 801)


def nll_on_grid(evaluator):
    """-log p(y|x,z) at 801 points of [-8, 8]: `(examples, points)`."""
    return evaluator.nll(GRID.view(1, -1, 1).expand(len(evaluator), -1, -1))


def exact_nll(evaluator):
    """-log ∫ p(y|x,z) N(z; 0, 1) dz by the trapezoidal rule."""
    log_prior = DiagonalGaussian.standard(1, 1).log_prob(GRID.view(-1, 1)).squeeze(-1)
    return -(torch.logsumexp(log_prior - nll_on_grid(evaluator), dim=1) + math.log(16 / 800))


def left_padded(rows: int = 3):
    """Sources of up to five tokens, padded on the left, with their mask."""
    source = torch.randint(4, VOCAB, (rows, 5), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]])[:rows]
    return source.masked_fill(mask == 0, PAD), mask


def draw(*shape: int, seed: int = 2) -> torch.Tensor:
    """Standard normal numbers, the same for every caller."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
