"""
Measure a trained VAE on a file of texts: likelihood bounds, perplexities, what z says and whether the decoder listens.

    accelerate launch examples/evaluate.py outputs/vae --file test.txt --output_file outputs/vae/metrics.json

A text file holds one sentence a line; JSON lines and CSV are read by column. A conditional model needs both columns:

    accelerate launch examples/evaluate.py outputs/paraphrase --file test.jsonl \
        --source_column source --target_column targets --importance_samples 500

and a dialogue model rows of `turns`, as examples/train_dialog.py reads them.

Beside a language model of the same size, which a VAE must beat for its z to be worth anything, and other models' figures:

    accelerate launch examples/evaluate.py outputs/vae --file test.txt --language_model outputs/language_model \
        --compare_with outputs/beta-0.5/metrics.json outputs/beta-0.1/metrics.json --plot_file rate_distortion.png

Quality against diversity of several outputs for each source, beside the model that `--with_baseline` trained without z:

    accelerate launch examples/evaluate.py outputs/paraphrase --file test.jsonl --frontier \
        --frontier_baseline outputs/paraphrase/baseline --frontier_plot frontier.svg
"""

from commands import run

if __name__ == "__main__":
    run("evaluate")
