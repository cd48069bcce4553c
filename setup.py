"""Package metadata. The settings of the tools are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "hf_vae" / "__init__.py").read_text(encoding="utf-8"), re.M)[1]

CLI = ["matplotlib>=3.9.0", "PyYAML>=6.0.1", "tensorboard>=2.18.0"]
EXPLORER = [*CLI, "gradio>=6.31.0,<7"]
# Drives the system's own Chromium in the tests of the explorer.
BROWSER = ["playwright>=1.65"]
DEVELOPMENT = [
    *EXPLORER,
    "ipykernel>=7.4",
    "mypy>=2.4",
    "nbclient>=0.11",
    "nbformat>=5.11",
    "parameterized>=0.9",
    "pytest>=9.2",
    "pytest-xdist>=3.8",
    "ruff>=0.17",
    "types-PyYAML>=6.0.12",
]
# Of each demo model; both have the same files.
DEMO_FILES = ["*.json", "*.md", "*.safetensors", "encoder_tokenizer/*.json"]
DOCS = [
    "latex2mathml>=3.81.1",
    "mkdocs>=1.6.1",
    "mkdocs-material>=9.8",
    "mkdocstrings-python>=2.0.11",
    "Pygments>=2.20",
    "pymdown-extensions>=13.1",
]

setup(
    name="hf_vae",
    version=VERSION,
    description="Latent-variable text generation for Hugging Face transformers",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # The options once more, by a name that does not pass `hf_vae/__init__.py`: `hf-vae --help` then waits for no torch.
    packages=[*find_packages(include=["hf_vae", "hf_vae.*"]), "hf_vae_command", "hf_vae_command.tasks"],
    package_dir={"hf_vae_command": "hf_vae/options"},
    package_data={
        "hf_vae": ["py.typed"],
        "hf_vae.cli": ["recipes/*.yaml"],
        "hf_vae.explorer": ["static/*"],
        "hf_vae.demos": [f"{name}/{each}" for name in ("sentences", "paraphrase") for each in DEMO_FILES],
        "hf_vae.hub": ["model_card_template.md"],
    },
    entry_points={"console_scripts": ["hf-vae = hf_vae_command.door:main"]},
    python_requires=">=3.11",
    # The oldest versions that the tests pass with: `.ci/oldest` runs them.
    install_requires=[
        "accelerate>=1.15.0",
        "datasets>=4.0.0",
        "evaluate>=0.4.0",
        "huggingface_hub>=1.31.0",
        "Jinja2>=3.1.6",
        "nltk>=3.8",
        "peft>=0.20.0",
        "psutil>=5.9.5",
        "sacrebleu>=2.3.0",
        "scikit-learn>=1.5.0",
        "torch>=2.11.0",
        "transformers>=5.16.0,<5.25",
    ],
    extras_require={
        "cli": CLI,
        "examples": CLI,
        "explorer": EXPLORER,
        "browser": BROWSER,
        "quantization": ["torchao>=0.18.0"],
        "docs": DOCS,
        "dev": DEVELOPMENT,
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
