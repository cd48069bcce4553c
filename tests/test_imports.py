"""Imports run downwards: what travels to the Hub knows nothing of the wings, and no wing knows one above it."""

import ast
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

import hf_vae

PACKAGE = Path(hf_vae.__file__).parent
# From the cellar to the roof; the modules at the root are the lowest.
WINGS = ("", "options", "data", "training", "evaluation", "latent_space", "bulk", "hub", "serving", "explorer", "cli", "demos")
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}


def resolve(module: str, node: ast.ImportFrom) -> list[str]:
    """The modules of the package that a relative import names."""
    package = module.split(".")[: -node.level]
    target = [*package, *(node.module or "").split(".")] if node.module else package
    name = ".".join(target)
    if name in MODULES:
        return [name]
    # Of a wing the names come from the modules that its `__init__` imports them from; of the package, modules themselves.
    inside = [".".join([*target, each.name]) for each in node.names]
    return [each for each in inside if each in MODULES] or [name]


def imports_of(module: str) -> set[str]:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    nodes = [each for each in ast.walk(tree) if isinstance(each, ast.ImportFrom) and each.level and id(each) not in guarded]
    return {name for node in nodes for name in resolve(module, node)}


def wing_of(module: str) -> str:
    first = module.split(".")[0]
    return first if first in WINGS else ""


def test_every_wing_has_its_floor():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders == set(WINGS) - {""}


@pytest.mark.parametrize("module", MODULES)
def test_no_import_runs_upwards(module):
    floor = WINGS.index(wing_of(module))
    upwards = [name for name in imports_of(module) if name and WINGS.index(wing_of(name)) > floor]
    assert upwards == []


def test_modules_import_each_other_in_no_circle():
    graph = {module: {name for name in imports_of(module) if name in MODULES} for module in MODULES}
    # It raises an error that names the circle.
    order = list(TopologicalSorter(graph).static_order())
    assert set(order) == set(MODULES)


def test_no_file_is_longer_than_four_hundred_lines():
    long = {name: count for name, path in MODULES.items() if (count := len(path.read_text(encoding="utf-8").splitlines())) > 400}
    assert long == {}


def test_the_rooms_lie_in_the_order_of_the_floors():
    """What the plan of the house says of the modelling floors, from the distribution to the variants."""
    graph = {module: {name for name in imports_of(module) if name in MODULES} for module in MODULES}

    def below(module: str) -> set[str]:
        found = set(graph[module])
        for name in graph[module]:
            found |= below(name)
        return found

    floors = (
        "latent_distribution", "gaussian", "posterior", "prior", "flow_prior", "generation_vae", "modeling_vae",
        "modeling_conditional_vae",
    )  # fmt: skip
    for lower, upper in pairwise(floors):
        assert lower in below(upper) and upper not in below(lower)
