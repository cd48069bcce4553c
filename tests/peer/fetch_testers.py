"""
Brings transformers' own testers here, for `test_peer_suite.py`, which only reads what is there:

    python tests/peer/fetch_testers.py ADDRESS

`ADDRESS` is that of the git repository huggingface/transformers, or a clone's path. No wheel has the testers. What the source
distribution of the installed version has of them comes from the package index that pip is configured for, the rest
(`tests/generation`, `tests/exporters`) from the repository, at the tag of the same version unless `--revision` says otherwise.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import transformers

# On `sys.path`, so that the testers are the package `tests` that they take themselves for. Git does not see it, pytest neither.
TESTERS = Path(__file__).parent / ".testers"
VERSIONS = TESTERS / "versions.json"
FOLDERS = ("tests/generation", "tests/exporters")


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def from_the_index(version: str, target: Path) -> None:
    """The modules right under `tests` in the source distribution."""
    with tempfile.TemporaryDirectory() as folder:
        options = ("--quiet", "--no-deps", "--no-binary", ":all:", "--dest", folder)
        run(sys.executable, "-m", "pip", "download", *options, f"transformers=={version}")
        with tarfile.open(next(Path(folder).glob("transformers-*"))) as archive:
            archive.extractall(folder, filter="data")
        target.mkdir(parents=True)
        for module in Path(folder).glob("transformers-*/tests/*.py"):
            shutil.copy(module, target)


def from_the_repository(address: str, revision: str, target: Path) -> dict[str, str]:
    """`FOLDERS` at `revision`; which commit that is, and of which version."""
    with tempfile.TemporaryDirectory() as clone:
        options = ("--quiet", "--depth", "1", "--filter", "blob:none", "--sparse", "--branch", revision)
        run("git", "clone", *options, "--", address, clone)
        run("git", "-C", clone, "sparse-checkout", "set", *FOLDERS)
        for folder in FOLDERS:
            shutil.copytree(Path(clone) / folder, target / Path(folder).name)
        source = run("git", "-C", clone, "show", "HEAD:src/transformers/__init__.py")
        version = re.search(r'^__version__ = "(.+)"$', source, re.M)[1]
        return {"revision": revision, "commit": run("git", "-C", clone, "rev-parse", "HEAD"), "version": version}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="of the git repository huggingface/transformers")
    parser.add_argument("--revision", help="a tag or branch; the installed version's tag where left out")
    arguments = parser.parse_args()
    installed = transformers.__version__
    shutil.rmtree(TESTERS, ignore_errors=True)
    from_the_index(installed, TESTERS / "tests")
    repository = from_the_repository(arguments.address, arguments.revision or f"v{installed}", TESTERS / "tests")
    (TESTERS / "tests" / "__init__.py").touch()
    # Last: what has no versions is not complete.
    VERSIONS.write_text(json.dumps({"index": installed, "repository": repository}, indent=2) + "\n", encoding="utf-8")
    print(VERSIONS.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
