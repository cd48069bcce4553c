"""
Train a dialogue CVAE (Zhao et al. 2017) with the plain Trainer: one context, many replies. With acts it is the knowledge-guided
form.

Without arguments: offline, on embedded dialogues, where the right replies to a context and their acts are known; a small model
from scratch, minutes.

    accelerate launch examples/train_dialog.py

On your own dialogues (JSON lines with `turns` of `speaker`, `text` and, for `--knowledge_guided`, `act`; or a dataset's name):

    accelerate launch examples/train_dialog.py \
        --encoder_name_or_path bert-base-uncased --decoder_name_or_path gpt2 \
        --train_file train.jsonl --validation_file validation.jsonl --output_dir outputs/dialog-bert-gpt2

From a recipe, here the paper's own network:

    accelerate launch examples/train_dialog.py examples/recipes/kgcvae_switchboard.yaml \
        --train_file train.jsonl --validation_file validation.jsonl --test_file test.jsonl --output_dir outputs/switchboard

`--help` lists the arguments in groups; every argument of `TrainingArguments` works too. A YAML or JSON file of arguments may come
first; what follows overrides it.
`hf-vae train dialog` is the same command.
"""

from commands import run

if __name__ == "__main__":
    run("train dialog")
