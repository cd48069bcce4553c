"""
Generate several texts for each row of a file, each with a z of its own.

    accelerate launch examples/generate.py outputs/paraphrase --file sources.jsonl --num_outputs 10 --output outputs.jsonl

The output has a row for each source, in their order: `source`, `outputs`, `seed`, and `nats`, which is -log p(y|x,z) of each.
The sources are a text file of one a line, or the column `source` or `text` of JSON lines, CSV or TSV. A VAE writes each text again,
with z from its posterior. A dialogue model reads rows of `turns`, and replies to the last one.

The same command given again goes on where it was stopped, on any number of processes:

    accelerate launch --num_processes 4 examples/generate.py outputs/paraphrase --file sources.jsonl --num_outputs 10 \
        --output outputs.jsonl
"""

from commands import run

if __name__ == "__main__":
    run("generate")
