"""
The least that must work with a version of transformers, on tiny models of every variant, and across versions.

    python .ci/smoke.py save DIR    builds each variant, trains it a step, generates, and saves it below DIR
    python .ci/smoke.py check DIR   loads all that lies below DIR with the package and without it: tokens and nats are as saved
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
ROOT = Path(__file__).resolve().parents[1]


def measure(model, processor, text) -> dict:
    """Greedy tokens for a z of ones, and -log p(y|x,z) of two tokens, in nats."""
    import torch

    latents = torch.ones(1, model.config.latent_size)
    inputs = processor(text)
    written = model.generate(**inputs, latents=latents, do_sample=False, max_new_tokens=6)[0].tolist()
    with torch.no_grad():
        output = model(**inputs, latents=latents, labels=torch.tensor([[4, 5]]))
    return {"written": written, "nats": output.reconstruction_loss.item()}


def save(directory: Path) -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments

    from helpers import PUBLISHED, make_published
    from hf_vae import VAEDataCollator

    for name in PUBLISHED:
        model, processor, text = make_published(name)
        data = Dataset.from_dict(dict(processor([text, text], ["a dog", "the mat"], return_tensors=None)))
        with tempfile.TemporaryDirectory() as output:
            arguments = TrainingArguments(
                output, max_steps=1, use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no"
            )
            Trainer(model, arguments, train_dataset=data, data_collator=VAEDataCollator(processor)).train()
        model.eval().save_pretrained(directory / name)
        processor.save_pretrained(directory / name)
        (directory / f"{name}.json").write_text(json.dumps({"name": name, "text": text, **measure(model, processor, text)}))


def check(directory: Path, trust_remote_code: bool) -> None:
    from transformers import AutoModel, AutoProcessor

    saved = [json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))]
    assert saved, f"{directory} holds no models"
    for expected in saved:
        folder = directory / expected["name"]
        model = AutoModel.from_pretrained(folder, trust_remote_code=trust_remote_code).eval()
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code)
        found = measure(model, processor, expected["text"])
        assert found["written"] == expected["written"], (folder, found, expected)
        assert abs(found["nats"] - expected["nats"]) < 1e-4, (folder, found, expected)


if __name__ == "__main__":
    import transformers

    command, directory = sys.argv[1], Path(sys.argv[2])
    if command == "check-without-package":
        # An editable installation would be found wherever the process starts.
        sys.modules["hf_vae"] = None  # type: ignore[assignment]
        check(directory, trust_remote_code=True)
    else:
        import hf_vae  # noqa: F401 (it registers the models)

        if command == "save":
            save(directory)
        else:
            check(directory, trust_remote_code=False)
            with tempfile.TemporaryDirectory() as modules:
                environment = {**os.environ, "HF_MODULES_CACHE": modules}
                subprocess.run([sys.executable, __file__, "check-without-package", directory], check=True, env=environment)
        print(f"smoke {command} {directory}: passed with transformers {transformers.__version__}")
