"""`accelerate launch`: its configuration files, and the scripts on several processes and in pieces."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from transformers import AutoModel, TrainingArguments

from helpers import EXAMPLES, ROOT, SMALL, child_environment, make_model
from hf_vae.cli.processes import check_processes
from hf_vae.training.sharding import prepare_for_sharding, refuse_sharding

CONFIGS = sorted((EXAMPLES / "accelerate_configs").glob("*.yaml"))
HARNESS = Path(__file__).parent / "launched_script.py"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_is_accelerate_s(path):
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    kinds = {"multi": "MULTI_GPU", "bf16": "NO", "fsdp2": "FSDP", "deepspeed": "DEEPSPEED"}
    assert config.distributed_type == DistributedType(kinds[path.stem.partition("_")[0]])
    # `accelerate launch` takes what stands in its sections as its own options, and says nothing of a name that it does not know.
    options = {action.dest for action in launch_command_parser()._actions}
    for section, prefix in ((config.fsdp_config, "fsdp_"), (config.deepspeed_config, "")):
        for name in section:
            assert name in options or prefix + name in options, name
    # The first line says what was run of it.
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_the_table_in_the_docs_names_every_configuration():
    text = (ROOT / "docs" / "guides" / "scale_out.md").read_text(encoding="utf-8")
    for path in CONFIGS:
        assert f"`{path.name}`" in text, path.name


TINY = [
    *SMALL, "--max_steps", "3", "--logging_steps", "1", "--max_new_tokens", "5", "--max_test_samples", "6",
    "--lr_scheduler_type", "constant", "--eval_strategy", "no", "--save_strategy", "no", "--warmup_steps", "0",
]  # fmt: skip
STAGES = ["--latent_free_steps", "2", "--posterior_fit_steps", "2"]
NO_STAGES = ["--latent_free_steps", "0", "--posterior_fit_steps", "0", "--encoder_pretraining_steps", "0"]
# Batch norm and dropout are each process's own.
STREAMED = [
    "--train_file", "FILE", "--test_file", "FILE", "--streaming", "--shuffle_buffer", "7", "--vocab_size", "300",
    "--batch_norm_gamma", "0", "--dropout", "0",
]  # fmt: skip
# A folder for each number of processes, so that both encode.
CACHED = ["--freeze_encoder", "true", "--cache_encoder", "FOLDER", "--encoder_pretraining_steps", "0", "--dropout", "0"]
CASES = {
    "train_vae": ["--grammar_sentences", "100", "--collapse_report_samples", "0", "--max_steps", "4"],
    "train_paraphrase": ["--grammar_pairs", "100"],
    "train_cvae": ["--num_dialogues", "100"],
    "train_dialog": ["--num_dialogues", "100"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "name", "options"),
    [
        ("multi_cpu", "train_paraphrase", STAGES),
        ("multi_cpu", "train_cvae", STAGES),
        ("multi_cpu", "train_dialog", STAGES),
        ("multi_cpu", "train_vae", STREAMED),
        ("multi_cpu", "train_paraphrase", [*STAGES, *CACHED]),
        ("fsdp2", "train_vae", NO_STAGES),
        # A decoder whose head has weights of its own, and one of GPT-2's kind.
        ("fsdp2", "train_vae", [*NO_STAGES, "--tie_word_embeddings", "false", "--decoder_type", "gpt2"]),
    ],
    ids=["ddp paraphrase", "ddp cvae", "ddp dialog", "ddp streamed vae", "ddp cached paraphrase", "fsdp vae", "fsdp vae untied"],
)
def test_two_processes_give_the_logs_weights_and_figures_of_one(config, name, options, tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(f"the {w} sat on mat {n}" for n in range(20) for w in ("cat", "old dog")) + "\n")
    options = [str(tmp_path / "texts.txt") if option == "FILE" else option for option in options]
    arguments = [str(EXAMPLES / f"{name}.py"), *TINY, *CASES[name], *options]
    launch = ["-m", "accelerate.commands.launch", "--main_process_port", "0", "--config_file"]
    launch.append(str(EXAMPLES / "accelerate_configs" / f"{config}.yaml"))
    for processes, command in ((1, []), (2, launch)):
        output = tmp_path / str(processes)
        each = ["--per_device_train_batch_size", str(8 // processes), "--output_dir", str(output)]
        given = [f"{output}-encoded" if argument == "FOLDER" else argument for argument in arguments]
        run = subprocess.run(
            [sys.executable, *command, str(HARNESS), *given, *each],
            env=child_environment(), capture_output=True, text=True, timeout=500,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr[-3000:]
    one, two = (tmp_path / str(processes) for processes in (1, 2))
    logs = [
        [entry for entry in json.loads((path / "trainer_state.json").read_text())["log_history"] if "loss" in entry]
        for path in (one, two)
    ]
    assert len(logs[0]) == len(logs[1]) >= 3
    for first, second in zip(*logs):
        assert first.keys() == second.keys()
        for key in ("loss", "reconstruction", "kl", "kl_weight", "grad_norm"):
            assert second[key] == pytest.approx(first[key], rel=1e-3, abs=1e-4), key
    weights = [load_file(path / "model.safetensors") for path in (one, two)]
    # Of tied weights the whole state of a sharded model has both names.
    assert weights[0].keys() <= weights[1].keys()
    for key, weight in weights[0].items():
        torch.testing.assert_close(weights[1][key], weight, atol=1e-3, rtol=1e-2, msg=key)
    figures = [json.loads((path / "metrics.json").read_text()) for path in (one, two)]
    assert figures[0].keys() == figures[1].keys()
    for key in ("iw_nll", "elbo", "kl", "reconstruction", "nll_prior", "nll_shuffled"):
        assert figures[1][key] == pytest.approx(figures[0][key], rel=1e-3, abs=1e-3), key
    loaded = AutoModel.from_pretrained(two)
    assert type(loaded).__name__ == json.loads((two / "config.json").read_text())["architectures"][0]
    for key, weight in loaded.state_dict().items():
        if key in weights[0]:
            torch.testing.assert_close(weight, weights[0][key], atol=1e-3, rtol=1e-2, msg=key)


def arguments(tmp_path, **options) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path), report_to="none", **options)


def test_processes_that_do_not_know_of_each_other_are_refused(tmp_path, monkeypatch):
    # As torchrun and `accelerate launch` start them, on a machine without a GPU and without `--use_cpu`.
    one = arguments(tmp_path, use_cpu=True)
    check_processes(one, {})
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"2 processes were started.*`--use_cpu`"):
        check_processes(one, {})


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_what_needs_whole_weights_is_refused_in_pieces(variable, tmp_path, monkeypatch):
    given = arguments(tmp_path, use_cpu=True)
    whole = {"lora": None, "latent_free_steps": 0, "posterior_fit_steps": 5, "with_baseline": False}
    check_processes(given, whole)
    monkeypatch.setenv(variable, "true")
    check_processes(given, {**whole, "posterior_fit_steps": 0})
    with pytest.raises(ValueError, match="`--posterior_fit_steps` is 5, which needs whole weights"):
        check_processes(given, whole)


def test_callbacks_that_need_whole_weights_are_refused(monkeypatch):
    monkeypatch.setattr(AcceleratorState, "__init__", lambda self: None)
    monkeypatch.setattr(AcceleratorState, "distributed_type", DistributedType.FSDP, raising=False)
    with pytest.raises(ValueError, match=r"Someone needs whole weights.*FSDP"):
        refuse_sharding("Someone")


def test_groups_share_no_weight():
    model = make_model("vae")
    head, embedding = model.decoder.get_output_embeddings(), model.get_input_embeddings()
    assert head.weight is model.decoder.get_input_embeddings().weight
    holder = next(type(module).__name__ for module in model.modules() if embedding in set(module.children()))
    assert holder in model._no_split_modules
    layers = set(model._no_split_modules) - {holder}
    prepare_for_sharding(model)
    assert model.get_output_embeddings() is None and set(model._no_split_modules) == layers and layers
    # A head of its own has a group of its own.
    untied = make_model("vae", "llama")
    prepare_for_sharding(untied)
    assert untied.get_output_embeddings() is untied.decoder.lm.lm_head
