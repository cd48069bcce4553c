"""
Paraphrases from one latent each (VAE-SVG, Gupta et al. 2018): train it, see whether z is used, paraphrase a sentence.

    python examples/plain/paraphrase.py      (train.jsonl and test.jsonl, with a "source" and its "targets" in each line)
"""

from datasets import Dataset
from transformers import AutoTokenizer, Trainer, TrainingArguments

from hf_vae import KLAnnealingCallback, ParaphraseVAEModel, ParaphraseVAEProcessor, VAEDataCollator
from hf_vae.data import expand_targets, load_pairs
from hf_vae.evaluation import LikelihoodEvaluator, collapse_report, evaluate_vae, generate_texts, paraphrase_metrics
from hf_vae.training import LinearSchedule

# 1. The model: q(z|x,y) reads a sentence and its paraphrase, p(y|x,z) reads the sentence as its prompt, and p(z) is N(0, I).
encoder, decoder = "google-bert/bert-base-uncased", "openai-community/gpt2"
model = ParaphraseVAEModel.from_encoder_decoder_pretrained(encoder, decoder, latent_size=32, batch_norm_gamma=0.7)
processor = ParaphraseVAEProcessor(AutoTokenizer.from_pretrained(decoder), AutoTokenizer.from_pretrained(encoder))

# 2. The data: a row for each target of a source. `labels` are the target, which ends with EOS.
pairs = expand_targets(load_pairs("train.jsonl"))
lengths = {"max_length": 32, "max_target_length": 32}
features = processor(pairs["source"], pairs["target"], return_tensors=None, **lengths)

# 3. Train with the plain Trainer.
trainer = Trainer(
    model,
    TrainingArguments(
        "outputs/paraphrase",
        num_train_epochs=1,
        per_device_train_batch_size=16,
        dataloader_drop_last=True,
        learning_rate=1e-4,
        warmup_steps=100,
        logging_steps=50,
        report_to="none",
    ),
    train_dataset=Dataset.from_dict(dict(features)),
    data_collator=VAEDataCollator(processor),
    callbacks=[KLAnnealingCallback(LinearSchedule(steps=500))],
)
trainer.train()

# 4. Is z used? A decoder that has the source may do without z: then all its paraphrases are one text.
test = load_pairs("test.jsonl")[:200]
first_targets = [targets[0] for targets in test["targets"]]
evaluator = LikelihoodEvaluator(model, processor, test["source"], first_targets, **lengths)
print(collapse_report(evaluate_vae(evaluator, importance_samples=20)))

# 5. Use it: five z for each source, each decoded greedily. Quality, and how much the five differ.
options = {"num_return_sequences": 5, "do_sample": False, "max_new_tokens": 32}
outputs = generate_texts(model, processor, test["source"], **options)
scores = paraphrase_metrics(test["source"], outputs, test["targets"])
print({name: round(scores[name], 1) for name in ("bleu", "best_bleu", "self_bleu", "copy_bleu")})
print(f"\n{test['source'][0]}", *outputs[0], sep="\n  ")

# 6. Save it.
model.generation_config.max_new_tokens = 32
model.save_pretrained("outputs/paraphrase")
processor.save_pretrained("outputs/paraphrase")
