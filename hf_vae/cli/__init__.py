"""
The commands: `hf-vae train`, `evaluate`, `generate`, `chat` and `explore`, which are `examples/train_*.py`, `evaluate.py` and so on
too, and `export-vllm`. What they need beyond the package is imported below here and nowhere else.
"""

from importlib.util import find_spec

# Modules, with the packages that bring them. TensorBoard is the Trainer's to ask for.
_NEEDED = {"matplotlib": "matplotlib", "yaml": "PyYAML"}
_MISSING = [package for module, package in _NEEDED.items() if find_spec(module) is None]
if _MISSING:
    raise ImportError(f"The commands of hf_vae need {' and '.join(_MISSING)}: install them with `pip install 'hf_vae[cli]'`.")
