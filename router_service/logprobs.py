"""Log probabilities of one row of logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from router_service.outputs import TokenLogprobs


def token_logprobs(row: NDArray[np.float32], token: int, top: int) -> TokenLogprobs:
    """Log probabilities of `token` and of the `top` most probable tokens.

    One row at a time and in float64 until the last rounding to float32, so that nothing depends
    on which rows are computed together.

    Args:
        row: [vocab] float32, the raw logits of the model.
    """
    wide = row.astype(np.float64)
    peak = wide.max()
    norm = peak + np.log(np.exp(wide - peak).sum())
    best = _best(row, top)
    return TokenLogprobs(
        token_id=token,
        logprob=float(np.float32(wide[token] - norm)),
        top_token_ids=tuple(best.tolist()),
        top_logprobs=tuple((wide[best] - norm).astype(np.float32).tolist()),
    )


def _best(row: NDArray[np.float32], top: int) -> NDArray[np.int64]:
    """The `top` largest of `row`, the lower id first among equals."""
    if top == 0:
        return np.empty(0, dtype=np.int64)
    edge = len(row) - min(top, len(row))
    candidates = np.flatnonzero(row >= np.partition(row, edge)[edge])
    return candidates[np.argsort(-row[candidates], kind="stable")][:top]
