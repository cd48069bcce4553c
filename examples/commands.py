"""
The door of the commands, which the scripts beside this file go through. It is loaded by its place: `import hf_vae` would import
torch, for which `--help` need not wait.
"""

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

package = find_spec("hf_vae")
if package is None:
    raise SystemExit("hf_vae is not installed: run `pip install -e '.[cli]'` in the folder of the repository.")
spec = spec_from_file_location("hf_vae_command", Path(package.origin).parent / "options" / "__init__.py")
sys.modules[spec.name] = module_from_spec(spec)
spec.loader.exec_module(sys.modules[spec.name])

from hf_vae_command.door import run  # noqa: E402

__all__ = ["run"]
