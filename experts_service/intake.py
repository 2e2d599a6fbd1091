"""Where an accepted request is computed: at once on the event loop, or in the runtime's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from experts_service.answering import Answering
from experts_service.pool import Task, TaskPool
from experts_service.quick_answers import QuickAnswers
from wire.envelope import Message


class Intake:
    """Small requests are computed on the event loop.

    The way to another thread and back costs two wake-ups and a fight for the interpreter's
    lock, several times what a few rows cost. With one router they are computed in the very call
    that received them. With several, what arrived together is computed together: small requests
    wait until the loop has received whatever else is there.
    """

    def __init__(
        self,
        pool: TaskPool,
        answering: Answering,
        quick: QuickAnswers | None,
        died: Callable[[], None],
    ) -> None:
        """
        Args:
            quick: None: there is no short way.
            died: the arithmetic raised what it should not, and requests are left unanswered.
        """
        self._quick = quick
        self._pool = pool
        self._answering = answering
        self._died = died
        self._loop = asyncio.get_running_loop()
        self._small: list[Task] = []
        self._streams = 0

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Has a router's stream counted while it lives."""
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    def at_once(self, message: Message) -> Message | None:
        """The answer to a message that nothing speaks against answering here and now, else None."""
        if self._quick is None or self._streams > 1 or self._small or self._pool.busy:
            return None
        return self._quick.answer(message)

    def put(self, task: Task) -> None:
        """Has the task answered, now or later."""
        if self._pool.busy or not self._answering.is_small(task.request):
            self._pool.put(task)
        elif self._streams <= 1 and not self._small:
            self._compute([task])
        else:
            if not self._small:
                self._loop.call_soon(self._compute_small)
            self._small.append(task)

    def _compute_small(self) -> None:
        tasks, self._small = self._small, []
        by_layer: dict[int, list[Task]] = {}
        for task in tasks:
            by_layer.setdefault(task.request.layer, []).append(task)
        first, *others = by_layer.values()
        # Each of them is small, but together they might keep the loop too long.
        for group in others:
            for task in group:
                self._pool.put(task)
        self._compute(first)

    def _compute(self, tasks: list[Task]) -> None:
        """All of one layer."""
        answered = False
        try:
            with torch.inference_mode():
                answers = self._answering.answers(tasks)
            answered = True
        finally:
            if not answered:
                self._died()
        for task, answer in answers:
            task.answer(answer)
