"""How `--help` presents the arguments: in groups, with the values that an argument may have."""

from __future__ import annotations

# Titles with the names of arguments, in the order of the help. Those that a command lacks are left out.
GROUPS: dict[str, tuple[str, ...]] = {
    "Model and texts": ("model_name_or_path", "model", "directory", "dtype", "file", "split", "output"),
    "Data": (
        "train_file", "validation_file", "test_file", "text_column", "source_column", "target_column", "meta_columns", "given",
        "pairing", "max_train_samples", "max_samples", "max_length", "max_source_length", "max_target_length", "max_turns",
        "max_turn_length", "encoding", "quoting", "streaming", "shuffle_buffer", "first_rows", "own_data", "grammar_sentences",
        "grammar_pairs", "num_dialogues",
    ),
    "Encoder, decoder and z": (
        "encoder_name_or_path", "decoder_name_or_path", "latent_size", "num_latents", "latent_injection", "latent_placement",
        "prefix_length", "pooling", "posterior_bias", "decoder_start_token",
    ),
    "How the source is read, and the prior": (
        "source_conditioning", "prompt_template", "use_chat_template", "tie_encoders", "prior_type", "prior_regularization",
        "prior_fit_steps", "source_noise", "objective", "hybrid_alpha", "context_encoding", "knowledge_guided",
        "act_embedding_size", "act_hidden_size", "meta_embedding_size",
    ),
    "Against posterior collapse": (
        "free_bits", "free_bits_per", "batch_norm_gamma", "latent_free_steps", "soft_token_fit_steps", "decoder_fit_steps",
        "freeze_decoder_with_latent", "bow_loss_weight", "bow_schedule", "bow_schedule_options", "word_dropout", "kl_schedule",
        "kl_schedule_options", "capacity", "minimum_rate", "token_noise", "aggressive_encoder", "decoder_reset_step",
        "encoder_pretraining_steps", "posterior_fit_steps",
    ),
    "Pretrained parts": (
        "freeze_encoder", "freeze_decoder", "save_trained_only", "cache_encoder", "lora", "new_weights_learning_rate",
    ),
    "Parts from scratch": (
        "encoder_type", "decoder_type", "hidden_size", "embedding_size", "encoder_layers", "decoder_layers",
        "num_attention_heads", "initializer_range", "dropout", "recurrent_dropout", "tie_word_embeddings",
        "tokenizer_type", "vocab_size",
    ),
    "Generating and measuring": (
        "max_test_samples", "importance_samples", "refine_steps", "num_outputs", "num_paraphrases", "latent_source",
        "latent_temperature", "latent_spread", "max_new_tokens", "num_beams", "do_sample", "temperature", "top_k", "top_p",
        "with_baseline", "collapse_report_samples", "metrics_tokenizer", "word_vectors", "language_model", "language_model_nll",
        "batch_size", "block_size", "chunk", "output_file", "compare_with", "plot_file",
    ),
    "Quality against diversity": (
        "frontier", "frontier_baseline", "frontier_outputs", "frontier_embedder", "frontier_plot",
    ),
    "Run": ("num_replies", "max_points", "port", "open_browser", "seed", "overwrite_output_dir", "overwrite"),
}  # fmt: skip
# The arguments of `TrainingArguments` that are asked for most, with their defaults and what they are.
TRAINING: dict[str, tuple[object, str]] = {
    "output_dir": (None, "Folder of the model, its card, its metrics and its pictures."),
    "max_steps": (-1, "Optimiser steps of the training with z; -1: as many as --num_train_epochs has."),
    "num_train_epochs": (3.0, "Passes over the training set, if --max_steps is not given."),
    "per_device_train_batch_size": (8, "Examples in a batch."),
    "gradient_accumulation_steps": (1, "Batches to an optimiser step."),
    "learning_rate": (5e-5, "The highest learning rate."),
    "lr_scheduler_type": ("linear", "How the learning rate falls: linear, cosine, constant, ..."),
    "warmup_steps": (0, "Steps in which the learning rate rises."),
    "eval_strategy": ("no", "When to measure on the validation file: no, steps or epoch. The collapse report comes with it."),
    "save_strategy": ("steps", "When to keep a checkpoint: no, steps, epoch or best."),
    "save_steps": (500, "Steps between checkpoints."),
    "resume_from_checkpoint": (None, "A checkpoint's folder to go on from, or last."),
    "logging_steps": (500, "Steps between logs, which are the points of training.png."),
    "report_to": ("none", "tensorboard, wandb and others."),
    "seed": (42, "Random seed."),
    "bf16": (False, "Compute in bfloat16."),
    "use_cpu": (False, "Leave an accelerator alone."),
    "gradient_checkpointing": (False, "Less memory, more time."),
    "disable_tqdm": (False, "No progress bars."),
    "push_to_hub": (False, "Upload the finished model."),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "encoder_type": ("bert", "lstm"),
    "decoder_type": ("llama", "gpt2", "lstm"),
    "tokenizer_type": ("bpe", "word"),
    "latent_injection": ("embedding", "memory", "prefix", "logits"),
    "latent_placement": ("before_source", "after_source"),
    "pooling": ("mean", "target", "first", "pooler", "attention", "local_attention"),
    "free_bits_per": ("sentence", "vector", "dimension", "batch"),
    "kl_schedule": ("constant", "linear", "sigmoid", "tanh", "cyclical"),
    "bow_schedule": ("constant", "linear", "sigmoid", "tanh", "cyclical"),
    "latent_source": ("prior", "posterior", "fitted_prior"),
    "latent_spread": ("independent", "quasi_random", "repelled", "antithetic"),
    "source_conditioning": ("prompt", "cross_attention", "initial_state"),
    "prior_type": ("standard", "conditional", "flow"),
    "objective": ("cvae", "gsnn", "hybrid"),
    "pairing": ("targets", "both_ways", "all"),
    "context_encoding": ("flat", "hierarchical"),
    "quoting": ("minimal", "none"),
    "dtype": ("auto", "float32", "bfloat16", "float16"),
}
