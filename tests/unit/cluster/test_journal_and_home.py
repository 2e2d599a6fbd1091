from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.errors import ClusterError, NotRunningError
from cluster.home import Home, Run
from cluster.journal import JournalError, keep, newest_term, next_term, recall


def test_terms_rise_over_processes(tmp_path: Path) -> None:
    journal = tmp_path / "deep" / "journal.json"
    assert newest_term(journal) == 0
    assert [next_term(journal) for _ in range(3)] == [1, 2, 3]
    assert newest_term(journal) == 3


def test_the_fleet_of_a_run_is_kept_for_its_next_controller(tmp_path: Path) -> None:
    journal = tmp_path / "journal.json"
    assert next_term(journal) == 1
    assert recall(journal, "run a") is None
    assert keep(journal, 1, "run a", {"workers": 4})
    assert next_term(journal) == 2
    assert recall(journal, "run a") == {"workers": 4}
    assert recall(journal, "run b") is None
    # The controller of term 1 wakes up.
    assert not keep(journal, 1, "run a", {"workers": 1})
    assert recall(journal, "run a") == {"workers": 4}


@pytest.mark.parametrize("text", ["", "[]", '{"term": -1}', '{"term": "x"}', "\x00"])
def test_a_damaged_journal_is_not_overwritten(tmp_path: Path, text: str) -> None:
    journal = tmp_path / "journal.json"
    journal.write_text(text)
    with pytest.raises(JournalError, match="delete it"):
        next_term(journal)
    assert journal.read_text() == text


def test_a_journal_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="ORRERY_HOME"):
        next_term(tmp_path / "file" / "journal.json")


def test_the_run_file_lives_as_long_as_the_lock(tmp_path: Path) -> None:
    home = Home(path=tmp_path / "home")
    with pytest.raises(NotRunningError, match="orrery serve"):
        home.running()
    with home.hold():
        home.write(Run(pid=os.getpid(), state="ready", url="http://x:1"))
        assert home.running().url == "http://x:1"
        with pytest.raises(ClusterError, match=r"already running at http://x:1 \(process \d+\)"):
            home.hold().__enter__()
    with pytest.raises(NotRunningError):
        home.running()


def test_a_file_without_a_lock_is_of_a_dead_server(tmp_path: Path) -> None:
    home = Home(path=tmp_path)
    home.write(Run(pid=1, state="ready"))
    with pytest.raises(NotRunningError):
        home.running()


def test_a_home_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ClusterError, match="ORRERY_HOME"),
        Home(path=tmp_path / "file" / "home").hold(),
    ):
        pass


def test_the_log_before_this_one_is_kept(tmp_path: Path) -> None:
    home = Home(path=tmp_path)
    for text in (b"first", b"second", b"third"):
        with home.open_log() as log:
            log.write(text)
    assert home.log.read_bytes() == b"third"
    assert (tmp_path / "serve.log.1").read_bytes() == b"second"
