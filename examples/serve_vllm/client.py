r"""
Texts from a model that vLLM serves: one z for each, drawn here and sent as a prompt of embeddings.

    hf-vae export-vllm outputs/prefix outputs/served
    python -m vllm.entrypoints.openai.api_server --model outputs/served/lm --served-model-name … \
        --enable-prompt-embeds --dtype float32
    python examples/serve_vllm/client.py outputs/served --source "at noon the nurse sold the coat ." --number 5

Copy this file to where your clients run. It needs torch, safetensors, and tokenizers if there is a source. If the prior is p(z|x),
transformers loads the encoder that reads the source. Nothing of the language model is loaded here.
"""

import argparse
import base64
import io
import json
import urllib.error
import urllib.request
from pathlib import Path

import torch
from safetensors import safe_open
from torch.nn.functional import linear


class LatentPrompt:
    """
    Draws z and makes prompts of it, by what `hf-vae export-vllm` has written.

    Args:
        folder (`str` or `Path`): of the export; `latent_prompt.safetensors` is read, of `lm/` the tokenizer alone if there is a
            source, and `encoder/` if the prior reads it.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        file = self.folder / "latent_prompt.safetensors"
        if not file.is_file():
            raise FileNotFoundError(f"There is no {file}: write it with `hf-vae export-vllm MODEL {folder}`.")
        with safe_open(file, framework="pt") as opened:
            told = (opened.metadata() or {}).get("latent_prompt")
            if told is None:
                raise ValueError(f"{file} is no prompt file: write it with `hf-vae export-vllm MODEL {folder}`.")
            self.told = json.loads(told)
            self.tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no dictionary)
        self.model, self.template, self.prior = (self.told[name] for name in ("model", "template", "prior"))
        self.tokenizer = _tokenizer(self.folder / "lm") if self.template else None
        self._encoder = None

    def sample(self, number, source=None, temperature=None, generator=None):
        """`number` draws of z for a source, `(number, latent_size)`; a `temperature` of 0 gives the prior's mean."""
        temperature = self.told["latent_temperature"] if temperature is None else temperature
        kind, t = self.prior["kind"], self.tensors
        noise = torch.randn(number, self.told["latent_size"], generator=generator)
        if kind == "standard":
            return temperature * noise
        if kind == "mixture":
            parts = torch.multinomial(t["prior.weights"].float(), number, replacement=True, generator=generator)
            return t["prior.means"][parts] + temperature * torch.exp(0.5 * t["prior.logvars"][parts]) * noise
        if kind == "conditional":
            hidden = torch.tanh(linear(self._read(source), t["prior.hidden.weight"], t["prior.hidden.bias"]))
            mean, logvar = linear(hidden, t["prior.head.weight"], t["prior.head.bias"]).float().chunk(2, dim=-1)
            return mean + temperature * torch.exp(0.5 * logvar.clamp(-20.0, 10.0)) * noise
        raise ValueError(f"z must be given: {self.prior['why']}.")

    def embeds(self, latents, source=None):
        """The prompt of each z, `(rows, length, embedding size)`: z's embeddings, the source's and the start token's."""
        if latents.ndim != 2 or latents.shape[1] != self.told["latent_size"]:
            raise ValueError(f"`latents` has shape {tuple(latents.shape)}; expected (rows, {self.told['latent_size']}).")
        weight, bias = self.tensors["projection.weight"], self.tensors["projection.bias"]
        start = self.tensors["start_embedding"].expand(len(latents), 1, -1)
        prefix = linear(latents.to(weight), weight, bias).unflatten(-1, (self.told["prefix_length"], -1))
        if self.template is None:
            if source is not None:
                raise ValueError("`source` is given, and this model reads none.")
            return torch.cat([prefix, start], dim=1)
        ids, longest = self.token_ids(source), self.told["longest"]
        if longest is not None and len(ids) + 1 > longest:
            raise ValueError(f"`source` is {len(ids)} tokens long with what stands around it; the model holds {longest - 1}.")
        tokens = self.tensors["token_embeddings"][ids].expand(len(latents), -1, -1)
        first = [tokens, prefix] if self.told["latent_placement"] == "after_source" else [prefix, tokens]
        return torch.cat([*first, start], dim=1)

    def token_ids(self, source):
        """The prompt's tokens without the start token."""
        if not isinstance(source, str) or not source.strip():
            raise ValueError(f"`source` is {source!r}; this model reads a text.")
        before, end = self.template["before"], self.template["end"]
        special = [token.content for token in self.tokenizer.get_added_tokens_decoder().values() if token.special]
        if self.template["is_chat"] and any(token in source for token in special):
            # A special token that is written in a source is text, so that nobody can forge a turn.
            self.tokenizer.encode_special_tokens = True
            space = before[len(before.rstrip(" ")) :]
            words = self.tokenizer.encode(space + source, add_special_tokens=False).ids
            self.tokenizer.encode_special_tokens = False
            return [*self.template["begin"], *words, *end]
        words = self.tokenizer.encode(before + source, add_special_tokens=False).ids
        ids = [*self.template["opening"], *words, *end]
        return ids[:-1] if len(ids) > 1 and ids[-1] == self.template["closing"] else ids

    @torch.no_grad()
    def _read(self, source):
        """The vector that p(z|x) reads, `(1, hidden)`."""
        if not isinstance(source, str):
            raise ValueError(f"`source` is {source!r}, and the prior p(z|x) reads a text.")
        if self._encoder is None:
            from transformers import AutoModel

            self._encoder = AutoModel.from_pretrained(self.folder / "encoder").eval(), _tokenizer(self.folder / "encoder")
        encoder, tokenizer = self._encoder
        output = encoder(input_ids=torch.tensor([tokenizer.encode(source).ids]))
        if self.prior["pooling"] == "pooler":
            return output.pooler_output
        states = output.last_hidden_state
        return states[:, 0] if self.prior["pooling"] == "first" else states.mean(1)


