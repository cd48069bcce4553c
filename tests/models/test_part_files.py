"""What is asked of the folders of pretrained parts before their weights are loaded."""

import json
import logging
from pathlib import Path

import huggingface_hub
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor

from helpers import load_script, make_batch, make_model, write_rows
from hf_vae import VAEModel, VAEProcessor, part_files

TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
NORMALIZE = {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
LATER = {**POOLING, "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"}
DENSE = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
OFF = {f"pooling_mode_{name}": False for name in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")}
ENCODER, DECODER = "encoder", "decoder"


@pytest.fixture
def parts(tmp_path, tokenizers):
    """Folders of a tiny encoder and decoder, each with its tokenizer."""
    donor = make_model("vae", "llama")
    for name, part, tokenizer in ((ENCODER, donor.encoder, tokenizers[1]), (DECODER, donor.decoder.lm, tokenizers[0])):
        part.resize_token_embeddings(len(tokenizer))
        part.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    return {name: tmp_path / name for name in (ENCODER, DECODER)}


@pytest.fixture
def no_weights(monkeypatch):
    """Fails a test in which weights are loaded."""

    def refuse(*_, **__):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("hf_vae.pretrained_parts.load_part", refuse)


def build(parts, **options):
    return VAEModel.from_encoder_decoder_pretrained(str(parts[ENCODER]), str(parts[DECODER]), latent_size=4, **options)


def train(parts, tmp_path, *options):
    """What `train_vae.py` does with the parts that there are, by one step."""
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": "the cat sat"}, {"text": "a dog ran"}] * 2)
    load_script("train_vae").main(
        [
            *(word for part, folder in parts.items() for word in (f"--{part}_name_or_path", str(folder))), "--train_file", rows,
            "--validation_file", rows, "--output_dir", str(tmp_path / "out"), "--max_steps", "1", "--use_cpu",
            "--report_to", "none", "--importance_samples", "2", "--max_new_tokens", "3", "--max_length", "16",
            "--disable_tqdm", "true", "--per_device_train_batch_size", "2", "--latent_free_steps", "0",
            "--overwrite_output_dir", *options,
        ]
    )  # fmt: skip


def change_config(folder: Path, **fields) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


def make_sentence_transformer(folder: Path, modules: list[dict], **pooling) -> None:
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **pooling}))


def test_an_encoder_alone_stands_in_front_of_a_decoder_from_scratch(parts, tmp_path):
    small = ("--hidden_size", "16", "--num_attention_heads", "2", "--decoder_layers", "1", "--tokenizer_type", "word")
    with pytest.raises(ValueError, match="`--freeze_decoder` is set, and the decoder starts from scratch"):
        train({ENCODER: parts[ENCODER]}, tmp_path, *small, "--freeze_decoder")
    with pytest.raises(ValueError, match="the encoder would forget what it knows: add `--freeze_encoder`, or a small"):
        train({ENCODER: parts[ENCODER]}, tmp_path, *small)
    with pytest.raises(ValueError, match="`--lora` puts adapters on what is pretrained"):
        train({ENCODER: parts[ENCODER]}, tmp_path, *small, "--freeze_encoder", "--lora", "2")
    train({ENCODER: parts[ENCODER]}, tmp_path, *small, "--freeze_encoder")
    before = AutoModel.from_pretrained(parts[ENCODER]).state_dict()
    model, processor = AutoModel.from_pretrained(tmp_path / "out"), AutoProcessor.from_pretrained(tmp_path / "out")
    assert all(model.encoder.state_dict()[key].equal(value) for key, value in before.items() if "pooler" not in key)
    assert model.config.decoder.hidden_size == 16 and processor.tokenizer.tokenize("the cat") == ["the", "cat"]
    assert len(processor.encoder_tokenizer) == model.config.encoder.vocab_size
    with pytest.raises(ValueError, match="`--decoder_name_or_path` is given without `--encoder_name_or_path`"):
        train({DECODER: parts[DECODER]}, tmp_path)


@pytest.mark.parametrize("left", [(), ("config.json",)], ids=["nothing else", "and a configuration"])
def test_a_folder_of_gguf_files_is_refused(parts, tmp_path, no_weights, left):
    for file in parts[DECODER].iterdir():
        if file.name not in left:
            file.unlink()
    (parts[DECODER] / "lm-Q4_K.gguf").write_bytes(b"GGUF")
    message = r"The decoder .*decoder holds weights of the GGUF format \(lm-Q4_K.gguf\).* gguf_file='lm-Q4_K.gguf'"
    for attempt in (lambda: build(parts), lambda: train(parts, tmp_path)):
        with pytest.raises(ValueError, match=message):
            attempt()
    with pytest.raises(ValueError, match=r"GGUF format \(lm-Q4_K.gguf\)"):
        build({**parts, DECODER: parts[DECODER] / "lm-Q4_K.gguf"})


