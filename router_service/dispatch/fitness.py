"""Whether a router may use a worker that it has reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from router_service.dispatch.finite import all_finite
from wire.errors import BadFrameError, InternalError, OrreryError
from wire.generated import orrery_pb2 as pb


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What every worker of this router has to agree with.

    fingerprint: workers with another one compute other bits, and are never asked.
    model_hash: of the checkpoint; empty when the router does not know its own.
    rows_dtype: activation dtype on the wire.
    layers: the checkpoint's layers with routed experts, in table order.
    """

    fingerprint: str
    model_hash: str
    rows_dtype: torch.dtype
    hidden_size: int
    layers: Sequence[int]
    n_routed_experts: int

    def refusal(self, worker: pb.WorkerDescription, term: int) -> str | None:
        """Why the worker cannot be used with a placement of `term`; None if it can."""
        if worker.state != pb.WORKER_STATE_READY:
            return f"it is {_state_name(worker.state)}"
        if worker.fingerprint != self.fingerprint:
            return f"its numerics {worker.fingerprint!r} are not {self.fingerprint!r}"
        if self.model_hash and worker.model_hash != self.model_hash:
            return f"its model {worker.model_hash!r} is not {self.model_hash!r}"
        dtype = str(self.rows_dtype).removeprefix("torch.")
        if (worker.dtype, worker.hidden_size) != (dtype, self.hidden_size):
            return f"its rows are {worker.hidden_size} {worker.dtype}"
        if worker.epoch.term > term:
            return f"it has seen term {worker.epoch.term}, the placement's is {term}"
        return None

    def held(self, worker: pb.WorkerDescription) -> NDArray[np.bool_]:
        """bool [layers, experts]: what the worker says that it holds."""
        held = np.zeros((len(self.layers), self.n_routed_experts), np.bool_)
        for message in worker.experts:
            if message.layer in self.layers:
                ids = np.fromiter(message.experts, np.int64)
                held[self.layers.index(message.layer), ids[ids < self.n_routed_experts]] = True
        return held

    def fault(self, answer: Tensor, rows: int) -> OrreryError | None:
        """What is wrong with the answer to a request for so many rows; None if nothing is.

        Other requests' caches may come to hold what a row becomes, so that a row that is not
        finite must not get any further.
        """
        if answer.shape != (rows, self.hidden_size) or answer.dtype != self.rows_dtype:
            dtype = str(answer.dtype).removeprefix("torch.")
            return BadFrameError(f"an answer of shape {tuple(answer.shape)} in {dtype}")
        if not all_finite(answer):
            return InternalError("an answer with numbers that are not finite")
        return None


def _state_name(state: int) -> str:
    """Also of a state that only newer workers know."""
    if state not in pb.WorkerState.values():
        return f"in the unknown state {state}"
    return (
        pb.WorkerState.Name(pb.WorkerState.ValueType(state)).removeprefix("WORKER_STATE_").lower()
    )
