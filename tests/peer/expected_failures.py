"""What transformers' testers ask that our models do not do, and why; and `docs/measured/peer_suite.md`, which says so."""

import re
from fnmatch import fnmatchcase
from typing import NamedTuple

from helpers import ROOT

PAGE = ROOT / "docs" / "measured" / "peer_suite.md"


class ExpectedFailure(NamedTuple):
    """Classes and tests by patterns, as of file names. A test that an entry names and that passes is an error."""

    models: tuple[str, ...]
    tests: tuple[str, ...]
    reason: str


COMPOSITES = ("TestVAE*", "TestCVAE*", "TestParaphraseVAE*", "TestDialogCVAE*")

EXPECTED_FAILURES = (
    ExpectedFailure(
        ("TestEmbedding*", "TestMemory*", "TestPrefix*", "TestAllWays*"),
        (
            "test_generate_without_input_ids",
            "test_generate_from_random_inputs_embeds",
            "test_generate_continue_from_inputs_embeds",
            "test_custom_4d_attention_mask",
        ),
        "called without a z: the decoder models p(y|x,z) and says so",
    ),
    ExpectedFailure(
        ("TestMemoryLlama", "TestMemoryEmbeddingGPT2", "TestAllWaysLlama", "TestVAE"),
        ("test_training_gradient_checkpointing*", "test_enable_input_require_grads_with_gradient_checkpointing"),
        "gradient checkpointing drops the cache that holds the memory: refused in words",
    ),
    ExpectedFailure(
        ("TestMemoryLlama", "TestMemoryEmbeddingGPT2", "TestPrefixGPT2", "TestAllWaysLlama"),
        ("test_assisted_decoding_*",),
        "assisted generation cuts attentions and hidden states after as many positions as there are tokens, z's not counted; its "
        "tokens and scores are right, which is asserted before",
    ),
    ExpectedFailure(
        ("TestMemoryEmbeddingGPT2", "TestPrefixGPT2"),
        ("test_can_init_all_missing_weights",),
        "outside transformers, GPT-2 loses the smaller scale of its output projections; the composites, which are what is loaded, "
        "keep it and pass",
    ),
    ExpectedFailure(
        ("TestMemoryEmbeddingLSTM",),
        ("test_hidden_states_output", "test_retain_grad_hidden_states_attentions"),
        "an LSTM returns no hidden states",
    ),
    ExpectedFailure(
        COMPOSITES,
        ("test_resize_tokens_embeddings", "test_resize_embeddings_untied"),
        "encoder and decoder have a vocabulary each: refused in words that name the parts' own method",
    ),
    ExpectedFailure(
        COMPOSITES,
        (
            "test_attention_outputs",
            "test_hidden_states_output",
            "test_retain_grad_hidden_states_attentions",
            "test_model_outputs_equivalence",
            "test_capture_outputs_decorator",
            "test_can_capture_specific_layers_hidden_states",
        ),
        "`output_hidden_states` and `output_attentions` are asked of the parts: a composite returns q, p and logits",
    ),
    ExpectedFailure(
        COMPOSITES,
        ("test_eager_matches_sdpa_inference_*",),
        "passes `decoder_input_ids` and compares hidden states: a composite makes its decoder's inputs from `labels`",
    ),
    ExpectedFailure(
        ("TestVAELSTM", "TestParaphraseVAELSTM"),
        ("test_*gradient_checkpointing*",),
        "an LSTM has no layers to checkpoint: transformers refuses",
    ),
)


def reason_for(model: str, test: str) -> str | None:
    """Why this test of this class must fail, if it must."""
    for entry in EXPECTED_FAILURES:
        if any(fnmatchcase(model, each) for each in entry.models) and any(fnmatchcase(test, each) for each in entry.tests):
            return entry.reason
    return None


OUTCOMES = ("passed", "failed", "expected", "skipped")

TEMPLATE = """\
# transformers' own testers

Written by a test run, not by hand: `WRITE_PEER_SUITE=1 python -m pytest tests/peer`. `GenerationTesterMixin` and `ModelTesterMixin`
are what transformers asks of each of its models: saving and loading, initialisation, tied weights, attention implementations,
batches against single rows, gradients, and every way of generating against every other. Here they ask it of ours, tiny, with random
weights, on a CPU. `python tests/peer/fetch_testers.py ADDRESS` brings them; without them the tests are skipped.

These are `test_modeling_common.py` of {index}, and `generation` and `exporters` of {version} (commit {commit}).

| | passed | failed | expected to fail | skipped |
|---|---|---|---|---|
{rows}

*skipped*, by the testers themselves: what needs an accelerator, FlashAttention or DeepSpeed, what they call slow (`RUN_SLOW=1`),
and what asks of a model something that it does not have (experts, images, a static cache).

The testers know three things about our models. Attentions, hidden states and the cache of `memory` and `prefix` hold the positions
of z too, in front of those of the tokens. z of a composite is held at one standard deviation from its mean, because the testers
compare passes with each other. And a composite's `generate` is left out: it is that of its decoder, whose rows are above.

## Expected to fail

Each of these must fail. It is an error if another one fails, or if one of these passes.

| | |
|---|---|
{reasons}
"""


def page(titles: dict[str, str], counts: dict[str, dict[str, int]], versions: dict) -> str:
    """`docs/measured/peer_suite.md`: what each class is, how many of its tests ended how, and whose testers they were."""
    rows = (f"| {titles[name]} | {' | '.join(str(counts[name][outcome]) for outcome in OUTCOMES)} |" for name in titles)
    reasons = (
        f"| {', '.join(f'`{test}`' for test in entry.tests)} | {entry.reason.replace('|', chr(92) + '|')} |"
        for entry in EXPECTED_FAILURES
    )
    return TEMPLATE.format(
        index=versions["index"],
        version=versions["repository"]["version"],
        commit=versions["repository"]["commit"],
        rows="\n".join(rows),
        reasons="\n".join(reasons),
    )


def read_page(written: str, titles: dict[str, str]) -> tuple[dict[str, dict[str, int]], dict]:
    """The counts and the versions that a page names."""
    counts = {}
    for name, title in titles.items():
        cells = re.search(rf"^\| {re.escape(title)} \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", written, re.M)
        counts[name] = dict(zip(OUTCOMES, map(int, cells.groups() if cells else (0, 0, 0, 0))))
    index, version, commit = re.search(r"common\.py` of (\S+), and .* of (\S+) \(commit (\S+)\)", written).groups()
    return counts, {"index": index, "repository": {"version": version, "commit": commit}}
