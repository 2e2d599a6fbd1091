"""What to do about answers that were believed until their worker was found out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router_service.dispatch.roster import Suspect


class WrongAnswers:
    """Has a router forget what rests on answers of workers that are not believed any more."""

    def __init__(
        self, suspects: Callable[[], Sequence[Suspect]], distrust: Callable[[], None]
    ) -> None:
        """`distrust`: is called once for each process that is found out."""
        self._suspects = suspects
        self._distrust = distrust
        self._known: frozenset[tuple[str, int]] = frozenset()

    def look(self) -> None:
        """To be called whenever there may be new suspects."""
        found = frozenset((suspect.worker_id, suspect.pid) for suspect in self._suspects())
        if found - self._known:
            self._distrust()
        self._known = found
