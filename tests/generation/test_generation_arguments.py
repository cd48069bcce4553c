"""Arguments of `generate` and `forward` that cannot be meant are refused by name; those that can are right."""

import numpy
import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from families import DECODERS
from helpers import EOS, GREEDY, make_batch, make_model, tiny_gpt2_config, tiny_llama_config, tiny_lstm_config
from helpers import generation_inputs as inputs_of
from hf_vae import GaussianMixturePrior
from hf_vae.generation_options import REFUSED


@pytest.mark.parametrize("variant", ["dialog-acts", "dialog", "vae"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.float16, torch.float64])
def test_latents_of_another_dtype_are_the_same_numbers(variant, dtype):
    model = make_model(variant)
    batch = make_batch(model)
    latents = torch.tensor([[1.0, -1, 2, 0], [0, 0, 1, -2], [3, 1, 0, 1]])
    expected = model(**batch, latents=latents)
    found = model(**batch, latents=latents.to(dtype))
    torch.testing.assert_close(found.reconstruction_loss, expected.reconstruction_loss)
    inputs = inputs_of(batch)
    texts = model.generate(**inputs, latents=latents.to(dtype), return_dict_in_generate=True, **GREEDY)
    assert torch.equal(texts.sequences, model.generate(**inputs, latents=latents, **GREEDY))
    assert torch.equal(texts["latents"].float(), latents)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda z: z.tolist(), "`latents` is a list; give a tensor"),
        (lambda z: z.numpy(), "`latents` is a ndarray; give a tensor"),
        (lambda z: z > 0, "`latents` holds torch.bool"),
        (lambda z: z.to_sparse(), "`latents` is torch.sparse_coo; give a dense tensor"),
        (lambda z: z.to(torch.complex64), "`latents` holds torch.complex64"),
        (lambda z: z[0], r"`latents`.* has shape \(4,\)|`latents` has shape \(4,\)"),
        (lambda z: z[:0], r"`latents` has shape \(0, 4\)"),
    ],
)
def test_latents_that_are_none_are_refused(make, message):
    assert numpy  # what `Tensor.numpy` needs
    model = make_model("vae")
    batch = make_batch(model)
    latents = make(torch.randn(3, 4))
    with pytest.raises(ValueError, match=message):
        model(**batch, latents=latents)
    with pytest.raises(ValueError, match=message):
        model.generate(**inputs_of(batch), latents=latents, **GREEDY)


def test_latents_without_numbers_are_refused():
    with pytest.raises(ValueError, match="`latents` lies on the `meta` device"):
        make_model("vae").generate(latents=torch.ones(3, 4, device="meta"), **GREEDY)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_row_whose_latent_decodes_to_no_numbers_is_named(value):
    model = make_model("vae")
    latents = torch.randn(3, 4)
    latents[1, 2] = value
    with pytest.raises(ValueError, match=r"row\(s\) \[1\]"):
        model.generate(latents=latents, **GREEDY)
    with pytest.raises(ValueError, match=r"row\(s\) \[1\]"):
        model.generate(latents=latents, **{**GREEDY, "num_beams": 3})


@pytest.mark.parametrize(
    "variant, weight, options, message",
    [
        ("vae", "posterior_head.linear.weight", {}, "z from `latent_source='posterior'` is not finite"),
        ("cvae", "prior_network.head.linear.weight", {}, "z from `latent_source='prior'` is not finite"),
        ("vae", "decoder.lm.transformer.wte.weight", {"latent_source": "prior"}, "scores are NaN"),
    ],
)
def test_weights_of_nan_write_nothing(variant, weight, options, message):
    model = make_model(variant)
    model.get_parameter(weight).data[0] = float("nan")
    batch = make_batch(model)
    with pytest.raises(ValueError, match=message):
        model.generate(**inputs_of(batch), **options, **{**GREEDY, "suppress_tokens": None})


