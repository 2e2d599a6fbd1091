"""Chooses the next token of each sequence of a micro-batch."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from router_service.draw import draw
from router_service.logits import adjusted, plain
from router_service.logprobs import token_logprobs
from router_service.outputs import TokenLogprobs
from router_service.sequence import Sequence
from router_service.uniform import uniform


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The next token of one sequence; None when its logits are not finite."""

    token: int | None
    logprobs: TokenLogprobs | None = None


class Sampler:
    """A row's choice depends on that row and its sequence alone, never on its neighbours."""

    def __init__(self, eos_token_ids: Collection[int]) -> None:
        self._eos_token_ids = tuple(eos_token_ids)

    def sample(self, logits: Tensor, sequences: list[Sequence]) -> list[Choice]:
        """One choice per row.

        Args:
            logits: [len(sequences), vocab] float32.
        """
        if not sequences:
            return []
        tokens, peaks = _best(logits)
        rows = None if all(_only_greedy(seq) for seq in sequences) else logits.cpu().numpy()
        return [
            self._choose(seq, token, peak, None if rows is None else rows[index])
            for index, (seq, token, peak) in enumerate(zip(sequences, tokens, peaks, strict=True))
        ]

    def _choose(
        self, seq: Sequence, best: int, peak: float, row: NDArray[np.float32] | None
    ) -> Choice:
        if not math.isfinite(peak):
            return Choice(token=None)
        if row is None or _only_greedy(seq):
            return Choice(token=best)
        sampling = seq.request.sampling
        token = best if sampling.greedy and plain(seq) else self._pick(seq, row)
        if sampling.logprobs is None:
            return Choice(token=token)
        return Choice(token=token, logprobs=token_logprobs(row, token, sampling.logprobs))

    def _pick(self, seq: Sequence, row: NDArray[np.float32]) -> int:
        sampling = seq.request.sampling
        logits = adjusted(row, seq, self._eos_token_ids)
        if sampling.greedy:
            return int(np.argmax(logits))
        return draw(logits, sampling, uniform(sampling.seed, len(seq.tokens)))


def _only_greedy(seq: Sequence) -> bool:
    sampling = seq.request.sampling
    return sampling.greedy and sampling.logprobs is None and plain(seq)


def _best(logits: Tensor) -> tuple[list[int], list[float]]:
    """The token with the highest logit of each row, and that logit; NaN is above everything.

    Both libraries document that the first maximum is taken: the lowest id. On CPU numpy's is
    several times as fast; from a device only the results are brought.
    """
    if logits.device.type == "cpu":
        rows = logits.numpy()
        best = rows.argmax(axis=1)
        return best.tolist(), rows[np.arange(len(rows)), best].tolist()
    on_device = torch.argmax(logits, dim=1)
    return on_device.tolist(), logits.gather(1, on_device[:, None])[:, 0].tolist()
