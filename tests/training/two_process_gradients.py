"""
One optimiser step and one evaluation, run by `test_trainer.py` with one and with two processes.

    torchrun --standalone --nproc_per_node 2 two_process_gradients.py OUTPUT BATCH_SIZE_PER_PROCESS
"""

import sys
from pathlib import Path

import torch
from accelerate import PartialState

from helpers import gradients_of, make_model, noise_of_the_mean, resized, trainer_for
from hf_vae import DiagonalGaussian, KLAnnealingCallback, ParaphraseVAEProcessor
from hf_vae.cli.from_scratch import train_tokenizers
from hf_vae.evaluation import LikelihoodEvaluator, generate_texts

DiagonalGaussian.sample = noise_of_the_mean

output, batch_size = sys.argv[1], int(sys.argv[2])
texts = ["the cat sat on the mat", "a dog ran in the park", "the mat", "a park", "the dog sat"]
processor = ParaphraseVAEProcessor(*train_tokenizers(texts, 300))
model = resized(make_model("paraphrase-prompt"), processor)
trainer = trainer_for(
    model,
    processor,
    Path(output).parent,
    [KLAnnealingCallback()],
    per_device_train_batch_size=batch_size,
    max_grad_norm=1e9,
)
gradients = gradients_of(model, trainer)
# Evaluate the first weights, which do not depend on how a step was summed.
model = resized(make_model("paraphrase-prompt"), processor)
evaluator = LikelihoodEvaluator(model, processor, texts, texts[::-1], batch_size=2)
nll = evaluator.nll(torch.ones(5, 3, 4))
generated = generate_texts(model, processor, texts, num_return_sequences=3, batch_size=2, max_new_tokens=5, do_sample=False)
assert PartialState().num_processes == 8 // batch_size
if PartialState().is_main_process:
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    torch.save({"gradients": gradients, "log": log, "nll": nll, "texts": generated}, output)
PartialState().wait_for_everyone()
