"""A training technique from outside the package: word dropout that is annealed, in the plain Trainer and in the commands."""

from dataclasses import dataclass, field

import pytest
from transformers import TrainerCallback

from hf_vae.cli.arguments import parse_arguments
from hf_vae.options.model import ModelArguments
from hf_vae.training.loss_parts import find_model
from hf_vae.training.techniques import TECHNIQUES, check_techniques, register_technique, technique_callbacks

from .contract import check_trains, processor, vae


class WordDropoutCallback(TrainerCallback):
    """Lowers the share of hidden words from its start to 0, linearly over the training."""

    def __init__(self, start: float):
        self.start, self.seen = start, []

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        rate = self.start * (1 - state.global_step / state.max_steps)
        find_model(model).config.word_dropout = rate
        self.seen.append(rate)


@dataclass
class WordDropoutArguments:
    word_dropout_start: float = field(default=0.0, metadata={"help": "Share of words hidden at first; falls to 0."})


def check(args, training_args):
    if not 0 <= args.word_dropout_start < 1:
        raise ValueError(f"`--word_dropout_start` is {args.word_dropout_start}; it is a share of the words, below 1.")
    if args.word_dropout_start and args.word_dropout:
        raise ValueError("`--word_dropout_start` sets `--word_dropout` by itself; leave one of them out.")


def callbacks(args, processor):
    return [WordDropoutCallback(args.word_dropout_start)] if args.word_dropout_start else []


@pytest.fixture
def registered():
    known = list(TECHNIQUES)
    register_technique(WordDropoutArguments, callbacks, check)
    yield
    TECHNIQUES[:] = known


def test_it_is_given_to_the_plain_trainer(tmp_path):
    model = vae(word_dropout=0.5, word_dropout_token_id=processor().tokenizer.unk_token_id)
    callback = WordDropoutCallback(0.5)
    check_trains(model, tmp_path, callbacks=[callback])
    assert callback.seen == pytest.approx([0.5 * (1 - step / 8) for step in range(8)])


def test_the_commands_know_its_argument_its_refusals_and_its_callback(registered, tmp_path):
    def parse(*argv):
        recipe = tmp_path / "recipe.json"
        recipe.write_text('{"report_to": "none", "use_cpu": true}')
        return parse_arguments((ModelArguments,), [str(recipe), *argv], "vae", str(tmp_path))

    args, training_args = parse("--word_dropout_start", "0.3")
    check_techniques(args, training_args)
    [found] = [each for each in technique_callbacks(args, processor()) if isinstance(each, WordDropoutCallback)]
    assert found.start == 0.3
    with pytest.raises(ValueError, match=r"`--word_dropout_start` is 1.5"):
        check_techniques(*parse("--word_dropout_start", "1.5"))
    with pytest.raises(ValueError, match="leave one of them out"):
        check_techniques(*parse("--word_dropout_start", "0.3", "--word_dropout", "0.2"))
