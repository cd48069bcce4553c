"""Without a file of arguments, a command's defaults are the recipe for its data and its parts."""

import re
import shlex

import pytest
import yaml

from helpers import RECIPES, ROOT, load_script
from hf_vae.cli.arguments import parse_arguments
from hf_vae.cli.checks import check_arguments
from hf_vae.training.stages import check_stages

TASKS = ["vae", "cvae", "paraphrase", "dialog"]
FILES = ["--train_file", "x.jsonl", "--validation_file", "x.jsonl"]
PARTS = ["--encoder_name_or_path", "some/encoder", "--decoder_name_or_path", "some/decoder"]
# The names of a task's dataclass of the model's arguments.
MODEL = {"vae": "ModelArguments", "cvae": "CVAEArguments", "paraphrase": "ConditionalArguments", "dialog": "DialogArguments"}


def parsed(task, *argv):
    script = load_script(f"train_{task}")
    classes = (getattr(script, MODEL[task]), script.DataArguments, script.EvaluationArguments)
    everything = {}
    for each in parse_arguments(classes, list(argv), task, "out"):
        everything |= vars(each)
    return everything


def written(name):
    return yaml.safe_load(RECIPES[name].read_text())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "argv, kind",
    [
        ([], "embedded"),
        (["--train_file", "x.jsonl"], "from_scratch"),
        (["--train_fi=x.jsonl"], "from_scratch"),
        (["--train_file", "x.jsonl", *PARTS], "pretrained"),
    ],
    ids=["nothing", "a file", "abbreviated", "a file and two parts"],
)
def test_the_data_and_the_parts_choose_the_recipe(task, argv, kind):
    arguments = parsed(task, *argv, "--use_cpu")
    for name, value in written(f"{task}_{kind}").items():
        # `TrainingArguments` makes a list of this one.
        if not name.endswith("_name_or_path") and name != "report_to":
            assert arguments[name] == value, name
    if kind == "pretrained":
        assert arguments["encoder_name_or_path"] == "some/encoder" and arguments["decoder_name_or_path"] == "some/decoder"
    else:
        assert arguments["encoder_name_or_path"] is None


@pytest.mark.parametrize("task", TASKS)
def test_every_default_has_a_hold_on_the_kl(task):
    """Free bits or batch norm; and what is new around pretrained parts learns faster than they do."""
    for kind in ("embedded", "from_scratch", "pretrained"):
        recipe = written(f"{task}_{kind}")
        assert recipe.get("free_bits") or recipe.get("batch_norm_gamma"), kind
    recipe = written(f"{task}_pretrained")
    assert recipe["new_weights_learning_rate"] > recipe["learning_rate"]


@pytest.mark.parametrize("kind", ["embedded", "from_scratch", "pretrained"])
@pytest.mark.parametrize("task", TASKS)
def test_every_default_is_accepted_as_it_is(task, kind, tmp_path):
    """Nothing of it contradicts another part of it."""
    script = load_script(f"train_{task}")
    task_class = next(each for each in vars(script).values() if getattr(each, "name", None) == task)
    argv = {"embedded": [], "from_scratch": FILES, "pretrained": [*FILES, *PARTS]}[kind]
    model_args, *others, training_args = parse_arguments(task_class.arguments, [*argv, "--use_cpu"], task, str(tmp_path / "out"))
    check_arguments(model_args, training_args, kind != "embedded", task_class.model_class.config_class.model_type)
    task_class(model_args, *others, training_args).check()


def test_what_the_command_line_says_stands_in_for_the_recipe_s():
    arguments = parsed("paraphrase", "--train_file", "x", *PARTS, "--batch_norm_gamma", "0", "--learning_rate", "2e-5")
    assert arguments["batch_norm_gamma"] is None and arguments["learning_rate"] == 2e-5
    arguments = parsed("paraphrase", "--train_file", "x", "--num_train_epochs", "2")
    assert (arguments["max_steps"], arguments["num_train_epochs"]) == (-1, 2)
    arguments = parsed("paraphrase", "--train_file", "x", "--num_train_epochs", "2", "--max_steps", "7")
    assert arguments["max_steps"] == 7


