"""The training script, run small: what it refuses and what it leaves behind."""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import RepoUrl
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoProcessor, GPT2Config, RobertaConfig

from helpers import RECIPES as RECIPE_FILES
from helpers import SMALL, load_script
from hf_vae import ParaphraseVAEModel, ParaphraseVAEProcessor
from hf_vae.cli import train as run
from hf_vae.cli.arguments import parse_arguments
from hf_vae.cli.build import build_conditional_model
from hf_vae.cli.checks import check_arguments
from hf_vae.cli.from_scratch import small_configs, train_tokenizers
from hf_vae.compat import ACTIVATION_CHECKPOINTING
from hf_vae.data import expand_targets, grammar
from hf_vae.options.model import ConditionalArguments

TINY = [
    *SMALL, "--grammar_pairs", "40", "--max_source_length", "40", "--max_target_length", "40",
]  # fmt: skip


@pytest.fixture(scope="module")
def script():
    return load_script("train_paraphrase")


def parse(script, argv):
    """The arguments as the script reads them."""
    classes = (ConditionalArguments, script.DataArguments, script.EvaluationArguments)
    return parse_arguments(classes, argv, "paraphrase", "outputs/paraphrase")


build = partial(build_conditional_model, ParaphraseVAEModel, ParaphraseVAEProcessor)

FIGURES = {
    "elbo", "kl", "iw_nll", "reconstruction", "nll_posterior", "nll_prior", "nll_shuffled", "bleu", "best_bleu", "ter", "best_ter",
    "ibleu", "self_bleu", "distinct_2", "entropy", "grammatical", "meaning_kept", "distinct_correct_in_10",
}  # fmt: skip


