"""
Write texts from their embeddings alone, of any embedder (Morris et al. 2023): q(z|vector), and a decoder that reads z.

Without arguments: offline, on the embedded grammar, with an embedder that is trained in the first minute and then frozen.

    accelerate launch examples/embedding_to_text.py

On your own sentences and with your own embedder, a folder or a Hub id such as sentence-transformers/all-MiniLM-L6-v2:

    accelerate launch examples/embedding_to_text.py examples/recipes/embedding_to_text_captions.yaml \
        --embedder all-MiniLM-L6-v2 --train_file train.jsonl --test_file test.jsonl --output_dir outputs/captions

All arguments of `TrainingArguments` work too. A YAML file of arguments may come first; what follows overrides it.
"""

import random
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import AutoModel, HfArgumentParser, Trainer, TrainingArguments, set_seed

from hf_vae import KLAnnealingCallback, VAEConfig, VAEDataCollator, VAEModel, VAEProcessor
from hf_vae.cli.from_scratch import small_configs, train_tokenizers
from hf_vae.cli.recipe import read_recipe
from hf_vae.data import embed_texts, grammar, load_texts
from hf_vae.encoders import read_vector
from hf_vae.evaluation import TextEmbedder, inversion_metrics, metrics_table
from hf_vae.hub import write_metrics
from hf_vae.latent_space import invert
from hf_vae.training import ConstantSchedule

# The defaults of `TrainingArguments` here.
DEFAULTS = {
    "output_dir": "outputs/embedding_to_text", "max_steps": 1000, "per_device_train_batch_size": 64, "learning_rate": 2e-3,
    "adam_beta2": 0.98, "lr_scheduler_type": "cosine", "warmup_steps": 100, "logging_steps": 100, "save_strategy": "no",
    "report_to": "none", "seed": 0,
}  # fmt: skip


@dataclass
class Arguments:
    """Data, embedder and model. Without a `train_file` all of it is the embedded grammar's."""

    train_file: str | None = None
    test_file: str | None = None
    text_column: str = "text"
    max_train_samples: int = 20_000
    max_test_samples: int = 300
    max_length: int = 32
    embedder: str | None = None
    embedder_steps: int = 600
    vectors_dir: str | None = None
    tokenizer_type: str = "word"
    vocab_size: int = 1000
    hidden_size: int = 128
    decoder_layers: int = 1
    dropout: float = 0.0
    latent_size: int = 128
    kl_weight: float = 0.02
    bow_loss_weight: float = 1.0
    num_candidates: int = 8


def train_embedder(folder: str, texts: list[str], config, tokenizer, steps: int) -> None:
    """A small encoder whose mean, of length 1, tells what a sentence of the grammar says and how. No decoder takes part."""
    encoder = AutoModel.from_config(config, add_pooling_layer=False)
    parses = [grammar.parse(text) for text in texts]
    columns = list(zip(*((*parse.meaning, *parse.form) for parse in parses)))
    choices = [sorted(set(column), key=str) for column in columns]
    factors = torch.tensor([[each.index(value) for value in column] for each, column in zip(choices, columns)])
    heads = torch.nn.Linear(config.hidden_size, sum(map(len, choices)))
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    optimizer = torch.optim.AdamW([*encoder.parameters(), *heads.parameters()], lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(texts), (64,))
        vectors = read_vector("input_ids", encoder, "mean", inputs["input_ids"][rows], inputs["attention_mask"][rows])
        scores = heads(config.hidden_size**0.5 * torch.nn.functional.normalize(vectors, dim=-1)).split([*map(len, choices)], -1)
        loss = sum(torch.nn.functional.cross_entropy(each, true[rows]) for each, true in zip(scores, factors))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(f"The embedder tells the factors of a sentence with {loss.item():.2f} nats left.")