def test_what_is_said_beside_a_named_recipe_of_the_package_stands_in_for_its_values_too():
    arguments = parsed("paraphrase", "paraphrase_pretrained.yaml", "--train_file", "x", "--num_train_epochs", "3")
    assert (arguments["max_steps"], arguments["num_train_epochs"]) == (-1, 3)
    arguments = parsed("paraphrase", "paraphrase_pretrained.yaml", "--train_file", "x", "--freeze_decoder")
    assert not arguments["latent_free_steps"] and not arguments["freeze_decoder_with_latent"]
    # Who names it may change one of its parts.
    arguments = parsed("paraphrase", "paraphrase_pretrained.yaml", "--train_file", "x", "--decoder_name_or_path", "mine")
    assert arguments["decoder_name_or_path"] == "mine" and arguments["encoder_name_or_path"]


def test_in_a_file_of_one_s_own_nothing_is_replaced_and_steps_beside_epochs_are_refused(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("max_steps: 250\nlatent_free_steps: 5\n")
    assert parsed("vae", str(own), "--freeze_decoder")["latent_free_steps"] == 5
    with pytest.raises(ValueError, match=r"own\.yaml has `max_steps: 250`, .* ignores `--num_train_epochs`"):
        parsed("vae", str(own), "--num_train_epochs", "3")
    assert parsed("vae", str(own), "--num_train_epochs", "3", "--max_steps", "-1")["num_train_epochs"] == 3


@pytest.mark.parametrize("conditioning", ["prompt", "cross_attention"])
def test_steps_without_z_are_refused_where_nothing_could_learn_in_them(conditioning, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(f"latent_free_steps: 5\nfreeze_decoder: true\nsource_conditioning: {conditioning}\nown_data: true\n")
    script = load_script("train_paraphrase")
    argv = [str(own), *FILES, *PARTS, "--use_cpu"]
    model_args, *_, training_args = parse_arguments(script.ParaphraseTask.arguments, argv, "paraphrase", str(tmp_path / "out"))
    if conditioning == "prompt":
        with pytest.raises(ValueError, match="`--latent_free_steps` trains the decoder, which `--freeze_decoder` keeps"):
            check_stages(model_args, training_args)
    else:
        check_stages(model_args, training_args)


@pytest.mark.parametrize("page", ["coming_from_optimus", "coming_from_langvae"])
def test_the_commands_for_those_who_come_from_elsewhere_train_what_their_page_says(page):
    """And not with what the default recipe would add to it."""
    guide = (ROOT / "docs" / "guides" / f"{page}.md").read_text(encoding="utf-8")
    [command] = re.findall(r"```\n(accelerate launch examples/train_vae\.py .*?)```", guide, re.DOTALL)
    arguments = parsed("vae", *shlex.split(command.replace("\\\n", " "))[3:], "--use_cpu")
    assert arguments["batch_norm_gamma"] is None and not arguments["bow_loss_weight"] and not arguments["latent_free_steps"]
    assert not arguments["freeze_decoder_with_latent"] and not arguments["prior_fit_steps"] and arguments["free_bits"]
    assert arguments["new_weights_learning_rate"] == arguments["learning_rate"]


def test_one_part_alone_is_not_completed_by_the_recipe_s_other():
    arguments = parsed("vae", "--train_file", "x", "--decoder_name_or_path", "some/decoder")
    assert arguments["encoder_name_or_path"] is None


def test_without_a_q_of_its_own_a_model_gets_no_defaults_for_one():
    for argv in ([], ["--train_file", "x"], ["--train_file", "x", *PARTS]):
        arguments = parsed("cvae", *argv, "--objective", "gsnn")
        assert not arguments["free_bits"] and arguments["batch_norm_gamma"] is None and not arguments["posterior_fit_steps"]


@pytest.mark.parametrize(
    "said", [["--use_chat_template", "true"], ["--decoder_start_token", "x"], ["--source_conditioning", "cross_attention"]]
)
@pytest.mark.parametrize("task", ["cvae", "paraphrase", "dialog"])
def test_whoever_says_how_a_source_is_read_gets_no_template_besides(task, said):
    pretrained = ["--train_file", "x", *PARTS]
    assert parsed(task, *pretrained)["prompt_template"] == written(f"{task}_pretrained")["prompt_template"]
    assert parsed(task, *pretrained, *said)["prompt_template"] is None


@pytest.mark.parametrize(
    "said, without",
    [
        (["--lora", '{"r": 2}'], ["prior_fit_steps"]),
        (["--prior_type", "conditional"], ["prior_fit_steps"]),
        (["--objective", "gsnn"], ["prior_fit_steps"]),
        (["--objective", "hybrid"], ["prior_fit_steps"]),
        (["--prior_regularization", "0.1"], ["prior_fit_steps"]),
        (["--prior_regularization", "0"], []),
        (["--freeze_decoder"], ["latent_free_steps", "freeze_decoder_with_latent"]),
        (["--latent_free_steps", "0"], ["latent_free_steps", "freeze_decoder_with_latent"]),
    ],
    ids=lambda said: said[0] if said else "nothing",
)
def test_what_cannot_be_beside_what_is_said_gives_way(said, without):
    for task in ("cvae", "paraphrase", "dialog"):
        whole, some = (parsed(task, "--train_file", "x", *PARTS, *options) for options in ([], said))
        for name in ("latent_free_steps", "freeze_decoder_with_latent", "prior_fit_steps"):
            assert whole[name] and bool(some[name]) == (name not in without), name
        if task != "paraphrase":
            assert some["prior_type"] == ("standard" if some["prior_fit_steps"] or said[0] in ("--lora",) else "conditional")


@pytest.mark.parametrize("name", ["capacity", "minimum_rate"])
def test_another_hold_on_the_kl_stands_in_the_place_of_free_bits(name):
    arguments = parsed("paraphrase", "--train_file", "x", f"--{name}", "5")
    assert arguments["free_bits"] == 0 and arguments[name] == 5


def test_what_a_recipe_has_set_can_be_unset():
    options = ["--batch_norm_gamma", "0", "--new_weights_learning_rate", "0", "--prompt_template", "{source}"]
    arguments = parsed("paraphrase", "--train_file", "x", *PARTS, *options)
    assert arguments["batch_norm_gamma"] is None and arguments["new_weights_learning_rate"] is None
    assert arguments["prompt_template"] == "{source}"


def test_a_file_of_arguments_stands_in_the_place_of_all_defaults(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("train_file: x.jsonl\nseed: 3\n")
    arguments = parsed("vae", str(recipe))
    assert arguments["free_bits"] == 0 and arguments["max_steps"] == -1 and arguments["seed"] == 3


def test_the_pretrained_recipe_names_its_parts_and_the_command_line_others(tmp_path):
    arguments = parsed("paraphrase", "paraphrase_pretrained.yaml", "--train_file", "x")
    assert arguments["decoder_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    arguments = parsed("paraphrase", "paraphrase_pretrained.yaml", "--train_file", "x", *PARTS)
    assert arguments["decoder_name_or_path"] == "some/decoder"


@pytest.mark.parametrize("task", ["cvae", "paraphrase", "dialog"])
def test_between_pretrained_parts_q_pools_what_the_decoder_has_not_read(task):
    assert parsed(task, "--train_file", "x", *PARTS)["pooling"] == "target"


@pytest.mark.parametrize("task", TASKS)
def test_help_says_where_the_defaults_come_from(task, capsys):
    with pytest.raises(SystemExit):
        parsed(task, "--help")
    told = " ".join(capsys.readouterr().out.split())
    for kind in ("embedded", "from_scratch", "pretrained"):
        assert f"{task}_{kind}.yaml" in told
