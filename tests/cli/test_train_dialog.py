"""The dialogue scripts, run small: what is read from files, what is left behind and refused, and a conversation."""

import io
import json
import math
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModel, AutoProcessor

from helpers import RECIPES, SMALL, load_script, make_published, write_rows
from hf_vae import DialogCVAEConfig, DialogCVAEModel, DialogCVAEProcessor, DialogSession
from hf_vae.cli.from_scratch import small_configs
from hf_vae.data import dialogues, load_dialogs
from hf_vae.evaluation import ActClassifier

TINY = [*SMALL, "--max_steps", "3", "--max_new_tokens", "5", "--posterior_fit_steps", "2", "--num_outputs", "3"]
EMBEDDED = [*TINY, "--num_dialogues", "80"]
TALK = [
    {"speaker": "A", "text": "how are you ?", "act": "question"},
    {"speaker": "B", "text": "fine , thanks .", "act": "inform"},
    {"speaker": "B", "text": "and you ?", "act": "question"},
    {"speaker": "A", "text": "fine too .", "act": "inform"},
]


@pytest.fixture(scope="module")
def script():
    return load_script("train_dialog")


def test_every_turn_but_the_first_is_a_reply(tmp_path):
    data = load_dialogs(write_rows(tmp_path / "d.jsonl", [{"turns": TALK, "topic": "health"}]), max_turns=2, meta_columns=["topic"])
    assert [row["targets"] for row in data] == [[turn["text"]] for turn in TALK[1:]]
    assert [row["source"]["act"] for row in data] == ["inform", "question", "inform"]
    assert [row["source"]["role"] for row in data] == ["B", "B", "A"]
    assert [len(row["source"]["messages"]) for row in data] == [1, 2, 2]
    assert data[2]["source"]["messages"][0] == {"role": "B", "content": "fine , thanks ."}
    assert data[0]["source"]["meta"] == {"topic": "health"}


def test_references_are_the_targets(tmp_path):
    turns = [{**turn, "references": ["x", turn["text"]]} for turn in TALK[:3]] + TALK[3:]
    data = load_dialogs(write_rows(tmp_path / "d.jsonl", [{"turns": turns}]))
    assert [row["targets"] for row in data] == [["x", turn["text"]] for turn in TALK[:3]]
    assert data[1]["source"]["act"] == "question"


def test_a_response_in_its_own_column(tmp_path):
    rows = [{"turns": TALK[:2], "response": "good .", "act": "inform"}]
    (row,) = load_dialogs(write_rows(tmp_path / "d.jsonl", rows))
    assert (row["targets"], row["source"]["act"], len(row["source"]["messages"])) == (["good ."], "inform", 2)


