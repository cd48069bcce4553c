"""`generate` against the bare decoder's, with as many rows and as many new tokens."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..comparison import Row, compare
from ..models import BOS, make_decoder, make_vae
from ..options import Options
from ..sizes import SIZES

NEW_TOKENS = 16


def settings(sampling: bool, new_tokens: int = NEW_TOKENS) -> dict:
    """No row stops early."""
    return {"do_sample": sampling, "max_new_tokens": new_tokens, "min_new_tokens": new_tokens}


def run(options: Options) -> Iterator[Row]:
    name = options.sizes[0]
    size = SIZES[name]
    model, bare = make_vae(size, options).eval(), make_decoder(size, options).eval()
    batches = (1, 16) if options.quick else (1, 16, 64)
    for sampling in (False, True):
        for count in (1, 32):
            for batch in batches:
                rows = batch * count
                start = torch.full((rows, 1), BOS, device=options.device)
                mask, how = torch.ones_like(start), settings(sampling)

                def ours(batch=batch, count=count, how=how):
                    return model.generate(num_samples=batch, num_return_sequences=count, **how)

                def theirs(start=start, mask=mask, how=how):
                    return bare.generate(start, attention_mask=mask, **how)

                yield compare(
                    f"generate, {'sampling' if sampling else 'greedy'}, K = {count}, batch {batch}, {name}",
                    ours,
                    theirs,
                    options,
                    # What takes less than a second is soon disturbed.
                    repeats=options.repeats if options.quick or rows > 512 else 4 * options.repeats,
                    against="the decoder's generate",
                    target=1.03,
                )
