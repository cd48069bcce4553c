"""Where the demo models lie."""

from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = ("sentences", "paraphrase")


def demo(name: str) -> str:
    """
    The folder of a small trained model that comes with the package, for `from_pretrained` and for `pipeline`:

    ```python
    import hf_vae
    from transformers import AutoModel, AutoProcessor

    model = AutoModel.from_pretrained(hf_vae.demo("paraphrase"))
    processor = AutoProcessor.from_pretrained(hf_vae.demo("paraphrase"))
    ```

    Args:
        name (`str`): `"sentences"`, a [`VAEModel`] of sentences, or `"paraphrase"`, a [`ParaphraseVAEModel`]. Both know the words
            of the embedded grammar ([`hf_vae.data.grammar`]) and no others.

    Returns:
        `str`: the folder's path.

    Raises:
        ValueError: there is no demo of this name.
    """
    if name not in NAMES:
        raise ValueError(f"There is no demo {name!r}; choose one of {', '.join(NAMES)}.")
    return str(FOLDER / name)


__all__ = ["demo"]
