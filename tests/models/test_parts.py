"""What a model's two parts have in common, and what follows when something is done to one of them."""

import copy

import peft
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    BertModel,
    GPT2LMHeadModel,
    GPT2Model,
    RobertaConfig,
    pipeline,
)

from families import DECODERS, ROBERTA_LIKE
from helpers import BOS, EOS, PAD, VOCAB, make_batch, make_model, tiny_encoder_config, tiny_gpt2_config, tiny_lstm_config
from hf_vae import ParaphraseVAEConfig, ParaphraseVAEModel, VAEConfig, VAEModel
from hf_vae.encoders import build_encoder, read_text
from hf_vae.generation_options import end_tokens


@pytest.mark.parametrize("options", [{}, {"source_conditioning": "cross_attention"}])
def test_one_configuration_for_both_halves_leaves_the_encoder_bidirectional(options, tmp_path):
    part = tiny_encoder_config(bos_token_id=BOS, eos_token_id=EOS)
    before = part.to_dict()
    config = ParaphraseVAEConfig(encoder=part, decoder=part, latent_size=4, pooling="first", **options)
    model = ParaphraseVAEModel(config).eval()
    assert model.decoder.config.is_decoder and not model.encoder.config.is_decoder
    assert part.to_dict() == before and config.encoder is part and config.decoder is part
    assert model.config.encoder is model.encoder.config and model.config.decoder is model.decoder.config
    model.save_pretrained(tmp_path)
    for each in (model, AutoModel.from_pretrained(tmp_path)):
        first, second = each.encode(torch.tensor([[5, 6, 7], [5, 8, 9]])).latent_dist.mean
        assert (first - second).abs().max() > 1e-3


def test_one_configuration_for_two_models_is_each_ones_own():
    config = VAEConfig(encoder=tiny_encoder_config(), decoder=tiny_gpt2_config(), latent_size=4)
    first, second = VAEModel(config), VAEModel(config)
    first.decoder.resize_token_embeddings(50)
    assert first.config.decoder.vocab_size == 50
    assert second.config.decoder.vocab_size == config.decoder.vocab_size == VOCAB


def test_a_configuration_that_is_changed_afterwards_changes_no_model():
    config = VAEConfig(encoder=tiny_encoder_config(), decoder=tiny_gpt2_config(), latent_size=4)
    model = VAEModel(config)
    config.latent_injection.append("memory")
    assert model.config.latent_injection == ["embedding"]


@pytest.mark.parametrize(
    "parts, message",
    [
        ({"encoder": "bert-base-uncased"}, "`encoder` is a str; give a model"),
        ({"decoder": tiny_gpt2_config()}, "`decoder` is a GPT2Config; give a model"),
        ({"decoder": GPT2Model(tiny_gpt2_config())}, "`decoder` is a GPT2Model; give a causal language model"),
        ({"decoder": make_model("vae")}, "`decoder` is a VAEModel; give a causal language model"),
        ({"decoder": make_model("vae").decoder}, "give its language model, `decoder.lm`"),
        ({"encoder": make_model("vae")}, "VAEModel is an encoder-decoder"),
        ({"config": tiny_gpt2_config()}, "`config` is a GPT2Config; VAEModel takes one of type 'text-vae'"),
        ({"config": None}, "`config` is a NoneType"),
    ],
)
def test_what_is_no_part_is_refused(parts, message):
    config = VAEConfig(encoder=tiny_encoder_config(), decoder=tiny_gpt2_config(), latent_size=4)
    with pytest.raises(ValueError, match=message):
        VAEModel(**{"config": config, **parts})


def test_another_model_s_configuration_is_refused():
    with pytest.raises(ValueError, match="`config` is a ParaphraseVAEConfig; VAEModel takes one of type 'text-vae'"):
        VAEModel(ParaphraseVAEConfig(encoder=tiny_encoder_config(), decoder=tiny_gpt2_config(), latent_size=4))


@pytest.mark.parametrize("part", ["bert-base-uncased", ["bert"], BertConfig])
def test_a_part_s_configuration_is_one(part):
    with pytest.raises(ValueError, match=r"`encoder` is .*; give its configuration"):
        VAEConfig(encoder=part, decoder=tiny_gpt2_config())


@pytest.mark.parametrize("base", [None, "gpt2", {"name_or_path": None, "revision": None}])
def test_a_part_that_was_left_out_has_a_name(base):
    with pytest.raises(StrictDataclassError, match=r"`frozen_parts\['decoder'\]` is .*; it has a `name_or_path` and a `revision`"):
        VAEConfig(encoder=tiny_encoder_config(), decoder=tiny_gpt2_config(), frozen_parts={"decoder": base})


