"""
Train a conditional VAE (Sohn et al. 2015) with the plain Trainer: recognition network q(z|x,y), prior network p(z|x), generation
network p(y|x,z).

Without arguments: offline, on embedded dialogues, where many replies to a context are right; a small model from scratch, minutes.

    accelerate launch examples/train_cvae.py

On your own pairs of a context and its targets (JSON lines, CSV, or a dataset's name):

    accelerate launch examples/train_cvae.py \
        --encoder_name_or_path bert-base-uncased --decoder_name_or_path gpt2 \
        --train_file train.jsonl --validation_file validation.jsonl --output_dir outputs/cvae-bert-gpt2

On texts to complete, of whose words the first quarter is given, from a recipe:

    accelerate launch examples/train_cvae.py examples/recipes/sohn_captions.yaml --given 0.25 \
        --train_file train.jsonl --validation_file validation.jsonl --test_file test.jsonl --output_dir outputs/captions

`--help` lists the arguments in groups; every argument of `TrainingArguments` works too. A YAML or JSON file of arguments may come
first; what follows overrides it.
`hf-vae train cvae` is the same command.
"""

from commands import run

if __name__ == "__main__":
    run("train cvae")
