"""`python -m hf_vae.cli` is the console script."""

from ..options.door import main

if __name__ == "__main__":
    main()
