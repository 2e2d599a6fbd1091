"""`orrery chat`: a conversation in the terminal, streamed from the HTTP API."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx

from cluster.errors import ClusterError, NotRunningError
from cluster.home import home

_CONNECT_S = 5.0
_SILENCE_S = 300.0
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_HELP = "/new starts over, /exit (or Ctrl-D) leaves, Ctrl-C cuts an answer short"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "chat",
        help="talk to the served model",
        epilog="examples:\n  orrery chat\n  orrery chat --message 'Hello!'\n"
        "  orrery chat --url http://127.0.0.1:9000 --system 'Answer in one word.'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--message", metavar="TEXT", help="ask this once and leave")
    parser.add_argument("--system", metavar="TEXT", help="the system prompt")
    parser.add_argument("--url", metavar="URL", help="another server than this machine's own")
    parser.add_argument("--max-tokens", metavar="N", type=int, help="of one answer")
    parser.add_argument("--temperature", metavar="T", type=float, help="0: always the likeliest")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    url = (options.url or _own_url()).rstrip("/").removesuffix("/v1")
    timeout = httpx.Timeout(_SILENCE_S, connect=_CONNECT_S)
    with httpx.Client(base_url=url, timeout=timeout, trust_env=False) as client:
        model = _model(client)
        settings = {"model": model, "max_tokens": options.max_tokens}
        settings |= {"temperature": options.temperature}
        settings = {key: value for key, value in settings.items() if value is not None}
        first = [{"role": "system", "content": options.system}] if options.system else []
        if options.message is not None:
            _answer(client, settings, [*first, {"role": "user", "content": options.message}])
            return 0
        print(f"{model} at {url}. {_HELP}")
        _converse(client, settings, first)
    return 0


def _own_url() -> str:
    running = home().running()
    if not running.url:
        raise NotRunningError(f"the server (process {running.pid}) is still starting")
    return running.url


def _converse(client: httpx.Client, settings: dict[str, Any], first: list[dict[str, str]]) -> None:
    with contextlib.suppress(ImportError):
        # Line editing for `input`, where Python was built with it.
        import readline  # noqa: F401
    history = list(first)
    while True:
        try:
            text = input("\nyou> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if text == "/exit":
            return
        if text == "/new":
            history = list(first)
            continue
        if not text:
            continue
        asked = [*history, {"role": "user", "content": text}]
        try:
            said = _answer(client, settings, asked)
        except KeyboardInterrupt:
            print("\n(cut short)")
            continue
        except ClusterError as error:
            print(f"orrery: {error}", file=sys.stderr)
            continue
        history = [*asked, {"role": "assistant", "content": said}]


def _model(client: httpx.Client) -> str:
    try:
        answer = client.get("/v1/models").raise_for_status()
        return str(answer.json()["data"][0]["id"])
    except (httpx.HTTPError, ValueError, LookupError) as error:
        raise NotRunningError(
            f"no model answers at {client.base_url}: {error}; is `orrery serve` running there?"
        ) from error


def _answer(client: httpx.Client, settings: dict[str, Any], messages: list[dict[str, str]]) -> str:
    """Prints an answer as it comes and returns its text.

    Raises:
        ClusterError: the server refused, failed on the way, or went away.
    """
    body = {**settings, "messages": messages, "stream": True}
    said: list[str] = []
    thinking = False
    try:
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.is_error:
                raise ClusterError(_message(answer.read().decode(errors="replace")))
            for delta in _deltas(answer):
                thought, content = delta.get("reasoning_content"), delta.get("content")
                if thought:
                    print(("" if thinking else _dim()) + thought, end="", flush=True)
                    thinking = True
                if content:
                    print((_plain() + "\n" if thinking else "") + content, end="", flush=True)
                    thinking = False
                    said.append(content)
    except httpx.HTTPError as error:
        raise ClusterError(f"the connection broke: {error}") from error
    finally:
        print(_plain() if thinking else "")
    return "".join(said)


def _deltas(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    done = False
    for line in answer.iter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            done = True
            continue
        event = _event(data)
        if "error" in event:
            raise ClusterError(_message(data))
        for choice in event.get("choices", []):
            yield choice.get("delta", {})
    if not done:
        raise ClusterError("the answer ended early")


def _event(data: str) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError as error:
        raise ClusterError(f"the server sent an event that is not JSON: {error}") from error
    if not isinstance(event, dict):
        raise ClusterError("the server sent an event that is no JSON object")
    return event


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return text.strip() or "the server gave no reason"


def _dim() -> str:
    return _DIM if sys.stdout.isatty() else ""


def _plain() -> str:
    return _PLAIN if sys.stdout.isatty() else ""