def main(argv: list[str]) -> dict[str, float]:
    """Trains, measures and saves; gives the metrics."""
    # 1. The arguments: those of a file, if it comes first, and then those of the command line.
    parser = HfArgumentParser((Arguments, TrainingArguments))
    parser.set_defaults(**DEFAULTS)
    if argv and argv[0].endswith((".yaml", ".yml")):
        parser.set_defaults(**read_recipe(argv[0], parser))
        argv = argv[1:]
    args, training_args = parser.parse_args_into_dataclasses(argv)
    if (args.train_file is None) != (args.embedder is None) or (args.train_file is None) != (args.test_file is None):
        raise SystemExit("Give --train_file, --test_file and --embedder together, or none of them for the embedded grammar.")
    set_seed(training_args.seed)
    output_dir = Path(training_args.output_dir)

    # 2. The texts, as the decoder's vocabulary spells them, and a small decoder from scratch.
    if args.train_file is None:
        sentences = grammar.draw_sentences(args.max_train_samples + args.max_test_samples, training_args.seed)
        test, train = sentences[: args.max_test_samples], sentences[args.max_test_samples :]
    else:
        train, test = (load_texts(file, text_column=args.text_column) for file in (args.train_file, args.test_file))
        train = train[: args.max_train_samples]
        # A file may be sorted, and its first texts are then unlike the others.
        test = random.Random(training_args.seed).sample(test, min(args.max_test_samples, len(test)))
    tokenizer, encoder_tokenizer = train_tokenizers(train, args.vocab_size, args.tokenizer_type)
    train, test = ([tokenizer.decode(ids) for ids in tokenizer(texts)["input_ids"]] for texts in (train, test))
    sizes = {"hidden_size": args.hidden_size, "decoder_layers": args.decoder_layers, "dropout": args.dropout}
    encoder_config, decoder_config = small_configs(tokenizer, **sizes)

    # 3. The embedder, which stays as it is from here on, and the vectors, which are computed once.
    if args.embedder is None:
        args.embedder = str(output_dir / "embedder")
        with PartialState().main_process_first():
            if PartialState().is_main_process:
                train_embedder(args.embedder, train, encoder_config, encoder_tokenizer, args.embedder_steps)
    embedder = TextEmbedder(args.embedder, normalize=True)
    with PartialState().main_process_first():
        vectors = embed_texts(train, embedder, None if args.vectors_dir is None else Path(args.vectors_dir) / "train")
    given = embedder(test)

    # 4. The model: no encoder, q(z|vector) and p(y|z). A vector says almost all of its text, so the KL is charged for little.
    size = embedder.fingerprint.size
    config = VAEConfig(
        decoder=decoder_config,
        embedding_size=size,
        normalize_embeddings=True,
        latent_size=args.latent_size,
        bow_loss_weight=args.bow_loss_weight,
    )
    model, processor = VAEModel(config), VAEProcessor(tokenizer, embedding_size=size)
    with torch.no_grad():
        # q begins narrow, so that the decoder hears what the vector says from the first step on.
        model.posterior_head.linear.bias[args.latent_size :] = -4.0
    rows = vectors.map(
        lambda batch: dict(
            processor(
                embeddings=batch["embedding"], text_target=batch["text"], max_target_length=args.max_length, return_tensors=None
            )
        ),
        batched=True,
        remove_columns=vectors.column_names,
    )

    # 5. Train with the plain Trainer.
    trainer = Trainer(
        model,
        training_args,
        train_dataset=rows,
        data_collator=VAEDataCollator(processor),
        callbacks=[KLAnnealingCallback(ConstantSchedule(args.kl_weight))],
    )
    trainer.train()

    # 6. Write the held-out texts from their vectors. Of several candidates the one is taken whose vector is nearest.
    options = {"num_candidates": args.num_candidates, "seed": training_args.seed, "max_new_tokens": args.max_length}
    inverted = invert(model, processor, given, embedder=embedder, **options)
    metrics = inversion_metrics(inverted.candidates, test, given, embedder)
    if PartialState().is_main_process:
        for text, written in list(zip(test, inverted.texts))[:5]:
            print(f"given the vector of: {text}\n            written: {written}")
        print(metrics_table(metrics))

        # 7. Save all of it. `model.push_to_hub(...)` and `processor.push_to_hub(...)` share it.
        model.generation_config.max_new_tokens = args.max_length
        model.save_pretrained(output_dir)
        processor.save_pretrained(output_dir)
        write_metrics(metrics, output_dir / "metrics.json")
    return metrics


if __name__ == "__main__":
    main(sys.argv[1:])