@pytest.mark.slow
def test_the_embedded_default_leaves_a_whole_model_behind(script, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = Path("outputs/paraphrase")
    pretrained = []
    pretrain = run.pretrain_encoder
    monkeypatch.setattr(run, "pretrain_encoder", lambda *args, **options: pretrained.append(args[3]) or pretrain(*args, **options))
    fitted = []
    fit = run.fit_posterior
    monkeypatch.setattr(run, "fit_posterior", lambda *args, **options: fitted.append(args[3]) or fit(*args, **options))
    metrics = script.main(
        [
            *TINY,
            "--with_baseline",
            "--latent_temperature",
            "0.7",
            "--encoder_pretraining_steps",
            "2",
            "--posterior_fit_steps",
            "3",
            "--train_sampling_strategy",
            "group_by_length",
        ]
    )
    assert pretrained == [2] and fitted == [3]
    assert metrics.keys() >= FIGURES and metrics["baseline"].keys() >= FIGURES and "bleu" in metrics["baseline"]["sampling"]
    assert json.loads((output / "metrics.json").read_text()) == metrics
    assert metrics["entropy"] == grammar.entropy()
    expected = {
        "config.json", "generation_config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "training.png",
        "README.md", "encoder_tokenizer", "modeling_paraphrase_vae.py",
    }  # fmt: skip
    assert expected <= {path.name for path in output.iterdir()}
    assert json.loads((output / "config.json").read_text())["auto_map"]
    printed = capsys.readouterr().out
    assert printed.count("\n  output     ") == 4 * 5 and printed.count("\n  reference  ") == 4 * 5
    for auto_class in (AutoModel, AutoModelForSeq2SeqLM):
        assert isinstance(auto_class.from_pretrained(output), ParaphraseVAEModel)
    model, processor = AutoModel.from_pretrained(output).eval(), AutoProcessor.from_pretrained(output)
    assert isinstance(processor, ParaphraseVAEProcessor)
    assert model.generation_config.latent_temperature == 0.7 and model.generation_config.max_new_tokens == 8
    sequences = model.generate(**processor("the farmer bought a unicorn ."), num_return_sequences=5, max_new_tokens=8)
    assert len(processor.batch_decode(sequences, skip_special_tokens=True)) == 5


@pytest.mark.slow
def test_what_is_pushed_and_when(script, tmp_path, monkeypatch):
    """The repository is asked for before anything is computed, and gets the model without what the training left beside it."""
    calls = []

    class FakeApi:
        def __init__(self, token):
            assert token == "secret"

        def create_repo(self, name, private, exist_ok):
            calls.append((name, private, exist_ok, (tmp_path / "mine").exists()))
            return RepoUrl("https://hub.invalid/someone/mine", endpoint="https://hub.invalid")

        def upload_folder(self, repo_id, folder_path, ignore_patterns):
            files = [str(path.relative_to(folder_path)) for path in Path(folder_path).rglob("*") if path.is_file()]
            calls.append((repo_id, set(filter_repo_objects(files, ignore_patterns=ignore_patterns))))

    monkeypatch.setattr("hf_vae.hub.publishing.HfApi", FakeApi)
    lora = ["--lora", '{"r": 2, "target_modules": ".*decoder.lm.*(q_proj|v_proj)"}']
    script.main([*TINY, *lora, "--output_dir", str(tmp_path / "mine"), "--push_to_hub", "--hub_token", "secret"])
    (created, (repository, files)) = calls
    assert created == ("mine", None, True, False) and repository == "someone/mine"
    assert {"config.json", "model.safetensors", "README.md", "processor_config.json", "modeling_vae.py"} <= files
    assert not any(name.startswith(("stages", "checkpoint", "runs")) for name in files)
    assert "someone/mine" in (tmp_path / "mine" / "README.md").read_text()


@pytest.mark.slow
def test_a_stranger_without_the_package_can_load_the_model(script, tmp_path):
    output = tmp_path / "paraphrase"
    script.main([*TINY, "--output_dir", str(output)])
    program = (
        "import sys\n"
        "sys.modules['hf_vae'] = None\n"
        "from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoProcessor\n"
        f"model = AutoModel.from_pretrained({str(output)!r}, trust_remote_code=True)\n"
        f"processor = AutoProcessor.from_pretrained({str(output)!r}, trust_remote_code=True)\n"
        "sequences = model.generate(**processor('the farmer'), num_return_sequences=3, max_new_tokens=5, do_sample=False)\n"
        "print(len(processor.batch_decode(sequences, skip_special_tokens=True)))\n"
        f"print(type(AutoModelForSeq2SeqLM.from_pretrained({str(output)!r}, trust_remote_code=True)).__name__)\n"
    )
    environment = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", "PATH": ""}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split() == ["3", "ParaphraseVAEModel"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--lora", '{"r": 2, "target_modules": ".*decoder.lm.*(q_proj|v_proj)"}', "--posterior_fit_steps", "2"],
        ["--freeze_decoder", "--latent_free_steps", "0", f"--{ACTIVATION_CHECKPOINTING}", "--posterior_fit_steps", "2"],
        ["--freeze_decoder", "--latent_free_steps", "0", "--save_trained_only"],
        [
            "--bf16",
            "--posterior_fit_steps",
            "2",
            "--pairing",
            "both_ways",
            "--save_strategy",
            "steps",
            "--save_steps",
            "2",
            "--save_total_limit",
            "2",
        ],
    ],
    ids=["lora", "frozen decoder", "frozen decoder left out", "bf16"],
)
def test_own_pairs_between_pretrained_parts(script, tmp_path, options):
    """A pretrained encoder and decoder with their own tokenizers, and pairs in a file."""
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("\n".join(json.dumps(row) for row in grammar.draw_pairs(12, seed=0, num_targets=2)), encoding="utf-8")
    rows = grammar.draw_pairs(12, seed=0)
    tokenizer, encoder_tokenizer = train_tokenizers([row["source"] for row in rows], 300)
    encoder, decoder = small_configs(tokenizer, hidden_size=16)
    for name, part, its_tokenizer in (
        ("encoder", AutoModel.from_config(encoder), encoder_tokenizer),
        ("decoder", AutoModelForCausalLM.from_config(decoder), tokenizer),
    ):
        part.save_pretrained(tmp_path / name)
        its_tokenizer.save_pretrained(tmp_path / name)
    arguments = [
        "--encoder_name_or_path", str(tmp_path / "encoder"), "--decoder_name_or_path", str(tmp_path / "decoder"),
        "--train_file", str(pairs), "--validation_file", str(pairs), "--output_dir", str(tmp_path / "out"), "--free_bits", "2",
        "--report_to", "none",
    ]  # fmt: skip
    metrics = script.main([*arguments, *TINY, *options])
    assert "bleu" in metrics and "grammatical" not in metrics
    before = AutoModelForCausalLM.from_pretrained(tmp_path / "decoder").state_dict()
    after = AutoModel.from_pretrained(tmp_path / "out").decoder.lm.state_dict()
    changed = {name for name in before if not before[name].equal(after[name].float())}
    if "--lora" in options:
        assert changed and all("q_proj" in name or "v_proj" in name for name in changed)
        assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").exists()
    elif "--freeze_decoder" in options:
        assert not changed
        saved = load_file(tmp_path / "out" / "model.safetensors")
        assert any(name.startswith("decoder.lm.") for name in saved) == ("--save_trained_only" not in options)
    else:
        assert changed
        # Killed after its second step, the same run goes on from there; the checkpoint has the processor too.
        assert isinstance(AutoProcessor.from_pretrained(tmp_path / "out" / "checkpoint-2"), ParaphraseVAEProcessor)
        shutil.rmtree(tmp_path / "out" / "checkpoint-4")
        resumed = script.main([*arguments, *TINY, *options, "--resume_from_checkpoint", "last"])
        assert resumed["elbo"] == pytest.approx(metrics["elbo"], abs=1e-4)


