"""What a request's parameters do to one row of logits, before anything is drawn from it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from router_service.sequence import Sequence


def adjusted(
    raw: NDArray[np.float32], seq: Sequence, eos_token_ids: Collection[int]
) -> NDArray[np.float64]:
    """A float64 copy of one row [vocab] with bias, penalties and the minimum length applied.

    Repetition penalty as in the CTRL paper and in transformers (over prompt and outputs), presence
    and frequency penalties as in OpenAI's API (over outputs), in this order, then the bias.
    """
    sampling = seq.request.sampling
    row = raw.astype(np.float64)
    if sampling.penalized:
        _penalize(row, seq)
    for token, bias in sampling.logit_bias.items():
        row[token] += bias
    if seq.output_length < sampling.min_tokens:
        row[list(sampling.ending_ids(eos_token_ids))] = -np.inf
    return row


def plain(seq: Sequence) -> bool:
    """Whether `adjusted` would change nothing."""
    sampling = seq.request.sampling
    return not (
        sampling.penalized or sampling.logit_bias or seq.output_length < sampling.min_tokens
    )


def _penalize(row: NDArray[np.float64], seq: Sequence) -> None:
    sampling = seq.request.sampling
    if sampling.repetition_penalty != 1.0:
        seen = np.fromiter(seq.prompt_ids | seq.output_counts.keys(), dtype=np.int64)
        logits = row[seen]
        penalty = sampling.repetition_penalty
        row[seen] = np.where(logits > 0, logits / penalty, logits * penalty)
    if seq.output_counts:
        ids = np.fromiter(seq.output_counts.keys(), dtype=np.int64)
        counts = np.fromiter(seq.output_counts.values(), dtype=np.float64)
        row[ids] -= sampling.frequency_penalty * counts + sampling.presence_penalty
