"""
Replies with dialogue acts (kgCVAE, Zhao et al. 2017): train it, see whether z is used, reply several times and with a chosen act.

    python examples/plain/dialog.py      (train.jsonl and test.jsonl; a row has "turns" of "speaker", "text" and "act")
"""

from datasets import Dataset
from transformers import AutoTokenizer, Trainer, TrainingArguments

from hf_vae import DialogCVAEModel, DialogCVAEProcessor, DialogSession, KLAnnealingCallback, VAEDataCollator
from hf_vae.data import expand_targets, load_dialogs
from hf_vae.evaluation import LikelihoodEvaluator, collapse_report, evaluate_vae
from hf_vae.training import ConstantSchedule, fit_conditional_prior, train_without_latent, two_rates

# 1. The data: every turn is a reply to those before it.
rows = expand_targets(load_dialogs("train.jsonl"))
acts = sorted({context["act"] for context in rows["source"]})

# 2. The model: q(z|x,y), an act head p(a|x,z) and p(y|x,z,a); the prior network p(z|x) comes last, because one that learns together
# with q may come so close to it that z says nothing. z has a short way to the words, and batch norm keeps the KL from falling to 0.
encoder, decoder = "google-bert/bert-base-uncased", "openai-community/gpt2"
keeps_z = {"latent_injection": "logits", "batch_norm_gamma": 0.9, "pooling": "target"}
model = DialogCVAEModel.from_encoder_decoder_pretrained(
    encoder, decoder, latent_size=32, prior_type="standard", num_acts=len(acts), **keeps_z
)
processor = DialogCVAEProcessor(AutoTokenizer.from_pretrained(decoder), AutoTokenizer.from_pretrained(encoder), acts=acts)
lengths = {"max_length": 128, "max_target_length": 32}
features = processor(rows["source"], rows["target"], return_tensors=None, **lengths)
train = Dataset.from_dict(dict(features))

# 3. Train with the plain Trainer. First the decoder without z; then z around it, at a higher rate, for its weights are all new,
# and on rows that the decoder has not seen: of those that it knows, z has little to say; at last p(z|x) takes the place of N(0, I)
# and learns where q puts z. An act is a label too by its name, so the Trainer is told which ones to measure.
training_args = TrainingArguments(
    "outputs/plain_dialog",
    num_train_epochs=1,
    per_device_train_batch_size=32,
    dataloader_drop_last=True,
    learning_rate=1e-4,
    lr_scheduler_type="cosine",
    warmup_steps=20,
    logging_steps=10,
    save_strategy="no",
    label_names=["labels"],
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

# 4. Is z used?
test = expand_targets(load_dialogs("test.jsonl", max_rows=200))
evaluator = LikelihoodEvaluator(model, processor, list(test["source"]), list(test["target"]), **lengths)
print(collapse_report(evaluate_vae(evaluator, importance_samples=20)))

# 5. Use it: three replies from three z, then one that performs the act that is asked for.
model.generation_config.max_new_tokens = 32
session = DialogSession(model, processor)
session.say("hello , how are you ?")
for reply in session.replies(num_return_sequences=3, do_sample=False):
    print(f"  -> {reply.text}   ({reply.act})")
print(f"  -> {session.replies(act=acts[0], do_sample=False)[0].text}   (asked for: {acts[0]})")

# 6. Save it.
model.save_pretrained("outputs/plain_dialog")
processor.save_pretrained("outputs/plain_dialog")
