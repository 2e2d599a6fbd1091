"""The HTTP API through Serve's HAProxy, where what a client does must still reach the engine."""

from __future__ import annotations

import time
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.server import Orrery
from tests.support.deadline import wait_until

pytestmark = pytest.mark.ray

# Far more than is read, so that an answer can only end early by an abort.
LONG: dict[str, Any] = {"prompt": "Once", "max_tokens": 4000, "extra_body": {"ignore_eos": True}}


def aborted(served: Orrery) -> float:
    """Requests that routers ended because somebody asked them to."""
    status = served.status()
    total = 0.0
    with httpx.Client(timeout=10, trust_env=False) as http:
        for target in http.get(f"{status['admin']}/sd").json():
            if target["labels"]["role"] == "router" and "page" not in target["labels"]:
                text = http.get(f"http://{target['targets'][0]}/metrics").text
                total += sum(
                    float(line.split()[-1])
                    for line in text.splitlines()
                    if line.startswith('orrery_router_requests_total{finish_reason="abort"}')
                )
    return total


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_aborts_in_the_engine(served: Orrery, stream: bool) -> None:
    before = aborted(served)
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60)
    with client:
        if stream:
            pieces = client.completions.create(model="nano-k2", stream=True, **LONG)
            next(iter(pieces))
            pieces.close()
        else:
            with pytest.raises(openai.APITimeoutError):
                client.with_options(timeout=1).completions.create(model="nano-k2", **LONG)
    wait_until(lambda: aborted(served) == before + 1, "the abort")


def test_tokens_arrive_one_by_one(served: Orrery) -> None:
    body = {"model": "nano-k2", "prompt": "Once", "max_tokens": 24, "stream": True}
    times = []
    with (
        httpx.Client(timeout=60, trust_env=False) as http,
        http.stream("POST", f"{served.url}/v1/completions", json=body) as reply,
    ):
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                times.append(time.monotonic())
    assert len(set(times)) > 3
    assert times[-1] - times[0] > 0.02


@pytest.mark.parametrize(
    ("path", "content", "status", "code"),
    [
        ("/v1/chat/completions", b"{", 400, None),
        ("/v1/chat/completions", b"[" * 10_000, 400, None),
        ("/v1/chat/completions", b'{"model": "huge"}', 404, "model_not_found"),
        ("/v1/completions", b" " * (33 * 2**20), 413, "request_entity_too_large"),
        ("/nowhere", b"{}", 404, "not_found"),
    ],
)
def test_errors_keep_their_shape(
    served: Orrery, path: str, content: bytes, status: int, code: str | None
) -> None:
    headers = {"content-type": "application/json"}
    with httpx.Client(timeout=60, trust_env=False) as http:
        reply = http.post(f"{served.url}{path}", content=content, headers=headers)
        assert reply.status_code == status
        assert reply.json()["error"]["code"] == code
        assert http.get(f"{served.url}/health").status_code == 200
