"""The main path: one command, then a conversation."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import httpx
import openai
import psutil
import pytest

from tests.e2e.server import Orrery

pytestmark = pytest.mark.ray


@pytest.fixture
def client(served: Orrery) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", timeout=60, max_retries=0)


def ask(client: openai.OpenAI, tokens: int = 24) -> str:
    answer = client.chat.completions.create(
        model="nano-k2",
        messages=[{"role": "user", "content": "Hello! Who are you?"}],
        temperature=0,
        max_tokens=tokens,
        extra_body={"ignore_eos": True},
    )
    message = answer.choices[0].message
    return f"{getattr(message, 'reasoning_content', None)}|{message.content}"


def test_the_table_says_what_runs_where(served: Orrery) -> None:
    text = served.output
    assert f"ready: {served.url}/v1" in text
    for name in ("controller", "router-0", "gateway-0", *(f"expert-{n}" for n in range(4))):
        assert name in text
    assert "Traceback" not in text
    assert "ray::" not in text


def test_chat_through_the_openai_sdk(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["nano-k2"]
    whole = client.chat.completions.create(
        model="nano-k2",
        messages=[{"role": "user", "content": "Say something."}],
        temperature=0,
        max_tokens=16,
    )
    pieces = client.chat.completions.create(
        model="nano-k2",
        messages=[{"role": "user", "content": "Say something."}],
        temperature=0,
        max_tokens=16,
        stream=True,
        stream_options={"include_usage": True},
    )
    streamed, usage = "", None
    for piece in pieces:
        usage = piece.usage or usage
        if piece.choices:
            delta = piece.choices[0].delta
            streamed += getattr(delta, "reasoning_content", None) or ""
            streamed += delta.content or ""
    message = whole.choices[0].message
    assert streamed == (getattr(message, "reasoning_content", None) or "") + (message.content or "")
    assert usage is not None
    assert whole.usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens > 0


def at_rest(served: Orrery) -> dict[str, Any]:
    """The status once everybody is ready, the spare too."""
    end = time.monotonic() + 60
    while True:
        found = served.status()
        rows = found["processes"]
        ready = found["state"] == "ready" and all(p["state"] == "ready" for p in rows)
        if ready and found["change"] is None and any(p["spare"] for p in rows):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.3)


def test_status_knows_every_process(served: Orrery) -> None:
    at_rest(served)
    done = served.run("status", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["url"] == served.url
    by_role: dict[str, list[dict[str, Any]]] = {}
    for process in found["processes"]:
        assert psutil.pid_exists(process["pid"])
        assert process["node"]
        assert process["address"]
        by_role.setdefault(process["role"], []).append(process)
    assert {role: len(found) for role, found in by_role.items()} == {
        "controller": 1,
        "gateway": 1,
        "router": 1,
        "expert": 5,
    }
    assert sum(process["experts"] for process in by_role["expert"]) == 4 * 384
    assert {layer for process in by_role["expert"] for layer in process["layers"]} == {1, 2, 3, 4}
    assert by_role["router"][0]["epoch"] == found["epoch"]
    assert {"running", "waiting", "kv_blocks_used"} <= set(by_role["router"][0]["load"])
    table = served.run("status")
    assert table.returncode == 0
    assert "expert-3" in table.stdout
    assert "stands by" in table.stdout


def test_every_metrics_port_is_found_and_answers(served: Orrery) -> None:
    admin = served.status()["admin"]
    with httpx.Client(timeout=10, trust_env=False) as http:
        targets = http.get(f"{admin}/sd").json()
        roles = [target["labels"]["role"] for target in targets]
        assert sorted(set(roles)) == ["controller", "expert", "gateway", "router"]
        for target in targets:
            assert "orrery_" in http.get(f"http://{target['targets'][0]}/metrics").text


def test_chat_in_the_terminal(served: Orrery) -> None:
    once = served.run("chat", "--message", "Hello", "--max-tokens", "8", "--temperature", "0")
    assert once.returncode == 0, once.stderr
    twice = served.run("chat", "--max-tokens", "8", stdin="Hello\n\n/new\nHello\n/exit\n")
    assert twice.returncode == 0, twice.stderr
    assert twice.stdout.count("you> ") == 5
    assert "nano-k2 at" in twice.stdout


def test_a_worker_killed_in_mid_answer_changes_nothing(
    served: Orrery, client: openai.OpenAI
) -> None:
    expected = ask(client, tokens=48)
    victim = next(p for p in served.status()["processes"] if p["id"] == "expert-1")
    stream = client.chat.completions.create(
        model="nano-k2",
        messages=[{"role": "user", "content": "Hello! Who are you?"}],
        temperature=0,
        max_tokens=48,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    thought, said = "", ""
    for number, piece in enumerate(stream):
        if number == 3:
            os.kill(victim["pid"], signal.SIGKILL)
        if piece.choices:
            thought += getattr(piece.choices[0].delta, "reasoning_content", None) or ""
            said += piece.choices[0].delta.content or ""
    assert thought + said == "".join(
        "" if part == "None" else part for part in expected.split("|", 1)
    )
    rows = {p["id"]: p for p in at_rest(served)["processes"]}
    assert rows["expert-1"]["pid"] != victim["pid"]
    assert rows["expert-1"]["restarts"] == 1
    assert rows["expert-1"]["spare"]
    assert rows["expert-4"]["experts"] == victim["experts"]
    events = served.run("events")
    assert "member_died expert-1: its process is gone" in events.stdout
    assert "experts_recovered" in events.stdout


def test_fewer_and_more_workers_while_it_answers(served: Orrery, client: openai.OpenAI) -> None:
    expected = ask(client)
    done = served.run("scale", "experts=3", seconds=120)
    assert done.returncode == 0, done.stderr
    assert "asked: 3 expert workers" in done.stdout
    assert "member_left" in done.stdout
    assert ask(client) == expected
    assert served.run("scale", "experts=4", seconds=120).returncode == 0
    assert ask(client) == expected
    refused = served.run("drain", "expert-99")
    assert refused.returncode == 1
    assert "no expert worker, router or node expert-99" in refused.stderr
    assert len([p for p in at_rest(served)["processes"] if p["role"] == "expert"]) == 5


def test_a_second_server_is_refused(served: Orrery, orrery: Orrery) -> None:
    same_home = served.run("serve", "--port", str(orrery.port))
    assert same_home.returncode == 1
    assert "already running" in same_home.stderr
    assert "orrery stop" in same_home.stderr
    same_port = orrery.run("serve", "--port", str(served.port))
    assert same_port.returncode == 1
    assert f"cannot listen on 127.0.0.1:{served.port}" in same_port.stderr
    assert "--port" in same_port.stderr
    assert orrery.left_behind() == []