class Server:
    """
    A server of vLLM.

    Args:
        url (`str`): such as `http://localhost:8000`.
        model (`str`): the name that the server knows the language model by: `LatentPrompt.model`.
    """

    def __init__(self, url, model):
        self.url, self.model = url.rstrip("/"), model
        served = [each["id"] for each in self._ask("/v1/models")["data"]]
        if model not in served:
            raise ValueError(
                f"{self.url} serves {', '.join(served) or 'nothing'}, and these prompts are of {model}: start the server with "
                f"`--served-model-name {model}` and the `lm` of the same export."
            )

    def complete(self, embeds, max_tokens=64, **options):
        """
        A text for each of `embeds`, greedily if `options` say no `temperature`: a list of what the server answers for each, with
        `text` and `token_ids`. All of them are one request, which the server works on together.
        """
        prompts = []
        for each in embeds:
            buffer = io.BytesIO()
            # Without the clone the rows' common storage would be written for each of them.
            torch.save(each.detach().clone(), buffer)
            prompts.append(base64.b64encode(buffer.getvalue()).decode())
        asked = {"temperature": 0.0, "max_tokens": max_tokens, "return_token_ids": True, **options}
        answer = self._ask("/v1/completions", {"model": self.model, "prompt_embeds": prompts, **asked})
        return sorted(answer["choices"], key=lambda choice: choice["index"])

    def _ask(self, path, content=None):
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise ValueError(f"{self.url}{path} refuses ({error.code}): {_reason(error)}") from error
        except urllib.error.URLError as error:
            raise ConnectionError(
                f"No server answers at {self.url} ({error.reason}): start vLLM there, as `hf-vae export-vllm` has printed it."
            ) from error
        except ValueError as error:
            raise ValueError(f"{self.url}{path} gives no JSON, so it is no server of this kind: {error}") from error


def _reason(error):
    """What the server says, or what it was."""
    text = error.read().decode(errors="replace")
    try:
        told = json.loads(text)
        return told.get("error", told).get("message", text)
    except (ValueError, AttributeError):
        return text[:300] or error.reason


def _tokenizer(folder):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def main(argv=None):
    parser = argparse.ArgumentParser(description="Texts from a model that vLLM serves, one z for each.")
    parser.add_argument("folder", help="Folder of the export.")
    parser.add_argument("--server", default="http://localhost:8000", help="Where it is served.")
    parser.add_argument("--source", help="The text that a conditional model reads.")
    parser.add_argument("--number", type=int, default=5, help="Texts, each with a z of its own.")
    parser.add_argument("--max_tokens", type=int, default=64, help="Longest text in tokens.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed of z.")
    arguments = parser.parse_args(argv)
    try:
        prompt = LatentPrompt(arguments.folder)
        latents = prompt.sample(arguments.number, arguments.source, generator=torch.Generator().manual_seed(arguments.seed))
        embeds = prompt.embeds(latents, arguments.source)
        for choice in Server(arguments.server, prompt.model).complete(embeds, arguments.max_tokens):
            print(choice["text"].strip())
    except (ValueError, OSError) as error:
        raise SystemExit(f"client.py: {error}") from None


if __name__ == "__main__":
    main()
