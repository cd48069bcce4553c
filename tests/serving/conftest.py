"""Exports of tiny models, the client of the example, and a server that speaks as vLLM's does."""

import base64
import importlib.util
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import EXAMPLES, prefixed
from hf_vae.serving import export_vllm


@pytest.fixture(scope="session")
def client():
    """The module of `examples/serve_vllm/client.py`."""
    spec = importlib.util.spec_from_file_location("serve_vllm_client", EXAMPLES / "serve_vllm" / "client.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["before_source", "after_source"])
def placement(request):
    return request.param


@pytest.fixture
def exported(processor, placement, tmp_path):
    """A model with a source, its processor, and what its export says."""
    model = prefixed(processor, latent_placement=placement)
    return model, processor, export_vllm(model, processor, tmp_path / "served")


@pytest.fixture
def start_server():
    """Starts a server of a handler, until the test ends; gives its address."""
    servers = []

    def start(handler) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        # The default looks twice a second whether it is to end.
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def serve(start_server):
    """Serves the `lm` of an export under a name, by transformers' `generate`; gives the address."""

    def begin(folder, name):
        lm = AutoModelForCausalLM.from_pretrained(folder / "lm").eval()
        tokenizer = AutoTokenizer.from_pretrained(folder / "lm")

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(200, {"object": "list", "data": [{"id": name, "object": "model"}]})

            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                choices = []
                for index, prompt in enumerate(asked["prompt_embeds"]):
                    embeds = torch.load(io.BytesIO(base64.b64decode(prompt)), weights_only=True)
                    if embeds.shape[-1] != lm.config.hidden_size:
                        self.answer(400, {"error": {"message": f"`prompt_embeds` hidden_size {embeds.shape[-1]} does not match"}})
                        return
                    tokens = lm.generate(inputs_embeds=embeds[None], do_sample=False, max_new_tokens=asked["max_tokens"])[0]
                    text = tokenizer.decode(tokens, skip_special_tokens=True)
                    choices.append({"index": index, "text": text, "token_ids": tokens.tolist()})
                self.answer(200, {"choices": choices[::-1]})

            def answer(self, status, content):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, *_):
                """Says nothing."""

        return start_server(Handler)

    return begin
