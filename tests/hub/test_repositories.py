"""From one machine to the Hub and from there to another: every variant, with the package and without, and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import FakeHub

import hf_vae
from helpers import PUBLISHED, PUBLISHED_TALK, ROOT, SMALL, TESTS, TEXTS

PACKAGE = Path(hf_vae.__file__).parent
PUBLISHER = Path(__file__).parent / "hub_publisher.py"
TEXT = TEXTS[0]
pytestmark = pytest.mark.slow


def run(hub, directory, program, *arguments, token=None, package=True, check=True):
    """A Python process that sees nothing of this one: its own cache, `hub` for the Hub, and the package or not."""
    environment = {
        "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(directory / "home"), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, TESTS])) if package else "",
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
    program = f"import runpy; runpy.run_path({str(PUBLISHER)!r}, run_name='__main__')"
    done = run(hub, tmp_path_factory.mktemp("publisher"), program, token="writer")
    return {told["name"]: told["written"] for told in map(json.loads, done.stdout.splitlines())}


def test_a_repository_holds_the_package_s_own_files_and_safetensors(hub, published):
    for name in PUBLISHED:
        files = hub.repositories[f"someone/{name}"].files
        code = {path for path in files if path.endswith(".py")}
        assert {"modeling_vae.py", "modeling_lstm.py", "processing_vae.py", "pipelines.py"} <= code
        assert all(files[path] == (PACKAGE / path).read_bytes() for path in code)
        assert "model.safetensors" in files and not any(path.endswith((".bin", ".pt", ".pkl")) for path in files)
        config = json.loads(files["config.json"])
        assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM"} and config["format_version"] == 3
        assert json.loads(files["processor_config.json"])["auto_map"].keys() == {"AutoProcessor"}
    assert hub.repositories["someone/dialog"].private and not hub.repositories["someone/vae"].private


USE = f"""
import json
import torch
from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoProcessor, pipeline

trust = {{"trust_remote_code": True}} if "hf_vae" in sys.modules and sys.modules["hf_vae"] is None else {{}}
revision = sys.argv[1]
inputs = dict(vae={TEXT!r}, cvae={TEXT!r}, paraphrase={TEXT!r}, dialog={PUBLISHED_TALK!r})
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


TRAIN = """
import sys
from hf_vae.cli.tasks.paraphrase import main
main(sys.argv[1:])
"""
TINY = [
    *SMALL, "--grammar_pairs", "40", "--max_steps", "2", "--posterior_fit_steps", "0", "--hidden_size", "32",
    "--max_new_tokens", "6", "--output_dir", "mine", "--push_to_hub", "true", "--hub_private_repo", "true",
]  # fmt: skip


def test_a_training_ends_on_the_hub_or_is_refused_before_it_begins(hub, tmp_path):
    done = run(hub, tmp_path, TRAIN, *TINY, token="reader", check=False)
    assert done.returncode != 0 and "403" in done.stderr and "rights to create a model" in done.stderr
    assert not (tmp_path / "mine").exists() and "someone/mine" not in hub.repositories
    run(hub, tmp_path, TRAIN, *TINY, token="writer")
    repository = hub.repositories["someone/mine"]
    # Private, and in one commit: nobody ever sees half of it.
    assert repository.private and len(repository.commits) == 2
    assert {"README.md", "config.json", "model.safetensors", "processor_config.json", "pipelines.py"} <= set(repository.files)
    assert b'pipeline("paraphrase", model="someone/mine"' in repository.files["README.md"]
    paraphrase = "import hf_vae, sys\nfrom transformers import pipeline\npipe = pipeline('paraphrase', model='someone/mine')\n"
    paraphrase += "print(len(pipe('the farmer bought the lamp .', num_return_sequences=3, max_new_tokens=5)))"
    assert run(hub, tmp_path, paraphrase, token="reader").stdout.split() == ["3"]
    (tmp_path / "stranger").mkdir()
    refused = run(hub, tmp_path / "stranger", paraphrase, check=False)
    assert refused.returncode != 0 and "someone/mine" in refused.stderr and "private" in refused.stderr


