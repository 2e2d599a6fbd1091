"""The thread that does a worker's longer arithmetic."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

from experts_service.answering import Answering, Answers
from experts_service.pool import TaskPool


class Runtime:
    """Takes batches from the pool, computes them, hands the answers back.

    One thread, so that the event loop stays free to receive while torch computes, and so that
    whatever arrives meanwhile becomes the next batch.
    """

    def __init__(
        self,
        pool: TaskPool,
        answering: Answering,
        deliver: Callable[[Answers], None],
        died: Callable[[], None],
    ) -> None:
        """`deliver` and `died` are called in the runtime's thread.

        `died`: the thread ended without being asked to.
        """
        self._pool = pool
        self._answering = answering
        self._deliver = deliver
        self._died = died
        self._thread = threading.Thread(target=self._run, name="experts", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Computes what is in the pool and ends the thread; blocks until then."""
        self._pool.close()
        self._thread.join()

    def _run(self) -> None:
        asked_to_end = False
        try:
            with torch.inference_mode():
                while (tasks := self._pool.take()) is not None:
                    self._deliver(self._answering.answers(tasks))
            asked_to_end = True
        finally:
            if not asked_to_end:
                self._died()
