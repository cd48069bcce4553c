"""Every option of the commands stands under its name on a page, and so the site's search finds it."""

import os

from options_page import PAGE, all_options, page


def test_the_page_of_options_is_that_of_the_commands():
    """`WRITE_OPTIONS=1 python -m pytest tests/docs/test_options_page.py` writes it."""
    if os.environ.get("WRITE_OPTIONS"):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page()


def test_options_that_users_look_for_are_on_it():
    """Found by their own names: of the model, of a technique, of a stage, and of the other commands."""
    found = all_options()
    for command, names in {
        "train": ["latent_size", "free_bits", "kl_schedule_options", "latent_free_steps", "lora", "given", "pairing"],
        "evaluate": ["file", "importance_samples"],
        "generate": ["output", "num_outputs", "source_column", "block_size"],
        "chat": ["num_replies"],
    }.items():
        assert set(names) <= set(found[command]), command
    written = PAGE.read_text(encoding="utf-8")
    assert all(f"#### `--{name}`\n" in written for options in found.values() for name in options)
