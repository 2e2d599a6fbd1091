"""What a worker tells of itself."""

from __future__ import annotations

import enum
import threading

from wire.errors import StaleEpochError
from wire.generated import orrery_pb2 as pb
from wire.placement import Epoch


class WorkerState(enum.Enum):
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"

    @property
    def message(self) -> pb.WorkerState:
        return _MESSAGES[self]


_MESSAGES = {
    WorkerState.LOADING: pb.WORKER_STATE_LOADING,
    WorkerState.READY: pb.WORKER_STATE_READY,
    WorkerState.DRAINING: pb.WORKER_STATE_DRAINING,
    WorkerState.FAILED: pb.WORKER_STATE_FAILED,
}


class WorkerStatus:
    """State, epoch and progress; written by the event loop and the loading thread.

    state: what decides whether frames are taken.
    error: why it is FAILED.
    term: the highest of a controller that was heard; commands of a lower one are refused.
    epoch: the highest one that a command of the controller named; frames of a lower term are
        refused. A controller's first word does not raise it, since routers still go by the
        placement of the one before; nor do frames: a single broken one could otherwise shut every
        router out.
    assigned: experts that the worker was told to hold.
    """

    def __init__(self) -> None:
        self.state = WorkerState.LOADING
        self.error = ""
        self.term = 0
        self.epoch = Epoch(term=0, counter=0)
        self.assigned = 0
        self._lock = threading.Lock()

    def hear(self, term: int) -> None:
        """Takes note of a controller's term; a lower one than known changes nothing."""
        with self._lock:
            self.term = max(self.term, term)

    def command(self, epoch: Epoch) -> None:
        """Takes note of a command's epoch.

        Raises:
            StaleEpochError: a higher one was seen, or a higher term heard, before.
        """
        with self._lock:
            self.check_command(epoch)
            if epoch < self.epoch:
                raise StaleEpochError(f"{_name(epoch)} is below {_name(self.epoch)}")
            self.epoch = epoch
            self.term = epoch.term

    def check_command(self, epoch: Epoch) -> None:
        """Raises StaleEpochError for a command of a controller that another one has followed."""
        if epoch.term < self.term:
            raise StaleEpochError(f"{_name(epoch)} is of an older term than {self.term}")

    def check_term(self, epoch: Epoch) -> None:
        """Raises StaleEpochError for a term below that of the highest epoch."""
        if epoch.term < self.epoch.term:
            raise StaleEpochError(f"{_name(epoch)} is of an older term than {_name(self.epoch)}")


def _name(epoch: Epoch) -> str:
    return f"epoch ({epoch.term}, {epoch.counter})"
