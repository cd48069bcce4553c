"""From one machine to the Hub and from there to another: every variant, with the package and without, and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import FakeHub
from hub_publisher import TALK, TEXT, VARIANTS

import hf_vae

PACKAGE = Path(hf_vae.__file__).parent
TESTS = Path(__file__).parent
pytestmark = pytest.mark.slow


def run(hub, directory, program, *arguments, token=None, package=True, check=True):
    """A Python process that sees nothing of this one: its own cache, `hub` for the Hub, and the package or not."""
    environment = {
        "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(directory / "home"), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(map(str, [PACKAGE.parent, TESTS])) if package else "",
    }  # fmt: skip
    if token:
        environment["HF_TOKEN"] = token
    if not package:
        # An editable installation would be found wherever the process starts.
        program = f"import sys\nsys.modules['hf_vae'] = None\n{program}"
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=directory, env=environment, check=False)
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def hub():
    with FakeHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def published(hub, tmp_path_factory) -> dict[str, list]:
    """What each of the models that are on the Hub now writes, as the machine that pushed it saw it."""
    program = f"import runpy; runpy.run_path({str(TESTS / 'hub_publisher.py')!r}, run_name='__main__')"
    done = run(hub, tmp_path_factory.mktemp("publisher"), program, token="writer")
    return {told["name"]: told["written"] for told in map(json.loads, done.stdout.splitlines())}


def test_a_repository_holds_the_package_s_own_files_and_safetensors(hub, published):
    for name in VARIANTS:
        files = hub.repositories[f"someone/{name}"].files
        code = {path for path in files if path.endswith(".py")}
        assert {"modeling_vae.py", "modeling_lstm.py", "processing_vae.py", "pipelines.py"} <= code
        assert all(files[path] == (PACKAGE / path).read_bytes() for path in code)
        assert "model.safetensors" in files and not any(path.endswith((".bin", ".pt", ".pkl")) for path in files)
        config = json.loads(files["config.json"])
        assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM"} and config["format_version"] == 1
        assert json.loads(files["processor_config.json"])["auto_map"].keys() == {"AutoProcessor"}
    assert hub.repositories["someone/dialog"].private and not hub.repositories["someone/vae"].private


USE = f"""
import json
import torch
from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoProcessor, pipeline

trust = {{"trust_remote_code": True}} if "hf_vae" in sys.modules and sys.modules["hf_vae"] is None else {{}}
revision = sys.argv[1]
inputs = dict(vae={TEXT!r}, cvae={TEXT!r}, paraphrase={TEXT!r}, dialog={TALK!r})
tasks = dict(vae="latent-text-generation", cvae="latent-text-generation", paraphrase="paraphrase", dialog="dialog")
options = dict(do_sample=False, max_new_tokens=6)
for name, text in inputs.items():
    repository = f"someone/{{name}}"
    at = dict(revision=revision) if name == "vae" else {{}}
    model = AutoModel.from_pretrained(repository, **trust, **at).eval()
    processor = AutoProcessor.from_pretrained(repository, **trust, **at)
    tensors = processor(text)
    written = [model.generate(**tensors, latent_temperature=0.0, **options)[0].tolist()]
    written.append(model.generate(**tensors, latents=torch.ones(1, 4), **options)[0].tolist())
    seq2seq = AutoModelForSeq2SeqLM.from_pretrained(repository, **trust, **at)
    pipe = pipeline(None if trust else tasks[name], model=repository, **trust, **at)
    records = pipe([text, text], batch_size=2, latents=torch.ones(2, 4), return_latents=True, **options)
    texts = [each.strip() for each in processor.batch_decode([written[1]], skip_special_tokens=True)]
    assert [[r["generated_text"] for r in row] for row in records] == [texts] * 2, (records, texts)
    assert records[0][0]["latents"] == [1.0] * 4
    module = type(model).__module__.split(".")[0]
    print(json.dumps(dict(
        name=name, written=written, kinds=[type(each).__name__ for each in (model, seq2seq, pipe)], module=module, task=pipe.task
    )))
"""


@pytest.mark.parametrize("package", [False, True], ids=["stranger", "with the package"])
def test_every_variant_works_from_the_hub(hub, published, tmp_path, package):
    """Without the package by the code that came along, with it by its own; a private repository by the token of the environment."""
    program = "import sys\n" + ("import hf_vae\n" if package else "") + USE
    latest = hub.repositories["someone/vae"].commits[-1][0]
    done = run(hub, tmp_path, program, latest, token="reader", package=package)
    told = {each["name"]: each for each in map(json.loads, done.stdout.splitlines())}
    assert {name: each["written"] for name, each in told.items()} == {
        **{name: published[name] for name in ("cvae", "paraphrase", "dialog")}, "vae": published["vae, later"],
    }  # fmt: skip
    assert {name: each["kinds"] for name, each in told.items()} == {
        "vae": ["VAEModel", "VAEModel", "LatentTextGenerationPipeline"],
        "cvae": ["CVAEModel", "CVAEModel", "LatentTextGenerationPipeline"],
        "paraphrase": ["ParaphraseVAEModel", "ParaphraseVAEModel", "ParaphrasePipeline"],
        "dialog": ["DialogCVAEModel", "DialogCVAEModel", "DialogPipeline"],
    }
    assert {each["module"] for each in told.values()} == {"hf_vae" if package else "transformers_modules"}
    # An earlier commit is the earlier model.
    first = next(sha for sha, files in hub.repositories["someone/vae"].commits if "processor_config.json" in files)
    program = program.replace("in inputs.items()", "in [('vae', inputs['vae'])]")
    [line] = run(hub, tmp_path, program, first, token="reader", package=package).stdout.splitlines()
    assert json.loads(line)["written"] == published["vae"] != published["vae, later"]
