"""
transformers' own testers over the latent decoder and the composites: what any model of the library must do, said by others.

`fetch_testers.py` brings them; nothing is fetched here, and without them all is skipped. What cannot pass stands in
`expected_failures.py` with its reason, and must fail; nothing else may.

`WRITE_PEER_SUITE=1 python -m pytest tests/peer` writes what was found into `docs/measured/peer_suite.md`.
"""

import contextlib
import importlib
import json
import os
import sys
import unittest
from collections import Counter
from unittest import mock

import pytest
import torch
import transformers
from expected_failures import PAGE, page, read_page, reason_for
from fetch_testers import TESTERS, VERSIONS
from transformers import AutoModelForCausalLM, set_seed
from transformers.generation import GenerationMixin

from helpers import VOCAB, make_batch, make_model, tiny_gpt2_config, tiny_llama_config, tiny_lstm_config
from hf_vae import DiagonalGaussian, LatentDecoder

pytestmark = pytest.mark.slow

LATENT_SIZE = 4


def testers() -> tuple[type, type]:
    """`GenerationTesterMixin` and `ModelTesterMixin`, where they are."""
    if not VERSIONS.exists():
        pytest.skip("transformers' testers are not here: run `tests/peer/fetch_testers.py`", allow_module_level=True)
    if (version := json.loads(VERSIONS.read_text(encoding="utf-8"))["index"]) != transformers.__version__:
        pytest.skip(f"the testers here are of transformers {version}: run `tests/peer/fetch_testers.py`", allow_module_level=True)
    pytest.importorskip("parameterized", reason="transformers' testers need `parameterized`")
    with mock.patch.object(sys, "path", [str(TESTERS), *sys.path]):
        generation = importlib.import_module("tests.generation.test_utils")
        return generation.GenerationTesterMixin, importlib.import_module("tests.test_modeling_common").ModelTesterMixin


GenerationTesterMixin, ModelTesterMixin = testers()


class ModelTester:
    """What the testers ask of a model: its sizes, and a configuration with inputs for it."""

    batch_size, seq_length, is_training = 3, 7, True

    def __init__(self, config, prepare):
        self.get_config = lambda: prepare()[0]
        self.prepare_config_and_inputs_for_common = prepare
        self.hidden_size, self.num_hidden_layers = config.hidden_size, config.num_hidden_layers
        self.num_attention_heads = getattr(config, "num_attention_heads", None)
        self.vocab_size = VOCAB


class OurTests(ModelTesterMixin):
    # Otherwise only asked of models whose files are dated 2023 or later.
    test_can_init_all_missing_weights_before_2023 = True

    @contextlib.contextmanager
    def subTest(self, *args, **kwargs):  # noqa: N802
        """What fails inside fails the test: a failure is then expected or not, as a whole."""
        yield


class DecoderTests(GenerationTesterMixin, OurTests):
    """A `LatentDecoder` around the LM of `make_config`, which z enters in these `ways`."""

    # What the testers must not leave out where they choose among the inputs.
    additional_model_inputs = ["latents"]

    def __init_subclass__(cls, make_config=None, ways=(), **kwargs):
        super().__init_subclass__(**kwargs)
        if make_config is None:
            return
        lm = AutoModelForCausalLM._model_mapping[type(make_config())]

        class Decoder(LatentDecoder, GenerationMixin):
            config_class = lm.config_class
            # The testers ask the class, and it is the LM's to answer.
            _is_stateful = lm._is_stateful
            _supports_attention_backend = lm._supports_attention_backend
            _can_compile_fullgraph = lm._can_compile_fullgraph and ways == ("embedding",)
            supports_gradient_checkpointing = lm.supports_gradient_checkpointing

            def __init__(self, config):
                super().__init__(config, LATENT_SIZE, latent_injection=ways)

        cls.make_config = staticmethod(make_config)
        cls.all_model_classes = (Decoder,)
        # Positions that z fills in front of the tokens: in the cache and, with `prefix`, also among what is read.
        cls.prefix = 4 if "prefix" in ways else 0
        cls.slots = cls.prefix + (1 if "memory" in ways else 0)

    def setUp(self):
        set_seed(0)
        self.model_tester = ModelTester(self.make_config(), self.config_and_inputs)

    def config_and_inputs(self):
        tokens = torch.randint(4, VOCAB, (3, 7))
        return self.make_config(), {
            "input_ids": tokens, "attention_mask": torch.ones_like(tokens), "latents": torch.randn(3, LATENT_SIZE)
        }  # fmt: skip

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class)
        # The LM's own loss, for want of one of the decoder's.
        return {**inputs, "labels": inputs["input_ids"]} if return_labels else inputs

    # Attentions, hidden states and the cache hold z's positions too.

    def _get_attention_shape(self, batch_size, seq_length, config):
        return super()._get_attention_shape(batch_size, seq_length + self.slots, config)

    def _check_attentions_for_generate(self, batch_size, attentions, prompt_length, output_length, config, *args, **kwargs):
        memory = self.slots - self.prefix
        attentions = tuple(tuple(layer[..., memory:] for layer in step) for step in attentions)
        lengths = (prompt_length + self.prefix, output_length + self.prefix)
        super()._check_attentions_for_generate(batch_size, attentions, *lengths, config, *args, **kwargs)

    def _check_hidden_states_for_generate(self, batch_size, hidden_states, prompt_length, output_length, *args, **kwargs):
        lengths = (prompt_length + self.prefix, output_length + self.prefix)
        super()._check_hidden_states_for_generate(batch_size, hidden_states, *lengths, *args, **kwargs)

    def test_attention_outputs(self):
        self.model_tester.encoder_seq_length = 7 + self.prefix
        self.model_tester.key_length = 7 + self.slots
        super().test_attention_outputs()

    def test_hidden_states_output(self):
        self.model_tester.encoder_seq_length = 7 + self.prefix
        super().test_hidden_states_output()


