"""q from given vectors: the configuration, q and the loss by hand, generation, saving, and what is refused."""

import math
import pickle

import numpy as np
import pytest
import torch
from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor, Trainer, TrainingArguments, pipeline

from helpers import GREEDY, TEXTS, listening, make_batch, make_model, take_special_tokens, tiny_encoder_config, tiny_gpt2_config
from hf_vae import CVAEConfig, VAEConfig, VAEDataCollator, VAEModel, VAEProcessor
from hf_vae.bulk import generate_to_file
from hf_vae.cli import evaluate, generate
from hf_vae.evaluation import LikelihoodEvaluator, evaluate_vae
from hf_vae.gaussian import LOGVAR_RANGE
from hf_vae.hub import RunRecord, make_model_card

SIZE = 6


@pytest.fixture
def processor(tokenizers):
    return VAEProcessor(tokenizers[0], embedding_size=SIZE)


def build(processor, **options):
    torch.manual_seed(0)
    decoder = tiny_gpt2_config()
    decoder.vocab_size = len(processor.tokenizer)
    take_special_tokens(decoder, processor.tokenizer)
    return listening(VAEModel(VAEConfig(decoder=decoder, embedding_size=SIZE, latent_size=4, **options)))


def unit_vectors(rows: int = len(TEXTS), seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, SIZE, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_such_a_model_has_no_encoder_and_its_configuration_comes_back(processor, tmp_path):
    model = build(processor, normalize_embeddings=True)
    assert model.config.encoder is None and not hasattr(model, "encoder")
    assert model.get_input_embeddings() is model.decoder.lm.get_input_embeddings()
    model.config.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.encoder is None and config.embedding_size == SIZE and config.normalize_embeddings
    assert AutoModel.from_config(config).config.encoder is None


@pytest.mark.parametrize("normalize", [False, True])
def test_q_and_the_loss_are_those_by_hand(processor, normalize):
    model = build(processor, normalize_embeddings=normalize)
    vectors = unit_vectors()
    inputs = processor(embeddings=vectors, text_target=TEXTS)
    # Vectors of length 1 are read with numbers of about 1.
    read = vectors * (math.sqrt(SIZE) if normalize else 1)
    mean, logvar = (read @ model.posterior_head.linear.weight.T + model.posterior_head.linear.bias).chunk(2, -1)
    posterior = model.encode(embeddings=inputs["embeddings"]).latent_dist
    torch.testing.assert_close(posterior.mean, mean)
    logvar = logvar.clamp(*LOGVAR_RANGE)
    torch.testing.assert_close(posterior.logvar, logvar)
    torch.manual_seed(1)
    output = model(**inputs)
    kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(-1)
    torch.testing.assert_close(output.kl, kl)
    torch.manual_seed(1)
    nll = model.nll(posterior.sample(), inputs["labels"])
    torch.testing.assert_close(output.reconstruction_loss, nll)
    torch.testing.assert_close(output.loss, (nll + kl).sum() / (inputs["labels"] != -100).sum())


def test_generation_reads_each_vector_and_the_prior_needs_none(processor):
    model = build(processor)
    vectors = unit_vectors() * 3
    latents = model.encode(embeddings=vectors).latent_dist.mode()
    written = model.generate(embeddings=vectors, latent_temperature=0.0, **GREEDY)
    assert torch.equal(written, model.generate(latents=latents, **GREEDY)) and len(written.unique(dim=0)) > 1
    several = model.generate(
        embeddings=vectors,
        num_return_sequences=3,
        generator=torch.Generator().manual_seed(0),
        return_dict_in_generate=True,
        **GREEDY,
    )
    # Three z of each q: the draws of one input are next to each other, near its mean.
    drawn = model.encode(embeddings=vectors).latent_dist.draw(3, generator=torch.Generator().manual_seed(0)).flatten(0, 1)
    torch.testing.assert_close(several["latents"], drawn)
    assert len(several["sequences"]) == 3 * len(vectors)
    assert model.generate(num_samples=2, **GREEDY).shape == (2, 9)


def test_saved_and_loaded_it_writes_the_same(processor, tmp_path):
    model = build(processor, normalize_embeddings=True)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert not (tmp_path / "encoder_tokenizer").exists()
    loaded, its_processor = AutoModel.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    assert type(its_processor) is VAEProcessor and its_processor.embedding_size == SIZE and its_processor.encoder_tokenizer is None
    inputs = its_processor(embeddings=unit_vectors())
    options = {"latent_temperature": 0.0, **GREEDY}
    assert torch.equal(loaded.generate(**inputs, **options), model.generate(**inputs, **options))
    generator = pipeline("latent-text-generation", model=str(tmp_path))
    records = generator(unit_vectors().tolist(), num_return_sequences=2, max_new_tokens=4)
    assert [len(each) for each in records] == [2] * len(TEXTS)
    assert len(generator(unit_vectors()[0], num_return_sequences=3, max_new_tokens=4)) == 3


def test_it_is_made_around_a_pretrained_decoder_which_may_be_frozen(processor, tmp_path):
    decoder = tiny_gpt2_config()
    decoder.vocab_size = len(processor.tokenizer)
    take_special_tokens(decoder, processor.tokenizer)
    AutoModelForCausalLM.from_config(decoder).save_pretrained(tmp_path / "decoder")
    processor.tokenizer.save_pretrained(tmp_path / "decoder")
    names = (None, str(tmp_path / "decoder"))
    model = VAEModel.from_encoder_decoder_pretrained(*names, embedding_size=SIZE, latent_size=4, freeze=["decoder"]).eval()
    made = VAEProcessor.from_encoder_decoder_pretrained(*names, embedding_size=SIZE)
    assert made.embedding_size == SIZE and not any(each.requires_grad for each in model.decoder.lm.parameters())
    model.save_pretrained(tmp_path / "model")
    loaded = AutoModel.from_pretrained(tmp_path / "model")
    latents = torch.randn(2, 4)
    assert torch.equal(loaded.generate(latents=latents, **GREEDY), model.generate(latents=latents, **GREEDY))
    with pytest.raises(ValueError, match="`encoder_name_or_path` is None: give it, or an `embedding_size`"):
        VAEModel.from_encoder_decoder_pretrained(*names)
    with pytest.raises(ValueError, match="`encoder_name_or_path` is given, and `embedding_size` is 6"):
        VAEModel.from_encoder_decoder_pretrained(names[1], names[1], embedding_size=SIZE)
    with pytest.raises(ValueError, match="`freeze` names the encoder"):
        VAEModel.from_encoder_decoder_pretrained(*names, embedding_size=SIZE, freeze=["encoder"])


def test_the_processor_takes_tensors_arrays_lists_and_columns(processor):
    vectors = unit_vectors()
    column = Dataset.from_dict({"embedding": vectors.tolist()})["embedding"]
    for given in (
        vectors,
        vectors.to(torch.float64),
        vectors.numpy(),
        vectors.tolist(),
        list(vectors.numpy()),
        list(vectors),
        column,
    ):
        assert torch.equal(processor(embeddings=given)["embeddings"], vectors)
    assert torch.equal(processor(embeddings=vectors[0])["embeddings"], vectors[:1])
    single = processor(embeddings=vectors[0].to(torch.bfloat16), text_target=TEXTS[0], return_tensors=None)
    assert np.allclose(single["embeddings"], vectors[0], atol=1e-2) and single["labels"][-1] == processor.tokenizer.eos_token_id
    # Workers of a data loader get a copy.
    assert pickle.loads(pickle.dumps(processor)).embedding_size == SIZE


@pytest.mark.parametrize("column", ["embeddings", "embedding"])
def test_the_collator_makes_a_batch_of_vectors_and_labels(processor, column):
    features = processor(embeddings=unit_vectors(), text_target=TEXTS, return_tensors=None)
    rows = [{column: vector.tolist(), "labels": labels} for vector, labels in zip(features["embeddings"], features["labels"])]
    batch = VAEDataCollator(processor)(rows)
    expected = processor(embeddings=unit_vectors(), text_target=TEXTS)
    assert batch.keys() == expected.keys() and all(torch.equal(batch[name], expected[name]) for name in expected)
    rows[1][column] = rows[1][column][:-1]
    with pytest.raises(ValueError, match=f"`{column}` holds rows of different sizes"):
        VAEDataCollator(processor)(rows)


def test_the_plain_trainer_trains_all_of_it(processor, tmp_path):
    model = build(processor)
    features = processor(embeddings=unit_vectors(), text_target=TEXTS, return_tensors=None)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    arguments = TrainingArguments(str(tmp_path), max_steps=2, learning_rate=1e-2, report_to="none", use_cpu=True, disable_tqdm=True)
    data = Dataset.from_dict(dict(features))
    Trainer(model, arguments, train_dataset=data, data_collator=VAEDataCollator(processor)).train()
    assert [name for name, weight in model.named_parameters() if torch.equal(weight, before[name])] == []


def test_it_is_evaluated_as_any_other(processor):
    model = build(processor, normalize_embeddings=True)
    evaluator = LikelihoodEvaluator(model, processor, unit_vectors(), TEXTS, batch_size=2)
    evaluator.check_lengths()
    metrics = evaluate_vae(evaluator, importance_samples=3)
    assert metrics["num_examples"] == len(TEXTS) and math.isfinite(metrics["iw_nll"])
    kl = model(**processor(embeddings=unit_vectors(), text_target=TEXTS)).kl.mean().item()
    assert metrics["kl"] == pytest.approx(kl, rel=1e-4)


def test_a_card_says_what_it_reads_and_the_commands_refuse_files_of_texts(processor, tmp_path):
    model = build(processor, normalize_embeddings=True)
    record = RunRecord("someone/inverter", "examples/embedding_to_text.py", "captions", {"exact_match": 0.5}, "Measured on 5.", {})
    card = make_model_card(model, record).content
    assert "between given vectors of\n6 numbers, of length 1, and a gpt2 decoder." in card
    assert "processor(embeddings=vectors)" in card
    model.save_pretrained(tmp_path)
    for command, more in ((evaluate, []), (generate, ["--output", str(tmp_path / "out.jsonl")])):
        with pytest.raises(ValueError, match="reads vectors of 6 numbers and no texts"):
            command.main([str(tmp_path), "--file", "test.txt", *more])
    with pytest.raises(ValueError, match="reads vectors of 6 numbers, and `rows` hold texts"):
        generate_to_file(model, processor, [{"text": "a"}], tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": tiny_encoder_config(), "embedding_size": 3}, "`encoder` is given, and `embedding_size` is 3"),
        ({"embedding_size": 0}, "`embedding_size` is 0; it must be at least 1"),
        ({"normalize_embeddings": True}, "`normalize_embeddings` is True, and there is no `embedding_size`"),
        (
            {"embedding_size": 3, "frozen_parts": {"encoder": {"name_or_path": "bert", "revision": "0"}}},
            "`frozen_parts` names the encoder",
        ),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(options, message):
    with pytest.raises(Exception, match=message):
        VAEConfig(decoder=tiny_gpt2_config(), **options)


def test_conditional_models_take_no_vectors():
    with pytest.raises(Exception, match="only a `VAEConfig` takes given vectors"):
        CVAEConfig(decoder=tiny_gpt2_config(), embedding_size=3)
    for variant in ("vae", "cvae"):
        with pytest.raises(ValueError, match="this model reads tokens with its encoder: give `input_ids`"):
            make_model(variant).generate(embeddings=unit_vectors())


NAN = unit_vectors()
NAN[3, 2] = float("nan")


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (unit_vectors()[:, :4], r"`embeddings` has shape \(5, 4\); this model reads \(batch, 6\)"),
        (unit_vectors()[0], r"`embeddings` has shape \(6,\)"),
        (unit_vectors().long(), "`embeddings` holds torch.int64; give a tensor of floats"),
        (unit_vectors().tolist(), "`embeddings` holds list; give a tensor of floats"),
        (NAN, r"`embeddings` is not finite in row\(s\) \[3\]"),
        (2 * unit_vectors(), r"`embeddings` has length 2 in row 0 \(5 of 5 rows .* divide each vector by its length"),
    ],
)
def test_vectors_of_another_kind_are_refused(processor, embeddings, message, monkeypatch):
    model = build(processor, normalize_embeddings=True)
    labels = processor(embeddings=unit_vectors(), text_target=TEXTS)["labels"]

    def compute(*inputs):
        raise AssertionError("the model computes")

    monkeypatch.setattr(type(model.posterior_head), "forward", compute)
    for call in (model.encode, model.generate, lambda embeddings: model(embeddings=embeddings, labels=labels)):
        if call is not model.encode and getattr(embeddings, "ndim", 0) == 1:
            continue
        with pytest.raises(ValueError, match=message):
            call(embeddings=embeddings)


