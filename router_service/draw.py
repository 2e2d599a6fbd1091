"""Draws one token from one row by inverting the distribution function."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from router_service.sampling import SamplingParams

_LOOKS = (256, 4096)


def draw(logits: NDArray[np.float64], sampling: SamplingParams, u: float) -> int:
    """The token at which the cumulative probability first exceeds `u`.

    Tokens are ordered by falling probability, the lower id first among equals. In this order each
    of top-k, top-p and min-p keeps a prefix, so the tail is sorted only when `u` reaches into it;
    how far was sorted never changes the answer.

    Args:
        logits: [vocab] float64, after penalties and bias; -inf for tokens that are forbidden.
        u: in [0, 1).
    """
    weights = _weights(logits, sampling)
    for look in _LOOKS:
        if look < len(weights):
            token = _invert(weights, _head(weights, look), sampling, u)
            if token is not None:
                return token
    token = _invert(weights, np.argsort(-weights, kind="stable"), sampling, u)
    if token is None:
        raise RuntimeError("a complete order always gives a token")
    return token


def draw_slow(logits: NDArray[np.float64], sampling: SamplingParams, u: float) -> int:
    """The oracle of `draw`: sorts everything, filters step by step."""
    weights = _weights(logits, sampling)
    order = sorted(range(len(weights)), key=lambda token: (-weights[token], token))
    if sampling.top_k:
        order = order[: sampling.top_k]
    total = _mass(weights, order)
    if sampling.top_p < 1.0:
        kept: list[int] = []
        before = 0.0
        for token in order:
            if kept and before >= sampling.top_p * total:
                break
            kept.append(token)
            before += float(weights[token])
        order = kept
    order = [token for token in order if weights[token] >= sampling.min_p]
    target, reached = u * _mass(weights, order), 0.0
    for token in order:
        reached += float(weights[token])
        if reached > target:
            return token
    return [token for token in order if weights[token] > 0.0][-1]


def _weights(logits: NDArray[np.float64], sampling: SamplingParams) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = logits - logits.max()
    # A tiny temperature sends all but the best to -inf, which is what it asks for.
    with np.errstate(over="ignore"):
        weights /= sampling.temperature
    np.exp(weights, out=weights)
    return weights


def _mass(weights: NDArray[np.float64], order: list[int]) -> float:
    if len(order) == len(weights):
        return float(weights.sum())
    return float(np.cumsum(weights[order])[-1])


def _head(weights: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """The beginning of the order: all tokens above some probability, so that no tie is cut."""
    edge = np.partition(weights, len(weights) - count)[len(weights) - count]
    above = np.flatnonzero(weights > edge)
    return above[np.argsort(-weights[above], kind="stable")]


def _invert(
    weights: NDArray[np.float64], order: NDArray[np.int64], sampling: SamplingParams, u: float
) -> int | None:
    """The drawn token, or None when the answer lies beyond `order`, a prefix of the full order."""
    vocab, seen = len(weights), len(order)
    if seen == 0:
        return None
    reached = np.cumsum(weights[order])
    kept = min(sampling.top_k or vocab, vocab)
    if seen < kept < vocab:
        return None
    if sampling.top_p < 1.0:
        enough = sampling.top_p * _total(weights, reached, kept)
        kept = min(kept, int(np.searchsorted(reached, enough, side="left")) + 1)
    # The largest weight is exactly 1.
    kept = min(kept, int(np.count_nonzero(weights >= sampling.min_p)))
    if seen < kept < vocab:
        return None
    index = int(np.searchsorted(reached, u * _total(weights, reached, kept), side="right"))
    if index >= seen and seen < kept:
        return None
    # Rounding may leave the target at the very end, behind tokens of probability 0.
    last = min(kept, int(np.count_nonzero(weights > 0.0))) - 1
    return int(order[min(index, last)])


def _total(weights: NDArray[np.float64], reached: NDArray[np.float64], kept: int) -> float:
    return float(weights.sum()) if kept == len(weights) else float(reached[kept - 1])
