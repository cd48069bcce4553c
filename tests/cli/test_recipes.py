"""Files of options: how they are read, and what is refused."""

import pytest

from helpers import load_script
from hf_vae.cli.arguments import parse_arguments
from hf_vae.options.model import ModelArguments


@pytest.fixture(scope="module")
def script():
    return load_script("train_vae")


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "holds nothing"),
        ("[1, 2]", "holds a list"),
        ("hello", "holds a str"),
        ("1: 2", r"no such argument\(s\): 1"),
        ("max_steps: {a: 1}", r"`max_steps` is {'a': 1}; it takes a whole number"),
        ("text_column: {a: 1}", r"`text_column` is {'a': 1}; it takes text"),
        ("train_file: [a, b]", r"`train_file` is \['a', 'b'\]; it takes text"),
        ("help: true", r"no such argument\(s\): help"),
        ("max-step: 3", r"no such argument\(s\): max-step \(did you mean max_steps\?\)"),
        ("seed: 1\nseed: 2", "names `seed` twice"),
        ("max_steps: [1]", r"`max_steps` is \[1\]; it takes a whole number"),
        ("latent_size: 7.5", "`latent_size` is 7.5; it takes a whole number"),
        ("learning_rate: much", "`learning_rate` is 'much'; it takes a number"),
        ("aggressive_encoder: 5", "`aggressive_encoder` is 5; it takes true or false"),
        ("latent_injection: {a: 1}", "it takes a list, each text"),
        ("save_strategy: sometimes", "it takes one of no, steps, epoch, best"),
        ("a: [", "is neither YAML nor JSON"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_in_a_sentence(script, tmp_path, content, message):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(content)
    with pytest.raises(ValueError, match=message):
        script.main([str(recipe), "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_recipe_reads_as_it_is_meant(tmp_path):
    recipe = tmp_path / "recipe.YAML"
    recipe.write_text(
        "eval_strategy: no\nsave_strategy: No\nmax_steps:\nreport_to: []\noptim_target_modules: [query, value]\nlora: {r: 2}\n"
        "<<: {seed: 3}\nfreeze_encoder: yes\n"
    )
    model_args, args = parse_arguments((ModelArguments,), [str(recipe), "--use_cpu"], "vae", str(tmp_path))
    assert (args.eval_strategy, args.save_strategy, args.max_steps, args.seed) == ("no", "no", -1, 3)
    assert args.optim_target_modules == ["query", "value"] and model_args.lora == {"r": 2} and model_args.freeze_encoder is True
    with pytest.raises(ValueError, match=r"has no such argument\(s\): .*other.yaml.* a file of arguments comes first"):
        parse_arguments((ModelArguments,), [str(recipe), "other.yaml"], "vae", str(tmp_path))
