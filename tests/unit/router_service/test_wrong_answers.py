"""Each process that is found out has the router forget once."""

from __future__ import annotations

from router_service.dispatch.roster import Suspect
from router_service.wrong_answers import WrongAnswers


def suspect(worker_id: str, pid: int) -> Suspect:
    return Suspect(worker_id=worker_id, pid=pid, reason="its answer to a canary is wrong")


def test_once_for_each_process() -> None:
    suspects: list[Suspect] = []
    forgotten: list[int] = []
    watch = WrongAnswers(lambda: suspects, lambda: forgotten.append(len(suspects)))
    watch.look()
    assert forgotten == []
    suspects.append(suspect("expert-0", 10))
    watch.look()
    watch.look()
    assert forgotten == [1]
    suspects.append(suspect("expert-1", 11))
    watch.look()
    assert forgotten == [1, 2]
    suspects.clear()
    watch.look()
    suspects.append(suspect("expert-0", 12))
    watch.look()
    assert forgotten == [1, 2, 1]