def test_a_file_of_arguments_comes_first_and_the_command_line_overrides_it(script, tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"latent_size": 7, "seed": 5, "kl_schedule_options": {"steps": 9}}), encoding="utf-8")
    model_args, _, _, training_args = parse(script, [str(recipe), "--seed", "6"])
    assert (model_args.latent_size, training_args.seed) == (7, 6)
    assert model_args.kl_schedule_options == {"steps": 9}
    recipe.write_text('{"latent_sise": 7}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"no such argument\(s\): latent_sise"):
        parse(script, [str(recipe)])


# Pretrained parts are tried above, on the defaults that the recipe for them holds.
RECIPES = sorted(
    path for name, path in RECIPE_FILES.items() if name.startswith(("paraphrase_", "gupta_")) and not name.endswith("_pretrained")
)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_parses_and_its_model_trains(script, recipe, tmp_path):
    argv = [str(recipe), "--output_dir", str(tmp_path / "out"), "--train_file", "x.jsonl", "--test_file", "x.jsonl"]
    model_args, data_args, evaluation_args, training_args = parse(script, argv)
    check_arguments(model_args, training_args, True, "paraphrase-vae")
    script.ParaphraseTask(model_args, data_args, evaluation_args, training_args).check()
    pairs = expand_targets(grammar.load_paraphrases(8))
    model, processor = build(model_args, data_args, evaluation_args.max_new_tokens, pairs)
    loss = model.train()(**processor(list(pairs["source"]), list(pairs["target"]))).loss
    loss.backward()
    assert torch.isfinite(loss) and model.posterior_head.linear.weight.grad.abs().sum() > 0
    assert isinstance(yaml.safe_load(recipe.read_text())["seed"], int)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--label_smoothing_factor", "0.1"], "`--label_smoothing_factor` must be 0"),
        (["--kl_schedule", "linear", "--kl_schedule_options", '{"steps": 0}'], "`steps` is 0"),
        (["--decoder_name_or_path", "x"], "is given without `--encoder_name_or_path`"),
        (["--num_paraphrases", "0"], "`--num_paraphrases` is 0"),
        (["--importance_samples", "0"], "`--importance_samples` is 0"),
        (["--resume_from_checkpoint", "last"], "holds no checkpoint"),
        (["--resume_from_checkpoint", "nowhere/checkpoint-3"], "there is no directory nowhere/checkpoint-3"),
        (["--pairing", "some"], "`--pairing` is 'some'; choose one of 'targets', 'both_ways', 'all'"),
        (["--objective", "gsnn", "--posterior_fit_steps", "3"], "`--objective gsnn` does without"),
        (["--objective", "gsnn", "--prior_fit_steps", "3"], "`--prior_fit_steps` trains p\\(z\\|x\\) on what q says"),
        (["--prior_type", "conditional", "--prior_fit_steps", "3"], "`--prior_type` is 'conditional': set that to standard"),
        (["--lora", '{"r": 2}', "--prior_fit_steps", "3"], "a saved adapter would lack it"),
        (["--tie_encoders", "false", "--pooling", "pooler", "--prior_fit_steps", "3"], "choose `--pooling mean`"),
        (["--lora", '{"task_type": "CAUSAL_LM"}'], "names a `task_type`"),
        (["--train_file", "none.jsonl"], "needs a `--validation_file`"),
        (["--train_file", "none.jsonl", "--validation_file", "none.jsonl"], "There is no file none.jsonl"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(script, tmp_path, arguments, message):
    output = tmp_path / "out"
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        script.main([*TINY, "--output_dir", str(output), *arguments])
    assert not output.exists()


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("config.json", '{"model_type": "gpt2"}', "holds a model of type 'gpt2'"),
        ("config.json", "{", "no transformers model's"),
        ("config.json", "[]", "no transformers model's"),
        ("adapter_config.json", "{}", "holds an adapter"),
        ("modules.json", "[]", "holds a sentence-transformers model"),
    ],
)
def test_an_output_directory_with_a_model_of_another_kind_is_refused(script, tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=f"`--output_dir` .* {message}"):
        script.main([*TINY, "--output_dir", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(ValueError, match="is a file"):
        script.main([*TINY, "--output_dir", str(tmp_path / name)])


def test_lengths_that_the_models_do_not_hold_are_refused(script, tmp_path):
    """RoBERTa's kind leaves positions unused, a prefix takes some, and what is generated may be longer than what is learnt."""
    pairs = expand_targets(grammar.load_paraphrases(5))
    tokenizer, encoder_tokenizer = train_tokenizers(pairs["source"], 300)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 300}
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    encoder = AutoModel.from_config(RobertaConfig(max_position_embeddings=41, **sizes, **special))
    decoder = AutoModelForCausalLM.from_config(
        GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=40, vocab_size=300, **special)
    )
    for name, part, its_tokenizer in (("encoder", encoder, encoder_tokenizer), ("decoder", decoder, tokenizer)):
        part.save_pretrained(tmp_path / name)
        its_tokenizer.save_pretrained(tmp_path / name)
    parts = ["--encoder_name_or_path", str(tmp_path / "encoder"), "--decoder_name_or_path", str(tmp_path / "decoder")]

    def build_for(source, target, new, *options):
        lengths = ["--max_source_length", str(source), "--max_target_length", str(target), "--max_new_tokens", str(new)]
        model_args, data_args, _, _ = parse(script, [*parts, *lengths, *options, "--output_dir", str(tmp_path / "out")])
        return build(model_args, data_args, new, pairs)

    build_for(20, 19, 19)
    with pytest.raises(ValueError, match="make 41 tokens for the encoder, which holds 40"):
        build_for(21, 20, 5)
    with pytest.raises(ValueError, match="make 41 tokens for the decoder, which holds 40"):
        build_for(20, 19, 20)
    with pytest.raises(ValueError, match="make 40 tokens for the decoder, which holds 36"):
        build_for(20, 19, 19, "--latent_injection", "prefix")
