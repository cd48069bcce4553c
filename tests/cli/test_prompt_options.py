"""How a source is written for the decoder, by the options of the commands that train."""

import json

import pytest
from tokenizers import pre_tokenizers
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor

from helpers import load_script
from hf_vae.cli.from_scratch import small_configs, train_tokenizers

CHAT = (
    "{% for m in messages %}[BOS]{{ m['role'] }}\n{{ m['content'] }}[EOS]\n{% endfor %}"
    "{% if add_generation_prompt %}[BOS]assistant\n{% endif %}"
)
ROWS = [{"source": "the cat sat .", "targets": ["a cat sat ."]}, {"source": "a dog ran .", "targets": ["the dog ran ."]}] * 4
TALKS = [{"turns": [{"speaker": "ann", "text": "hello"}, {"speaker": "bob", "text": "good morning"}]}] * 4
NEWLINE = "Ċ"


@pytest.fixture
def parts(tmp_path):
    """The options that name a pretrained pair; the decoder's tokenizer has a chat template."""
    texts = [text for row in ROWS for text in (row["source"], row["targets"][0])]
    tokenizer, encoder_tokenizer = train_tokenizers([*texts, "hello", "good morning"], 300)
    encoder, decoder = small_configs(tokenizer, hidden_size=16, num_attention_heads=2, decoder_layers=1)
    tokenizer.chat_template = CHAT
    # As GPT-2's and those after it: a newline is one token.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for name, model, its_tokenizer in (
        ("encoder", AutoModel.from_config(encoder), encoder_tokenizer),
        ("decoder", AutoModelForCausalLM.from_config(decoder), tokenizer),
    ):
        model.save_pretrained(tmp_path / name)
        its_tokenizer.save_pretrained(tmp_path / name)
    return ["--encoder_name_or_path", str(tmp_path / "encoder"), "--decoder_name_or_path", str(tmp_path / "decoder")]


def train(name, parts, tmp_path, *options, rows=ROWS):
    """A model of a run of two steps and its processor, as they were saved."""
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    output, recipe = tmp_path / name, tmp_path / "recipe.yaml"
    # In the place of the recipe for pretrained parts, which has a template of its own.
    recipe.write_text("seed: 0\n")
    lengths = [] if name == "vae" else ["--max_source_length", "60", "--max_target_length", "20"]
    load_script(f"train_{name}").main(
        [
            str(recipe), *parts, "--train_file", str(file), "--validation_file", str(file), "--output_dir", str(output), *lengths,
            "--max_steps", "2", "--per_device_train_batch_size", "2", "--importance_samples", "2", "--max_new_tokens", "3",
            "--use_cpu", "--disable_tqdm", "true", "--report_to", "none", "--latent_free_steps", "0", *options,
        ]
    )  # fmt: skip
    return AutoModel.from_pretrained(output), AutoProcessor.from_pretrained(output)


def token(processor, id_: int) -> str:
    return processor.tokenizer.convert_ids_to_tokens(id_)


@pytest.mark.parametrize("start", [r"\n", "\n"], ids=["as typed", "as a recipe has it"])
def test_a_target_follows_the_token_that_is_asked_for(parts, tmp_path, start):
    model, processor = train("vae", parts, tmp_path, "--decoder_start_token", start, rows=[{"text": row["source"]} for row in ROWS])
    assert token(processor, model.config.decoder_start_token_id) == NEWLINE
    assert model.generation_config.decoder_start_token_id == model.config.decoder_start_token_id
    assert (model.generate(max_new_tokens=2)[:, 0] == model.config.decoder_start_token_id).all()


def test_by_default_a_target_follows_the_decoder_s_bos(parts, tmp_path):
    model, processor = train("paraphrase", parts, tmp_path)
    assert token(processor, model.config.decoder_start_token_id) == "[BOS]"
    assert (processor.prompt_template, processor.use_chat_template) == (None, False)


@pytest.mark.parametrize("name", ["paraphrase", "cvae"])
@pytest.mark.parametrize("chat", [[], ["--use_chat_template"]], ids=["template", "chat template"])
def test_the_last_token_of_a_template_becomes_the_start_token(parts, tmp_path, name, chat):
    model, processor = train(name, parts, tmp_path, "--prompt_template", r"{source}\nagain:\n", *chat)
    assert processor.prompt_template == "{source}\nagain:\n" and processor.use_chat_template == bool(chat)
    assert token(processor, model.config.decoder_start_token_id) == NEWLINE
    prompt = processor.tokenizer.decode(processor("a dog ran .")["prompt_input_ids"][0])
    assert prompt == ("[BOS]user\na dog ran .\nagain:\n[EOS]\n[BOS]assistant" if chat else "a dog ran .\nagain:")


@pytest.mark.parametrize(
    ("options", "start", "prompt"),
    [
        ([], "[BOS]", "[BOS]user\nhello[EOS]\n[BOS]assistant\n"),
        (["--use_chat_template", "true"], NEWLINE, "[BOS]user\nhello[EOS]\n[BOS]assistant"),
        (["--use_chat_template", "false"], "[BOS]", "user: hello\nassistant:"),
        (["--prompt_template", r"{source}\nassistant:\n"], NEWLINE, "user: hello\nassistant:"),
    ],
)
def test_a_dialogue_s_chat_template_is_asked_for_or_refused(parts, tmp_path, options, start, prompt):
    model, processor = train("dialog", parts, tmp_path, *options, rows=TALKS)
    assert token(processor, model.config.decoder_start_token_id) == start
    talk = [{"role": "ann", "content": "hello"}]
    assert processor.tokenizer.decode(processor(talk)["prompt_input_ids"][0]) == prompt


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--decoder_start_token", "again:"],
            r"`--decoder_start_token` is 'again:', which .* reads as \['a', .*: give one token",
        ),
        (["--decoder_start_token", ""], r"reads as \[\]: give one token"),
        (["--decoder_start_token", "[SEP]", "--prompt_template", r"{source}\n"], r"is '\[SEP\]', and what .* ends with '.n'"),
        (["--prompt_template", "again"], "`prompt_template` is 'again'"),
        (["--use_chat_template", "--source_conditioning", "cross_attention"], "`use_chat_template` is given and"),
    ],
)
def test_what_cannot_be_is_refused_before_a_step(parts, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        train("paraphrase", parts, tmp_path, *options)
    assert not (tmp_path / "paraphrase" / "model.safetensors").exists()


def test_the_decoder_is_made_for_the_source_and_what_stands_around_it(parts, tmp_path):
    options = ["--prompt_template", "a" * 80 + "{source}"]
    # 60 tokens of a source, the start token, and 20 of a target.
    with pytest.raises(ValueError, match="make 161 tokens for the decoder, which holds 128"):
        train("paraphrase", parts, tmp_path, *options)
    sizes = ["--hidden_size", "16", "--num_attention_heads", "2", "--max_source_length", "180"]
    model, _ = train("paraphrase", [], tmp_path, *options, *sizes)
    assert model.config.decoder.max_position_embeddings >= 180 + 80 + 1 + 20