def test_gguf_files_beside_the_weights_are_left_alone(parts):
    (parts[DECODER] / "lm-Q4_K.gguf").write_bytes(b"GGUF")
    build(parts)


def test_a_repository_of_gguf_files_is_refused(parts, monkeypatch):
    monkeypatch.setattr(part_files, "list_repo_files", lambda name: ["README.md", "lm-Q8_0.gguf", "lm-Q4_K.gguf"])
    with pytest.raises(ValueError, match=r"The decoder someone/lm-GGUF holds weights of the GGUF format \(lm-Q4_K.gguf\)"):
        build({**parts, DECODER: "someone/lm-GGUF"})

    def unreachable(name):
        raise huggingface_hub.errors.OfflineModeIsEnabled("offline")

    monkeypatch.setattr(part_files, "list_repo_files", unreachable)
    with pytest.raises(OSError, match="connect"):
        build({**parts, DECODER: "someone/lm-GGUF"})


@pytest.mark.parametrize("part", [ENCODER, DECODER])
@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq"])
def test_quantised_weights_are_frozen_or_refused(parts, tmp_path, no_weights, part, method):
    change_config(parts[part], quantization_config={"quant_method": method, "bits": 4, "load_in_4bit": True})
    message = rf"The weights of the {part} .* are quantised \({method}\).*`freeze=\['{part}'\]`, or `--freeze_{part} --save_tr"
    for attempt in (lambda: build(parts), lambda: train(parts, tmp_path), lambda: train(parts, tmp_path, f"--freeze_{part}")):
        with pytest.raises(ValueError, match=message):
            attempt()
    assert not (tmp_path / "out").exists()
    # Frozen, it is transformers' to load.
    with pytest.raises(AssertionError, match="weights were loaded"):
        build(parts, freeze=[part])


@pytest.mark.parametrize(
    ("modules", "pooling", "expected"),
    [
        ([TRANSFORMER, POOLING, NORMALIZE], {**OFF, "pooling_mode_mean_tokens": True}, "mean"),
        ([TRANSFORMER, POOLING], {**OFF, "pooling_mode_cls_token": True}, "first"),
        ([TRANSFORMER, LATER], {"pooling_mode": "cls", "include_prompt": True}, "first"),
        ([TRANSFORMER, LATER, NORMALIZE], {"pooling_mode": "mean"}, "mean"),
    ],
)
def test_the_pooling_of_sentence_transformers_is_honoured(parts, caplog, modules, pooling, expected):
    make_sentence_transformer(parts[ENCODER], modules, **pooling)
    with caplog.at_level(logging.WARNING):
        assert build(parts).config.pooling == expected
        assert build(parts, pooling=expected).config.pooling == expected
        # Learned queries read the states, whatever was made of them.
        assert build(parts, num_latents=2).config.pooling == "attention"
        assert "sentence-transformers" not in caplog.text
        other = {"mean": "first", "first": "mean"}[expected]
        assert build(parts, pooling=other).config.pooling == other
    trained = {"mean": "mean", "first": "cls"}[expected]
    assert f"was trained with {trained} (sentence-transformers), and is read with `pooling='{other}'`" in caplog.text


