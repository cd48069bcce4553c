"""The LSTMs keep to what transformers expects of an encoder and of a causal LM."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, GenerationConfig, LogitsProcessorList

from helpers import VOCAB, make_model, tiny_lstm_config
from hf_vae import LSTMConfig, LSTMForCausalLM, LSTMModel
from hf_vae.compat import CACHE

GENERATION = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}


@pytest.fixture
def lm():
    torch.manual_seed(0)
    return LSTMForCausalLM(tiny_lstm_config(num_hidden_layers=2)).eval()


def ragged(side):
    tokens = torch.randint(4, VOCAB, (3, 5), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    return tokens, mask if side == "right" else mask.flip(1)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_not_read(bidirectional, side):
    torch.manual_seed(0)
    model = LSTMModel(tiny_lstm_config(bidirectional=bidirectional, num_hidden_layers=2)).eval()
    tokens, mask = ragged(side)
    with torch.no_grad():
        together = model(tokens, mask)
        for row in range(3):
            alone = model(tokens[row : row + 1, mask[row].bool()])
            torch.testing.assert_close(together.last_hidden_state[row, mask[row].bool()], alone.last_hidden_state[0])
            torch.testing.assert_close(together.pooler_output[row], alone.pooler_output[0])
            assert not together.last_hidden_state[row, ~mask[row].bool()].any()


def test_the_pooled_state_has_read_the_whole_text():
    torch.manual_seed(0)
    tokens = torch.randint(4, VOCAB, (1, 5))
    one_way = LSTMModel(tiny_lstm_config()).eval()(tokens)
    assert torch.equal(one_way.pooler_output, one_way.last_hidden_state[:, -1])
    both = LSTMModel(tiny_lstm_config(bidirectional=True)).eval()(tokens)
    assert torch.equal(both.pooler_output[:, :8], both.last_hidden_state[:, -1, :8])
    assert torch.equal(both.pooler_output[:, 8:], both.last_hidden_state[:, 0, 8:])


def test_greedy_and_beams_with_the_state_equal_one_pass(lm):
    tokens, mask = ragged("left")
    full_mask = torch.cat([mask, torch.ones(3, 7, dtype=torch.long)], dim=1)

    def log_probs(sequences):
        with torch.no_grad():
            return lm(sequences[:, :-1], full_mask, use_cache=False).logits[:, 4:].log_softmax(-1)

    options = {"attention_mask": mask, "return_dict_in_generate": True, **GENERATION}
    greedy = lm.generate(tokens, output_logits=True, **options)
    torch.testing.assert_close(torch.stack(greedy.logits, dim=1).log_softmax(-1), log_probs(greedy.sequences))
    beams = lm.generate(tokens, num_beams=3, output_scores=True, **options)
    expected = log_probs(beams.sequences).gather(-1, beams.sequences[:, 5:, None]).squeeze(-1).mean(-1)
    torch.testing.assert_close(beams.sequences_scores, expected)


def test_rows_that_end_at_different_places_leave_their_own_state(lm):
    tokens, mask = ragged("right")
    with torch.no_grad():
        together = lm(tokens, mask, use_cache=True)[CACHE]
        for row in range(3):
            alone = lm(tokens[row : row + 1, mask[row].bool()], use_cache=True)[CACHE]
            for layers in zip(together.layers, alone.layers):
                torch.testing.assert_close(layers[0].keys[row], layers[1].keys[0])
                torch.testing.assert_close(layers[0].values[row], layers[1].values[0])


def test_the_loss_is_that_of_any_causal_lm(lm):
    tokens = torch.randint(4, VOCAB, (2, 6))
    output = lm(tokens, labels=tokens)
    expected = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    torch.testing.assert_close(output.loss, expected)


def test_saved_and_loaded_through_the_auto_classes(lm, tmp_path):
    lm.save_pretrained(tmp_path / "lm")
    assert isinstance(AutoConfig.from_pretrained(tmp_path / "lm"), LSTMConfig)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "lm")
    tokens = torch.randint(4, VOCAB, (2, 6))
    torch.testing.assert_close(lm(tokens).logits, again.eval()(tokens).logits)
    tied = LSTMForCausalLM(tiny_lstm_config(embedding_size=16, tie_word_embeddings=True))
    tied.save_pretrained(tmp_path / "tied")
    tied = AutoModelForCausalLM.from_pretrained(tmp_path / "tied")
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    encoder = AutoModel.from_config(tiny_lstm_config(bidirectional=True))
    assert encoder(tokens).last_hidden_state.shape == (2, 6, 16)


def test_dropout_is_on_embeddings_in_training():
    torch.manual_seed(0)
    model = LSTMModel(tiny_lstm_config(embedding_dropout=0.5))
    read = []
    model.lstm.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    tokens = torch.randint(4, VOCAB, (4, 20))
    model.train()(tokens)
    model.eval()(tokens)
    assert (read[0] == 0).float().mean() == pytest.approx(0.5, abs=0.1) and not (read[1] == 0).any()


def test_dropout_is_on_layers_and_outputs_in_training_alone():
    torch.manual_seed(0)
    model = LSTMModel(tiny_lstm_config(num_hidden_layers=2, embedding_dropout=0.5, dropout=0.5))
    tokens = torch.randint(4, VOCAB, (2, 6))
    assert (model.train()(tokens).last_hidden_state == 0).float().mean() == pytest.approx(0.5, abs=0.15)
    assert torch.equal(model.eval()(tokens).last_hidden_state, model(tokens).last_hidden_state)
    assert model.lstm.dropout == 0.5


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_dropout_drops_weights_from_state_to_state_in_training_alone(bidirectional, padded):
    rate = 0.5
    config = tiny_lstm_config(bidirectional=bidirectional, num_hidden_layers=2, recurrent_dropout=rate)
    torch.manual_seed(0)
    model = LSTMModel(config)
    weights = {name: parameter.detach().clone() for name, parameter in model.lstm.named_parameters()}
    tokens, mask = ragged("left")
    mask = mask if padded else torch.ones_like(mask)

    torch.manual_seed(1)
    output = model.train()(tokens, mask)
    output.pooler_output.sum().backward()
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.lstm.named_parameters())
    assert all(parameter.grad.any() for parameter in model.lstm.parameters())
    assert not torch.equal(model(tokens, mask).last_hidden_state, output.last_hidden_state)

    # The same as an LSTM whose recurrent weights are half zeros and half doubled, and whose others are whole.
    plain = LSTMModel(config).eval()
    plain.load_state_dict(model.state_dict())
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in plain.lstm.named_parameters():
            if name.startswith("weight_hh"):
                parameter.copy_(torch.nn.functional.dropout(parameter, rate))
                dropped = (parameter == 0).float().mean()
                assert dropped == pytest.approx(rate, abs=0.1)
    torch.testing.assert_close(plain(tokens, mask).last_hidden_state, output.last_hidden_state)

    evaluated = model.eval()(tokens, mask).last_hidden_state
    assert torch.equal(evaluated, model(tokens, mask).last_hidden_state)
    without = LSTMModel(tiny_lstm_config(bidirectional=bidirectional, num_hidden_layers=2)).eval()
    without.load_state_dict(model.state_dict())
    assert torch.equal(evaluated, without(tokens, mask).last_hidden_state)


def test_recurrent_dropout_works_behind_hooks_checkpointing_and_adapters():
    """Where others bring the weights there when the LSTM is called, or stand in its place, they are dropped all the same."""
    torch.manual_seed(0)
    model = LSTMModel(tiny_lstm_config(recurrent_dropout=0.9)).train()
    tokens = torch.randint(4, VOCAB, (2, 6))

    def passes(run):
        return [run(tokens).last_hidden_state for _ in range(2)]

    weight = model.lstm.weight_hh_l0
    # As FSDP does: until it is called the module has other weights.
    model.lstm.weight_hh_l0 = nn.Parameter(torch.zeros_like(weight))
    model.lstm.register_forward_pre_hook(lambda module, inputs: setattr(module, "weight_hh_l0", weight))
    first, second = passes(model)
    assert not torch.equal(first, second)
    model.lstm = checkpoint_wrapper(LSTMModel(model.config).lstm.train())
    first, second = passes(model)
    assert not torch.equal(first, second)
    first.sum().backward()
    assert all(parameter.grad.any() for parameter in model.lstm.parameters())
    adapted = get_peft_model(
        LSTMForCausalLM(model.config), LoraConfig(target_modules=["lm_head"], modules_to_save=["lstm"])
    ).train()
    first, second = (adapted(tokens).logits for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"hidden_size": 0}, "`hidden_size` is 0"),
        ({"bidirectional": True, "hidden_size": 15}, "must be even"),
        ({"dropout": 1.0}, "`dropout` is 1.0"),
        ({"recurrent_dropout": -0.1}, "`recurrent_dropout` is -0.1"),
        ({"tie_word_embeddings": True}, r"`embedding_size` \(12\) equal to `hidden_size` \(16\)"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(StrictDataclassError, match=message):
        tiny_lstm_config(**options)


def test_a_cache_of_another_kind_is_refused():
    model = make_model("vae-lstm")
    with pytest.raises(ValueError, match="`cache_implementation` is 'static'; an LSTM has a state"):
        model.generate(latents=torch.zeros(1, 4), cache_implementation="static", max_new_tokens=2)


def test_bad_inputs_are_named(lm):
    with pytest.raises(ValueError, match="`cache_implementation` is 'static'; an LSTM has a state"):
        lm.generate(torch.ones(1, 2, dtype=torch.long), cache_implementation="static", max_new_tokens=2)
    lm.generation_config.cache_implementation = "static"
    with pytest.raises(ValueError, match="`cache_implementation` is 'static'; an LSTM has a state"):
        lm.generate(torch.ones(1, 2, dtype=torch.long), GenerationConfig(max_new_tokens=2))
    lm.generation_config.cache_implementation = None
    lm.generate(torch.ones(1, 2, dtype=torch.long), GenerationConfig(max_new_tokens=2), LogitsProcessorList())
    with pytest.raises(ValueError, match="cannot be `bidirectional`"):
        LSTMForCausalLM(tiny_lstm_config(bidirectional=True))
    with pytest.raises(ValueError, match="either `input_ids` or `inputs_embeds`"):
        lm.model()
    with pytest.raises(ValueError, match="has no state to go on from"):
        LSTMModel(tiny_lstm_config(bidirectional=True))(torch.ones(1, 2, dtype=torch.long), use_cache=True)
