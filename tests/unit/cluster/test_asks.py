"""`orrery scale`, `drain`, `restart` and `events` against the controller's pages."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from cluster.cli import main
from cluster.cli.ask import Admin
from cluster.errors import ClusterError, ConfigError
from cluster.requests import PATHS, parse_ask, token_of
from cluster.signals import DrainAsked, RestartAsked, ScaleAsked
from monitoring.server import Commands, MetricsServer, RefusedError


class Pages:
    """A controller that does at once what it is asked for."""

    def __init__(self, home: Path) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.server = MetricsServer(
            CollectorRegistry(),
            debug={"/status": self.status, "/events": self.events},
            commands=Commands(
                token=token_of(home, make=True),
                paths={path: lambda body, path=path: self.take(path, body) for path in PATHS},
            ),
        )

    def status(self) -> dict[str, Any]:
        rows = [{"id": "expert-1", "node": "abc1"}, {"id": "router-0", "node": "abd2"}]
        return {"change": None, "processes": rows}

    def events(self) -> list[Any]:
        return [
            {
                "number": number,
                "time": 0.0,
                "term": 1,
                "kind": "asked",
                "subject": "",
                "text": f"{path} {body.get('experts', '')}",
                "seconds": 1.5,
                "facts": {"by": body["by"]},
            }
            for number, (path, body) in enumerate(self.asked, start=1)
        ]

    def take(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if body.get("experts") == 9:
            raise RefusedError("there is no room")
        self.asked.append((path, body))
        return self.status()


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pages]:
    monkeypatch.setenv("ORRERY_HOME", str(tmp_path))
    pages = Pages(tmp_path)
    with pages.server:
        yield pages


def orrery(pages: Pages, *words: str) -> int:
    return main([*words, "--admin", f"http://{pages.server.address}/"])


def test_asks_are_sent_and_what_comes_of_them_is_shown(
    pages: Pages, capsys: pytest.CaptureFixture[str]
) -> None:
    assert orrery(pages, "scale", "experts=6") == 0
    assert orrery(pages, "drain", "expert-1", "abd", "--no-wait") == 0
    assert orrery(pages, "restart") == 0
    assert [(path, {k: v for k, v in body.items() if k != "by"}) for path, body in pages.asked] == [
        ("/scale", {"experts": 6}),
        ("/drain", {"names": ["expert-1", "abd2"]}),
        ("/restart", {}),
    ]
    said = capsys.readouterr().out
    assert "asked: /scale 6 (asked by" in said
    assert "(1.50 s)" in said
    assert "accepted" in said
    assert orrery(pages, "events", "--json", "--last", "2") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["number"] for row in rows] == [2, 3]


def test_refusals_say_why(pages: Pages, capsys: pytest.CaptureFixture[str]) -> None:
    assert orrery(pages, "scale", "experts=9") == 1
    assert "there is no room" in capsys.readouterr().err
    assert orrery(pages, "scale", "six") == 2
    assert "experts=6" in capsys.readouterr().err
    assert orrery(pages, "drain", "ab") == 2
    assert "several nodes" in capsys.readouterr().err


def test_nobody_asks_without_the_token(pages: Pages, tmp_path: Path) -> None:
    token = tmp_path / "admin-token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    url = f"http://{pages.server.address}"
    with httpx.Client(trust_env=False, timeout=10) as client:
        for headers in ({}, {"Authorization": "Bearer no"}):
            assert client.post(f"{url}/restart", json={}, headers=headers).status_code == 401
        known = {"Authorization": f"Bearer {token.read_text()}"}
        assert client.post(f"{url}/status", json={}, headers=known).status_code == 404
        assert client.post(f"{url}/restart", content=b"[1]", headers=known).status_code == 400
        assert client.post(f"{url}/restart", content=b"{", headers=known).status_code == 400
    assert pages.asked == []
    token.write_text("another")
    with pytest.raises(ClusterError, match="token"):
        Admin(url=url).post("/restart", {})


def test_a_home_without_a_token_says_so(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="admin-token"):
        token_of(tmp_path)
    made = token_of(tmp_path, make=True)
    assert token_of(tmp_path, make=True) == made
    assert len(made) == 64


def test_asks_are_understood() -> None:
    assert parse_ask("/scale", {"experts": 3, "by": "me"}) == ScaleAsked(workers=3, by="me")
    assert parse_ask("/restart", {}) == RestartAsked(by="somebody")
    names = frozenset({"expert-1"})
    assert parse_ask("/drain", {"names": ["expert-1"]}) == DrainAsked(names=names, by="somebody")
    for path, body in (
        ("/scale", {}),
        ("/scale", {"experts": True}),
        ("/scale", {"experts": "3"}),
        ("/drain", {}),
        ("/drain", {"names": []}),
        ("/drain", {"names": [1]}),
    ):
        with pytest.raises(ConfigError):
            parse_ask(path, body)


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("scale", "drain", "restart", "events"):
        with pytest.raises(SystemExit) as left:
            main([command, "--help"])
        assert left.value.code == 0
        assert "examples:" in capsys.readouterr().out
