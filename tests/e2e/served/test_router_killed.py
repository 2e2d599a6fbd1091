"""The only router of a whole cluster is killed while it answers: a pause, and nothing else."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import httpx
import pytest

from tests.e2e.server import Orrery
from tests.support.deadline import wait_until

pytestmark = pytest.mark.ray

BODY: dict[str, Any] = {
    "model": "nano-k2",
    "prompt": "Once upon a time",
    "temperature": 1.0,
    "max_tokens": 600,
    "ignore_eos": True,
    "logprobs": 1,
    "stream": True,
    "stream_options": {"include_usage": True},
}


def test_its_requests_go_on_and_are_named_in_the_events(served: Orrery) -> None:
    (router,) = [p for p in served.status()["processes"] if p["role"] == "router"]
    headers = {"Idempotency-Key": "test-router-killed"}
    url = f"{served.url}/v1/completions"
    with httpx.Client(timeout=120, trust_env=False) as http:
        want = http.post(url, json=BODY, headers=headers).content
        got = b""
        with http.stream("POST", url, json=BODY, headers=headers) as reply:
            assert reply.status_code == 200
            for part in reply.iter_raw():
                if got.count(b"\n\n") < 40 <= (got + part).count(b"\n\n"):
                    os.kill(router["pid"], signal.SIGKILL)
                got += part
    assert want.endswith(b"data: [DONE]\n\n")
    assert got == want
    name = json.loads(want[6 : want.index(b"\n")])["id"]

    def moved() -> list[dict[str, Any]]:
        lines = served.run("events", "--json").stdout.splitlines()
        return [e for e in map(json.loads, lines) if e["kind"] == "requests_moved"]

    wait_until(lambda: bool(moved()), "the event")
    (event,) = moved()
    assert event["subject"].startswith("gateway-")
    assert event["facts"]["requests"].split() == [name]
    assert event["facts"]["count"] == 1
    assert name in event["text"]
    assert event["seconds"] > 0
    wait_until(lambda: served.status()["state"] == "ready", "the new router", 60)