@pytest.mark.parametrize("variant", ["vae", "paraphrase-prompt", "cvae-cross", "dialog-acts", "dialog-lstm"])
def test_one_row_is_not_read_as_all_of_them(variant):
    model = make_model(variant)
    batch = make_batch(model)
    for name, tensor in batch.items():
        if name == "labels" or (variant == "paraphrase-prompt" and name == "attention_mask"):
            # Nothing reads the mask of a source that is the prompt.
            continue
        fewer = {**batch, name: tensor[:1]}
        with pytest.raises(ValueError, match=r"`\w+` has shape"):
            model(**fewer)
        if name in inputs_of(batch):
            with pytest.raises(ValueError, match=r"`\w+` has shape"):
                model.generate(**inputs_of(fewer), **GREEDY)
        elif name == "act_labels":
            with pytest.raises(ValueError, match="`act_labels`"):
                model.generate(**inputs_of(batch), act_labels=tensor[:1], **GREEDY)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda ids, mask: (ids, mask[:, :3]), r"`attention_mask` has shape \(3, 3\) and what it masks \(3, 7\)"),
        (lambda ids, mask: (ids[0], None), r"`input_ids` has shape \(7,\); expected \(batch, length\)"),
        (lambda ids, mask: (ids.float(), mask), "`input_ids` holds torch.float32"),
        (lambda ids, mask: (ids + 1000, mask), r"`input_ids` holds \[1000.*the vocabulary of BertConfig has 40 tokens"),
        (lambda ids, mask: (-ids - 1, mask), r"`input_ids` holds \[-"),
        (lambda ids, mask: (ids[:, :0], mask[:, :0]), r"`input_ids` has shape \(3, 0\)"),
        (lambda ids, mask: (ids[:0], mask[:0]), r"`input_ids` is of shape \(0, 7\); give a tensor with at least one row"),
        (lambda ids, mask: (ids.tolist(), None), "`input_ids` is a list"),
        (lambda ids, mask: (ids.flip(1), mask.flip(1)), r"`attention_mask` has padding in front of the tokens in row\(s\) \["),
    ],
)
def test_texts_that_are_none_are_refused(change, message):
    model = make_model("vae")
    batch = make_batch(model)
    ids, mask = change(batch["input_ids"], batch["attention_mask"])
    with pytest.raises(ValueError, match=message):
        model.generate(input_ids=ids, attention_mask=mask, **GREEDY)


@pytest.mark.parametrize("label", [-1, 40])
def test_labels_are_of_the_decoder_s_vocabulary(
    label,
):
    model = make_model("vae")
    batch = make_batch(model)
    batch["labels"][1, 0] = label
    with pytest.raises(ValueError, match=rf"`labels` holds \[{label}\]"):
        model(**batch)


def test_labels_and_latents_are_as_many():
    with pytest.raises(ValueError, match=r"`latents` has shape \(3, 4\); expected \(1, 4\)"):
        make_model("vae").decode(torch.randn(3, 4), torch.tensor([[5, EOS]]))


def test_what_is_known_of_a_dialogue_is_finite():
    model = make_model("dialog")
    inputs = inputs_of(make_batch(model))
    inputs["meta_values"][2] = float("nan")
    with pytest.raises(ValueError, match=r"`meta_values` is not finite in row\(s\) \[2\]"):
        model.generate(**inputs, **GREEDY)


@pytest.mark.parametrize("acts", [torch.tensor([0.5, 1, 2]), torch.tensor([True, False, True]), torch.tensor([[0], [1], [2]])])
def test_acts_are_whole_numbers(acts):
    model = make_model("dialog-acts")
    with pytest.raises(ValueError, match="`act_labels`"):
        model.generate(**inputs_of(make_batch(model)), act_labels=acts, **GREEDY)


def test_a_fitted_prior_is_one():
    model = make_model("vae")
    with pytest.raises(ValueError, match="`prior` is a int"):
        model.set_fitted_prior(3)
    with pytest.raises(ValueError, match="`prior` is over 7 dimensions"):
        model.set_fitted_prior(GaussianMixturePrior(2, 7))


@pytest.mark.parametrize("name", REFUSED)
def test_options_without_a_meaning_here_are_refused_by_name(name):
    model = make_model("paraphrase-prompt")
    with pytest.raises(ValueError, match=f"`{name}` has no place in this model's `generate`"):
        model.generate(**inputs_of(make_batch(model)), **GREEDY, **{name: 2})