def test_no_eos_at_all_is_none():
    config = VAEConfig(encoder=tiny_encoder_config(), decoder=tiny_gpt2_config(), latent_size=4, eos_token_id=[])
    assert VAEModel(config).generation_config.eos_token_id == EOS  # the decoder's own defaults still name one


def test_a_decoder_that_was_built_to_look_ahead_is_refused():
    def around(decoder):
        config = VAEConfig(encoder=tiny_encoder_config(), decoder=decoder.config, latent_size=4)
        return VAEModel(config, decoder=decoder).eval()

    with pytest.raises(ValueError, match="`decoder` is a BertLMHeadModel that was built to read both ways"):
        around(BertLMHeadModel(tiny_encoder_config(eos_token_id=EOS)))
    # These say of themselves that they are no decoders, and are all the same.
    around(AutoModelForCausalLM.from_config(DECODERS["GPT-NeoX"].config()))
    model = around(BertLMHeadModel(tiny_encoder_config(eos_token_id=EOS, is_decoder=True)))
    latents = torch.ones(1, 4)
    first, second = (model.decode(latents, torch.tensor([[5, 6, last, EOS]]))[0, :3] for last in (7, 8))
    torch.testing.assert_close(first, second)


def given_parts(kind: str):
    config = tiny_gpt2_config()
    lm = GPT2LMHeadModel(config)
    encoder = {
        "the decoder's transformer": lambda: lm.transformer,
        "the decoder itself": lambda: lm,
        "its embeddings": lambda: GPT2Model(copy.deepcopy(config)),
        "its configuration": lambda: GPT2Model(config),
    }[kind]()
    if kind == "its embeddings":
        encoder.set_input_embeddings(lm.get_input_embeddings())
    return encoder, lm


@pytest.mark.parametrize(
    "kind, message",
    [
        ("the decoder's transformer", "are one weight"),
        ("the decoder itself", "are one weight"),
        ("its embeddings", "encoder's `wte.weight` and the decoder's `lm_head.weight|`transformer.wte.weight` are one weight"),
        ("its configuration", "share one configuration object"),
    ],
)
def test_parts_that_share_are_refused_when_the_model_is_made(kind, message):
    encoder, decoder = given_parts(kind)
    config = VAEConfig(encoder=tiny_gpt2_config(), decoder=tiny_gpt2_config(), latent_size=4)
    with pytest.raises(ValueError, match=message):
        VAEModel(config, encoder=encoder, decoder=decoder)


def test_parts_that_come_to_share_are_refused_before_they_are_trained_or_saved(tmp_path):
    model = make_model("vae").train()
    model.encoder.set_input_embeddings(model.decoder.get_input_embeddings())
    with pytest.raises(ValueError, match="are one weight"):
        model(**make_batch(model))
    with pytest.raises(ValueError, match="are one weight"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("other", ["encoder", "decoder"])
def test_a_source_encoder_that_comes_to_share_is_refused(other, tmp_path):
    model = make_model("cvae-cross").train()
    model.source_encoder.set_input_embeddings(getattr(model, other).get_input_embeddings())
    with pytest.raises(ValueError, match=f"The {other}'s `.*` and the source_encoder's `.*` are one weight"):
        model(**make_batch(model))
    model.source_encoder = model.encoder
    with pytest.raises(ValueError, match="are one weight"):
        model.save_pretrained(tmp_path)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_an_adapter_of_one_part_is_refused_before_it_is_lost(part, tmp_path):
    bare = {"encoder": BertModel(tiny_encoder_config()), "decoder": GPT2LMHeadModel(tiny_gpt2_config())}[part]
    layers = {"encoder": ["query"], "decoder": ["c_proj"]}[part]
    adapted = peft.get_peft_model(bare, peft.LoraConfig(target_modules=layers, r=2))
    config = VAEConfig(encoder=tiny_encoder_config(), decoder=tiny_gpt2_config(), latent_size=4)
    for given in (adapted, bare):
        with pytest.raises(ValueError, match=f"`{part}` carries an adapter of peft"):
            VAEModel(config, **{part: given})
    VAEModel(config, **{part: adapted.merge_and_unload()}).save_pretrained(tmp_path / "merged")
    model = VAEModel(config)
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=layers, r=2), getattr(model, part))
    with pytest.raises(ValueError, match="A part of the model carries an adapter"):
        model.save_pretrained(tmp_path / "injected")
    assert not (tmp_path / "injected").exists()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("size", [VOCAB + 5, VOCAB - 5])
