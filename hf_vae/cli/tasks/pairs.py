"""What tasks whose examples are a source and its targets share: how they are built, measured and told of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

from accelerate import PartialState

from ...evaluation import collapse_report, information_metrics
from ...hub import write_metrics
from ...modeling_conditional_vae import ConditionalVAEModel
from ...processing_conditional_vae import ConditionalVAEProcessor
from ...processing_vae import VAEProcessor
from ...prompt_templates import check_templates
from ..build import build_conditional_model, prompt_options
from ..checks import check_draws, check_held_out, check_least, check_report
from ..held_out import HeldOutPairs
from ..plots import plot_latents
from ..report import show_line
from ..task import Measured, Task

# The least that arguments of every task of pairs may be.
LEAST = {
    "importance_samples": 1, "max_test_samples": 2, "max_new_tokens": 1, "max_source_length": 1, "max_target_length": 2,
    "max_train_samples": 1,
}  # fmt: skip


class PairTask(Task):
    """A task of pairs. A subclass says how its outputs are scored, and may add metrics of its own."""

    # What a card calls sources, targets and outputs, whose number stands in the braces.
    measured_on: ClassVar[str]
    # The least that further arguments may be, by name.
    least: ClassVar[dict[str, int]]

    @property
    def lengths(self) -> dict[str, int]:
        return {"max_length": self.data_args.max_source_length, "max_target_length": self.data_args.max_target_length}

    @property
    def generation(self) -> dict[str, Any]:
        names = ("latent_temperature", "latent_spread")
        return {**super().generation, **{name: getattr(self.evaluation_args, name) for name in names}}

    @property
    def num_outputs(self) -> int:
        """How many outputs each test source gets."""
        return self.evaluation_args.num_outputs

    def build(self) -> tuple[Any, VAEProcessor]:
        classes = (cast(type[ConditionalVAEModel], self.model_class), cast(type[ConditionalVAEProcessor], self.processor_class))
        return build_conditional_model(*classes, self.model_args, self.data_args, self.evaluation_args.max_new_tokens, self.train)

    def check(self) -> None:
        evaluation_args = self.evaluation_args
        check_draws(vars(evaluation_args))
        check_least({**vars(self.data_args), **vars(evaluation_args)}, {**LEAST, **self.least})
        check_templates(**prompt_options(self.model_args))
        check_held_out(self.data_args)
        check_report(evaluation_args)

    @abstractmethod
    def score(self, outputs: list[list[str]]) -> dict[str, float]:
        """Metrics of equally many outputs for each test source, in order."""

    @property
    def requests(self) -> list[Any] | None:
        """The test sources as generation is given them, if q may know more of them."""
        return None

    def held_out(self, processor: VAEProcessor) -> HeldOutPairs:
        """How models of this run are measured, with z and without."""
        return HeldOutPairs(
            processor,
            self.test,
            self.score,
            self.lengths,
            num_outputs=self.num_outputs,
            latent_temperature=self.evaluation_args.latent_temperature,
            latent_spread=self.evaluation_args.latent_spread,
            max_new_tokens=self.evaluation_args.max_new_tokens,
            importance_samples=self.evaluation_args.importance_samples,
            seed=self.training_args.seed,
            requests=self.requests,
            tokenize=self.evaluation_args.metrics_tokenizer,
        )

    def complete(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """`metrics` and what follows from them."""
        return metrics

    def more_metrics(self, model: Any, held_out: HeldOutPairs, outputs: list[list[str]]) -> dict[str, Any]:
        """What a subclass measures besides."""
        return {}

    def samples(self, outputs: list[list[str]]) -> list[tuple[str, list[str]]]:
        """The first sources, as a card shows them, each with some of its outputs."""
        return [(source, several[:5]) for source, several in zip(self.test["source"][:5], outputs)]

    @property
    def example(self) -> Any:
        """What a card's code gives the processor, if it is not the first sample's source."""
        return None

    @property
    def labels(self) -> list[str] | None:
        """What the first target of each test source is, in a word or two, if the task knows."""
        return None

    @property
    def _spread_in_words(self) -> str:
        spread = self.evaluation_args.latent_spread
        return "" if spread == "independent" else f" with `latent_spread='{spread}'`"

    def measure(self, model: Any, processor: VAEProcessor, baseline: Callable[[], Any] | None) -> Measured:
        """Likelihood bounds on the first target of each source, and the score of greedy outputs that differ by z."""
        held_out = self.held_out(processor)
        with held_out.evaluator(model).reading_once():
            metrics, outputs = held_out.measure(model)
            posterior, prior = held_out.distributions(model)
            metrics = {**self.complete(metrics), **self.more_metrics(model, held_out, outputs)}
            if self.model_args.has_posterior:
                examples = held_out.evaluator(model).examples()
                metrics.update(information_metrics(posterior, prior, seed=self.training_args.seed, examples=examples))
                metrics["collapse_report"] = collapse_report(metrics).to_dict()
        if PartialState().is_main_process:
            # Before anything else can fail.
            write_metrics(metrics, Path(cast(str, self.training_args.output_dir)) / "metrics.json")
        if baseline is not None:
            # Beams and sampling are then all the diversity there is.
            metrics["baseline"] = self.complete(held_out.measure_without_latent(baseline()))
        samples = self.samples(outputs)
        return Measured(
            metrics,
            baseline=metrics.get("baseline", {}),
            measured_on=(
                f"Measured on {len(self.test)} held-out {self.measured_on.format(self.num_outputs)} that differ by z, drawn from "
                f"the prior at a temperature of {self.evaluation_args.latent_temperature:g}{self._spread_in_words}; "
                "without z, on as many beams."
            ),
            samples=samples,
            printed=_with_references(samples, self.test["targets"]),
            pictures={"latent.png": partial(plot_latents, posterior, prior, labels=self.labels)},
            outputs=outputs,
            example=self.example,
        )


def _with_references(samples, references) -> str:
    blocks = []
    for (source, outputs), wanted in zip(samples, references):
        lines = [show_line("output", each) for each in outputs] + [show_line("reference", each) for each in wanted]
        blocks.append("\n".join(["", show_line("source", source), *lines]))
    return "\n".join(blocks)
