"""
Paraphrases from one latent each (VAE-SVG, Gupta et al. 2018): train it, see whether z is used, paraphrase a sentence.

    python examples/plain/paraphrase.py      (train.jsonl and test.jsonl, with a "source" and its "targets" in each line)
"""

from datasets import Dataset
from transformers import AutoTokenizer, Trainer, TrainingArguments

from hf_vae import KLAnnealingCallback, ParaphraseVAEModel, ParaphraseVAEProcessor, VAEDataCollator
from hf_vae.data import expand_targets, load_pairs
from hf_vae.evaluation import LikelihoodEvaluator, collapse_report, evaluate_vae, generate_texts, paraphrase_metrics
from hf_vae.training import ConstantSchedule, fit_conditional_prior, train_without_latent, two_rates

# 1. The model: q(z|x,y) reads a sentence and its paraphrase, p(y|x,z) reads the sentence as its prompt, and p(z) is N(0, I). A
# decoder that knows the language needs z least, so z has a short way to the words, and batch norm keeps the KL from falling to 0.
encoder, decoder = "google-bert/bert-base-uncased", "openai-community/gpt2"
keeps_z = {"latent_injection": "logits", "batch_norm_gamma": 0.9, "pooling": "target"}
model = ParaphraseVAEModel.from_encoder_decoder_pretrained(encoder, decoder, latent_size=32, **keeps_z)
processor = ParaphraseVAEProcessor(AutoTokenizer.from_pretrained(decoder), AutoTokenizer.from_pretrained(encoder))

# 2. The data: a row for each target of a source. `labels` are the target, which ends with EOS.
pairs = expand_targets(load_pairs("train.jsonl"))
lengths = {"max_length": 32, "max_target_length": 32}
train = Dataset.from_dict(dict(processor(pairs["source"], pairs["target"], return_tensors=None, **lengths)))

# 3. Train with the plain Trainer. First the decoder without z; then z around it, at a higher rate, for its weights are all new,
# and on rows that the decoder has not seen: of those that it knows, z has little to say; at last p(z|x) takes the place of N(0, I)
# and learns where q puts z.
training_args = TrainingArguments(
    "outputs/paraphrase",
    num_train_epochs=1,
    per_device_train_batch_size=32,
    dataloader_drop_last=True,
    learning_rate=1e-4,
    lr_scheduler_type="cosine",
    warmup_steps=20,
    logging_steps=10,
    save_strategy="no",
    report_to="none",
)
split = train.train_test_split(0.3, seed=0)
train_without_latent(model, processor, training_args, "latent_free", training_args.max_steps, split["train"])
model.decoder.lm.requires_grad_(False)
new_rate = 3e-3
trainer = Trainer(
    model,
    training_args,
    train_dataset=split["test"],
    data_collator=VAEDataCollator(processor),
    optimizers=two_rates(model, training_args, new_rate),
    callbacks=[KLAnnealingCallback(ConstantSchedule())],
)
trainer.train()
fit_conditional_prior(model, processor, training_args, 300, split["test"], new_weights_learning_rate=new_rate)

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
