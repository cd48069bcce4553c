"""A variant that is written outside the package is known everywhere after one call."""

import importlib
import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoProcessor, pipeline

from helpers import make_model
from hf_vae import (
    CVAEConfig,
    CVAEModel,
    CVAEProcessor,
    DialogPipeline,
    LatentTextGenerationPipeline,
    VAEConfig,
    VAEModel,
    VAEProcessor,
    register_variant,
)
from hf_vae.hub import RunRecord, make_model_card

HEADLINES = '''
from hf_vae import (
    DialogCVAEConfig, DialogCVAEModel, DialogCVAEProcessor, DialogPipeline, Paper, register_variant
)


class HeadlineConfig(DialogCVAEConfig):
    """A dialogue's headline."""

    model_type = "headline-vae"


class HeadlineModel(DialogCVAEModel):
    config: HeadlineConfig


class HeadlineProcessor(DialogCVAEProcessor):
    pass


class HeadlinePipeline(DialogPipeline):
    default_task = "headline"


PAPER = Paper("you2026headlines", "Headlines from a Latent", "You and Me", "A Workshop", 2026)


def register():
    register_variant(HeadlineConfig, HeadlineModel, HeadlineProcessor, pipeline=HeadlinePipeline, paper=PAPER)


register()
'''
RECORD = RunRecord("n", "c", "d", {"kl": 1.0}, "Measured.", {"seed": 0})
TALK = [{"role": "user", "content": "the cat sat on the mat"}]
WRITE = {"latent_temperature": 0.0, "do_sample": False, "max_new_tokens": 5}