@pytest.mark.parametrize(
    "rows, options, message",
    [
        ([{"turns": []}], {}, "Dialogue 0 of .* has no turns"),
        ([{"turns": TALK}, {"turns": [{"speaker": "A", "text": " "}]}], {}, "Dialogue 1 of .* has the turn"),
        ([{"turns": TALK[:1]}], {}, "holds no turn that replies"),
        ([{"talk": TALK}], {}, "has no column turns; it has talk"),
        ([{"turns": TALK}], {"meta_columns": ["topic"]}, "has no column topic"),
        (
            [{"turns": TALK, "topic": "x"}, {"turns": TALK, "topic": None}],
            {"meta_columns": ["topic"]},
            "Dialogue 1 .* no value in topic",
        ),
        ([{"turns": [{**TALK[0], "references": ["x"]}, *TALK[1:]]}], {}, "Turn 1 of dialogue 0 of .* has no `references`"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, rows, options, message):
    with pytest.raises(ValueError, match=message):
        load_dialogs(write_rows(tmp_path / "d.jsonl", rows), **options)


def test_an_act_s_classifier_learns_what_tells_acts_apart():
    texts = ["where is it ?", "who are you ?", "it is here .", "i am bob ."] * 5
    acts = ["question", "question", "inform", "inform"] * 5
    classifier = ActClassifier(texts, acts)
    assert classifier([["why is it you ?"], ["bob is here .", "where am i ?"]]) == [["question"], ["inform", "question"]]
    assert classifier.accuracy(texts, acts) == 1.0
    with pytest.raises(ValueError, match="at least two different"):
        ActClassifier(["a", "b"], ["question", None])


@pytest.mark.slow
def test_the_embedded_default_leaves_a_whole_model_behind(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    metrics = script.main([*EMBEDDED, "--with_baseline"])
    capsys.readouterr()
    output = Path("outputs/dialog")
    assert json.loads((output / "metrics.json").read_text()) == metrics
    judged = {"valid_reply", "distinct_valid_in_3", "act_match", "cll_mc", "cll_is", "cll_exact", "kl"}
    assert judged <= metrics.keys() and metrics["cll_exact"] == -math.log(16)
    assert (metrics["cll_is"], metrics["cll_mc"]) == (-metrics["iw_nll"], -metrics["mc_nll"])
    model, processor = AutoModel.from_pretrained(output), AutoProcessor.from_pretrained(output)
    assert isinstance(model, DialogCVAEModel) and isinstance(processor, DialogCVAEProcessor)
    assert processor.acts == sorted(dialogues.ACTS) and model.config.num_acts == 6
    card = (output / "README.md").read_text(encoding="utf-8")
    assert 'inputs = processor([{"content"' in card and "zhao2017learning" in card
    # The model that was saved talks.
    chat = load_script("chat")
    told = "the carpet was found by the cook at teatime in the station ."
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{told}\n\n/act agree\n/2\nhello .\n/act dance\n/reset\n/7\n/quit\n"))
    chat.main([str(output), "--seed", "1", "--max_new_tokens", "4"])
    greeting, _, told = capsys.readouterr().out.partition("\n\n")
    assert all(word in greeting for word in (str(output), "/help", "/quit", ", ".join(processor.acts)))
    lines = told.splitlines()
    assert [line.partition(".")[0] for line in lines[:6]] == ["1", "2", "3"] * 2
    assert lines[6].startswith("(said: ") and lines[6].endswith(lines[4].partition(". ")[2].partition("   ")[0] + ")")
    assert all(line.endswith("[agree]") for line in lines[7:10])
    assert lines[10] == f"(the acts are {', '.join(processor.acts)})"
    assert lines[11:] == ["(a new conversation)", "(there is no reply 7 to say)"]
    with pytest.raises(ValueError, match="`--num_replies` is 0"):
        chat.main([str(output), "--num_replies", "0"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--knowledge_guided", "true", "--meta_columns", "topic", "age"],
        ["--context_encoding", "hierarchical", "--source_conditioning", "initial_state", "--encoder_type", "lstm", "--decoder_type",
         "lstm", "--pooling", "pooler", "--bow_loss_weight", "1", "--max_turn_length", "6"],
    ],
)  # fmt: skip
def test_own_dialogues(script, tmp_path, options, capsys):
    rows = [{"turns": TALK, "topic": topic, "age": 0.3} for topic in ("health", "sports")]
    file = write_rows(tmp_path / "d.jsonl", rows)
    arguments = [*TINY, "--train_file", file, "--test_file", file, "--output_dir", str(tmp_path / "out"), *options]
    arguments += ["--eval_strategy", "steps", "--eval_steps", "3"]
    metrics = script.main([*arguments, *(["--knowledge_guided", "false"] if "hierarchical" in options else [])])
    printed = capsys.readouterr().out
    assert all(f"'eval_{name}'" in printed for name in ("loss", "elbo", "ppl_per_token_elbo", "shuffled_gap", "prior_gap"))
    names = {f"bleu_{order}_{side}" for order in range(1, 5) for side in ("precision", "recall")}
    assert names <= metrics.keys() and metrics["dialogwae_bleu_recall"] >= 0
    # Replies are judged by their acts, whether or not the model knows of any.
    assert 0 <= metrics["act_precision"] <= 1
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    if "hierarchical" in options:
        assert processor.acts is None and processor.max_turn_length == 6
    else:
        assert processor.acts == ["inform", "question"]
        assert (processor.meta_categories, processor.meta_values) == ({"topic": ["health", "sports"]}, ["age"])


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["kgcvae_switchboard", "cvae_dailydialog"])
def test_the_papers_recipes_train(script, tmp_path, recipe):
    file = write_rows(tmp_path / "d.jsonl", [{"turns": TALK}] * 8)
    script.main(
        [str(RECIPES[recipe]), *TINY, "--train_file", file, "--test_file", file, "--save_strategy", "no",
         "--output_dir", str(tmp_path / "out"), "--vocab_size", "300"]
    )  # fmt: skip
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert model.config.context_encoding == "hierarchical" and model.config.bow_loss_weight == 1.0
    assert (model.config.num_acts == 2) == (recipe == "kgcvae_switchboard")


def test_replies_are_scored_with_word_vectors_where_there_are_some(script):
    from datasets import Dataset

    test = Dataset.from_dict({"targets": [["fine ."]]})
    vectors = {"fine": torch.tensor([1.0, 0.0]).numpy(), ".": torch.tensor([0.0, 1.0]).numpy()}
    metrics = script.score([["fine .", "."]], test, on_grammar=False, word_vectors=vectors)
    assert metrics["a_bow_recall"] == pytest.approx(1.0) and metrics["a_bow_precision"] == pytest.approx(
        (1 + (1 + 0.5**0.5) / 2) / 2
    )
    assert "a_bow_recall" not in script.score([["fine .", "."]], test, on_grammar=False)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (["--num_outputs", "1"], ValueError, "`--num_outputs` is 1"),
        (["--max_turns", "0"], ValueError, "`--max_turns` is 0"),
        (["--meta_columns", "topic"], ValueError, "`--meta_columns` names columns of your own data"),
        (["--word_vectors", "none.txt"], FileNotFoundError, "there is no file none.txt"),
        (["--latent_temperature", "-1"], ValueError, "`--latent_temperature` is -1"),
        (["--context_encoding", "tree"], StrictDataclassError, "`context_encoding` is 'tree'"),
        (["--train_file", "x.jsonl"], ValueError, "needs a `--validation_file` or a `--test_file`"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(script, tmp_path, arguments, error, message):
    output = tmp_path / "out"
    with pytest.raises(error, match=message):
        script.main(["--output_dir", str(output), *arguments])
    assert not output.exists()


def test_acts_that_cannot_be_learnt_are_refused(script, tmp_path):
    plain = [{"turns": [{"speaker": turn["speaker"], "text": turn["text"]} for turn in TALK]}]
    new = [{"turns": [*TALK[:3], {**TALK[3], "act": "directive"}]}]
    files = {
        name: write_rows(tmp_path / f"{name}.jsonl", rows) for name, rows in (("t", [{"turns": TALK}]), ("p", plain), ("n", new))
    }
    common = [*TINY, "--knowledge_guided", "true", "--output_dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="the training turns have the acts \\[\\]; there must be two"):
        script.main([*common, "--train_file", files["p"], "--test_file", files["t"]])
    with pytest.raises(ValueError, match="the acts directive, which no training turn has"):
        script.main([*common, "--train_file", files["t"], "--test_file", files["n"]])


def test_a_session_keeps_its_turns(tokenizers):
    torch.manual_seed(0)
    encoder, decoder = small_configs(tokenizers[0], hidden_size=16, num_attention_heads=2)
    model = DialogCVAEModel(DialogCVAEConfig(encoder=encoder, decoder=decoder, latent_size=4, num_acts=3))
    session = DialogSession(
        model, DialogCVAEProcessor(*tokenizers, acts=["x", "y", "z"]), generator=torch.Generator().manual_seed(0)
    )
    with pytest.raises(ValueError, match="has no turns"):
        session.replies()
    with pytest.raises(ValueError, match="give a text that is not empty"):
        session.say(" ")
    session.say("the cat sat")
    replies = session.replies(4, max_new_tokens=5, do_sample=False)
    assert len(replies) == 4 and len({reply.latents for reply in replies}) == 4
    assert session.messages == [{"role": "user", "content": "the cat sat"}]
    # What was decoded is what the model gives for the same z and turns.
    inputs = session.processor({"messages": session.messages, "role": "assistant"})
    sequences = model.generate(**inputs, latents=replies[2].latents[None], max_new_tokens=5, do_sample=False)
    assert session.processor.batch_decode(sequences, skip_special_tokens=True)[0].strip() == replies[2].text
    acts = model.predict_acts(replies[2].latents[None], **model.condition(**inputs))
    assert replies[2].act == session.processor.acts[acts.argmax()]
    assert {reply.act for reply in session.replies(3, act="y", max_new_tokens=2)} == {"y"}
    with pytest.raises(ValueError, match="The act 'w' of dialogue 0 is not known"):
        session.replies(act="w")
    session.say("a dog ran", "assistant")
    session.say("the mat")
    marked = session.processor.as_text(session.processor.batch({"messages": session.messages, "role": "assistant"})[0][0])
    assert marked.splitlines() == ["user: the cat sat", "assistant: a dog ran", "user: the mat"]


def test_a_chat_goes_on_however_long_it_is_and_ends_quietly(tmp_path, monkeypatch, capsys):
    model, processor, _ = make_published("dialog")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    chat = load_script("chat")

    def lines():
        yield from ["the cat sat on the mat\n"] * 30
        yield from ["the cat " * 200 + "\n", "/actor\n", "/7\n", "/act dance\n", "/reset\n", "/1\n", "\n"]
        raise KeyboardInterrupt

    class Stdin:
        isatty = staticmethod(lambda: False)
        __iter__ = staticmethod(lines)

    monkeypatch.setattr("sys.stdin", Stdin())
    chat.main([str(tmp_path), "--num_replies", "1", "--max_new_tokens", "2", "--seed", "0"])
    said = capsys.readouterr().out.partition("\n\n")[2].splitlines()
    assert len([line for line in said if line.startswith("1. ")]) == 31
    assert said[31:] == [
        "(/actor is no command; there are /1, /2, …, /act, /acts, /reset, /help and /quit)",
        "(there is no reply 7 to say)",
        "(the acts are x, y, z)",
        "(a new conversation)",
        "(there is no reply 1 to say)",
        "",
    ]
    # At a terminal there is a prompt, and Ctrl-D ends as Ctrl-C does.
    for end in (EOFError, KeyboardInterrupt):
        written = iter(["/help", "/acts", "the cat"])

        def write(prompt, written=written, end=end):
            print(prompt, end="")
            try:
                return next(written)
            except StopIteration:
                raise end from None

        monkeypatch.setattr("builtins.input", write)
        Stdin.isatty = staticmethod(lambda: True)
        chat.main([str(tmp_path), "--num_replies", "1", "--max_new_tokens", "2", "--seed", "0"])
        said = capsys.readouterr().out.partition("\n\n")[2]
        assert said.startswith("> Write a turn") and "> (the acts are x, y, z)\n> 1. " in said and said.endswith("> \n")
    with pytest.raises(ValueError, match="`--max_length` is 9999; beside a reply the model holds"):
        chat.main([str(tmp_path), "--max_length", "9999", "--max_new_tokens", "2"])


def test_a_chat_is_refused_before_the_weights_are_loaded(tmp_path, monkeypatch):
    chat = load_script("chat")
    for kind in ("dialog", "vae"):
        model, processor, _ = make_published(kind)
        model.save_pretrained(tmp_path / kind)
        processor.save_pretrained(tmp_path / kind)
    monkeypatch.setattr(chat.AutoModel, "from_pretrained", lambda *args, **kwargs: pytest.fail("loaded"))
    with pytest.raises(ValueError, match="`--max_length` is 1, and the encoder's tokenizer adds 2 special tokens"):
        chat.main([str(tmp_path / "dialog"), "--max_length", "1"])
    with pytest.raises(ValueError, match="holds a model of type 'text-vae', and this talks to a dialogue model"):
        chat.main([str(tmp_path / "vae")])
