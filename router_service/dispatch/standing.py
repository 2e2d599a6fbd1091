"""What a router knows of a worker, and whether it asks it therefore."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from router_service.dispatch.breaker import Breaker, Fault
from router_service.dispatch.fitness import Requirements
from wire.errors import ExpertNotHeldError, OrreryError
from wire.generated import orrery_pb2 as pb

_log = logging.getLogger(__name__)


class Standing:
    """What a worker says of itself, what placements say of it, and how it behaves. No I/O.

    held: bool [layers, experts], as far as known.
    wanted: bool [layers, experts], what the newest placement gives to it; its term is `term`.
    pid: of the worker's process; 0 as long as it has not said so.
    """

    def __init__(self, worker_id: str, requirements: Requirements, breaker: Breaker) -> None:
        shape = (len(requirements.layers), requirements.n_routed_experts)
        self.held: NDArray[np.bool_] = np.zeros(shape, np.bool_)
        self.wanted: NDArray[np.bool_] = np.zeros(shape, np.bool_)
        self.term = 0
        self.pid = 0
        self.breaker = breaker
        self._worker_id = worker_id
        self._requirements = requirements
        self._unfit: str | None = None

    @property
    def fit(self) -> bool:
        """Whether it says of itself what allows for its use."""
        return self._unfit is None

    @property
    def refusal(self) -> str | None:
        """Why it is not asked at all; None if it may be."""
        if self._unfit is not None:
            return self._unfit
        return self.breaker.reason if self.breaker.refuses else None

    @property
    def preferred(self) -> bool:
        """Whether it may be asked, and nothing speaks for asking others instead."""
        return self._unfit is None and self.breaker.closed

    @property
    def lacking(self) -> bool:
        """Whether it does not hold all that a placement gives to it."""
        return bool((self.wanted & ~self.held).any())

    def assign(self, wanted: NDArray[np.bool_], term: int) -> None:
        """What the newest placement says of this worker; bool [layers, experts] and its term.

        Experts are loaded before a placement that names them is published, so it is believed
        over what the worker said before; if it is wrong, the worker answers so.
        """
        self.held = self.held | (wanted & ~self.wanted)
        self.wanted = wanted
        self.term = term

    def describe(self, worker: pb.WorkerDescription) -> None:
        """Takes over what the worker says of itself."""
        unfit = self._requirements.refusal(worker, self.term)
        if unfit is not None and unfit != self._unfit:
            _log.warning("worker %s is not used: %s", self._worker_id, unfit)
        self._unfit = unfit
        self.held = self._requirements.held(worker)
        self.pid = worker.pid

    def refused(self, layer: int, error: OrreryError, expert: int | None) -> None:
        """Takes an error answer to a message of a layer, and the expert that it is about."""
        known = expert is not None and expert < self.held.shape[1]
        if isinstance(error, ExpertNotHeldError) and known:
            self.held[layer, expert] = False
        else:
            self.breaker.open(Fault.ERROR, f"{error.code}: {error}")

    def lost(self, error: OrreryError) -> None:
        """The connection is gone, or could not be had."""
        if self.refusal is None:
            _log.warning("worker %s is lost: %s", self._worker_id, error)
        self.breaker.open(Fault.LOST, f"{error.code}: {error}")
