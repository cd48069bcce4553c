"""A saved folder of which a file is missing, cut off or overwritten is refused in words that name the file."""

import shutil

import pytest
from transformers import AutoModel, AutoProcessor, pipeline

from helpers import make_model
from hf_vae import CVAEModel, CVAEProcessor, DialogCVAEProcessor, VAEProcessor
from hf_vae.cli.from_scratch import train_tokenizers

# Not UTF-8 either.
DAMAGE = {"empty": lambda data: b"", "half": lambda data: data[: len(data) // 2], "a byte short": lambda data: data.rstrip()[:-1],
          "garbage": lambda data: b"\xff\x00" * len(data), "another value": lambda data: b"[1]"}  # fmt: skip
OF_PROCESSOR = [
    "processor_config.json", "tokenizer.json", "tokenizer_config.json", "encoder_tokenizer/tokenizer.json",
    "encoder_tokenizer/tokenizer_config.json",
]  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    # Two vocabularies, so that one taken for the other would show.
    [tokenizer, _], [_, encoder_tokenizer] = (train_tokenizers(["a b c", text], 40, "word") for text in ("d e", "x y z"))
    CVAEProcessor(tokenizer, encoder_tokenizer).save_pretrained(folder)
    make_model("cvae", eos_token_id=tokenizer.eos_token_id).save_pretrained(folder)
    return folder


def spoil(saved, tmp_path, file, how):
    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    if how == "missing":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(DAMAGE[how]((folder / file).read_bytes()))
    return folder


def test_a_whole_folder_loads(saved):
    assert (
        AutoProcessor.from_pretrained(saved)("x")["input_ids"].tolist()
        != AutoProcessor.from_pretrained(saved)("b")["input_ids"].tolist()
    )
    assert isinstance(AutoModel.from_pretrained(saved), CVAEModel)
    assert pipeline("latent-text-generation", model=str(saved)).processor.source_conditioning == "prompt"


@pytest.mark.parametrize("how", ["missing", *DAMAGE])
@pytest.mark.parametrize("file", OF_PROCESSOR)
def test_a_processor_with_a_damaged_file_is_refused(file, how, saved, tmp_path):
    folder = spoil(saved, tmp_path, file, how)
    names = file.replace(".", r"\.")
    for load in (CVAEProcessor.from_pretrained, lambda folder: pipeline("latent-text-generation", model=str(folder))):
        # `pipeline` puts what the model says into a `ValueError`.
        with pytest.raises((OSError, ValueError), match=names):
            load(folder)
    # What transformers reads before it knows whose processor it is: bytes that are no text are its own error.
    upstream = file == "processor_config.json" and how in ("garbage", "another value")
    with pytest.raises(Exception if upstream else OSError, match=None if upstream else names):
        AutoProcessor.from_pretrained(folder)


@pytest.mark.parametrize("how", ["missing", *DAMAGE])
@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "model.safetensors"])
def test_a_model_with_a_damaged_file_is_refused(file, how, saved, tmp_path):
    folder = spoil(saved, tmp_path, file, how)
    for load in (
        AutoModel.from_pretrained,
        CVAEModel.from_pretrained,
        lambda name: pipeline("latent-text-generation", model=str(name)),
    ):
        # transformers reads the configuration, and for "missing" it names what is wrong in its own words.
        wanted = (OSError, ValueError, AttributeError, TypeError) if file == "config.json" else (OSError, ValueError)
        with pytest.raises(wanted, match=r"config\.json|weights of .*copy|no file named" if how != "another value" else None):
            load(folder)


def test_a_dialogue_s_processor_keeps_what_was_set(saved, tmp_path):
    tokenizers = train_tokenizers(["a b c"] * 2, 40, "word")
    DialogCVAEProcessor(*tokenizers, acts=["ask", "tell"], max_turns=3).save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert (again.acts, again.max_turns) == (["ask", "tell"], 3)
    assert AutoProcessor.from_pretrained(tmp_path, max_turns=5).max_turns == 5
    again.save_pretrained(tmp_path / "below" / "sub")
    assert VAEProcessor.from_pretrained(saved, token=None).tokenizer.get_vocab() != again.tokenizer.get_vocab()
    below = DialogCVAEProcessor.from_pretrained(tmp_path / "below", subfolder="sub")
    assert below.encoder_tokenizer.get_vocab() == again.encoder_tokenizer.get_vocab() and below.max_turns == 3


def test_a_package_that_is_missing_is_not_taken_for_damage(saved, monkeypatch):
    """Fetching the files again would not help: the error says which package to install."""

    def lacking(*args, **kwargs):
        raise ImportError("This tokenizer needs the sentencepiece library")

    monkeypatch.setattr("hf_vae.part_tokenizers.AutoTokenizer.from_pretrained", lacking)
    with pytest.raises(ImportError, match="needs the sentencepiece library"):
        CVAEProcessor.from_pretrained(saved)