@pytest.mark.parametrize(
    ("modules", "pooling", "named"),
    [
        ([TRANSFORMER, POOLING], {**OFF, "pooling_mode_max_tokens": True}, "max"),
        ([TRANSFORMER, POOLING], {**OFF, "pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt_len"),
        ([TRANSFORMER, POOLING], {**OFF, "pooling_mode_weightedmean_tokens": True}, "weightedmean"),
        ([TRANSFORMER, LATER], {"pooling_mode": "lasttoken"}, "lasttoken"),
        ([TRANSFORMER, LATER], {"pooling_mode": ["cls", "max"]}, "cls and max"),
        ([TRANSFORMER, POOLING, DENSE], {"pooling_mode": "mean"}, "mean and Dense"),
        ([TRANSFORMER], {}, "no pooling"),
    ],
)
def test_what_sentence_transformers_have_besides_is_refused_by_name(parts, tmp_path, caplog, modules, pooling, named):
    make_sentence_transformer(parts[ENCODER], modules, **pooling)
    for attempt in (lambda: build(parts), lambda: train(parts, tmp_path)):
        with pytest.raises(ValueError, match=rf"was trained with {named} \(sentence-transformers\).* choose a `pooling`"):
            attempt()
    with caplog.at_level(logging.WARNING):
        assert build(parts, pooling="mean").config.pooling == "mean"
    assert "is read with `pooling='mean'`, as asked" in caplog.text


def test_folders_of_sentence_transformers_that_cannot_be_read(parts):
    (parts[ENCODER] / "modules.json").write_text('{"idx": 0}')
    with pytest.raises(OSError, match=r"modules.json is no list of modules"):
        build(parts)
    (parts[ENCODER] / "modules.json").write_text(json.dumps([{**TRANSFORMER, "path": "0_Transformer"}]))
    with pytest.raises(ValueError, match="whose transformer lies in 0_Transformer: name that folder"):
        build(parts)
    (parts[ENCODER] / "modules.json").write_text(json.dumps([TRANSFORMER, POOLING]))
    with pytest.raises(OSError, match=r"1_Pooling/config\.json"):
        build(parts)


def test_the_command_reads_an_encoder_as_it_was_trained(parts, tmp_path):
    make_sentence_transformer(parts[ENCODER], [TRANSFORMER, POOLING, NORMALIZE], **{**OFF, "pooling_mode_cls_token": True})
    train(parts, tmp_path)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["pooling"] == "first"
    train(parts, tmp_path, "--pooling", "mean")
    assert VAEModel.from_pretrained(tmp_path / "out").config.pooling == "mean"


def test_weights_in_bfloat16_are_trained_in_float32(parts, caplog):
    AutoModelForCausalLM.from_pretrained(parts[DECODER], dtype=torch.bfloat16).save_pretrained(parts[DECODER])
    assert json.loads((parts[DECODER] / "config.json").read_text())["dtype"] == "bfloat16"
    model = build(parts)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    kept = build(parts, dtype="auto")
    assert (kept.decoder.lm.dtype, kept.encoder.dtype) == (torch.bfloat16, torch.float32)
    with caplog.at_level(logging.WARNING):
        model.train()(**make_batch(model))
        assert "bfloat16" not in caplog.text
        kept.train()(**make_batch(kept))
        kept(**make_batch(kept))
    assert caplog.text.count("weights are trained in torch.bfloat16 (`decoder.lm.") == 1


def test_without_a_bos_a_text_begins_with_the_eos(parts):
    change_config(parts[DECODER], bos_token_id=None)
    (parts[DECODER] / "generation_config.json").unlink(missing_ok=True)
    config = build(parts).config
    assert config.decoder_start_token_id == config.decoder.eos_token_id is not None
    change_config(parts[DECODER], eos_token_id=None)
    with pytest.raises(Exception, match="neither `decoder_start_token_id`, `bos_token_id` nor `eos_token_id`"):
        build(parts)
    assert build(parts, decoder_start_token_id=0).config.decoder_start_token_id == 0


def test_without_a_padding_token_the_eos_pads_and_is_still_learnt(parts, tokenizers):
    """The padding of labels is -100, so an EOS that pads is told from the one that ends a text."""
    with_padding = VAEProcessor(*tokenizers)
    tokenizer = VAEProcessor(*tokenizers).tokenizer.__class__.from_pretrained(parts[DECODER])
    tokenizer.pad_token = None
    change_config(parts[DECODER], pad_token_id=None)
    without = VAEProcessor(tokenizer, tokenizers[1])
    texts = ["the cat sat on the mat", "a dog"]
    batch = without(texts, texts)
    assert without.tokenizer.pad_token_id == without.tokenizer.eos_token_id and tokenizer.pad_token is None
    assert batch["labels"].equal(with_padding(texts, texts)["labels"])
    assert ((batch["labels"] == tokenizer.eos_token_id).sum(-1) == 1).all() and (batch["labels"] == -100).any()
    torch.manual_seed(0)
    model = build(parts).eval()
    latents = torch.ones(2, 4)
    together = model(**batch, latents=latents).reconstruction_loss
    alone = [model(**without(text, text), latents=latents[:1]).reconstruction_loss for text in texts]
    torch.testing.assert_close(together, torch.cat(alone))