PLAIN_TRAINER = """
import sys, torch
from helpers import make_batch, make_published
from transformers import Trainer, TrainingArguments
from hf_vae import VAEDataCollator

model, processor, text = make_published("cvae")
rows = [dict(processor(each, "the mat", return_tensors=None)) for each in (text, "a dog ran in the park")]
args = TrainingArguments("trained", max_steps=1, report_to="none", push_to_hub=True, save_strategy="no")
trainer = Trainer(model, args, train_dataset=rows, data_collator=VAEDataCollator(processor), processing_class=processor)
trainer.train()
trainer.push_to_hub()
"""


def test_the_plain_trainer_pushes_a_model_that_loads(hub, tmp_path):
    run(hub, tmp_path, PLAIN_TRAINER, token="writer")
    files = hub.repositories["someone/trained"].files
    assert {"config.json", "model.safetensors", "processor_config.json", "modeling_cvae.py"} <= set(files)
    load = "from transformers import AutoModel, AutoProcessor\ntrained = ('someone/trained',)\n"
    load += "model = AutoModel.from_pretrained(*trained, trust_remote_code=True)\n"
    load += "processor = AutoProcessor.from_pretrained(*trained, trust_remote_code=True)\n"
    load += f"print(len(model.generate(**processor({TEXT!r}), num_return_sequences=2, max_new_tokens=3)))"
    assert run(hub, tmp_path, load, package=False).stdout.split() == ["2"]


def test_what_the_hub_or_the_machine_refuses_is_said_plainly(hub, published, tmp_path):
    push = "from helpers import make_published\nmodel, *_ = make_published('vae')\nmodel.push_to_hub('someone/vae')"
    before = len(hub.repositories["someone/vae"].commits)
    done = run(hub, tmp_path, push, token="reader", check=False)
    assert done.returncode != 0 and "403" in done.stderr
    assert len(hub.repositories["someone/vae"].commits) == before
    load = "from transformers import AutoModel\nAutoModel.from_pretrained('someone/vae')"
    done = run(hub, tmp_path, load, package=False, check=False)
    assert done.returncode != 0 and "trust_remote_code=True" in done.stderr
    wrong = "import hf_vae\nhf_vae.ParaphraseVAEModel.from_pretrained('someone/vae')"
    done = run(hub, tmp_path, wrong, check=False)
    assert done.returncode != 0 and "model of type 'text-vae', and ParaphraseVAEConfig is for 'paraphrase-vae'" in done.stderr


FREEZE = """
import json, sys, torch
from helpers import make_batch, make_model
from hf_vae import VAEModel
from transformers import AutoModel

torch.manual_seed(0)
if sys.argv[1] == "push":
    parts = make_model("vae")
    parts.encoder.push_to_hub("someone/encoder")
    parts.decoder.lm.push_to_hub("someone/decoder")
    model = VAEModel.from_encoder_decoder_pretrained("someone/encoder", "someone/decoder", latent_size=4, freeze=["decoder"]).eval()
    model.push_to_hub("someone/heads")
    for parameter in parts.decoder.parameters():
        parameter.data.zero_()
    parts.decoder.lm.push_to_hub("someone/decoder", commit_message="something else")
else:
    model = AutoModel.from_pretrained("someone/heads")
nats = model(**make_batch(model), latents=torch.ones(3, 4)).reconstruction_loss
print(model.config.frozen_parts["decoder"]["revision"], *nats.tolist())
"""


def test_a_frozen_half_comes_from_the_commit_that_it_was_trained_with(hub, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    pushed = run(hub, tmp_path, FREEZE, "push", token="writer").stdout.splitlines()[-1]
    repository = hub.repositories["someone/decoder"]
    assert pushed.split()[0] == repository.commits[-2][0] != repository.commits[-1][0]
    assert len(hub.repositories["someone/heads"].files["model.safetensors"]) < len(repository.files["model.safetensors"])
    loaded = run(hub, tmp_path / "elsewhere", "import hf_vae\n" + FREEZE, "load", token="reader").stdout.splitlines()[-1]
    assert loaded == pushed
