"""`benchmarks.serving`: how it compares, with a server that speaks as vLLM's does."""

import http.server

import psutil
import pytest

from benchmarks import serving
from helpers import TEXTS, prefixed
from hf_vae.serving import export_vllm


@pytest.fixture
def comparison(exported, client, serve, monkeypatch):
    # The tiny model has room for few words.
    monkeypatch.setattr(serving.grammar, "draw_sentences", lambda count, seed: [TEXTS[i % len(TEXTS)] for i in range(count)])
    model, processor, served = exported
    prompt = client.LatentPrompt(served.directory)
    server = client.Server(serve(served.directory, served.name), served.name)
    return serving.Comparison(model, processor, prompt, server, psutil.Process(), length=5)


def test_texts_that_are_the_same_are_counted(comparison):
    found = comparison.same_tokens(20)
    assert found["texts"] == found["same"] == 20 and found["distinct"] > 1 and found["tokens"] <= 100
    comparison.prompt.tensors["start_embedding"] = 5 * comparison.prompt.tensors["start_embedding"].flip(0)
    assert comparison.same_tokens(20)["same"] < 20


def test_both_sides_are_timed(comparison):
    row = comparison.throughput(2, repeats=1)
    assert row["concurrent"] == 2 and row["tokens"] == 10
    assert all(row[f"{name}_{kind}"] > 0 for name in ("vllm", "ours") for kind in ("seconds", "tokens_per_second"))


def test_a_text_ends_before_its_end():
    assert serving.until_end([5, 2, 2, 0], [2, 3]) == [5]
    assert serving.until_end([5, 6], [2]) == [5, 6]


METRICS = """\
# HELP vllm:prefix_cache_hits_total Positions.
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 64.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 48.0
"""


def test_the_prefix_cache_is_asked_what_it_had(start_server):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(METRICS.encode())

        def log_message(self, *_):
            """Says nothing."""

    assert serving.cache_counts(start_server(Handler)) == (48.0, 64.0)


def test_a_server_that_ends_is_told_with_its_log(processor, tmp_path):
    served = export_vllm(prefixed(processor), processor, tmp_path / "served")
    with (
        pytest.raises(RuntimeError, match="vLLM ended before it answered"),
        serving.served("false", served.directory, served.name, 1, tmp_path / "log"),
    ):
        pass