def test_the_bag_of_words_follows_the_decoder_s_vocabulary(size, tied, tmp_path):
    decoder = tiny_gpt2_config(tie_word_embeddings=tied)
    model = make_model("paraphrase-prompt", bow_loss_weight=1.0)
    model = ParaphraseVAEModel(
        ParaphraseVAEConfig(encoder=tiny_encoder_config(), decoder=decoder, latent_size=4, bow_loss_weight=1.0)
    ).train()
    old = {name: weight.detach().clone() for name, weight in model.bow_head.words.named_parameters()}
    model.decoder.resize_token_embeddings(size)
    kept = min(size, VOCAB)
    for name, weight in model.bow_head.words.named_parameters():
        assert len(weight) == size and weight.requires_grad
        assert torch.equal(weight[:kept], old[name][:kept])
        torch.testing.assert_close(weight[kept:], old[name].mean(0).expand_as(weight[kept:]))
    batch = make_batch(model)
    batch = {name: tensor.clamp(max=min(size, VOCAB) - 1) for name, tensor in batch.items()}
    batch["labels"][0, 0] = size - 1
    model(**batch).loss.backward()
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert loaded.config.decoder.vocab_size == loaded.bow_head.words.out_features == size
    torch.testing.assert_close(loaded(**batch, latents=torch.ones(3, 4)), model.eval()(**batch, latents=torch.ones(3, 4)))


def test_a_vocabulary_resized_past_the_decoder_is_refused_until_it_is_told():
    model = make_model("vae", bow_loss_weight=1.0).train()
    model.decoder.lm.resize_token_embeddings(VOCAB + 5)
    batch = make_batch(model)
    with pytest.raises(ValueError, match=rf"call `model\.decoder\.resize_token_embeddings\({VOCAB + 5}\)`"):
        model(**batch)
    model.decoder.resize_token_embeddings(VOCAB + 5)
    assert model(**batch).bow_loss.isfinite().all()


def test_a_token_that_is_cut_off_is_refused(tmp_path):
    model = make_model("vae", word_dropout=0.5, word_dropout_token_id=VOCAB - 1).train()
    model.decoder.resize_token_embeddings(VOCAB - 5)
    batch = {name: tensor.clamp(max=VOCAB - 6) for name, tensor in make_batch(model).items()}
    for use in (lambda: model(**batch), lambda: model.save_pretrained(tmp_path)):
        with pytest.raises(ValueError, match="`word_dropout_token_id` is 39, and the decoder's vocabulary has 35 tokens"):
            use()


def test_a_vocabulary_resized_past_the_decoder_is_refused_in_use():
    model = make_model("vae", bow_loss_weight=1.0)
    batch = make_batch(model)
    model.train()(**batch)
    model.decoder.lm.resize_token_embeddings(50)
    for mode in (True, False):
        with pytest.raises(ValueError, match="vocabulary has 50 tokens and the bag of words 40"):
            model.train(mode)(**batch)
    model.decoder.resize_token_embeddings(1)
    with pytest.raises(ValueError, match="`decoder_start_token_id` is 1, and the decoder's vocabulary has 1 tokens"):
        model.generate(num_samples=1)
    with pytest.raises(ValueError, match="`decoder_start_token_id` is 1"):
        model.nll(torch.ones(1, 4), torch.zeros(1, 2, dtype=torch.long))


def test_a_source_encoder_s_vocabulary_is_its_encoder_s(tmp_path):
    model = make_model("paraphrase-cross").train()
    model.encoder.resize_token_embeddings(VOCAB + 5)
    for use in (lambda: model(**make_batch(model)), lambda: model.save_pretrained(tmp_path)):
        with pytest.raises(ValueError, match=r"`model\.source_encoder` of 40"):
            use()
    model.source_encoder.resize_token_embeddings(VOCAB + 5)
    model.save_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path).source_encoder.config.vocab_size == VOCAB + 5


def test_end_tokens_are_all_that_are_named():
    assert end_tokens(2, [3, 2], None, -1) == [2, 3]
    assert end_tokens(None) == []


def test_a_text_ends_with_the_configuration_s_eos_and_the_decoder_s_own():
    decoder = AutoModelForCausalLM.from_config(tiny_gpt2_config())
    decoder.generation_config.eos_token_id = [EOS, 9]
    config = VAEConfig(encoder=tiny_encoder_config(), decoder=decoder.config, latent_size=4, eos_token_id=7)
    assert VAEModel(config, decoder=decoder).generation_config.eos_token_id == [7, EOS, 9]
    assert VAEModel(config).generation_config.eos_token_id == [7, EOS]
    assert decoder.generation_config.eos_token_id == [EOS, 9]


