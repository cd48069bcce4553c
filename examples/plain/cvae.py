"""
A conditional VAE with a prior that reads the source (Sohn et al. 2015): train it, compare its likelihoods, answer several times.

    python examples/plain/cvae.py      (train.jsonl and test.jsonl, with a "source" and its "targets" in each line)
"""

from datasets import Dataset
from transformers import AutoTokenizer, Trainer, TrainingArguments

from hf_vae import CVAEModel, CVAEProcessor, KLAnnealingCallback, VAEDataCollator
from hf_vae.data import expand_targets, load_pairs
from hf_vae.evaluation import LikelihoodEvaluator, collapse_report, evaluate_vae
from hf_vae.training import ConstantSchedule, fit_conditional_prior, train_without_latent, two_rates

# 1. The model: q(z|x,y) and p(y|x,z); the prior network p(z|x) comes last, because one that learns together with q may come so
# close to it that z says nothing. z has a short way to the words, and batch norm keeps the KL from falling to 0.
encoder, decoder = "google-bert/bert-base-uncased", "openai-community/gpt2"
keeps_z = {"latent_injection": "logits", "batch_norm_gamma": 0.9, "pooling": "target"}
model = CVAEModel.from_encoder_decoder_pretrained(encoder, decoder, latent_size=32, prior_type="standard", **keeps_z)
processor = CVAEProcessor(AutoTokenizer.from_pretrained(decoder), AutoTokenizer.from_pretrained(encoder))

# 2. The data: what is given, and what is to follow.
pairs = expand_targets(load_pairs("train.jsonl"))
lengths = {"max_length": 64, "max_target_length": 32}
features = processor(pairs["source"], pairs["target"], return_tensors=None, **lengths)
train = Dataset.from_dict(dict(features))

# 3. Train with the plain Trainer. First the decoder without z; then z around it, at a higher rate, for its weights are all new,
# and on rows that the decoder has not seen: of those that it knows, z has little to say; at last p(z|x) takes the place of N(0, I)
# and learns where q puts z.
training_args = TrainingArguments(
    "outputs/plain_cvae",
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

# 4. Is z used? The conditional likelihood by importance sampling and by Monte Carlo over the prior, both in nats per target.
test = load_pairs("test.jsonl")[:200]
first_targets = [targets[0] for targets in test["targets"]]
evaluator = LikelihoodEvaluator(model, processor, test["source"], first_targets, **lengths)
metrics = evaluate_vae(evaluator, importance_samples=50)
print(collapse_report(metrics))
print(f"-log p(y|x): {metrics['iw_nll']:.2f} by importance sampling, {metrics['mc_nll']:.2f} by Monte Carlo")

# 5. Use it: one source, five draws from p(z|x); and one text under the mean over fifty draws.
inputs = processor(test["source"][0], max_length=64)
several = model.generate(**inputs, num_return_sequences=5, do_sample=False, max_new_tokens=32)
print(f"\n{test['source'][0]}", *processor.batch_decode(several, skip_special_tokens=True), sep="\n  ")
mean = model.generate(**inputs, average_latents=50, do_sample=False, max_new_tokens=32)
print("Under the mean over z:", *processor.batch_decode(mean, skip_special_tokens=True))

# 6. Save it.
model.generation_config.max_new_tokens = 32
model.save_pretrained("outputs/plain_cvae")
processor.save_pretrained("outputs/plain_cvae")
