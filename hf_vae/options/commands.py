"""The commands: what each does, the module that does it, and the dataclasses of its arguments."""

from __future__ import annotations

from dataclasses import dataclass

from .chat import ChatArguments
from .evaluate import DataArguments as EvaluatedData
from .evaluate import EvaluationArguments, FrontierArguments
from .evaluate import ModelArguments as EvaluatedModel
from .explore import ExploreArguments
from .export_vllm import ExportArguments
from .generate import GenerateArguments, SourceArguments
from .model import ConditionalArguments, ModelArguments
from .saved_model import SavedModelArguments
from .tasks import cvae, dialog, paraphrase, vae


@dataclass(frozen=True)
class Command:
    """
    Args:
        module (`str`): below `hf_vae.cli`, with a `main`.
        arguments (`tuple[type, ...]`): dataclasses.
        purpose (`str`): in a sentence.
        first (`str`): what may stand first, without the name of an argument.
    """

    module: str
    arguments: tuple[type, ...]
    purpose: str
    first: str

    @property
    def trains(self) -> bool:
        """Whether it has recipes, and the arguments of the Trainer."""
        return self.module.startswith("tasks.")


_RECIPE = "[FILE OF ARGUMENTS]"
COMMANDS = {
    "train vae": Command(
        "tasks.vae",
        (ModelArguments, vae.DataArguments, vae.EvaluationArguments),
        "Trains a sentence VAE: each text has a z, from which it can be written again.",
        _RECIPE,
    ),
    "train cvae": Command(
        "tasks.cvae",
        (cvae.CVAEArguments, cvae.DataArguments, cvae.EvaluationArguments),
        "Trains a conditional VAE on pairs of a source and its targets, or on texts to complete.",
        _RECIPE,
    ),
    "train dialog": Command(
        "tasks.dialog",
        (dialog.DialogArguments, dialog.DataArguments, dialog.EvaluationArguments),
        "Trains a dialogue model: many replies to one context, each with a z of its own.",
        _RECIPE,
    ),
    "train paraphrase": Command(
        "tasks.paraphrase",
        (ConditionalArguments, paraphrase.DataArguments, paraphrase.EvaluationArguments),
        "Trains a paraphrase model: one source, many texts that say the same, each with a z of its own.",
        _RECIPE,
    ),
    "evaluate": Command(
        "evaluate",
        (EvaluatedModel, EvaluatedData, EvaluationArguments, FrontierArguments),
        "Measures a trained model on a file of texts, and says whether z is used.",
        "MODEL",
    ),
    "generate": Command(
        "generate",
        (SavedModelArguments, SourceArguments, GenerateArguments),
        "Generates several texts for each row of a file, each with a z of its own, and goes on where it was stopped.",
        "MODEL",
    ),
    "chat": Command("chat", (ChatArguments,), "Talks to a dialogue model in the terminal.", "MODEL"),
    "explore": Command("explore", (ExploreArguments,), "Shows a model's latent space in the browser.", "MODEL"),
    "export-vllm": Command(
        "export_vllm",
        (ExportArguments,),
        "Writes a model whose z enters as a prefix for vLLM: the language model, and the file that makes its prompts.",
        "MODEL FOLDER",
    ),
}
