"""
A VAE of sentences between BERT and GPT-2: train it, see whether z is used, use it.

    python examples/plain/sentence_vae.py      (a sentence in each line of train.txt and test.txt)
"""

from datasets import Dataset
from transformers import AutoTokenizer, Trainer, TrainingArguments

from hf_vae import KLAnnealingCallback, VAEDataCollator, VAEModel, VAEProcessor
from hf_vae.data import load_texts
from hf_vae.evaluation import LikelihoodEvaluator, collapse_report, evaluate_vae
from hf_vae.latent_space import interpolate, sample_prior
from hf_vae.training import ConstantSchedule, train_without_latent, two_rates

# 1. The model: any encoder, any causal language model, and a latent of 32 dimensions between them. A decoder that knows the
# language needs z least, so z has a short way to the words, and batch norm keeps the KL from falling to 0.
encoder, decoder = "google-bert/bert-base-cased", "openai-community/gpt2"
keeps_z = {"latent_injection": "logits", "batch_norm_gamma": 0.9}
model = VAEModel.from_encoder_decoder_pretrained(encoder, decoder, latent_size=32, **keeps_z)
processor = VAEProcessor(AutoTokenizer.from_pretrained(decoder), AutoTokenizer.from_pretrained(encoder))

# 2. The data: the encoder reads a sentence, and the same sentence is the decoder's target.
train, test = load_texts("train.txt"), load_texts("test.txt")[:500]
features = processor(train, train, max_length=48, max_target_length=48, return_tensors=None)
rows = Dataset.from_dict(dict(features))

# 3. Train with the plain Trainer. First the decoder without z; then z around it, at a higher rate, for its weights are all new,
# and on rows that the decoder has not seen: of those that it knows, z has little to say. The callback logs reconstruction and KL in
# nats per sentence.
training_args = TrainingArguments(
    "outputs/sentence_vae",
    num_train_epochs=1,
    per_device_train_batch_size=32,
    # Batch norm wants batches of one size.
    dataloader_drop_last=True,
    learning_rate=1e-4,
    lr_scheduler_type="cosine",
    warmup_steps=20,
    logging_steps=10,
    save_strategy="no",
    report_to="none",
)
split = rows.train_test_split(0.3, seed=0)
train_without_latent(model, processor, training_args, "latent_free", training_args.max_steps, split["train"])
model.decoder.lm.requires_grad_(False)
trainer = Trainer(
    model,
    training_args,
    train_dataset=split["test"],
    data_collator=VAEDataCollator(processor),
    optimizers=two_rates(model, training_args, 3e-3),
    callbacks=[KLAnnealingCallback(ConstantSchedule())],
)
trainer.train()

# 4. Is z used? Bounds on the likelihood, what z says of a sentence, what another sentence's z costs, and a verdict in words.
evaluator = LikelihoodEvaluator(model, processor, test, test, max_length=48, max_target_length=48)
metrics = evaluate_vae(evaluator, importance_samples=20)
print(collapse_report(metrics))
print(f"NLL at most {metrics['iw_nll']:.1f} nats a sentence, KL {metrics['kl']:.1f}")

# 5. Use it: new sentences, and the sentences between two.
print("\nFrom the prior:", *sample_prior(model, processor, num_samples=3, max_new_tokens=48).texts, sep="\n  ")
print("\nBetween two:", *interpolate(model, processor, test[0], test[1], steps=5, max_new_tokens=48).texts, sep="\n  ")

# 6. Save it. `model.push_to_hub("you/sentence-vae")` and `processor.push_to_hub(...)` share it.
model.generation_config.max_new_tokens = 48
model.save_pretrained("outputs/sentence_vae")
processor.save_pretrained("outputs/sentence_vae")
