"""Where requests wait for the arithmetic, grouped by layer."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from wire.envelope import Message
from wire.frames import DispatchRequest


class Task(NamedTuple):
    """A request that was accepted and has to be answered exactly once.

    arrived: `time.perf_counter()` when it came.
    answer: takes the encoded answer; called on the event loop.
    """

    request: DispatchRequest
    arrived: float
    answer: Callable[[Message], None]


class TaskPool:
    """One queue a layer; `put` on the event loop, `take` in the thread of the runtime."""

    def __init__(self, max_rows: int) -> None:
        """`max_rows`: of a batch; a single request may hold more."""
        self._max_rows = max_rows
        self._queues: dict[int, deque[Task]] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._idle = True

    @property
    def busy(self) -> bool:
        """Whether the taker computes, or has something to take."""
        return not self._idle

    def put(self, task: Task) -> None:
        with self._changed:
            self._queues.setdefault(task.request.layer, deque()).append(task)
            self._idle = False
            self._changed.notify()

    def take(self) -> list[Task] | None:
        """What has come for the layer that has waited longest; None once the pool is closed.

        Blocks until there is something. Taking all that has arrived, from all routers, is what
        makes one grouped feed-forward of many small requests without ever waiting for more.
        """
        with self._changed:
            while not self._queues and not self._closed:
                self._idle = True
                self._changed.wait()
            if not self._queues:
                return None
            layer = min(self._queues, key=lambda number: self._queues[number][0].arrived)
            queue = self._queues[layer]
            tasks = [queue.popleft()]
            rows = tasks[0].request.x.shape[0]
            while queue and rows + queue[0].request.x.shape[0] <= self._max_rows:
                rows += queue[0].request.x.shape[0]
                tasks.append(queue.popleft())
            if not queue:
                del self._queues[layer]
            return tasks

    def close(self) -> None:
        """Lets `take` return None once what has come is taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
