"""A technique is one file: its arguments, its refusals and its callbacks, known to the commands by one line."""

from dataclasses import dataclass, field

import pytest
from transformers import TrainerCallback, TrainingArguments

from hf_vae import KLAnnealingCallback
from hf_vae.cli.arguments import parse_arguments
from hf_vae.options.model import ModelArguments
from hf_vae.training import KLWeightCallback, MinimumDesiredRateCallback, register_technique
from hf_vae.training.techniques import TECHNIQUES, check_techniques, technique_callbacks


class Counting(TrainerCallback):
    pass


class HalfWeight(KLWeightCallback):
    def weight(self, state):
        return 0.5


@dataclass
class OutsideArguments:
    count_steps: bool = field(default=False, metadata={"help": "Count."})
    half_weight: bool = field(default=False, metadata={"help": "Half of the KL."})


def callbacks(args, processor):
    return [Counting()] * args.count_steps + [HalfWeight()] * args.half_weight


def check(args, training_args):
    if args.count_steps and training_args.max_steps == 7:
        raise ValueError("`--count_steps` does not like seven.")


@pytest.fixture(autouse=True)
def as_they_were():
    known = list(TECHNIQUES)
    yield
    TECHNIQUES[:] = known


def parse(*argv, tmp_path):
    return parse_arguments((ModelArguments,), list(argv), "vae", str(tmp_path))


def kinds(args):
    return [type(each) for each in technique_callbacks(args, None)]


def test_one_from_outside_is_read_asked_and_used(tmp_path):
    register_technique(OutsideArguments, callbacks, check)
    # A cell of a notebook that runs again.
    register_technique(OutsideArguments, callbacks, check)
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"count_steps": true}')
    args, training_args = parse(str(recipe), "--max_steps", "7", tmp_path=tmp_path)
    assert isinstance(args, ModelArguments) and args.count_steps and not args.half_weight and args.has_posterior
    assert kinds(args) == [KLAnnealingCallback, Counting]
    with pytest.raises(ValueError, match="does not like seven"):
        check_techniques(args, training_args)
    # Without them the model's arguments are what they are.
    assert type(args)() == type(args)(count_steps=False)


def test_whoever_sets_the_weight_stands_in_the_place_of_the_schedule(tmp_path):
    register_technique(OutsideArguments, callbacks)
    recipe = tmp_path / "recipe.json"
    recipe.write_text("{}")
    args, _ = parse(str(recipe), "--half_weight", tmp_path=tmp_path)
    assert kinds(args) == [HalfWeight]
    args.kl_schedule = "linear"
    with pytest.raises(ValueError, match="HalfWeight sets the KL's weight by itself; leave `--kl_schedule`"):
        technique_callbacks(args, None)


def test_a_minimum_rate_is_the_only_one_that_sets_the_weight():
    assert kinds(ModelArguments(minimum_rate=2.0)) == [MinimumDesiredRateCallback]


def test_names_that_are_taken_are_refused():
    @dataclass
    class Taken:
        minimum_rate: float = 0.0

    with pytest.raises(ValueError, match="minimum_rate are those of MinimumRateArguments"):
        register_technique(Taken)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"minimum_rate": 2.0, "kl_schedule": "linear", "kl_schedule_options": '{"steps": 3}'}, "leave `--kl_schedule`"),
        ({"minimum_rate": 2.0, "kl_schedule_options": '{"weight": 0.5}'}, "leave `--kl_schedule_options`"),
        ({"minimum_rate": 2.0, "free_bits": 1.0}, "set `--free_bits` to 0"),
        ({"decoder_reset_step": 0}, "`--decoder_reset_step` is 0"),
        ({"decoder_reset_step": 3}, "the KL has its full weight"),
        ({"aggressive_encoder": True}, "set `--eval_strategy`"),
        ({"token_noise": '{"dorp": 0.1}'}, "has no option dorp"),
        ({"latent_free_steps": -1}, "`--latent_free_steps` is -1"),
        ({"encoder_pretraining_steps": 3, "freeze_encoder": True}, "`--freeze_encoder` keeps"),
    ],
)
def test_what_a_technique_refuses_stands_in_its_file(given, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        check_techniques(ModelArguments(**given), TrainingArguments(str(tmp_path), report_to="none", use_cpu=True))