class CompositeTests(OurTests):
    """A `variant` of `helpers.make_model`. What `generate` does is the decoder's, which is tested by itself."""

    all_generative_model_classes = ()
    _is_composite = True

    def __init_subclass__(cls, variant=None, **kwargs):
        super().__init_subclass__(**kwargs)
        if variant is not None:
            cls.variant, cls.all_model_classes = variant, (type(make_model(variant)),)

    def setUp(self):
        # Passes are held against each other, whole batches and single rows: z is one standard deviation off the mean.
        fixed = mock.patch.object(DiagonalGaussian, "sample", lambda gaussian, *args, **kwargs: gaussian.mean + gaussian.std)
        fixed.start()
        self.addCleanup(fixed.stop)
        config = make_model(self.variant).config
        self.model_tester = ModelTester(config.decoder, self.config_and_inputs)
        set_seed(0)

    def config_and_inputs(self):
        model = make_model(self.variant)
        return model.config, make_batch(model)


class TestEmbeddingLlama(DecoderTests, unittest.TestCase, make_config=tiny_llama_config, ways=("embedding",)):
    """`LatentDecoder`, `embedding`, Llama"""


class TestMemoryLlama(DecoderTests, unittest.TestCase, make_config=tiny_llama_config, ways=("memory",)):
    """`LatentDecoder`, `memory`, Llama"""


class TestPrefixGPT2(DecoderTests, unittest.TestCase, make_config=tiny_gpt2_config, ways=("prefix",)):
    """`LatentDecoder`, `prefix`, GPT-2"""


class TestMemoryEmbeddingGPT2(DecoderTests, unittest.TestCase, make_config=tiny_gpt2_config, ways=("memory", "embedding")):
    """`LatentDecoder`, `memory` and `embedding`, GPT-2"""


class TestAllWaysLlama(DecoderTests, unittest.TestCase, make_config=tiny_llama_config, ways=("embedding", "memory", "prefix")):
    """`LatentDecoder`, all three, Llama"""


class TestMemoryEmbeddingLSTM(DecoderTests, unittest.TestCase, make_config=tiny_lstm_config, ways=("memory", "embedding")):
    """`LatentDecoder`, `memory` and `embedding`, LSTM"""

    has_attentions = False

    def _get_attention_shape(self, batch_size, seq_length, config):
        return ((batch_size, config.hidden_size),) * 2

    def _check_hidden_states_for_generate(self, *args, **kwargs):
        """An LSTM returns none."""


class TestVAE(CompositeTests, unittest.TestCase, variant="vae-optimus"):
    """`VAEModel`, BERT and GPT-2, `memory` and `embedding`"""


class TestVAELSTM(CompositeTests, unittest.TestCase, variant="vae-lstm"):
    """`VAEModel`, LSTMs"""


class TestCVAE(CompositeTests, unittest.TestCase, variant="cvae"):
    """`CVAEModel`, source as prompt"""


class TestCVAECrossAttention(CompositeTests, unittest.TestCase, variant="cvae-cross"):
    """`CVAEModel`, cross-attention, two encoders"""


class TestDialogCVAE(CompositeTests, unittest.TestCase, variant="dialog-acts"):
    """`DialogCVAEModel`, flat context, acts"""


class TestParaphraseVAE(CompositeTests, unittest.TestCase, variant="paraphrase-prompt"):
    """`ParaphraseVAEModel`, source as prompt"""


class TestParaphraseVAELSTM(CompositeTests, unittest.TestCase, variant="paraphrase-lstm"):
    """`ParaphraseVAEModel`, LSTMs, source as initial state"""


MODELS = {name: each for name, each in globals().items() if name.startswith("Test")}


class Outcomes(dict):
    """(class, test) -> how it ended."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        *_, model, test = report.nodeid.split("::")
        if model not in MODELS:
            return
        if report.failed:
            self[model, test] = "failed"
        elif report.skipped:
            self[model, test] = "expected" if hasattr(report, "wasxfail") else "skipped"
        elif report.when == "call":
            self[model, test] = "passed"


@pytest.fixture(scope="module", autouse=True)
def found(request):
    outcomes = Outcomes()
    request.config.pluginmanager.register(outcomes)
    yield outcomes
    request.config.pluginmanager.unregister(outcomes)


@pytest.fixture(autouse=True)
def expected(request):
    if request.cls is not None and (reason := reason_for(request.cls.__name__, request.node.name)):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.fixture(autouse=True)
def deprecations_fail():
    """What the testers call is theirs."""


def test_the_page_says_what_was_found(found):
    titles = {name: model.__doc__ for name, model in MODELS.items()}
    if os.environ.get("WRITE_PEER_SUITE"):
        every = {(name, test) for name, model in MODELS.items() for test in unittest.TestLoader().getTestCaseNames(model)}
        assert set(found) == every, "run the whole file in one process: the page says what its tests found"
        counts = {name: Counter(outcome for (model, _), outcome in found.items() if model == name) for name in MODELS}
        PAGE.write_text(page(titles, counts, json.loads(VERSIONS.read_text(encoding="utf-8"))), encoding="utf-8")
    written = PAGE.read_text(encoding="utf-8")
    # How many are skipped depends on the machine, and the page stays true of the versions that it names.
    assert written == page(titles, *read_page(written, titles)), "set WRITE_PEER_SUITE=1 and run this whole file"
