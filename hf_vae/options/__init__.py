"""
What the commands may be told, and their help. Nothing in here imports torch or transformers, for which `--help` would have to wait.
The folder is installed by the name `hf_vae_command` too, by which Python does not pass `hf_vae/__init__.py`.
"""
