"""The page without a browser: it is built for every model, a mistake becomes a message, and what comes from outside is escaped."""

import socket
import subprocess
import sys

import pytest

from explorer_models import make_explored
from helpers import child_environment
from hf_vae.explorer import Explored, in_common, marked, reconstruction
from hf_vae.options import door

WITHOUT_GRADIO = """
import sys
sys.modules["gradio"] = None
import hf_vae.cli.explore
# It takes a third of a second, and a page draws without it.
assert "matplotlib" not in sys.modules
try:
    import hf_vae.explorer.page
except ImportError as error:
    print(error)
"""


def test_without_gradio_the_extra_is_named(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_GRADIO], capture_output=True, text=True, cwd=tmp_path, env=child_environment(), check=True
    )
    assert done.stdout.strip() == "The explorer needs gradio: install it with `pip install 'hf_vae[explorer]'`."


page = pytest.importorskip(
    "hf_vae.explorer.page", reason="gradio is not installed: pip install 'hf_vae[explorer]'", exc_type=ImportError
)
markup = pytest.importorskip("hf_vae.explorer.page.markup")
messages = pytest.importorskip("hf_vae.explorer.page.messages")
serving = pytest.importorskip("hf_vae.explorer.page.serving")


def test_a_page_is_built_for_every_model(explored):
    built = page.build_page(explored)
    labels = {block.label for block in built.blocks.values() if getattr(block, "label", None)}
    assert {"Map", "Path", "Sliders", "Words", "Report"} <= labels and ("Chat" if explored.is_dialog else "Outputs") in labels


def test_a_conditional_model_without_a_file_has_a_page_too():
    explored = make_explored("paraphrase")
    page.build_page(Explored(explored.model, explored.processor, "model"))


def test_what_a_person_or_a_file_writes_is_escaped(vae):
    bad = "<b>x</b>"
    vae.corpus.texts[0], vae.corpus.columns = bad, {bad: [bad, "a", "b", "a", "b"]}
    found = reconstruction(vae, bad)
    shown = [
        markup.note(bad), markup.text(bad, bad), markup.text(marked("a", bad)), markup.steps([bad, "a"], [bad, "1"], 0),
        markup.table((bad,), [(bad,)]), markup.listed([bad]), markup.region(in_common(vae.corpus, [0])), markup.heat(found),
        markup.bars([(bad, 1.0)], bad), markup.talk([{"role": "user", "content": bad}]),
    ]  # fmt: skip
    assert all(bad not in each for each in shown) and sum("&lt;b&gt;" in each for each in shown) == len(shown)


def test_a_mistake_becomes_a_message_and_leaves_the_rest():
    @messages.told(2)
    def half(number):
        if number % 2:
            raise ValueError("This number is odd: <give> another.")
        return "fine", number // 2, "done"

    assert half(4) == (markup.note("fine"), 2, "done")
    message, *rest = half(3)
    assert 'role="alert"' in message and "&lt;give&gt;" in message and rest == [messages.gr.skip()] * 2

    @messages.told(0)
    def broken():
        raise RuntimeError("a bug")

    # What is no mistake of a person is not hidden.
    with pytest.raises(RuntimeError):
        broken()


def test_the_same_text_in_succession_stands_once():
    listed = markup.steps(["a b", "a b", "a c", "c"], ["0", "1", "2", "3"], here=1)
    assert listed.count("<li") == 3 and "0 to 1" in listed and listed.count("is-here") == 1
    assert "<mark>c</mark>" in listed and "<del>a</del>" in listed


def test_a_text_without_words_is_named():
    assert "<td><i>(empty)</i></td>" in markup.table(("a",), [("",)]) and "(empty)" in markup.listed([""])


def test_a_port_in_use_is_refused_before_anything_is_loaded(capsys, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"`--port` is {port}, which cannot be had"):
            serving.check_port(port)
        monkeypatch.setattr("hf_vae.cli.explore.load_explored", None)
        with pytest.raises(SystemExit) as ended:
            door.main(["explore", "--port", str(port)])
    assert ended.value.code == 2 and "choose another, or leave it out" in capsys.readouterr().err
    with pytest.raises(ValueError, match="from 1 to 65535"):
        serving.check_port(70_000)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["/no/such/model"], "There is no folder /no/such/model"),
        (["--file", "none.jsonl"], "There is no file none.jsonl"),
        (["--max_points", "1"], "`--max_points` is 1; it must be at least 2"),
        (["--ports", "1"], "did you mean --port?"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_in_a_line(argv, message, capsys):
    with pytest.raises(SystemExit) as ended:
        door.main(["explore", *argv])
    assert ended.value.code == 2 and message in capsys.readouterr().err
