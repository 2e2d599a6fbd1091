"""`orrery chat` against answers that end in every way."""

from __future__ import annotations

import json

import httpx
import pytest

from cluster.cli.chat import _answer
from cluster.errors import ClusterError
from gateway.responses import event

DONE = "data: [DONE]\n\n"


def delta(**fields: str) -> str:
    return f"data: {json.dumps({'choices': [{'delta': fields}]})}\n\n"


def answer_to(body: str, status: int = 200) -> str:
    transport = httpx.MockTransport(lambda request: httpx.Response(status, text=body))
    with httpx.Client(base_url="http://x", transport=transport) as client:
        return _answer(client, {"model": "m"}, [{"role": "user", "content": "hi"}])


def test_an_answer_is_printed_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    body = delta(role="assistant") + delta(reasoning_content="hm") + delta(content="Hel")
    assert answer_to(body + delta(content="lo") + DONE) == "Hello"
    assert capsys.readouterr().out == "hm\nHello\n"


def test_line_ends_of_unicode_are_text() -> None:
    text = "one\u2028two\x85three\u2029four"
    body = event({"choices": [{"delta": {"content": text}}]}).decode()
    assert answer_to(body + DONE) == text


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ('{"error": {"message": "too long"}}', 400, "too long"),
        ("bad gateway", 502, "bad gateway"),
        (delta(content="a") + 'data: {"error": {"message": "no experts"}}\n\n', 200, "no experts"),
        (delta(content="a"), 200, "the answer ended early"),
        ("data: {nonsense\n\n" + DONE, 200, "not JSON"),
        ("data: []\n\n" + DONE, 200, "no JSON object"),
    ],
)
def test_what_went_wrong_is_said(body: str, status: int, said: str) -> None:
    with pytest.raises(ClusterError, match=said):
        answer_to(body, status)