def test_tokens_are_refused_where_vectors_are_read_and_the_reverse(processor):
    model, batch = build(processor), make_batch(make_model("vae"))
    tokens = {name: batch[name] for name in ("input_ids", "attention_mask")}
    for call in (model.encode, model.generate, lambda **inputs: model(**inputs, labels=batch["labels"])):
        with pytest.raises(ValueError, match="`input_ids` are given, and this model has no encoder"):
            call(**tokens)
    with pytest.raises(ValueError, match="`embeddings` is missing: q"):
        model(labels=batch["labels"])
    other = make_model("vae")
    for call in (other.encode, other.generate, lambda **inputs: other(**inputs, labels=batch["labels"])):
        with pytest.raises(ValueError, match="`embeddings` are given, and this model reads tokens"):
            call(embeddings=unit_vectors(3))
    with pytest.raises(ValueError, match="`encoder` is given, and the configuration's `embedding_size` is 6"):
        VAEModel(model.config, encoder=other.encoder)


def test_the_processor_refuses_what_its_model_does_not_read(processor, vae_processor, tokenizers):
    with pytest.raises(ValueError, match="`text` is given, and this processor's model reads vectors of 6 numbers"):
        processor("the cat")
    with pytest.raises(ValueError, match="`embeddings` are given, and this processor's model reads texts"):
        vae_processor(embeddings=unit_vectors())
    with pytest.raises(ValueError, match="`max_length` cuts texts"):
        processor(embeddings=unit_vectors(), max_length=4)
    with pytest.raises(ValueError, match="`embeddings` has 5 and `text_target` 4 rows"):
        processor(embeddings=unit_vectors(), text_target=TEXTS[:4])
    for given, message in (
        (None, "`embeddings` is 'None'; give vectors of 6 floats"),
        ("the cat", "`embeddings` is 'the cat'; give vectors"),
        ([1, 2, 3, 4, 5, 6], "`embeddings` holds int64; give vectors"),
        (unit_vectors()[:, :2], r"`embeddings` has shape \(5, 2\); give vectors of 6"),
        (NAN, r"`embeddings` is not finite in row\(s\) \[3\]"),
        ([[0.5] * 6, [0.5] * 5], "`embeddings` holds rows of different sizes"),
    ):
        with pytest.raises(ValueError, match=message):
            processor(embeddings=given)
    with pytest.raises(ValueError, match="`encoder_tokenizer` is None: give it, or an `embedding_size`"):
        VAEProcessor(tokenizers[0])
    with pytest.raises(ValueError, match="`encoder_tokenizer` is given, and `embedding_size` is 6"):
        VAEProcessor(*tokenizers, embedding_size=SIZE)


def test_several_latents_need_an_encoder_s_states():
    for asked in ({"num_latents": 2}, {"pooling": "attention"}):
        with pytest.raises(StrictDataclassError, match="`embedding_size` is 8, so q reads one vector"):
            VAEConfig(decoder=tiny_gpt2_config(), embedding_size=8, **asked)
