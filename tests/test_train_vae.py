"""The VAE's training script, run small: what reaches the model, what is refused, and what is left behind."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset
from hf_vae.gaussian_head import FixedScaleBatchNorm
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoProcessor,
    HfArgumentParser,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from hf_vae import KLAnnealingCallback, VAEDataCollator, VAEModel, VAEProcessor
from hf_vae.data import grammar
from hf_vae.evaluation import LikelihoodEvaluator, likelihood_metrics
from hf_vae.latent_space import reconstruct
from hf_vae.training import (
    AggressiveEncoderCallback,
    DecoderResetCallback,
    DenoisingCallback,
    MinimumDesiredRateCallback,
    TokenNoise,
    run,
)
from hf_vae.training.arguments import ModelArguments, parse_arguments, run_steps
from hf_vae.training.building import build_model, latent_callbacks
from hf_vae.training.latent_free import train_without_latent
from hf_vae.training.pretraining import pretrain_encoder

EXAMPLES = Path(__file__).parent.parent / "examples"
TEXTS = grammar.draw_sentences(12, seed=0)
SMALL = [
    "--max_steps", "4", "--grammar_sentences", "60", "--max_test_samples", "5", "--importance_samples", "3", "--hidden_size", "16",
    "--embedding_size", "16", "--latent_size", "4", "--max_new_tokens", "6", "--per_device_train_batch_size", "4",
    "--disable_tqdm", "true", "--use_cpu", "--report_to", "none", "--seed", "0", "--latent_free_steps", "2",
]  # fmt: skip


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_vae", EXAMPLES / "train_vae.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def parse(script, argv):
    """The arguments as the script reads them."""
    classes = (ModelArguments, script.DataArguments, script.EvaluationArguments)
    return parse_arguments(classes, argv, script.EMBEDDED_RECIPE, "outputs/vae")


def built(*argv):
    """Model arguments, the small model that they ask for, and its processor."""
    sizes = ["--hidden_size", "16", "--num_attention_heads", "2", "--latent_size", "4", "--vocab_size", "400"]
    [model_args] = HfArgumentParser(ModelArguments).parse_args_into_dataclasses([*sizes, *argv])
    return (model_args, *build_model(VAEModel, VAEProcessor, model_args, TEXTS, encoder_tokens=64, decoder_tokens=64))


def training_arguments(tmp_path, **options):
    settings = {"per_device_train_batch_size": 4, "use_cpu": True, "disable_tqdm": True, "report_to": "none"} | options
    return TrainingArguments(output_dir=str(tmp_path / "out"), **settings)


def write_lines(path, texts):
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return str(path)


# What is left behind -----------------------------------------------------------------------------------------------------------

FIGURES = {
    "elbo", "iw_nll", "kl", "reconstruction", "nll_shuffled", "mutual_information", "active_units_0.01", "ppl_per_word_iw",
    "ppl_per_token_iw", "reconstruction_at_mean_exact_match", "language_model_nll", "entropy", "grammatical", "arithmetic",
    "midpoints_grammatical", "collapse_report",
}  # fmt: skip


@pytest.mark.slow
def test_the_embedded_default_leaves_a_whole_model_behind(script, tmp_path, capsys):
    output = tmp_path / "vae"
    metrics = script.main([*SMALL, "--output_dir", str(output), "--with_baseline"])
    assert metrics.keys() >= FIGURES
    assert json.loads((output / "metrics.json").read_text()) == metrics
    assert metrics["entropy"] == grammar.sentence_entropy() and metrics["num_examples"] == 5
    expected = {
        "config.json", "generation_config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "training.png",
        "interpolation.png", "README.md", "encoder_tokenizer", "modeling_vae.py", "modeling_lstm.py", "configuration_lstm.py",
    }  # fmt: skip
    assert expected <= {path.name for path in output.iterdir()}
    config = json.loads((output / "config.json").read_text())
    assert config["auto_map"] and (config["encoder"]["model_type"], config["decoder"]["model_type"]) == ("bert", "llama")
    card = (output / "README.md").read_text()
    assert f"| NLL, importance-weighted bound (nats per sentence) | {metrics['iw_nll']:.3f} | " in card
    assert "accelerate launch examples/train_vae.py --max_steps 4" in card

    model, processor = AutoModel.from_pretrained(output).eval(), AutoProcessor.from_pretrained(output)
    assert isinstance(model, VAEModel) and isinstance(processor, VAEProcessor)
    assert isinstance(AutoModelForSeq2SeqLM.from_pretrained(output), VAEModel)
    # What was saved is what was measured.
    texts = grammar.draw_sentences(5, seed=0)
    again = likelihood_metrics(LikelihoodEvaluator(model, processor, texts, texts), num_samples=3, seed=0)
    assert again["elbo"] == pytest.approx(metrics["elbo"], abs=1e-3)

    printed = capsys.readouterr().out
    assert printed.count("   = ") == 5 and printed.count("  -> ") == 5 + 5 + 7
    for text, reconstruction in zip(texts, reconstruct(model, processor, texts, max_new_tokens=6).texts):
        assert f"   = {text}\n  -> {reconstruction}\n" in printed
    assert metrics["collapse_report"]["summary"] in printed and "the language model's" in printed
    assert '"iw_nll": ' in printed and '"collapse_report"' not in printed and f"Saved to {output}" in printed


@pytest.mark.slow
def test_a_stranger_without_the_package_can_load_the_model(tmp_path):
    """LSTMs too, which bring a configuration and a cache of their own; and several models, each with its copy of the code."""
    directories = [str(tmp_path / name) for name in ("one", "another")]
    lengths = {}
    for seed, directory in enumerate(directories):
        torch.manual_seed(seed)
        options = ["--encoder_type", "lstm", "--decoder_type", "lstm", "--latent_injection", "memory", "embedding"]
        _, model, processor = built(*options, "--pooling", "pooler", "--tokenizer_type", "word")
        model.save_pretrained(directory)
        processor.save_pretrained(directory)
        sequences = model.eval().generate(**processor(TEXTS[0]), latent_temperature=0.0, do_sample=False, max_new_tokens=5)
        lengths[directory] = sequences.tolist()
    program = (
        "import sys\n"
        "sys.modules['hf_vae'] = None\n"
        "import json\n"
        "from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoProcessor\n"
        f"for directory in {[*directories, directories[0]]!r}:\n"
        "    model = AutoModel.from_pretrained(directory, trust_remote_code=True).eval()\n"
        "    processor = AutoProcessor.from_pretrained(directory, trust_remote_code=True)\n"
        f"    options = dict(do_sample=False, max_new_tokens=5, latent_temperature=0.0)\n"
        f"    print(json.dumps(model.generate(**processor({TEXTS[0]!r}), **options).tolist()))\n"
        "    sequences = model.generate(**processor('the farmer'), num_return_sequences=3, num_beams=2, max_new_tokens=5)\n"
        "    print(len(processor.batch_decode(sequences, skip_special_tokens=True)))\n"
        "model.save_pretrained('again')\n"
        "print(type(AutoModelForSeq2SeqLM.from_pretrained('again', trust_remote_code=True)).__name__)\n"
    )
    environment = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", "PATH": ""}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    expected = [line for directory in [*directories, directories[0]] for line in (json.dumps(lengths[directory]), "3")]
    assert result.stdout.splitlines() == [*expected, "VAEModel"]


@pytest.mark.slow
def test_own_sentences_in_files_after_pretraining_each_half(script, tmp_path, monkeypatch):
    """Text lines to train on, JSON lines of several captions each to measure on, and the halves trained by themselves first."""
    train = write_lines(tmp_path / "train.txt", TEXTS)
    held_out = write_lines(tmp_path / "test.jsonl", [json.dumps({"captions": grammar.draw_sentences(3, seed=s)}) for s in (1, 2)])
    stages = []

    def watch(name, position_of_steps):
        stage = getattr(run, name)

        def watched(*arguments):
            stages.append((name, arguments[position_of_steps]))
            stage(*arguments)

        monkeypatch.setattr(run, name, watched)

    watch("pretrain_encoder", 3)
    watch("train_without_latent", 4)
    output = tmp_path / "out"
    arguments = [
        "--train_file", train, "--validation_file", held_out, "--test_file", held_out, "--output_dir", str(output), "--text_column",
        "captions", "--vocab_size", "400", "--num_attention_heads", "2", "--encoder_pretraining_steps", "3", "--latent_free_steps",
        "2", "--eval_strategy", "steps", "--eval_steps", "2", "--collapse_report_samples", "4", "--save_strategy", "steps",
        "--save_steps", "2", "--minimum_rate", "2", "--logging_steps", "1",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"train\.txt has no column captions"):
        script.main([*SMALL, *arguments])
    assert not output.exists()
    Path(train).unlink()
    train_lines = [json.dumps({"captions": [text]}) for text in TEXTS]
    arguments[1] = write_lines(tmp_path / "train.jsonl", train_lines)
    metrics = script.main([*SMALL, *arguments])
    assert stages == [("pretrain_encoder", 3), ("train_without_latent", 2)]
    assert metrics["num_examples"] == 5 and "grammatical" not in metrics and "language_model_nll" not in metrics
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    evaluations = [log for log in history if "eval_elbo" in log]
    assert [log["step"] for log in evaluations] == [2, 4]
    assert all(log.keys() >= {"eval_mutual_information", "eval_shuffled_gap", "eval_active_units_0.01"} for log in evaluations)
    assert all("rate_multiplier" in log for log in history if "loss" in log)
    assert "Trained on train.jsonl." in (output / "README.md").read_text()
    # Killed after its second step, the run goes on from there, and trains no half by itself once more.
    shutil.rmtree(output / "checkpoint-4")
    stages.clear()
    resumed = script.main([*SMALL, *arguments, "--resume_from_checkpoint", "last"])
    assert not stages and resumed["elbo"] == pytest.approx(metrics["elbo"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--decoder_reset_step", "2", "--token_noise", '{"drop": 0.3}', "--kl_schedule", "cyclical", "--kl_schedule_options",
         '{"period": 2}', "--latent_free_steps", "0"],
        ["--aggressive_encoder", "--eval_strategy", "steps", "--eval_steps", "2"],
        ["--decoder_type", "gpt2", "--latent_injection", "memory", "prefix", "--batch_norm_gamma", "0.7", "--bow_loss_weight", "1",
         "--train_sampling_strategy", "group_by_length", "--latent_free_steps", "2", "--with_baseline", "--dataloader_drop_last"],
        ["--word_dropout", "1", "--lora", '{"r": 2, "target_modules": ".*decoder.lm.*(q_proj|v_proj)"}', "--with_baseline"],
    ],
    ids=["reset and noise", "aggressive", "gpt2", "lora"],
)  # fmt: skip
def test_techniques_together_in_a_run(script, tmp_path, options):
    """On sentences one of which is longer than the models hold, and is cut."""
    texts = [" ".join(TEXTS * 2), *TEXTS]
    lines = write_lines(tmp_path / "lines.txt", texts)
    files = ["--train_file", lines, "--validation_file", lines, "--vocab_size", "400", "--num_attention_heads", "2"]
    metrics = script.main([*SMALL, *files, "--output_dir", str(tmp_path / "out"), *options])
    model, processor = AutoModel.from_pretrained(tmp_path / "out").eval(), AutoProcessor.from_pretrained(tmp_path / "out")
    evaluator = LikelihoodEvaluator(model, processor, texts[:5], texts[:5], max_length=64, max_target_length=64)
    assert likelihood_metrics(evaluator, num_samples=3, seed=0)["elbo"] == pytest.approx(metrics["elbo"], abs=1e-3)
    assert metrics["sentences_cut"] == 0.2 and ("language_model_nll" in metrics) == ("--with_baseline" in options)


# What reaches the model --------------------------------------------------------------------------------------------------------


def arguments_of(callbacks, kind, name):
    """The attribute `name` of every callback of this kind."""
    return [getattr(callback, name) for callback in callbacks if isinstance(callback, kind)]


def weight_at(callbacks, step):
    [schedule] = arguments_of(callbacks, KLAnnealingCallback, "schedule")
    return schedule(step)


def has(**fields):
    return lambda model, callbacks: {name: getattr(model.config, name) for name in fields} == fields


SCHEDULES = {
    "constant": ('{"weight": 0.5}', {0: 0.5, 100: 0.5}),
    "linear": ('{"steps": 10}', {0: 0.0, 5: 0.5, 20: 1.0}),
    "sigmoid": ('{"midpoint": 5, "slope": 1.0}', {5: 0.5, 6: 0.7310586, 100: 1.0}),
    "tanh": ('{"midpoint": 5, "width": 2.0}', {5: 0.5, 7: 0.8807971, 100: 1.0}),
    "cyclical": ('{"period": 8, "zero": 0.25, "rise": 0.5}', {1: 0.0, 4: 0.5, 7: 1.0, 9: 0.0}),
}

# Option, its command line, and what the model or the callbacks must show.
TECHNIQUES = [
    ("free_bits", ["--free_bits", "3", "--free_bits_per", "dimension"], has(free_bits=3.0, free_bits_per="dimension")),
    ("free_bits_per", ["--free_bits", "2", "--free_bits_per", "batch"], has(free_bits=2.0, free_bits_per="batch")),
    ("capacity", ["--capacity", "5"], has(capacity=5.0)),
    (
        "batch_norm_gamma",
        ["--batch_norm_gamma", "0.7"],
        lambda model, callbacks: any(isinstance(module, FixedScaleBatchNorm) for module in model.posterior.modules()),
    ),
    (
        "bow_loss_weight",
        ["--bow_loss_weight", "0.5"],
        lambda model, callbacks: hasattr(model, "bow") and model.config.bow_loss_weight == 0.5,
    ),
    ("word_dropout", ["--word_dropout", "0.4"], has(word_dropout=0.4, word_dropout_token_id=1)),
    ("word_dropout", ["--word_dropout", "1.0"], has(word_dropout=1.0, word_dropout_token_id=1)),
    (
        "token_noise",
        ["--token_noise", '{"drop": 0.1, "shuffle": 3}'],
        lambda model, callbacks: arguments_of(callbacks, DenoisingCallback, "noise") == [TokenNoise(drop=0.1, shuffle=3)],
    ),
    (
        "minimum_rate",
        ["--minimum_rate", "6.5"],
        lambda model, callbacks: (
            arguments_of(callbacks, MinimumDesiredRateCallback, "rate") == [6.5]
            and not arguments_of(callbacks, KLAnnealingCallback, "schedule")
        ),
    ),
    (
        "decoder_reset_step",
        ["--decoder_reset_step", "7"],
        lambda model, callbacks: arguments_of(callbacks, DecoderResetCallback, "step") == [7],
    ),
    (
        "aggressive_encoder",
        ["--aggressive_encoder"],
        lambda model, callbacks: arguments_of(callbacks, AggressiveEncoderCallback, "aggressive") == [True],
    ),
    *(
        (
            "kl_schedule",
            ["--kl_schedule", name, "--kl_schedule_options", options],
            lambda model, callbacks, weights=weights: all(
                weight_at(callbacks, step) == pytest.approx(weight) for step, weight in weights.items()
            ),
        )
        for name, (options, weights) in SCHEDULES.items()
    ),
]


@pytest.mark.parametrize("argv, shows", [row[1:] for row in TECHNIQUES], ids=[" ".join(row[1])[:40] for row in TECHNIQUES])
def test_every_technique_reaches_the_model_or_a_callback(argv, shows):
    model_args, model, processor = built(*argv)
    assert shows(model, latent_callbacks(model_args, processor))
    # It shows only where it was asked for.
    model_args, model, processor = built("--kl_schedule_options", '{"weight": 0.75}')
    plain = latent_callbacks(model_args, processor)
    assert not shows(model, plain)
    assert len(plain) == 1 and weight_at(plain, 3) == 0.75


def test_no_technique_is_left_out_of_that_test():
    parts_and_sizes = {
        "encoder_name_or_path", "decoder_name_or_path", "encoder_type", "decoder_type", "hidden_size", "embedding_size",
        "encoder_layers", "decoder_layers", "num_attention_heads", "initializer_range", "dropout", "recurrent_dropout",
        "tie_word_embeddings", "prefix_length", "posterior_bias",
        "tokenizer_type", "vocab_size", "latent_size", "latent_injection", "pooling", "freeze_encoder", "freeze_decoder", "lora",
        "save_trained_only",
    }  # fmt: skip
    of_other_stages = {"latent_free_steps", "encoder_pretraining_steps", "posterior_fit_steps"}
    shown = {name for name, _, _ in TECHNIQUES} | {"kl_schedule_options"}
    assert set(vars(ModelArguments())) == parts_and_sizes | of_other_stages | shown


def test_word_dropout_of_one_hides_every_word_from_the_decoder():
    _, model, processor = built("--word_dropout", "1.0")
    model.train()
    seen = []
    model.decoder.register_forward_pre_hook(lambda module, _, inputs: seen.append(inputs["input_ids"]), with_kwargs=True)
    model(**processor(TEXTS[:3], TEXTS[:3]))
    batch = processor(TEXTS[:3], TEXTS[:3])
    unknown, start = processor.tokenizer.unk_token_id, model.config.decoder_start_token_id
    words = batch["labels"][:, :-1] != -100
    assert (seen[0][:, 0] == start).all() and (seen[0][:, 1:][words] == unknown).all()


@pytest.mark.parametrize(
    "options",
    [
        {"num_train_epochs": 3, "per_device_train_batch_size": 5},
        {"num_train_epochs": 1.5, "per_device_train_batch_size": 5, "gradient_accumulation_steps": 2},
        {"num_train_epochs": 2, "per_device_train_batch_size": 5, "dataloader_drop_last": True},
        {"num_train_epochs": 2, "per_device_train_batch_size": 64},
        {"max_steps": 3},
    ],
)
def test_the_steps_of_a_run_are_counted_as_the_trainer_counts_them(tmp_path, options):
    _, model, processor = built()
    train = Dataset.from_dict(dict(processor(TEXTS, TEXTS, return_tensors=None)))
    settings = training_arguments(tmp_path, **options)
    trainer = Trainer(model, settings, train_dataset=train, data_collator=VAEDataCollator(processor))
    trainer.train()
    assert run_steps(settings, TEXTS) == trainer.state.global_step


def test_the_baseline_has_as_many_steps_where_the_run_counts_epochs_and_no_bag_of_words(script, tmp_path, monkeypatch):
    steps = {}
    train = Trainer.train

    def counted(trainer, *args, **kwargs):
        output = train(trainer, *args, **kwargs)
        steps[Path(trainer.args.output_dir).name] = (trainer.state.global_step, trainer.model.config.bow_loss_weight)
        return output

    monkeypatch.setattr(Trainer, "train", counted)
    epochs = ["--max_steps", "-1", "--num_train_epochs", "1", "--per_device_train_batch_size", "20", "--with_baseline"]
    script.main([*SMALL, *epochs, "--output_dir", str(tmp_path / "out")])
    assert steps == {"latent_free": (2, 1.0), "out": (3, 1.0), "baseline": (5, 0.0)}


def test_each_half_can_be_trained_by_itself(tmp_path):
    _, model, processor = built("--encoder_type", "bert", "--pooling", "mean", "--bow_loss_weight", "1")
    settings = training_arguments(tmp_path, learning_rate=1e-2, max_steps=100)
    train = Dataset.from_dict(dict(processor(TEXTS, TEXTS, return_tensors=None)))

    def changed(stage):
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        stage()
        assert all(parameter.requires_grad for parameter in model.parameters())
        return {name for name, parameter in model.named_parameters() if not parameter.equal(before[name])}

    moved = changed(lambda: pretrain_encoder(model.encoder, processor.encoder_tokenizer, settings, 2, train))
    assert all(name.startswith("encoder.") for name in moved)
    assert "encoder.embeddings.word_embeddings.weight" in moved and any(".layer.0." in name for name in moved)
    moved = changed(lambda: train_without_latent(model, processor, settings, "latent_free", 2, train))
    assert moved and all(name.startswith(("decoder.", "bow.")) for name in moved)
    # Nothing came through z = 0 to how z enters.
    assert "decoder.lm.model.embed_tokens.weight" in moved and "decoder.project.weight" not in moved
    batch = VAEDataCollator(processor)([train[row] for row in range(4)])
    assert torch.isfinite(model(**batch).loss)


def test_masked_words_are_learnt(tmp_path, capsys):
    """Of a text that is always the same, every word is soon known from its place."""
    _, model, processor = built("--encoder_type", "bert", "--tokenizer_type", "word")
    settings = training_arguments(tmp_path, learning_rate=1e-2, logging_steps=10, lr_scheduler_type="constant")
    data = Dataset.from_dict(dict(processor([TEXTS[0]] * 32, [TEXTS[0]] * 32, return_tensors=None)))
    pretrain_encoder(model.encoder, processor.encoder_tokenizer, settings, 60, data)
    losses = [float(loss) for loss in re.findall(r"'loss': '?([0-9.]+)", capsys.readouterr().out)]
    assert losses[0] > 2 and losses[-1] < 0.5


def test_an_encoder_without_a_masked_language_model_is_not_pretrained(tmp_path):
    _, model, processor = built("--encoder_type", "lstm")
    settings = training_arguments(tmp_path)
    with pytest.raises(ValueError, match="LSTMModel has no masked-language model"):
        pretrain_encoder(model.encoder, processor.encoder_tokenizer, settings, 2, None)
    processor.encoder_tokenizer.mask_token = None
    with pytest.raises(ValueError, match="no mask token"):
        pretrain_encoder(model.encoder, processor.encoder_tokenizer, settings, 2, None)
    assert not (tmp_path / "out").exists()


# What is read and refused ------------------------------------------------------------------------------------------------------


def test_splits_of_the_grammar_and_of_files(script, tmp_path):
    splits = script.load_data(script.DataArguments(grammar_sentences=300), max_test=50, seed=3)
    assert {split: len(texts) for split, texts in splits.items()} == {"test": 50, "validation": 200, "train": 300}
    assert len({grammar.parse(text).meaning for texts in splits.values() for text in texts}) == 550
    train, test = write_lines(tmp_path / "a.txt", ["a b", "c", "d"]), write_lines(tmp_path / "b.txt", ["e", "f", "g"])
    # One file of held-out text stands for both; only the test split is cut.
    for name in ("validation_file", "test_file"):
        splits = script.load_data(script.DataArguments(train_file=train, max_train_samples=2, **{name: test}), max_test=2, seed=0)
        assert splits == {"validation": ["e", "f", "g"], "test": ["e", "f"], "train": ["a b", "c"]}
    splits = script.load_data(script.DataArguments(train_file=train, validation_file=test, test_file=train), max_test=None, seed=0)
    assert splits == {"validation": ["e", "f", "g"], "test": ["a b", "c", "d"], "train": ["a b", "c", "d"]}


RECIPES = sorted(path for kind in ("vae", "bowman", "optimus") for path in (EXAMPLES / "recipes").glob(f"{kind}_*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_parses(script, recipe, tmp_path, vae_processor):
    model_args, data_args, evaluation_args, training_args = parse(script, [str(recipe), "--output_dir", str(tmp_path)])
    script.check_arguments(model_args, training_args, True, "text-vae")
    script.check_evaluation(data_args, evaluation_args)
    latent_callbacks(model_args, vae_processor)
    assert yaml.safe_load(recipe.read_text())["seed"] == 0


def test_without_arguments_the_embedded_recipe_is_read(script):
    model_args, data_args, _, training_args = parse(script, [])
    written = yaml.safe_load(script.EMBEDDED_RECIPE.read_text())
    assert data_args.train_file is None and training_args.max_steps == written["max_steps"]
    assert model_args.free_bits == written["free_bits"] and model_args.latent_injection == ["embedding"]
    model_args, _, _, training_args = parse(script, ["--train_file", "x"])
    assert model_args.free_bits == 0 and training_args.max_steps == -1


CONSTANT = ["--kl_schedule", "constant", "--kl_schedule_options", "{}"]
NO_STAGE = ["--latent_free_steps", "0"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--label_smoothing_factor", "0.1"], "`--label_smoothing_factor` must be 0"),
        (["--kl_schedule", "linear", "--kl_schedule_options", '{"steps": 0}'], "`steps` is 0"),
        (["--kl_schedule", "quadratic"], "KL schedule 'quadratic' does not exist"),
        (
            ["--kl_schedule", "linear", "--kl_schedule_options", '{"steps": 5}', "--minimum_rate", "3", "--free_bits", "0"],
            "leave `--kl_schedule`",
        ),
        (["--minimum_rate", "0", "--free_bits", "0", *CONSTANT], "`rate` is 0"),
        (
            ["--minimum_rate", "3", "--free_bits", "0", "--kl_schedule", "constant", "--kl_schedule_options", '{"weight": 0.5}'],
            "leave `--kl_schedule_options` out",
        ),
        (
            ["--decoder_reset_step", "2", "--free_bits", "0", *CONSTANT, *NO_STAGE],
            r"up to there the KL has its full weight: .*'{\"period\": 4, \"cycles\": 1}'",
        ),
        (["--batch_norm_gamma", "1", "--dataloader_drop_last", "--per_device_train_batch_size", "1"], "of at least 2"),
        (["--recurrent_dropout", "0.5"], "no half is an LSTM that starts from nothing"),
        (["--prefix_length", "0"], "`prefix_length` is 0"),
        (["--token_noise", '{"drop": 2}'], "`drop` is 2"),
        (["--token_noise", '{"dorp": 0.1}'], "`--token_noise` has no option dorp; its options are drop"),
        (["--token_noise", "drop"], "`--token_noise` is 'drop', which is no JSON"),
        (["--kl_schedule_options", "[1]"], r"`--kl_schedule_options` is '\[1\]'; it is an object of options"),
        (["--kl_schedule", "linear", "--kl_schedule_options", '{"steps": 5, "weight": -1}'], "`weight` is -1"),
        (["--decoder_reset_step", "0"], "`--decoder_reset_step` is 0"),
        (["--latent_free_steps", "-5"], "`--latent_free_steps` is -5"),
        (["--encoder_pretraining_steps", "-1"], "`--encoder_pretraining_steps` is -1"),
        (["--posterior_fit_steps", "-1"], "`--posterior_fit_steps` is -1"),
        (["--encoder_pretraining_steps", "2", "--freeze_encoder"], "`--encoder_pretraining_steps` trains the encoder"),
        (["--freeze_decoder"], "`--latent_free_steps` trains the decoder"),
        (["--max_train_samples", "0"], "`--max_train_samples` is 0"),
        (
            ["--per_device_train_batch_size", "61", "--dataloader_drop_last"],
            r"has 60 row\(s\), a batch 61",
        ),
        (["--decoder_reset_step", "15", "--max_steps", "-1", "--num_train_epochs", "1", *NO_STAGE], "training ends at step 15"),
        (["--capacity", "3", "--free_bits", "1"], "stands alone"),
        (["--word_dropout", "1.5"], "`word_dropout` is 1.5"),
        (["--latent_size", "0"], "`latent_size` is 0"),
        (["--encoder_type", "gru"], "`encoder_type` is 'gru'"),
        (["--tokenizer_type", "char"], "`tokenizer_type` is 'char'"),
        (["--tokenizer_type", "bpe", "--vocab_size", "20"], "`vocab_size` is 20"),
        (["--encoder_name_or_path", "x"], "Give both"),
        (["--encoder_name_or_path", "x", "--decoder_name_or_path", "x"], "Pretrained parts need `--train_file`"),
        (["--encoder_pretraining_steps", "2", "--encoder_type", "lstm"], "LSTMModel has no masked-language model"),
        (["--minimum_rate", "5", *CONSTANT], r"`--free_bits` \(18.0\)"),
        (["--aggressive_encoder"], "set `--eval_strategy`"),
        (["--decoder_reset_step", "4"], "training ends at `--max_steps` 4"),
        (["--decoder_reset_step", "2", "--lora", '{"r": 2}'], "leave `--lora` out"),
        (["--decoder_reset_step", "2"], "leave `--latent_free_steps` out"),
        (["--decoder_reset_step", "2", "--freeze_decoder", *NO_STAGE], "leave `--freeze_decoder` out"),
        (["--max_length", "1"], "`--max_length` is 1"),
        (["--max_test_samples", "1"], "`--max_test_samples` is 1"),
        (["--importance_samples", "0"], "`--importance_samples` is 0"),
        (["--refine_steps", "-1"], "`--refine_steps` is -1"),
        (["--max_new_tokens", "0"], "`--max_new_tokens` is 0"),
        (["--grammar_sentences", "1"], "`--grammar_sentences` is 1"),
        (["--grammar_sentences", "99999999"], "the grammar has"),
        (["--collapse_report_samples", "1", "--eval_strategy", "steps"], "`--collapse_report_samples` is 1"),
        (["--resume_from_checkpoint", "last"], "holds no checkpoint"),
        (["--lora", '{"task_type": "CAUSAL_LM"}'], "names a `task_type`"),
        (["--save_trained_only"], "needs a pretrained half that is frozen"),
        (["--train_file", "good.txt"], "needs a `--validation_file`"),
        (["--train_file", "none.txt", "--validation_file", "good.txt"], "There is no file none.txt"),
        (["--train_file", "good.txt", "--validation_file", "single.txt"], r"single.txt has 1 sentence"),
        (["--train_file", "single.txt", "--validation_file", "good.txt"], r"single.txt has 1 sentence"),
        (["--train_file", "holes.txt", "--validation_file", "good.txt"], r"holes.txt has no text in 1 row\(s\), counted from 1: 2"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(script, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name, lines in {"good.txt": ["a b", "c d"], "single.txt": ["a b"], "holes.txt": ["a b", "", "c d"]}.items():
        write_lines(tmp_path / name, lines)
    output = tmp_path / "out"
    with pytest.raises((ValueError, FileNotFoundError, StrictDataclassError), match=message):
        script.main([*SMALL, "--output_dir", str(output), *arguments])
    assert not output.exists()


def test_an_output_directory_with_a_model_of_another_kind_is_refused(script, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "paraphrase-vae"}', encoding="utf-8")
    with pytest.raises(ValueError, match="holds a model of type 'paraphrase-vae'"):
        script.main([*SMALL, "--output_dir", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_arguments_are_as_they_were_after_a_training_that_broke_off(script, tmp_path):
    class Breaks(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    model_args, model, processor = built()
    training_args = parse(script, [*SMALL, "--output_dir", str(tmp_path), "--dataloader_drop_last", "--latent_free_steps", "0"])[-1]
    tokenized = run.tokenize_pairs(processor, {"train": Dataset.from_dict({"source": TEXTS, "target": TEXTS})})
    with pytest.raises(KeyboardInterrupt):
        run.train_in_stages(model, processor, model_args, training_args, tokenized, [Breaks()])
    assert training_args.dataloader_drop_last


def test_a_minimum_rate_begins_as_an_autoencoder(script, tmp_path):
    arguments = ["--decoder_reset_step", "2", "--minimum_rate", "3", "--free_bits", "0", *CONSTANT, *NO_STAGE]
    model_args, _, _, training_args = parse(script, [*SMALL, "--output_dir", str(tmp_path / "out"), *arguments])
    script.check_arguments(model_args, training_args, False, "text-vae")


def test_sizes_and_rates_of_parts_reach_them():
    _, model, _ = built("--decoder_type", "lstm", "--encoder_type", "lstm", "--recurrent_dropout", "0.25")
    assert model.encoder.lstm.recurrent_dropout == model.decoder.lm.model.lstm.recurrent_dropout == 0.25
    _, model, _ = built("--latent_injection", "prefix", "--prefix_length", "7", "--posterior_bias", "false")
    assert model.decoder.num_slots == 7 and model.posterior.linear.bias is None


def test_an_encoder_that_adapters_keep_as_it_is_is_not_pre_trained(tmp_path):
    _, model, processor = built("--encoder_type", "bert")
    model.encoder.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing of it would be pre-trained"):
        pretrain_encoder(
            model.encoder, processor.encoder_tokenizer, TrainingArguments(str(tmp_path / "out")), 1, Dataset.from_list([])
        )