def test_what_leaves_an_option_off_is_allowed():
    model = make_model("paraphrase-prompt")
    inputs = inputs_of(make_batch(model))
    latents = torch.randn(3, 4)
    off = {"token_healing": False, "guidance_scale": 1.0, "num_beam_groups": 1, "decoder_start_token_id": 1, "constraints": None}
    expected = model.generate(**inputs, latents=latents, **GREEDY)
    assert torch.equal(model.generate(**inputs, latents=latents, **GREEDY, **off), expected)


def test_what_the_language_model_begins_its_own_texts_with_is_not_taken_over():
    decoder = AutoModelForCausalLM.from_config(tiny_gpt2_config())
    decoder.generation_config.forced_bos_token_id = 7
    decoder.generation_config.top_k = 9
    model = make_model("vae")
    made = type(model)(model.config, decoder=decoder)
    assert made.generation_config.forced_bos_token_id is None and made.generation_config.top_k == 9
    assert decoder.generation_config.forced_bos_token_id == 7


@pytest.mark.parametrize(
    "options, message",
    [
        ({"generation_config": {}}, "`generation_config` is a dict; make a `GenerationConfig` of it"),
        ({"generator": 3}, "`generator` is a int; give one `torch.Generator`"),
        ({"generator": [torch.Generator()]}, "`generator` is a list; give one `torch.Generator`"),
        ({"num_return_sequences": 2.5}, "`num_return_sequences` is 2.5; it must be a whole number"),
        ({"num_return_sequences": "2"}, "`num_return_sequences` is '2'; it must be a whole number"),
        ({"num_return_sequences": True}, "`num_return_sequences` is True; it must be a whole number"),
        ({"num_beams": 0}, "`num_beams` is 0; it must be at least 1"),
        ({"max_new_tokens": "3"}, "`max_new_tokens` is '3'; it must be a whole number"),
        ({"max_new_tokens": 2.5}, "`max_new_tokens` is 2.5; it must be a whole number"),
        ({"latent_temperature": float("nan")}, "`latent_temperature` is nan; it must be a finite number, at least 0"),
        ({"latent_temperature": float("inf")}, "`latent_temperature` is inf"),
        ({"latent_temperature": True}, "`latent_temperature` is True"),
        ({"latent_temperature": "warm"}, "`latent_temperature` is 'warm'"),
        ({"stop_strings": ["a"]}, "`tokenizer`"),
        ({"max_new_tokens": None, "max_length": 1}, "`max_length` is 1; it must be at least 2"),
        ({"top_p": 2.0}, "`top_p` is 2.0; it must be a finite number, at least 0 and at most 1"),
        ({"top_p": float("nan")}, "`top_p` is nan"),
        ({"top_k": "5"}, "`top_k` is '5'; it must be a whole number"),
        ({"repetition_penalty": 0}, "`repetition_penalty` is 0.0; it must be a finite number, above 0"),
        ({"length_penalty": "2"}, "`length_penalty` is '2'; it must be a finite number"),
        ({"prefill_chunk_size": 0}, "`prefill_chunk_size` is 0; it must be at least 1"),
        ({"eos_token_id": "</s>"}, "`eos_token_id` is '</s>'; it must be a whole number"),
        ({"eos_token_id": [2, 2.5]}, "`eos_token_id` is 2.5; it must be a whole number"),
        ({"pad_token_id": -1}, "`pad_token_id` is -1; it must be at least 0"),
        ({"pad_token_id": 40}, "`pad_token_id` is 40, and the decoder's vocabulary has 40 tokens"),
    ],
)
def test_options_that_cannot_be_meant_are_named(options, message):
    model = make_model("paraphrase-prompt")
    with pytest.raises(ValueError, match=message):
        model.generate(**inputs_of(make_batch(model)), **{**GREEDY, "min_new_tokens": None, **options})


@pytest.mark.parametrize("scalar", [numpy.array, torch.tensor])
def test_numbers_of_numpy_and_torch_are_the_same_numbers(scalar):
    model = make_model("paraphrase-prompt")
    inputs = inputs_of(make_batch(model))
    options = {
        "latent_temperature": 0.5, "num_return_sequences": 2, "max_new_tokens": 6, "min_new_tokens": 3, "top_k": 5, "top_p": 0.5,
        "temperature": 2, "repetition_penalty": 2, "no_repeat_ngram_size": 2, "eos_token_id": [EOS, 9], "pad_token_id": 7,
    }  # fmt: skip
    texts = []
    for given in (options, {name: scalar(value) for name, value in options.items()}):
        torch.manual_seed(0)
        texts.append(model.generate(**inputs, do_sample=True, generator=torch.Generator().manual_seed(0), **given))
    assert torch.equal(*texts)
    config = GenerationConfig(**{name: scalar(options[name]) for name in ("max_new_tokens", "top_k", "pad_token_id")})
    assert model.generate(**inputs, do_sample=True, generation_config=config).shape[1] <= 7


