"""
Look at a latent space in the browser: a map, paths, sliders, outputs, what each word costs, and whether z is used.

    python examples/explore.py outputs/vae --file test.txt

The model is a directory or a name on the Hub; without one it is the packaged model of sentences. It needs
`pip install 'hf_vae[explorer]'`, and ends with Ctrl-C.
"""

from commands import run

if __name__ == "__main__":
    run("explore")
