"""`docs/measured/families.md`, written from what `test_any_pair.py` found."""

from families import CROSS_ATTENTION, DECODERS, ENCODERS, READ_ONCE, REFUSALS, WORKS
from helpers import ROOT
from hf_vae.configuration_vae import LATENT_INJECTION_TYPES

ABSENT = "–"
PAGE = ROOT / "docs" / "measured" / "families.md"

TEMPLATE = """\
# Which encoders and which decoders

Written by a test run, not by hand: `WRITE_FAMILIES=1 python -m pytest tests/models/test_any_pair.py`, with transformers {version}.
Every encoder is tried with an LSTM decoder and every decoder with an LSTM encoder, tiny and with random weights
(`tests/families.py`). Then follow a few pairs as one would use them.

*works* means, in float32 on a CPU: loss, KL and logits are finite, and the reconstruction's gradient reaches the posterior's head
(mean and log variance of every dimension) and the encoder's embeddings; saved and loaded through `AutoModel` it gives the same.
For an encoder also: a padded text gives the posterior that it gives alone, the longest text that its positions hold is read, and
one token more is refused in words. For a decoder also: every step of a cached greedy generation on left-padded prompts is what one
pass without a cache gives (2e-5 in log-probability), a padded prompt gives what it gives alone, and beams are scored as in one
pass.

*refused* means a `ValueError` that names the reason.

## Encoders

| `encoder` | `pooling="mean"` | `"pooler"` | what `"first"` depends on |
|---|---|---|---|
{encoders}

With a causal encoder the first token's state knows nothing of the rest of the text: choose `mean`.

## Decoders

| `decoder` | `latent_injection="embedding"` | `"memory"` | `"prefix"` | `"logits"` | source read once |
|---|---|---|---|---|---|
{decoders}

*prompts of one length*: the model counts its positions over padding, so prompts of unequal length cannot share a batch, and are
refused. Without a prompt, as in a plain VAE, there is nothing to pad.

*source read once* is about `latent_placement="after_source"`, with x as the prompt, in every way in that works. *yes* means that
one reading of a source serves every z: each step of several sequences of it is what one pass without a cache gives (2e-5), and
−log p(y|x,z) and its gradient are those of a source that is read with each z. With *no* each z reads the source itself, to the
same numbers. For all of them a source of padding alone counts as no source: what follows is as with `before_source`.

## How the decoder reads x

With `source_conditioning="prompt"` x is the prompt. Every decoder above that is not refused reads it. `"initial_state"` is for
recurrent decoders: of those above {states} works, the others are refused.

`"cross_attention"` is for the families below. They are all those that say they have it. The others of the table above are
refused. *works* means: every step of a greedy generation, with a cache and without one, is what one pass gives (2e-5 in
log-probability), whether sources are padded on the right or not at all; a padded source gives what it gives alone; beams are
scored as in one pass; −log p(y|x,z) in training is that of each row alone (1e-4), and its gradient reaches z and the encoder. Of
a source that the decoder has read once, both are those of a source that it reads with each z.

| `decoder` | `latent_injection="embedding"` | `"memory"` | `"prefix"` | `"logits"` |
|---|---|---|---|---|
{sources}

## Pairs

| `encoder` and `decoder` | `latent_injection` | |
|---|---|---|
{pairs}

## Reasons

{reasons}
"""


def page(entries: dict[tuple[str, str, str], str], version: str) -> str:
    """`docs/measured/families.md` from what was found, or is expected, with this version of transformers."""

    def shown(aspect: str, cell: str) -> str:
        if aspect == READ_ONCE:
            return {WORKS: "yes", ABSENT: ABSENT}.get(cell, f"no: {cell}")
        return f"refused: {cell}" if cell in REFUSALS else cell

    def rows(part: str, families: dict, aspects: tuple[str, ...]) -> str:
        lines = []
        for name, family in families.items():
            one_length = "prompts of one length" if not getattr(family, "padded_prompts", True) else ""
            remarks = ", ".join(filter(None, (getattr(family, "remark", ""), one_length)))
            cells = [shown(aspect, entries.get((part, name, aspect), ABSENT)) for aspect in aspects]
            lines.append(f"| {' | '.join([f'{name} ({remarks})' if remarks else name, *cells])} |")
        return "\n".join(lines)

    return TEMPLATE.format(
        version=version,
        encoders=rows("encoder", ENCODERS, ("mean", "pooler", "first")),
        decoders=rows("decoder", DECODERS, (*LATENT_INJECTION_TYPES, READ_ONCE)),
        states=" and ".join(name for (part, name, _), cell in entries.items() if part == "initial_state" and cell == WORKS),
        sources=rows("cross_attention", CROSS_ATTENTION, LATENT_INJECTION_TYPES),
        pairs="\n".join(f"| {name} | {ways} | {cell} |" for (part, name, ways), cell in entries.items() if part == "pair"),
        reasons="\n".join(f"- {reason}: {refusal.remark}." for reason, refusal in REFUSALS.items()),
    )
