"""
The commands: `hf-vae train`, `hf-vae evaluate` and `hf-vae chat`, which are `examples/train_*.py`, `evaluate.py` and `chat.py`
too, and `hf-vae export-vllm`. What they need beyond the package is imported below here and nowhere else.
"""

from importlib.util import find_spec

# Modules, with the packages that bring them. TensorBoard is the Trainer's to ask for.
_NEEDED = {"matplotlib": "matplotlib", "yaml": "PyYAML"}
_MISSING = [package for module, package in _NEEDED.items() if find_spec(module) is None]
if _MISSING:
    raise ImportError(f"The commands of hf_vae need {' and '.join(_MISSING)}: install them with `pip install 'hf_vae[cli]'`.")