@pytest.fixture
def headlines(tmp_path, monkeypatch):
    """The variant's module, imported as a user's own would be."""
    (tmp_path / "headlines.py").write_text(HEADLINES, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("headlines", None)
    return importlib.import_module("headlines")


def make_headlines(headlines, tokenizers):
    config = make_model("dialog-lstm").config
    for part, tokenizer in zip((config.decoder, config.encoder, config), (*tokenizers, tokenizers[0])):
        part.vocab_size, part.bos_token_id = len(tokenizer), tokenizer.bos_token_id
        part.eos_token_id, part.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    settings = {name: value for name, value in config.to_dict().items() if name not in ("model_type", "encoder", "decoder")}
    own = headlines.HeadlineConfig(encoder=config.encoder, decoder=config.decoder, **settings)
    own.decoder_start_token_id = own.bos_token_id
    torch.manual_seed(0)
    processor = headlines.HeadlineProcessor(
        *tokenizers, acts=["x", "y", "z"], context_encoding="hierarchical", source_conditioning="initial_state"
    )
    return headlines.HeadlineModel(own).eval(), processor


def test_one_call_makes_a_variant_known_everywhere(headlines, tokenizers, tmp_path):
    model, processor = make_headlines(headlines, tokenizers)
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    assert type(AutoConfig.for_model("headline-vae")) is headlines.HeadlineConfig
    for auto in (AutoModel, AutoModelForSeq2SeqLM):
        assert type(auto.from_pretrained(tmp_path / "saved")) is headlines.HeadlineModel
    assert type(AutoProcessor.from_pretrained(tmp_path / "saved")) is headlines.HeadlineProcessor
    pipe = pipeline("headline", model=str(tmp_path / "saved"))
    assert type(pipe) is headlines.HeadlinePipeline and pipe(TALK, **WRITE)[0]["generated_text"]
    # Its parent's pipeline is for it as well, as the parent's code is.
    assert type(pipeline("dialog", model=model, processor=processor)) is DialogPipeline
    card = make_model_card(model, RECORD).text
    assert "@inproceedings{you2026headlines," in card and "Headlines from a Latent" in card
    assert 'pipeline("headline", model="n"' in card


def test_its_code_travels_with_what_is_saved(headlines, tokenizers, tmp_path):
    """A process that has the package and not the variant loads it by the code beside the weights."""
    model, processor = make_headlines(headlines, tokenizers)
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "headlines.py").read_text(encoding="utf-8") == HEADLINES
    expected = pipeline("headline", model=model, processor=processor)(TALK, **WRITE)
    script = (
        "import json, sys\n"
        "from transformers import pipeline\n"
        "pipe = pipeline(model=sys.argv[1], trust_remote_code=True)\n"
        "names = [type(each).__name__ for each in (pipe, pipe.model, pipe.processor)]\n"
        f"print(json.dumps([names, pipe({TALK!r}, **{WRITE!r})]))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "saved")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    names, records = json.loads(done.stdout.splitlines()[-1])
    assert names == ["HeadlinePipeline", "HeadlineModel", "HeadlineProcessor"] and records == expected


def test_registering_again_changes_nothing(headlines, tokenizers, caplog):
    headlines.register()
    assert not caplog.records
    model, _ = make_headlines(headlines, tokenizers)
    # A cell of a notebook that is run again defines the classes once more.
    again = importlib.reload(headlines)
    assert again.HeadlineConfig is not type(model.config) is not AutoConfig.for_model("headline-vae")
    assert type(AutoConfig.for_model("headline-vae")) is again.HeadlineConfig


class QuietConfig(CVAEConfig):
    model_type = "quiet-cvae"


class QuietModel(CVAEModel):
    config: QuietConfig


def test_a_card_of_a_variant_without_a_paper_cites_none():
    register_variant(QuietConfig, QuietModel, CVAEProcessor)
    config = make_model("cvae").config
    model = QuietModel(QuietConfig(encoder=config.encoder, decoder=config.decoder, latent_size=4))
    card = make_model_card(model, RECORD).text
    assert "Citation" not in card and card.rstrip().endswith("Read its outputs before anyone else does.")
    assert 'pipeline("latent-text-generation"' in card


class NamelessConfig(CVAEConfig):
    """Has its parent's model type."""


class NamelessModel(CVAEModel):
    config: NamelessConfig


class BertLikeConfig(CVAEConfig):
    model_type = "bert"


class BertLikeModel(CVAEModel):
    config: BertLikeConfig


class NamelessPipeline(LatentTextGenerationPipeline):
    """Has its parent's task."""


QUIET = (QuietConfig, QuietModel, CVAEProcessor)


@pytest.mark.parametrize(
    "classes, options, message",
    [
        ((VAEConfig(), VAEModel, VAEProcessor), {}, "`config` is an object of type VAEConfig; give a subclass of VAEConfig"),
        ((QuietConfig, torch.nn.Linear, CVAEProcessor), {}, "`model` is the class Linear; give a subclass of VAEModel"),
        ((QuietConfig, QuietModel, "processor"), {}, "`processor` is an object of type str; give a subclass of VAEProcessor"),
        (QUIET, {"pipeline": "quiet"}, "`pipeline` is an object of type str; give a subclass of Latent"),
        (QUIET, {"paper": "A title"}, r"`paper` is 'A title'; give a `Paper\(key, title"),
        ((QuietConfig, CVAEModel, CVAEProcessor), {}, "whose configuration is CVAEConfig.*`config: QuietConfig`"),
        ((NamelessConfig, NamelessModel, CVAEProcessor), {}, "its `model_type` 'text-cvae' belongs to CVAEConfig"),
        ((BertLikeConfig, BertLikeModel, CVAEProcessor), {}, "its `model_type` 'bert' belongs to BertConfig"),
        (
            QUIET, {"pipeline": NamelessPipeline},
            "`pipeline` is NamelessPipeline, and its `default_task` 'latent-text-generation' belongs to LatentTextGeneration",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_registered_is_refused_in_words(classes, options, message):
    with pytest.raises(ValueError, match=message):
        register_variant(*classes, **options)
    assert type(AutoConfig.for_model("text-cvae")) is CVAEConfig
    assert CVAEModel.pipeline_class is LatentTextGenerationPipeline
