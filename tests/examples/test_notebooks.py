"""
The notebooks run from their first cell to their last one, in a short form and between the parts of a demo model, and the outputs
that they hold are whole. `WRITE_NOTEBOOKS=1` runs them in full and saves their outputs. NOTEBOOK_ENCODER and NOTEBOOK_DECODER may
then name folders in place of the Hub's models.
"""

import os
import re

import nbformat
import pytest
from nbclient import NotebookClient
from transformers import AutoModel, AutoProcessor

import hf_vae
from helpers import EXAMPLES, ROOT

NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))
WRITES = bool(os.environ.get("WRITE_NOTEBOOKS"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def save_parts(folder) -> None:
    model = AutoModel.from_pretrained(hf_vae.demo("paraphrase"))
    processor = AutoProcessor.from_pretrained(hf_vae.demo("paraphrase"))
    model.encoder.save_pretrained(folder / "encoder")
    processor.encoder_tokenizer.save_pretrained(folder / "encoder")
    model.decoder.lm.save_pretrained(folder / "decoder")
    processor.tokenizer.save_pretrained(folder / "decoder")


@pytest.mark.slow
@every_notebook
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    if not WRITES:
        save_parts(tmp_path)
        monkeypatch.setenv("NOTEBOOK_STEPS", "16")
        monkeypatch.setenv("NOTEBOOK_ENCODER", str(tmp_path / "encoder"))
        monkeypatch.setenv("NOTEBOOK_DECODER", str(tmp_path / "decoder"))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=1500, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    if WRITES:
        for cell in notebook.cells:
            # When each cell ran differs with every run, and progress bars say nothing afterwards.
            cell.metadata.pop("execution", None)
            if cell.cell_type == "code":
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        notebook.metadata["language_info"] = {"name": "python"}
        nbformat.write(notebook, path)


@every_notebook
def test_a_notebook_holds_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        kinds = {output.output_type for output in cell.outputs}
        assert "error" not in kinds and not any(output.get("name") == "stderr" for output in cell.outputs)
        assert ("stream" in kinds) == ("print(" in cell.source), cell.source
        assert ("display_data" in kinds) == ("plt.show()" in cell.source), cell.source
    # Nor does a place on somebody's machine stand in it.
    read = [cell.source for cell in notebook.cells] + [str(output.get("text", "")) for cell in code for output in cell.outputs]
    assert [place for text in read for place in re.findall(r"(?<![\w.:/-])/\w+/\w[^\s'\"]*", text)] == []