@pytest.mark.parametrize("named", [EOS, None])
def test_a_pretrained_decoder_s_texts_end_with_its_tokenizer_s_eos(tokenizers, tmp_path, named):
    tokenizer, encoder_tokenizer = (copy.deepcopy(each) for each in tokenizers)
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    size = len(tokenizer)
    decoder = tiny_gpt2_config()
    decoder.vocab_size, decoder.eos_token_id = size, named
    encoder = tiny_encoder_config()
    encoder.vocab_size = len(encoder_tokenizer)
    AutoModelForCausalLM.from_config(decoder).save_pretrained(tmp_path / "decoder")
    tokenizer.save_pretrained(tmp_path / "decoder")
    BertModel(encoder).save_pretrained(tmp_path / "encoder")
    folders = str(tmp_path / "encoder"), str(tmp_path / "decoder")
    model = VAEModel.from_encoder_decoder_pretrained(*folders, latent_size=4)
    ends = model.generation_config.eos_token_id
    assert end_tokens(ends) == [tokenizer.eos_token_id, *([] if named is None else [named])]
    # The decoder that would write nothing but its tokenizer's EOS writes it once.
    model.decoder.lm.set_output_embeddings(nn.Linear(16, size))
    nn.init.zeros_(model.decoder.get_output_embeddings().weight)
    model.decoder.get_output_embeddings().bias.data = nn.functional.one_hot(torch.tensor(tokenizer.eos_token_id), size).float()
    assert model.eval().generate(max_new_tokens=9, do_sample=False).tolist() == [[BOS, tokenizer.eos_token_id]]


@pytest.mark.parametrize("named", [EOS, None])
def test_a_training_whose_texts_would_never_end_says_so_once(named, caplog):
    decoder = tiny_gpt2_config()
    decoder.eos_token_id = named
    model = VAEModel(VAEConfig(encoder=tiny_encoder_config(), decoder=decoder, latent_size=4)).train()
    batch = make_batch(model)
    batch["labels"][batch["labels"] == EOS] = 9
    waits = "none" if named is None else "[2]"
    for count in (1, 1):
        model(**batch)
        assert caplog.text.count(f"Every row of `labels` ends with token 9, and `generate` waits for {waits}") == count
    caplog.clear()
    model = VAEModel(VAEConfig(encoder=tiny_encoder_config(), decoder=decoder, latent_size=4, eos_token_id=9)).train()
    model(**batch)
    assert "Every row" not in caplog.text


def test_a_pipeline_refuses_a_processor_of_another_eos(vae_processor):
    processor = copy.deepcopy(vae_processor)
    size, end = len(processor.tokenizer), processor.tokenizer.eos_token_id
    decoder = tiny_gpt2_config()
    decoder.vocab_size, decoder.pad_token_id, decoder.eos_token_id = size, PAD, end + 5
    encoder = tiny_encoder_config()
    encoder.vocab_size = len(processor.encoder_tokenizer)
    model = VAEModel(VAEConfig(encoder=encoder, decoder=decoder, latent_size=4)).eval()
    with pytest.raises(ValueError, match=f"The processor's texts end with token {end}, and the model waits for"):
        pipeline("latent-text-generation", model=model, processor=processor)
    model.generation_config.eos_token_id = end
    assert pipeline("latent-text-generation", model=model, processor=processor)(None)


def test_target_pooling_reads_y_alone_in_the_light_of_x():
    model = make_model("paraphrase-prompt", pooling="target")
    tokens = torch.randint(4, VOCAB, (2, 6))
    mask = torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])
    types = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0]])
    states = model.encoder(input_ids=tokens, attention_mask=mask, token_type_ids=types).last_hidden_state
    of_target = torch.stack([states[0, 3:].mean(0), states[1, 2:4].mean(0)])
    found = model.encode(tokens, mask, types).latent_dist
    torch.testing.assert_close(found.mean, model.posterior_head(of_target).mean)
    # A pair that lost its target by truncation, and a text that is no pair, are pooled whole.
    lost = model.encode(tokens, mask, torch.zeros_like(types)).latent_dist
    model.config.pooling = "mean"
    torch.testing.assert_close(lost.mean, model.encode(tokens, mask, torch.zeros_like(types)).latent_dist.mean)
    model.config.pooling = "target"
    with pytest.raises(ValueError, match="`posterior_token_type_ids` is missing"):
        model.encode(tokens, mask)


def test_an_encoder_without_types_is_not_given_any():
    """RoBERTa's kind has an embedding for one type alone, and GPT-2 would look types up among its words."""
    for config in (RobertaConfig(**ROBERTA_LIKE, type_vocab_size=1), tiny_gpt2_config(), tiny_lstm_config(bidirectional=True)):
        torch.manual_seed(0)
        encoder = build_encoder(config, "mean").eval()
        tokens = torch.randint(4, VOCAB, (2, 6))
        with_types = read_text("input_ids", encoder, tokens, None, torch.ones_like(tokens))[0]
        torch.testing.assert_close(with_types, read_text("input_ids", encoder, tokens, None)[0])
