"""
Train a sentence VAE (Bowman et al. 2015; Optimus, Li et al. 2020) with the plain Trainer.

Without arguments: offline, on the embedded grammar, a small model from scratch, in minutes.

    accelerate launch examples/train_vae.py

From a recipe, on your own sentences (text lines, JSON lines, CSV, or a dataset's name), a model of the recipe's size from scratch:

    accelerate launch examples/train_vae.py examples/recipes/bowman_ptb.yaml \
        --train_file train.txt --validation_file validation.txt --test_file test.txt --output_dir outputs/bowman_ptb

Between pretrained models, with the defaults of a recipe (without the two names: a small model from scratch):

    accelerate launch examples/train_vae.py \
        --encoder_name_or_path bert-base-cased --decoder_name_or_path gpt2 \
        --train_file train.txt --validation_file validation.txt --output_dir outputs/vae-bert-gpt2

Optimus, whose network and objective are all said, in a file:

    accelerate launch examples/train_vae.py examples/recipes/optimus_ptb.yaml \
        --train_file train.txt --validation_file validation.txt --test_file test.txt --output_dir outputs/optimus

`--help` lists the arguments in groups; every argument of `TrainingArguments` works too. A YAML or JSON file of arguments may come
first; what follows overrides it.
`hf-vae train vae` is the same command.
"""

from commands import run

if __name__ == "__main__":
    run("train vae")
