"""
Train a paraphrase VAE (VAE-SVG, Gupta et al. 2018) with the plain Trainer.

Without arguments: offline, on the embedded grammar, a small model from nothing, in minutes.

    accelerate launch examples/train_paraphrase.py

From a recipe, on your own pairs (JSON lines, CSV, or a dataset's name), a model of the recipe's size from nothing:

    accelerate launch examples/train_paraphrase.py examples/recipes/paraphrase_captions.yaml \
        --train_file train.jsonl --validation_file validation.jsonl --test_file test.jsonl --output_dir outputs/captions

Between pretrained models:

    accelerate launch examples/train_paraphrase.py \
        --encoder_name_or_path bert-base-uncased --decoder_name_or_path gpt2 \
        --train_file train.jsonl --validation_file validation.jsonl \
        --num_train_epochs 3 --learning_rate 5e-5 --free_bits 8 --output_dir outputs/paraphrase-bert-gpt2

Every argument of `TrainingArguments` works. A YAML or JSON file of arguments may come first; what follows overrides it.
"""

import json
import logging
import os
import shlex
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import yaml
from accelerate import PartialState
from datasets import Dataset
from huggingface_hub import HfApi
from transformers import AutoTokenizer, HfArgumentParser, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from hf_vae import KLAnnealingCallback, ParaphraseVAEConfig, ParaphraseVAEModel, ParaphraseVAEProcessor, VAEDataCollator
from hf_vae.data import expand_targets, grammar, load_pairs
from hf_vae.evaluation import LikelihoodEvaluator, generate_texts, likelihood_metrics, paraphrase_metrics
from hf_vae.hub import RunRecord, write_model_card
from hf_vae.training import make_schedule
from hf_vae.training.from_scratch import small_configs, train_tokenizers
from hf_vae.training.plots import plot_training

logger = logging.getLogger(__name__)

EMBEDDED_RECIPE = Path(__file__).parent / "recipes" / "paraphrase_embedded.yaml"


RESUME_LAST = ("True", "true", "last")


def last_checkpoint(training_args: TrainingArguments) -> str | None:
    return get_last_checkpoint(training_args.output_dir) if Path(training_args.output_dir).is_dir() else None


def parse_json(options: str | dict | None) -> dict:
    """A command line's JSON, or what a file of arguments holds in its place."""
    return json.loads(options) if isinstance(options, str) else options or {}


@dataclass
class ModelArguments:
    encoder_name_or_path: str | None = field(
        default=None, metadata={"help": "Hub id or path of a pretrained encoder. Without it, both halves start from nothing."}
    )
    decoder_name_or_path: str | None = field(default=None, metadata={"help": "Hub id or path of a pretrained causal LM."})
    hidden_size: int = field(default=128, metadata={"help": "From nothing: width of both halves."})
    encoder_layers: int = field(default=1, metadata={"help": "From nothing: layers of the encoder."})
    decoder_layers: int = field(default=2, metadata={"help": "From nothing: layers of the decoder."})
    num_attention_heads: int = field(default=4, metadata={"help": "From nothing: heads of both halves."})
    vocab_size: int = field(default=1024, metadata={"help": "From nothing: most tokens of the BPE vocabulary."})
    initializer_range: float = field(default=0.1, metadata={"help": "From nothing: standard deviation of the first weights."})
    dropout: float = field(default=0.0, metadata={"help": "From nothing: dropout of both halves."})
    latent_size: int = field(default=32, metadata={"help": "Dimensions of z."})
    source_conditioning: str = field(default="prompt", metadata={"help": "prompt or cross_attention."})
    tie_encoders: bool = field(default=True, metadata={"help": "With cross_attention: one encoder for q and the decoder."})
    free_bits: float = field(default=0.0, metadata={"help": "Nats of KL that the training loss does not charge for."})
    free_bits_per: str = field(default="sentence", metadata={"help": "sentence or dimension."})
    word_dropout: float = field(default=0.0, metadata={"help": "Share of the target's tokens hidden from the decoder."})
    kl_schedule: str = field(default="constant", metadata={"help": "constant, linear, sigmoid, tanh or cyclical."})
    kl_schedule_options: str = field(
        default="{}", metadata={"help": "The schedule's options as JSON, such as '{\"steps\": 1000}'."}
    )
    latent_free_steps: int = field(
        default=0,
        metadata={"help": "Steps to train with z = 0 first: a decoder that can lean on z too early never reads its source well."},
    )
    freeze_encoder: bool = field(default=False, metadata={"help": "Train only what is new around the encoder."})
    freeze_decoder: bool = field(default=False, metadata={"help": "Train only what is new around the decoder."})
    lora: str | None = field(
        default=None,
        metadata={"help": "Arguments of peft's LoraConfig as JSON; the latent's layers are trained whole. Merged at the end."},
    )


