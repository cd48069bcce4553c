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
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel, Trainer, set_seed

from hf_vae import ParaphraseVAEConfig, ParaphraseVAEModel, ParaphraseVAEProcessor, VAEDataCollator
from hf_vae.configuration_vae import check_choice
from hf_vae.data import PAIRINGS, expand_targets, grammar, held_out_files, load_pairs
from hf_vae.evaluation import LikelihoodEvaluator, elbo_metrics, generate_texts, likelihood_metrics, paraphrase_metrics
from hf_vae.hub import create_repository, run_record, upload_model, write_metrics, write_model_card
from hf_vae.training.arguments import (
    ModelArguments,
    check_arguments,
    parse_arguments,
    resume_checkpoint,
    total_steps,
    use_all_cores,
)
from hf_vae.training.building import build_model, freeze_or_adapt, latent_callbacks
from hf_vae.training.latent_free import train_without_latent
from hf_vae.training.posterior_fit import fit_posterior
from hf_vae.training.pretraining import pretrain_encoder
from hf_vae.training.saving import save_trained

logger = logging.getLogger(__name__)

EMBEDDED_RECIPE = Path(__file__).parent / "recipes" / "paraphrase_embedded.yaml"


@dataclass
class ParaphraseArguments(ModelArguments):
    source_conditioning: str = field(default="prompt", metadata={"help": "prompt, cross_attention or initial_state."})
    objective: str = field(default="cvae", metadata={"help": "cvae (the ELBO), gsnn (z from the prior) or hybrid."})
    hybrid_alpha: float = field(default=0.5, metadata={"help": "Share of the ELBO in the hybrid objective."})
    tie_encoders: bool = field(default=True, metadata={"help": "Unless by prompt: one encoder for q and the decoder."})


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
    pairing: str = field(
        default="targets",
        metadata={"help": "Pairs to train on: source to targets, or, of paraphrases, both_ways, or all texts of a row."},
    )
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


def check_evaluation(data_args: DataArguments, evaluation_args: EvaluationArguments) -> None:
    """What can be refused of these before anything is computed or written."""
    if evaluation_args.latent_temperature < 0:
        raise ValueError(f"`--latent_temperature` is {evaluation_args.latent_temperature}; it cannot be negative.")
    check_choice("--pairing", data_args.pairing, tuple(PAIRINGS))
    least = {"num_paraphrases": 2, "importance_samples": 1, "max_test_samples": 2, "max_new_tokens": 1}
    for name, smallest in least.items():
        if getattr(evaluation_args, name) < smallest:
            raise ValueError(f"`--{name}` is {getattr(evaluation_args, name)}; it must be at least {smallest}.")
    if data_args.train_file and not (data_args.validation_file or data_args.test_file):
        raise ValueError("`--train_file` needs a `--validation_file` or a `--test_file`: figures are measured on held-out pairs.")


def load_data(data_args: DataArguments, max_test: int, seed: int) -> tuple[Dataset, Dataset, Dataset]:
    """Training pairs (`source`, `target`), and validation and test sources with all their `targets`."""
    if data_args.train_file is None:
        num_validation = 200
        test = grammar.load_paraphrases(max_test, seed, num_targets=5)
        validation = grammar.load_paraphrases(num_validation, seed, skip=max_test)
        train = grammar.load_paraphrases(data_args.grammar_pairs, seed, skip=max_test + num_validation)
        return expand_targets(train), validation, test
    columns = {"source_column": data_args.source_column, "target_column": data_args.target_column}
    names = held_out_files(data_args.validation_file, data_args.test_file)
    validation = load_pairs(*names["validation"], **columns)
    test = load_pairs(*names["test"], max_rows=max_test, **columns)
    train = load_pairs(data_args.train_file, "train", max_rows=data_args.max_train_samples, **columns)
    if len(test) < 2:
        raise ValueError(f"{names['test'][0]} has {len(test)} source; figures need at least two.")
    return PAIRINGS[data_args.pairing](train), validation, test


