"""The command that shows a latent space in the browser; examples/explore.py shows how it is called."""

from __future__ import annotations

from collections.abc import Sequence

from ..explorer import load_explored
from ..options.explore import ExploreArguments
from .checks import check_draws, check_least, check_model_name
from .parsing import parse_plain


def main(argv: Sequence[str]) -> None:
    (arguments,) = parse_plain((ExploreArguments,), argv, "model")
    check_least(vars(arguments), {"max_points": 2})
    check_draws(vars(arguments))
    if arguments.model is not None:
        check_model_name(arguments.model, reads_file=True)
    # Gradio is missing if the extra is not installed; it says so before a model is loaded.
    from ..explorer.page import build_page, serve
    from ..explorer.page.serving import check_port

    if arguments.port is not None:
        check_port(arguments.port)
    print("Loading the model and its texts …", flush=True)
    columns = {name: getattr(arguments, name) for name in ("split", "text_column", "source_column", "target_column")}
    explored = load_explored(
        arguments.model, arguments.file, arguments.max_points, arguments.seed, **columns, **arguments.file_options
    )
    if explored.corpus is not None:
        print(explored.corpus.origin, flush=True)
    serve(build_page(explored), arguments.port, arguments.open_browser)