@dataclass
class DataArguments:
    train_file: str | None = field(
        default=None, metadata={"help": "JSON lines, CSV or a dataset's name. Without it: the embedded grammar."}
    )
    validation_file: str | None = field(
        default=None,
        metadata={"help": "As train_file; measured while training with --eval_strategy, and at the end without a test_file."},
    )
    test_file: str | None = field(default=None, metadata={"help": "As train_file; measured at the end. Default: validation_file."})
    source_column: str = field(default="source", metadata={"help": "Column of the originals."})
    target_column: str = field(default="targets", metadata={"help": "Column of the paraphrases: one text or a list."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Use only so many training rows."})
    max_source_length: int = field(default=64, metadata={"help": "Sources are cut to so many tokens."})
    max_target_length: int = field(default=64, metadata={"help": "Paraphrases are cut to so many tokens, EOS included."})
    grammar_pairs: int = field(default=60_000, metadata={"help": "Embedded grammar: training pairs, a meaning each."})


@dataclass
class EvaluationArguments:
    max_test_samples: int = field(default=500, metadata={"help": "Test sources to measure on."})
    num_paraphrases: int = field(default=10, metadata={"help": "Paraphrases of each test source."})
    importance_samples: int = field(default=100, metadata={"help": "Samples of z in the importance-weighted bound."})
    max_new_tokens: int = field(default=40, metadata={"help": "Longest paraphrase to generate."})
    latent_temperature: float = field(
        default=1.0, metadata={"help": "Factor on the spread of z in the paraphrases measured; becomes the model's default."}
    )
    with_baseline: bool = field(default=False, metadata={"help": "Also train and measure the same model without z."})


def parse_arguments(argv: list[str]):
    """Dataclasses from a command line that may begin with a YAML or JSON file of arguments, and that file's path."""
    parser = HfArgumentParser((ModelArguments, DataArguments, EvaluationArguments, TrainingArguments))
    recipe = None
    if argv and argv[0].endswith((".yaml", ".yml", ".json")):
        recipe, *argv = argv
    elif not any(word.partition("=")[0] == "--train_file" for word in argv):
        recipe = EMBEDDED_RECIPE
    # The first step is logged so that a run shorter than `logging_steps` has its plot too.
    parser.set_defaults(output_dir="outputs/paraphrase", logging_first_step=True)
    if recipe is not None:
        # JSON is YAML too.
        defaults = yaml.safe_load(Path(recipe).read_text(encoding="utf-8"))
        unknown = sorted(set(defaults) - {action.dest for action in parser._actions})
        if unknown:
            raise ValueError(f"{recipe} has no such argument(s): {', '.join(unknown)}.")
        parser.set_defaults(**defaults)
    return parser.parse_args_into_dataclasses(args=argv)


def check_arguments(
    model_args: ModelArguments,
    data_args: DataArguments,
    evaluation_args: EvaluationArguments,
    training_args: TrainingArguments,
) -> None:
    """Everything that can be refused before anything is computed or written."""
    if evaluation_args.latent_temperature < 0:
        raise ValueError(f"`--latent_temperature` is {evaluation_args.latent_temperature}; it cannot be negative.")
    least = {"num_paraphrases": 2, "importance_samples": 1, "max_test_samples": 2, "max_new_tokens": 1}
    for name, smallest in least.items():
        if getattr(evaluation_args, name) < smallest:
            raise ValueError(f"`--{name}` is {getattr(evaluation_args, name)}; it must be at least {smallest}.")
    if bool(model_args.encoder_name_or_path) != bool(model_args.decoder_name_or_path):
        raise ValueError("Give both `--encoder_name_or_path` and `--decoder_name_or_path`, or neither to train from nothing.")
    if model_args.encoder_name_or_path and not data_args.train_file:
        raise ValueError("Pretrained parts need `--train_file`; the embedded grammar is for models trained from nothing.")
    if data_args.train_file and not (data_args.validation_file or data_args.test_file):
        raise ValueError("`--train_file` needs a `--validation_file` or a `--test_file`: figures are measured on held-out pairs.")
    if "task_type" in parse_json(model_args.lora):
        raise ValueError("`--lora` names a `task_type`; leave it out: peft's task types expect arguments of other models.")
    if training_args.resume_from_checkpoint in RESUME_LAST and not last_checkpoint(training_args):
        raise ValueError(f"`--resume_from_checkpoint`: {training_args.output_dir} holds no checkpoint.")
    if training_args.label_smoothing_factor:
        raise ValueError("`--label_smoothing_factor` must be 0: an ELBO has no label smoothing.")
    config_file = Path(training_args.output_dir) / "config.json"
    if config_file.exists():
        found = json.loads(config_file.read_text(encoding="utf-8")).get("model_type")
        if found != ParaphraseVAEConfig.model_type:
            raise ValueError(
                f"`--output_dir` {training_args.output_dir} holds a model of type {found!r}; choose another directory."
            )


def use_all_cores(state: PartialState) -> None:
    """`accelerate launch` gives its only process on a machine without an accelerator one thread; give it the others back."""
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ
    if launched and state.num_processes == 1 and state.device.type == "cpu":
        torch.set_num_threads(os.cpu_count() or 1)


def check_lengths(model: ParaphraseVAEModel, data_args: DataArguments) -> None:
    """Refuses lengths at which the longest rows could not be read, which would else show in the middle of training."""
    source, target = data_args.max_source_length, data_args.max_target_length
    needed = {"encoder": source + target, "decoder": source + 1 + target}
    for part, length in needed.items():
        longest = getattr(getattr(model.config, part).get_text_config(), "max_position_embeddings", None)
        if longest is not None and length > longest:
            raise ValueError(
                f"`--max_source_length` {source} and `--max_target_length` {target} make {length} tokens for the {part}, which "
                f"holds {longest}; lower them."
            )


def load_data(data_args: DataArguments, max_test: int, seed: int) -> tuple[Dataset, Dataset, Dataset]:
    """Training pairs (`source`, `target`), and validation and test sources with all their `targets`."""
    if data_args.train_file is None:
        num_validation = 200
        test = grammar.load_paraphrases(max_test, seed, num_targets=5)
        validation = grammar.load_paraphrases(num_validation, seed, skip=max_test)
        train = grammar.load_paraphrases(data_args.grammar_pairs, seed, skip=max_test + num_validation)
        return expand_targets(train), validation, test
    columns = {"source_column": data_args.source_column, "target_column": data_args.target_column}
    held_out = {"validation": data_args.validation_file, "test": data_args.test_file}
    # One of the two may stand for both.
    given = {split: name for split, name in held_out.items() if name}
    names = {split: (name or next(iter(given.values())), split if name else next(iter(given))) for split, name in held_out.items()}
    validation = load_pairs(*names["validation"], **columns)
    test = load_pairs(*names["test"], max_rows=max_test, **columns)
    train = load_pairs(data_args.train_file, "train", max_rows=data_args.max_train_samples, **columns)
    if len(test) < 2:
        raise ValueError(f"{names['test'][0]} has {len(test)} source; figures need at least two.")
    return expand_targets(train), validation, test


def build(
    model_args: ModelArguments, data_args: DataArguments, train: Dataset
) -> tuple[ParaphraseVAEModel, ParaphraseVAEProcessor]:
    """The model with its processor, around pretrained parts or from nothing."""
    latent_options = {
        name: getattr(model_args, name)
        for name in ("latent_size", "source_conditioning", "tie_encoders", "free_bits", "free_bits_per", "word_dropout")
    }
    if model_args.encoder_name_or_path:
        tokenizer = AutoTokenizer.from_pretrained(model_args.decoder_name_or_path)
        encoder_tokenizer = AutoTokenizer.from_pretrained(model_args.encoder_name_or_path)
    else:
        texts = (text for row in train for text in row.values())
        tokenizer, encoder_tokenizer = train_tokenizers(texts, model_args.vocab_size)
    processor = ParaphraseVAEProcessor(tokenizer, encoder_tokenizer, source_conditioning=model_args.source_conditioning)
    if model_args.word_dropout:
        candidates = (tokenizer.unk_token_id, tokenizer.mask_token_id, tokenizer.pad_token_id)
        latent_options["word_dropout_token_id"] = next(token for token in candidates if token is not None)
    if model_args.encoder_name_or_path:
        model = ParaphraseVAEModel.from_encoder_decoder_pretrained(
            model_args.encoder_name_or_path, model_args.decoder_name_or_path, **latent_options
        )
    else:
        sizes = ("hidden_size", "encoder_layers", "decoder_layers", "num_attention_heads", "initializer_range", "dropout")
        encoder, decoder = small_configs(
            tokenizer,
            max_position_embeddings=max(256, data_args.max_source_length + data_args.max_target_length + 1),
            **{size: getattr(model_args, size) for size in sizes},
        )
        model = ParaphraseVAEModel(ParaphraseVAEConfig(encoder=encoder, decoder=decoder, **latent_options))
    check_lengths(model, data_args)
    # What no pretrained part brought along is trained whatever is frozen.
    new = ["posterior", "project"]
    if model_args.source_conditioning == "cross_attention":
        new += ["source_projection", "crossattention", "ln_cross_attn"]
    for name, parameter in model.named_parameters():
        frozen = model_args.freeze_decoder if name.startswith("decoder.lm.") else model_args.freeze_encoder
        pretrained = name.startswith(("encoder.", "source_encoder.", "decoder.lm."))
        parameter.requires_grad_(not (pretrained and frozen) or any(module in name.split(".") for module in new))
    if model_args.lora:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(**{"modules_to_save": new, **parse_json(model_args.lora)}))
    return model, processor


@dataclass
class LatentFreeCollator(VAEDataCollator):
    """Gives every row z = 0, so that the very same model trains without a latent, for comparison."""

    latent_size: int = 1

    def __call__(self, features):
        batch = super().__call__(features)
        batch["latents"] = torch.zeros(len(features), self.latent_size)
        return batch


def make_trainer(model, training_args, collator, train, validation, callbacks) -> Trainer:
    return Trainer(
        model,
        training_args,
        processing_class=collator.processor,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=collator,
        callbacks=callbacks,
    )


def measure(model, processor, test, data_args, evaluation_args, seed, on_grammar, latents=None, **generation_options) -> dict:
    """Text metrics of several outputs for each test source, and on the grammar how right they are; the outputs themselves."""
    sources, references = list(test["source"]), list(test["targets"])
    outputs = generate_texts(
        model,
        processor,
        sources,
        num_return_sequences=evaluation_args.num_paraphrases,
        latents=latents,
        latent_temperature=evaluation_args.latent_temperature,
        seed=seed,
        max_length=data_args.max_source_length,
        max_new_tokens=evaluation_args.max_new_tokens,
        **generation_options,
    )
    metrics = paraphrase_metrics(sources, outputs, references)
    if on_grammar:
        judged = grammar.judge(outputs, sources)
        judged[f"distinct_correct_in_{evaluation_args.num_paraphrases}"] = judged.pop("distinct_correct")
        metrics.update(judged, entropy=grammar.entropy())
    return {"metrics": metrics, "outputs": outputs}


def main(argv: list[str]) -> dict:
    # 1. Arguments, refused before any compute where they cannot work.
    model_args, data_args, evaluation_args, training_args = parse_arguments(argv)
    check_arguments(model_args, data_args, evaluation_args, training_args)
    schedule = make_schedule(model_args.kl_schedule, **parse_json(model_args.kl_schedule_options))
    push_to_hub = training_args.push_to_hub
    if model_args.lora:
        # The Trainer would leave the adapter beside the merged model, where it would be applied once more.
        training_args.push_to_hub = False
    output_dir = Path(training_args.output_dir)
    on_grammar = data_args.train_file is None
    state = PartialState()
    use_all_cores(state)
    set_seed(training_args.seed)

    # 2. Data: one row a pair to train on, one row a source with all its paraphrases to measure on.
    with state.main_process_first():
        train, validation, test = load_data(data_args, evaluation_args.max_test_samples, training_args.seed)

    # 3. Model and processor.
    model, processor = build(model_args, data_args, train)
    lengths = {"max_length": data_args.max_source_length, "max_target_length": data_args.max_target_length}

    def tokenize(rows):
        features = dict(processor(rows["source"], rows["target"], return_tensors=None, **lengths))
        # For `--train_sampling_strategy group_by_length`: a row costs what source and target cost together.
        return {**features, "length": [len(pair) for pair in features["posterior_input_ids"]]}

    with state.main_process_first():
        tokenized = {
            name: pairs.map(tokenize, batched=True, remove_columns=pairs.column_names, desc=f"tokenising {name}")
            for name, pairs in (("train", train), ("validation", expand_targets(validation)))
        }

    # 4. Train with the plain Trainer; the callback anneals the KL and logs the loss's parts.
    trainer = make_trainer(
        model,
        training_args,
        VAEDataCollator(processor),
        tokenized["train"],
        tokenized["validation"] if training_args.do_eval else None,
        [KLAnnealingCallback(schedule)],
    )
    checkpoint = training_args.resume_from_checkpoint
    if checkpoint in RESUME_LAST:
        checkpoint = last_checkpoint(training_args)
    if model_args.latent_free_steps and checkpoint is None:
        train_without_latent(model, processor, training_args, "latent_free", model_args.latent_free_steps, tokenized["train"])
    trainer.train(resume_from_checkpoint=checkpoint)
    model.generation_config.latent_temperature = evaluation_args.latent_temperature
    if model_args.lora:
        if state.is_main_process:
            model.save_pretrained(output_dir / "adapter")
        model = model.merge_and_unload()
        model.save_pretrained(output_dir, is_main_process=state.is_main_process)
    else:
        trainer.save_model()
    if state.is_main_process:
        processor.save_pretrained(output_dir)
        plot_training(trainer.state.log_history, output_dir / "training.png")
    trainer.save_state()

    # 5. Measure on held-out sources: likelihood bounds on the first reference of each, ten greedy paraphrases that differ by z.
    first_targets = [targets[0] for targets in test["targets"]]
    evaluator = LikelihoodEvaluator(model, processor, list(test["source"]), first_targets, **lengths)
    metrics = likelihood_metrics(evaluator, evaluation_args.importance_samples, training_args.seed)
    limit = data_args.max_target_length
    cut = sum(len(processor.label_ids([target], {"truncation": False})[0]) > limit for target in first_targets)
    if cut:
        logger.warning("%d of %d references are cut to %d tokens; their likelihood is the cut text's.", cut, len(test), limit)
    metrics["references_cut"] = cut / len(test)
    common = (processor, test, data_args, evaluation_args, training_args.seed, on_grammar)
    generated = measure(model, *common, do_sample=False)
    metrics.update(generated["metrics"])

    # 6. The same model trained without z: beams and sampling are then all the diversity there is.
    if evaluation_args.with_baseline:
        metrics["baseline"] = train_baseline(model_args, training_args, train, tokenized["train"], common, lengths)

    # 7. What a stranger needs: figures, and a card that tells them.
    if state.is_main_process:
        (output_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        shown = list(zip(test["source"], generated["outputs"], test["targets"]))[:5]
        repository = None
        if push_to_hub:
            api = HfApi(token=training_args.hub_token)
            name = training_args.hub_model_id or output_dir.name
            repository = api.create_repo(name, private=training_args.hub_private_repo, exist_ok=True).repo_id
        record = describe(argv, model_args, data_args, evaluation_args, training_args, test, metrics, shown)
        write_model_card(model, replace(record, name=repository or record.name), output_dir)
        for source, outputs, references in shown:
            print(f"\n{source}")
            for output in outputs[:5]:
                print(f"  -> {output}")
            for reference in references:
                print(f"   = {reference}")
        print("\n" + json.dumps(metrics, indent=2))
        print(f"\nSaved to {output_dir}")

        # 8. Share it.
        if repository:
            kept_back = ["checkpoint-*", "runs/*", "baseline/*", "latent_free/*"]
            api.upload_folder(repo_id=repository, folder_path=output_dir, ignore_patterns=kept_back)
    state.wait_for_everyone()
    return metrics


def train_without_latent(model, processor, training_args, name: str, max_steps: int, train: Dataset) -> None:
    """Trains with z = 0, in a directory of its own below the output's, by the run's other settings."""
    settings = replace(
        training_args,
        output_dir=str(Path(training_args.output_dir) / name),
        max_steps=max_steps,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        push_to_hub=False,
        resume_from_checkpoint=None,
    )
    read = ("input_ids", "attention_mask", "prompt_input_ids", "prompt_attention_mask", "labels", "length")
    data = train.select_columns([column for column in train.column_names if column in read])
    collator = LatentFreeCollator(processor, latent_size=model.config.latent_size)
    # What only q uses gets no gradient, which distributed training would stumble over.
    decoder_reads_encoder = model.config.source_conditioning == "cross_attention" and model.config.tie_encoders
    unused = [model.posterior] if decoder_reads_encoder else [model.posterior, model.encoder]
    idle = [parameter for module in unused for parameter in module.parameters() if parameter.requires_grad]
    for parameter in idle:
        parameter.requires_grad_(False)
    make_trainer(model, settings, collator, data, None, []).train()
    for parameter in idle:
        parameter.requires_grad_(True)


def train_baseline(model_args, training_args, train, tokenized_train, common, lengths) -> dict:
    """
    Figures of the same model trained with z = 0, in its own directory. It has one p(y|x), so every NLL is the same number. Its
    several outputs are beams; the figures of samples in their place stand under `sampling`.
    """
    processor, test, data_args, evaluation_args, seed, _ = common
    set_seed(training_args.seed)
    model, _ = build(model_args, data_args, train)
    latent_size = model.config.latent_size
    # As many steps as the model with z has had altogether.
    steps = training_args.max_steps + model_args.latent_free_steps if training_args.max_steps > 0 else -1
    train_without_latent(model, processor, training_args, "baseline", steps, tokenized_train)
    if model_args.lora:
        model = model.merge_and_unload()
    zeros = torch.zeros(len(test), 1, latent_size)
    first_targets = [targets[0] for targets in test["targets"]]
    nll = LikelihoodEvaluator(model, processor, list(test["source"]), first_targets, **lengths).nll(zeros).mean().item()
    figures = {"elbo": -nll, "kl": 0.0}
    names = ("iw_nll", "reconstruction", "nll_posterior", "nll_prior", "nll_shuffled", "nll_zero")
    figures.update(dict.fromkeys(names, nll))
    beams = measure(model, *common, latents=zeros, num_beams=evaluation_args.num_paraphrases, do_sample=False)
    figures.update(beams["metrics"])
    set_seed(seed)
    figures["sampling"] = measure(model, *common, latents=zeros, do_sample=True, top_k=0)["metrics"]
    return figures


def describe(argv, model_args, data_args, evaluation_args, training_args, test, metrics, shown) -> RunRecord:
    """What the card tells of this run."""
    pretrained = [name for name in (model_args.encoder_name_or_path, model_args.decoder_name_or_path) if name]
    embedded = data_args.train_file is None
    dataset = "sentences of hf_vae's paraphrase grammar" if embedded else f"the pairs of `{Path(data_args.train_file).name}`"
    named = not embedded and not Path(data_args.train_file).suffix
    training = {
        "KL schedule": f"{model_args.kl_schedule} {model_args.kl_schedule_options}",
        "free bits": f"{model_args.free_bits} nats per {model_args.free_bits_per}",
        "word dropout": model_args.word_dropout,
        "steps with z = 0 first": model_args.latent_free_steps,
        "spread of z in the outputs measured": evaluation_args.latent_temperature,
        "optimiser steps": training_args.max_steps if training_args.max_steps > 0 else "–",
        "epochs": training_args.num_train_epochs if training_args.max_steps <= 0 else "–",
        "batch size per device": training_args.per_device_train_batch_size,
        "learning rate": training_args.learning_rate,
        "seed": training_args.seed,
    }
    return RunRecord(
        name=training_args.output_dir,
        command=shlex.join(["accelerate", "launch", "examples/train_paraphrase.py", *argv]),
        dataset=dataset,
        metrics=metrics,
        baseline=metrics.get("baseline", {}),
        measured_on=(
            f"Measured on {len(test)} held-out sources: bounds on the first reference of each; text metrics on "
            f"{evaluation_args.num_paraphrases} greedy outputs that differ by z, drawn from the prior; without z, on as many beams."
        ),
        training=training,
        samples=[(source, outputs[:5]) for source, outputs, _ in shown],
        base_models=pretrained,
        dataset_ids=[data_args.train_file] if named else [],
        # Of other data and other weights only their owners can say.
        license="apache-2.0" if embedded else None,
        language="en" if embedded else None,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
