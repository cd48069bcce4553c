"""
Train a paraphrase VAE (VAE-SVG, Gupta et al. 2018) with the plain Trainer.

Without arguments: offline, on the embedded grammar, a small model from scratch, in minutes.

    accelerate launch examples/train_paraphrase.py

From a recipe, on your own pairs (JSON lines, CSV, or a dataset's name), a model of the recipe's size from scratch:

    accelerate launch examples/train_paraphrase.py examples/recipes/paraphrase_captions.yaml \
        --train_file train.jsonl --validation_file validation.jsonl --test_file test.jsonl --output_dir outputs/captions

Between pretrained models, with the defaults of a recipe (without the two names: a small model from scratch):

    accelerate launch examples/train_paraphrase.py \
        --encoder_name_or_path bert-base-uncased --decoder_name_or_path gpt2 \
        --train_file train.jsonl --validation_file validation.jsonl --output_dir outputs/paraphrase-bert-gpt2

`--help` lists the arguments in groups; every argument of `TrainingArguments` works too. A YAML or JSON file of arguments may come
first; what follows overrides it.
`hf-vae train paraphrase` is the same command.
"""

from commands import run

if __name__ == "__main__":
    run("train paraphrase")