@pytest.mark.parametrize("way", ["embedding", "memory", "prefix"])
def test_a_text_ends_where_the_decoder_s_positions_do(way, caplog):
    model = make_model("paraphrase-prompt", latent_injection=way)
    model.generation_config.eos_token_id = None
    inputs = {**inputs_of(make_batch(model)), "latents": torch.ones(3, 4)}
    # Of 48 positions, the prompt has 5, the start token one; the last token is written and not read.
    room = 48 - model.decoder.num_latent_positions - 6 + 1
    longest = model.generate(**inputs, max_new_tokens=room)
    assert longest.shape[1] == 1 + room and not caplog.records
    assert torch.equal(model.generate(**inputs, max_new_tokens=500), longest)
    assert f"`max_new_tokens` is 500, and behind 6 tokens of prompt and start token the decoder has room for {room}" in caplog.text


@pytest.mark.parametrize("count", [2.5, "3", True, 0])
def test_samples_are_counted(count):
    with pytest.raises(ValueError, match="`num_samples` is"):
        make_model("vae").generate(num_samples=count)


@pytest.mark.parametrize("way", ["embedding", "memory", "prefix"])
def test_a_prompt_that_is_read_in_pieces_is_the_prompt(way):
    model = make_model("paraphrase-prompt", latent_injection=way)
    inputs = {**inputs_of(make_batch(model)), "latents": torch.randn(3, 4)}
    expected = model.generate(**inputs, **GREEDY)
    assert torch.equal(model.generate(**inputs, **GREEDY, prefill_chunk_size=2), expected)


ASSISTANTS = {
    "another family": lambda: AutoModelForCausalLM.from_config(tiny_llama_config()),
    "no position ids": lambda: AutoModelForCausalLM.from_config(DECODERS["BLOOM"].config()),
    "one of ours": lambda: make_model("vae"),
    "its decoder": lambda: make_model("vae").decoder,
    "its language model": lambda: make_model("vae").decoder.lm,
    "a wider z": lambda: make_model("vae", latent_size=7),
    "with memory and prefix": lambda: make_model("vae", latent_injection=["memory", "prefix"]),
    "cross-attention": lambda: make_model("paraphrase-eq"),
}


@pytest.mark.parametrize("name", ASSISTANTS)
@pytest.mark.parametrize(
    "variant, options",
    [
        ("vae", {}),
        ("vae", {"word_dropout": 1.0, "word_dropout_token_id": 3}),
        ("paraphrase-prompt", {"latent_injection": ["memory"]}),
        ("paraphrase-prompt", {"latent_injection": ["prefix"]}),
        ("paraphrase-eq", {}),
    ],
)
def test_an_assistant_changes_no_greedy_text(name, variant, options, caplog):
    model = make_model(variant, **options)
    inputs = {name: tensor[:1] for name, tensor in inputs_of(make_batch(model)).items()}
    inputs["latents"] = torch.ones(1, 4)
    assistant = ASSISTANTS[name]().eval()
    expected = model.generate(**inputs, **GREEDY)
    assert torch.equal(model.generate(**inputs, **GREEDY, assistant_model=assistant), expected)
    # transformers calls its own way of calling an assistant deprecated.
    caplog.clear()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: "gpt2", "`assistant_model` is a str; give a causal language model"),
        (lambda: make_model("vae").encoder, "`assistant_model` is a BertModel; give a causal language model"),
        (lambda: AutoModelForCausalLM.from_config(tiny_lstm_config()), "LSTMForCausalLM, which cannot take back words"),
    ],
)
def test_assistants_that_cannot_serve_are_refused(make, message):
    model = make_model("vae")
    with pytest.raises(ValueError, match=message):
        model.generate(latents=torch.ones(1, 4), **GREEDY, assistant_model=make())
