"""What a pod does before it is ended: gives its work up, or waits until others are through.

python -m cluster.prestop --seconds 60 --expert 127.0.0.1:7000

Ends by itself at the bound; a process that does not answer has nothing left to give up.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

import httpx
from prometheus_client.parser import text_string_to_metric_families

from wire.clients.expert_worker import ExpertWorkerClient
from wire.clients.router import RouterClient
from wire.errors import OrreryError

_POLL_S = 0.5
_ANSWER_S = 5.0
_OPEN = "orrery_gateway_open_requests"


def main(argv: Sequence[str] | None = None) -> int:
    """0 when all is given up, 1 when the bound came first."""
    options = parser().parse_args(argv)
    end = time.monotonic() + options.seconds
    time.sleep(min(options.pause, options.seconds))
    try:
        asyncio.run(asyncio.wait_for(_give_up(options, end), max(end - time.monotonic(), 0.0)))
    except TimeoutError:
        print(f"prestop: not done after {options.seconds:g} s", file=sys.stderr)
        return 1
    return 0


async def _give_up(options: argparse.Namespace, end: float) -> None:
    left = end - time.monotonic()
    async with httpx.AsyncClient(timeout=_ANSWER_S, trust_env=False) as http:
        tasks: list[Awaitable[None]] = []
        if options.expert:
            tasks.append(_drain(ExpertWorkerClient(options.expert), left))
        if options.router:
            tasks.append(_drain(RouterClient(options.router), left))
        if options.gateway:
            tasks.append(_idle(lambda: open_answers(http, options.gateway)))
        if options.controller:
            tasks.append(_idle(lambda: open_requests(http, options.controller)))
        await asyncio.gather(*tasks)


async def _drain(client: ExpertWorkerClient | RouterClient, seconds: float) -> None:
    try:
        if not await client.drain(seconds):
            raise TimeoutError
    except OrreryError as error:
        print(f"prestop: {client.address} is not there: {error}", file=sys.stderr)
    finally:
        await client.close()


async def _idle(count: Callable[[], Awaitable[int]]) -> None:
    while True:
        try:
            if not await count():
                return
        except (httpx.HTTPError, ValueError, KeyError) as error:
            print(f"prestop: {error}", file=sys.stderr)
            return
        await asyncio.sleep(_POLL_S)


async def open_answers(http: httpx.AsyncClient, gateway: str) -> int:
    """Requests that a gateway is answering, by its /metrics.

    Raises:
        httpx.HTTPError: it does not answer.
    """
    answer = (await http.get(f"http://{gateway}/metrics")).raise_for_status()
    return int(
        sum(
            sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.name == _OPEN
        )
    )


async def open_requests(http: httpx.AsyncClient, controller: str) -> int:
    """Requests that any router still has, by the controller's /status.

    Raises:
        httpx.HTTPError: it does not answer.
    """
    answer = (await http.get(f"http://{controller}/status")).raise_for_status()
    return sum(
        int(process["load"].get(kind, 0))
        for process in answer.json()["processes"]
        if process["role"] == "router"
        for kind in ("running", "waiting")
    )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m cluster.prestop", description="Drains what runs in this pod."
    )
    made.add_argument("--seconds", type=float, default=60.0, help="give up after (60)")
    made.add_argument(
        "--pause", type=float, default=0.0, help="first wait, so that load balancers look away (0)"
    )
    made.add_argument("--expert", metavar="HOST:PORT", help="gRPC of an expert worker to drain")
    made.add_argument("--router", metavar="HOST:PORT", help="gRPC of a router to drain")
    made.add_argument(
        "--gateway", metavar="HOST:PORT", help="/metrics of a gateway whose answers are to end"
    )
    made.add_argument(
        "--controller", metavar="HOST:PORT", help="pages of a controller whose routers are to end"
    )
    return made


if __name__ == "__main__":
    sys.exit(main())
