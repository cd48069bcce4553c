"""What a run of the benchmarks is told, and what is refused."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from hf_vae.configuration_vae import LATENT_INJECTION_TYPES, check_choice

from .sizes import SIZES

DTYPES = {"float32": None, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Options:
    """
    Args:
        sizes (`tuple[str, ...]`): of the models, keys of `benchmarks.sizes.SIZES`; cases that need one size take the first.
        latent_injection (`tuple[str, ...]`): how z enters the decoder.
        dtype (`str`): `"float32"`, or `"bfloat16"`, under autocast on both sides.
        threads (`int`): of torch.
        repeats (`int`): pairs of measurements of a comparison; short ones of `generate` take four times as many, long ones fewer.
        device (`str`): `"cpu"` or `"cuda"`.
        quick (`bool`): fewer and smaller measurements.
        seed (`int`): of weights, data and z.
        ragged_file (`str`, *optional*): texts of many lengths, as `hf_vae.data.load_texts` reads them; else made ones.
        text_column (`str`): its column, where it has columns.
        synthetic_dir (`str`, *optional*): `train.txt` and `eval.txt` of sentences whose entropy is 30.1 nats, for LangVAE and the
            time to a quality; else the embedded grammar.
        langvae_python (`str`, *optional*): the interpreter of an environment with LangVAE.
        plots (`str`, *optional*): folder for the plots of the scaling and of `read_once`.
        profile (`str`, *optional*): folder for profiles of the hot paths.

    Raises:
        ValueError: a size, way, dtype or device that does not exist, a number below 1, or a file that is not there.
    """

    sizes: tuple[str, ...] = ("small", "medium")
    latent_injection: tuple[str, ...] = ("embedding",)
    dtype: str = "float32"
    threads: int = 2
    repeats: int = 7
    device: str = "cpu"
    quick: bool = False
    seed: int = 0
    ragged_file: str | None = None
    text_column: str = "text"
    synthetic_dir: str | None = None
    langvae_python: str | None = None
    plots: str | None = None
    profile: str | None = None

    def __post_init__(self):
        for size in self.sizes:
            check_choice("--sizes", size, tuple(SIZES))
        for way in self.latent_injection:
            check_choice("--latent_injection", way, tuple(LATENT_INJECTION_TYPES))
        check_choice("--dtype", self.dtype, tuple(DTYPES))
        check_choice("--device", self.device, ("cpu", "cuda"))
        for name in ("threads", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"`--{name}` is {getattr(self, name)}; it must be at least 1.")
        if not self.sizes or not self.latent_injection:
            raise ValueError("`--sizes` and `--latent_injection` name at least one each.")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("`--device` is 'cuda', and torch sees no GPU here; choose 'cpu'.")
        for name in ("ragged_file", "langvae_python"):
            if getattr(self, name) is not None and not Path(getattr(self, name)).is_file():
                raise ValueError(f"`--{name}` {getattr(self, name)} is no file.")
        if self.synthetic_dir is not None:
            for file in ("train.txt", "eval.txt"):
                if not (Path(self.synthetic_dir) / file).is_file():
                    raise ValueError(f"`--synthetic_dir` {self.synthetic_dir} holds no {file}.")

    def precision(self) -> AbstractContextManager:
        """What both sides of a comparison compute under."""
        dtype = DTYPES[self.dtype]
        return contextlib.nullcontext() if dtype is None else torch.autocast(self.device, dtype)

    def synchronize(self) -> None:
        """Waits for what was started on the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()