def build(
    model_args: ParaphraseArguments, data_args: DataArguments, max_new_tokens: int, train: Dataset
) -> tuple[PreTrainedModel, ParaphraseVAEProcessor]:
    """The model with its processor, around pretrained parts or from nothing."""
    source, target = data_args.max_source_length, data_args.max_target_length
    prompt = source if model_args.source_conditioning == "prompt" else 0
    model, processor = build_model(
        ParaphraseVAEModel,
        ParaphraseVAEProcessor,
        model_args,
        texts=(text for row in train for text in row.values()),
        encoder_tokens=source + target,
        decoder_tokens=prompt + 1 + max(target, max_new_tokens),
        source_conditioning=model_args.source_conditioning,
    )
    return freeze_or_adapt(model, model_args), processor


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
    arguments = (ParaphraseArguments, DataArguments, EvaluationArguments)
    model_args, data_args, evaluation_args, training_args = parse_arguments(arguments, argv, EMBEDDED_RECIPE, "outputs/paraphrase")
    check_arguments(model_args, training_args, data_args.train_file is not None, ParaphraseVAEConfig.model_type)
    check_evaluation(data_args, evaluation_args)
    push_to_hub = training_args.push_to_hub
    if model_args.lora:
        # The Trainer would leave the adapter beside the merged model, where it would be applied once more.
        training_args.push_to_hub = False
    output_dir = Path(training_args.output_dir)
    on_grammar = data_args.train_file is None
    state = PartialState()
    use_all_cores(state)
    set_seed(training_args.seed)

    # What the Hub refuses is better refused now than after the training.
    repository = create_repository(training_args) if push_to_hub and state.is_main_process else None

    # 2. Data: one row a pair to train on, one row a source with all its paraphrases to measure on.
    with state.main_process_first():
        train, validation, test = load_data(data_args, evaluation_args.max_test_samples, training_args.seed)

    # 3. Model and processor.
    model, processor = build(model_args, data_args, evaluation_args.max_new_tokens, train)
    lengths = {"max_length": data_args.max_source_length, "max_target_length": data_args.max_target_length}

    def tokenize(rows):
        return dict(processor(rows["source"], rows["target"], return_tensors=None, **lengths))

    with state.main_process_first():
        tokenized = {
            name: pairs.map(tokenize, batched=True, remove_columns=pairs.column_names, desc=f"tokenising {name}")
            for name, pairs in (("train", train), ("validation", expand_targets(validation)))
        }

    # 4. Train with the plain Trainer; a callback anneals the KL and logs the loss's parts.
    trainer = Trainer(
        model,
        training_args,
        processing_class=processor,
        train_dataset=tokenized["train"],
        eval_dataset=tokenized["validation"] if training_args.do_eval else None,
        data_collator=VAEDataCollator(processor),
        compute_metrics=elbo_metrics if training_args.do_eval else None,
        callbacks=latent_callbacks(model_args, processor),
    )
    checkpoint = resume_checkpoint(training_args)
    if checkpoint is None and model_args.encoder_pretraining_steps:
        steps = model_args.encoder_pretraining_steps
        pretrain_encoder(model.encoder, processor.encoder_tokenizer, training_args, steps, tokenized["train"])
    if checkpoint is None and model_args.latent_free_steps:
        train_without_latent(model, processor, training_args, "latent_free", model_args.latent_free_steps, tokenized["train"])
    trainer.train(resume_from_checkpoint=checkpoint)
    if model_args.posterior_fit_steps:
        fit_posterior(model, processor, training_args, model_args.posterior_fit_steps, tokenized["train"])
    model.generation_config.latent_temperature = evaluation_args.latent_temperature
    model = save_trained(trainer, processor)

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
        metrics = write_metrics(metrics, output_dir / "metrics.json")
        shown = list(zip(test["source"], generated["outputs"], test["targets"]))[:5]
        record = run_record(
            "examples/train_paraphrase.py",
            argv,
            model_args,
            training_args,
            data_args.train_file,
            embedded_corpus="sentences of hf_vae's paraphrase grammar",
            metrics=metrics,
            baseline=metrics.get("baseline", {}),
            measured_on=(
                f"Measured on {len(test)} held-out sources: bounds on the first reference of each; text metrics on "
                f"{evaluation_args.num_paraphrases} greedy outputs that differ by z, drawn from the prior at a temperature of "
                f"{evaluation_args.latent_temperature:g}; without z, on as many beams."
            ),
            samples=[(source, outputs[:5]) for source, outputs, _ in shown],
        )
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
            upload_model(repository, training_args)
    state.wait_for_everyone()
    return metrics


def train_baseline(model_args, training_args, train, tokenized_train, common, lengths) -> dict:
    """
    Figures of the same model trained with z = 0, in its own directory. It has one p(y|x), so every NLL is the same number. Its
    several outputs are beams; the figures of samples in their place stand under `sampling`.
    """
    processor, test, data_args, evaluation_args, seed, _ = common
    set_seed(training_args.seed)
    model, _ = build(model_args, data_args, evaluation_args.max_new_tokens, train)
    latent_size = model.config.latent_size
    # As many steps as the model with z has had altogether.
    steps = total_steps(model_args, training_args)
    train_without_latent(model, processor, training_args, "baseline", steps, tokenized_train)
    if model_args.lora:
        model = model.merge_and_unload()
    zeros = torch.zeros(len(test), 1, latent_size)
    first_targets = [targets[0] for targets in test["targets"]]
    nll = LikelihoodEvaluator(model, processor, list(test["source"]), first_targets, **lengths).nll(zeros).mean().item()
    figures = {"elbo": -nll, "kl": 0.0}
    names = ("iw_nll", "mc_nll", "reconstruction", "nll_posterior", "nll_prior", "nll_shuffled", "nll_zero")
    figures.update(dict.fromkeys(names, nll))
    beams = measure(model, *common, latents=zeros, num_beams=evaluation_args.num_paraphrases, do_sample=False)
    figures.update(beams["metrics"])
    set_seed(seed)
    figures["sampling"] = measure(model, *common, latents=zeros, do_sample=True, top_k=0)["metrics"]
    return figures


if __name__ == "__main__":
    main(sys.argv[1:])
