"""The client of the example, over HTTP: to a server that speaks as vLLM's does, and to vLLM's where that is installed."""

import copy
import os
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec

import pytest
import torch
import transformers as hf

from helpers import prefixed, tiny_llama_config
from hf_vae.serving import export_vllm

SOURCES = ("the cat sat on the mat", "a dog ran")
# The Python of an environment of vLLM's own: `HF_VAE_VLLM=/path/to/bin/python`.
VLLM = os.environ.get("HF_VAE_VLLM") or (sys.executable if find_spec("vllm") else None)


def words(tokens, model):
    """Without the end and what stands behind it."""
    tokens = list(tokens)
    eos = model.config.eos_token_id
    return tokens[: tokens.index(eos)] if eos in tokens else tokens


def check_texts(model, processor, prompt, server, rows=4, length=8):
    """Over HTTP, token for token what our `generate` writes greedily."""
    latents = torch.randn(rows, model.config.latent_size, generator=torch.Generator().manual_seed(0))
    seen = set()
    for source in SOURCES:
        embeds = prompt.embeds(latents, source)
        choices = server.complete(embeds, length)
        options = {"do_sample": False, "max_new_tokens": length, "num_return_sequences": rows}
        expected = model.generate(**processor(source), latents=latents, **options)[:, 1:]
        assert [words(each["token_ids"], model) for each in choices] == [words(row.tolist(), model) for row in expected]
        texts = processor.batch_decode(expected, skip_special_tokens=True)
        assert [each["text"].strip() for each in choices] == [text.strip() for text in texts]
        seen.update(texts)
    assert len(seen) > 2


def test_texts_come_back_token_for_token(exported, client, serve):
    model, processor, served = exported
    prompt = client.LatentPrompt(served.directory)
    check_texts(model, processor, prompt, client.Server(serve(served.directory, served.name), prompt.model))


def test_a_command_line_is_enough(exported, client, serve, capsys):
    model, processor, served = exported
    address = serve(served.directory, served.name)
    client.main([str(served.directory), "--server", address, "--source", SOURCES[0], "--number", "3", "--max_tokens", "5"])
    latents = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    options = {"do_sample": False, "max_new_tokens": 5, "num_return_sequences": 3}
    expected = model.generate(**processor(SOURCES[0]), latents=latents, **options)
    assert capsys.readouterr().out.splitlines() == [
        text.strip() for text in processor.batch_decode(expected, skip_special_tokens=True)
    ]


def test_a_server_that_serves_another_model_is_refused(exported, client, serve):
    _, _, served = exported
    address = serve(served.directory, "other-12345678")
    with pytest.raises(ValueError, match=f"serves other-12345678, and these prompts are of {served.name}: start the server with"):
        client.Server(address, served.name)


def test_a_server_that_is_down_is_told(exported, client):
    _, _, served = exported
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConnectionError, match=rf"No server answers at {address} \(.*refused\): start vLLM there"):
        client.Server(address, served.name)
    with pytest.raises(SystemExit, match=r"client.py: No server answers"):
        client.main([str(served.directory), "--server", address, "--source", "a dog"])


def test_what_the_server_refuses_is_told_in_its_words(exported, client, serve):
    _, _, served = exported
    server = client.Server(serve(served.directory, served.name), served.name)
    with pytest.raises(ValueError, match=r"/v1/completions refuses \(400\): `prompt_embeds` hidden_size 3 does not match"):
        server.complete(torch.ones(1, 2, 3))


def test_a_folder_that_is_no_export_is_refused(client, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"latent_prompt.safetensors: write it with `hf-vae export-vllm MODEL"):
        client.LatentPrompt(tmp_path)
    with pytest.raises(SystemExit, match=r"client.py: There is no"):
        client.main([str(tmp_path)])


def test_inputs_that_fit_no_prompt_are_refused(exported, client):
    _, _, served = exported
    prompt = client.LatentPrompt(served.directory)
    with pytest.raises(ValueError, match=r"`latents` has shape \(2, 5\); expected \(rows, 4\)"):
        prompt.embeds(torch.ones(2, 5), "a dog")
    for source in (None, " "):
        with pytest.raises(ValueError, match="this model reads a text"):
            prompt.embeds(torch.ones(2, 4), source)
    # Of 48 positions z has two, and the start token one.
    fits = "a " * 45
    assert len(prompt.token_ids(fits.strip())) == 45 and prompt.embeds(torch.ones(1, 4), fits.strip()).shape[1] == 48
    with pytest.raises(ValueError, match="`source` is 46 tokens long with what stands around it; the model holds 45"):
        prompt.embeds(torch.ones(1, 4), "a " * 45 + "a")


# vLLM's attention on a CPU has heads of 32 numbers and more.
_COMMON = {"vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_LAYERS = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "initializer_range": 0.3}
_GROUPED = {**_COMMON, **_LAYERS, "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 64}
ENGINE_FAMILIES = {
    "gpt2": hf.GPT2Config(**_COMMON, n_embd=64, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3),
    "qwen3": hf.Qwen3Config(**_GROUPED),
    "gemma": hf.GemmaConfig(**_GROUPED),
    "gpt_neox": hf.GPTNeoXConfig(**_COMMON, **_LAYERS, max_position_embeddings=64),
    "opt": hf.OPTConfig(
        **_COMMON, hidden_size=64, word_embed_proj_dim=64, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, init_std=0.3,
    ),
}  # fmt: skip
needs_vllm = pytest.mark.skipif(VLLM is None, reason="vLLM is not installed: name the Python of its environment in HF_VAE_VLLM")


@pytest.mark.slow
@needs_vllm
def test_vllm_serves_it(processor, placement, client, tmp_path):
    model = prefixed(processor, decoder=tiny_llama_config(head_dim=32), latent_placement=placement)
    check_served_by_vllm(model, processor, client, tmp_path)


@pytest.mark.slow
@needs_vllm
@pytest.mark.parametrize("family", ENGINE_FAMILIES)
def test_vllm_serves_a_decoder_of_any_family(processor, family, client, tmp_path):
    check_served_by_vllm(prefixed(processor, decoder=copy.deepcopy(ENGINE_FAMILIES[family])), processor, client, tmp_path)


def check_served_by_vllm(model, processor, client, tmp_path):
    """vLLM is started by the command that the export prints, and writes what our `generate` writes."""
    served = export_vllm(model, processor, tmp_path / "served")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    of_vllm = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
    # Its environment is not this one.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    options = served.command.removeprefix("python ").split()
    command = [VLLM, *options, "--enforce-eager", "--port", str(port), "--host", "127.0.0.1"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env={**inherited, **of_vllm}, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(address, process, tmp_path / "log")
            prompt = client.LatentPrompt(served.directory)
            check_texts(model, processor, prompt, client.Server(address, prompt.model))
        finally:
            process.terminate()
            process.wait(60)


def wait_for(address, process, log):
    for _ in range(300):
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(f"{address}/health").close()
            return
        except OSError:
            time.sleep(1)
    raise AssertionError(log.read_text()[-3000:])
