"""The process that runs Ray: brings the cluster up, watches it, and takes it down again.

Started by `cluster.supervisor` as `python -m cluster.launch`. Reads one JSON line from standard
input, writes JSON events to standard output, and stops when its standard input ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import httpx
import ray
from ray.exceptions import RayError, RayTaskError

from cluster.blueprint import Blueprint, draw
from cluster.config_reader import read_config
from cluster.errors import ClusterError, StartError
from cluster.ingress.launch import start_gateway
from cluster.kernels import compile_kernels
from cluster.launch_shared import already_runs, controller_actor, refuse_others, take_down
from cluster.members.actor import NAMESPACE
from cluster.members.setup import processors, reachable

_POLL_S = 0.3
_WATCH_S = 1.0
_SOON_S = 1.0
_CONTROL_S = 30.0
_OBJECT_STORE_BYTES = 100 * 1024 * 1024
# So often may a member fail to start before the first "ready" until the whole start has failed.
_FAILURES = 3

Emit = Callable[[Mapping[str, Any]], None]


class StopRequestedError(Exception):
    """Standard input ended: whoever started us wants the end."""


class HinderedError(ClusterError):
    """The controller lives and says why it cannot work."""


def main() -> int:
    """Runs until told to stop; 0 when everything went and ended well."""
    emit = _emitter()
    spec = json.loads(sys.stdin.readline() or "null")
    if spec is None:
        return 0
    stop = threading.Event()
    threading.Thread(target=_wait_for_end_of_input, args=(stop,), daemon=True).start()
    try:
        blueprint = draw(read_config(spec["config"]))
        compiling = threading.Thread(target=compile_kernels, args=(blueprint,), daemon=True)
        compiling.start()
        with (
            _ray(blueprint, emit, stop),
            _compiled(compiling, emit, stop),
            _cluster(blueprint, Path(spec["journal"])) as controller,
        ):
            _bring_up(blueprint, controller, emit, stop)
            _watch(controller, emit, stop)
    except StopRequestedError:
        return 0
    except ClusterError as error:
        emit({"event": "error", "message": str(error)})
        return error.exit_code
    finally:
        # Who made it may have been killed.
        shutil.rmtree(spec["scratch"], ignore_errors=True)
    return 0


@contextlib.contextmanager
def _ray(blueprint: Blueprint, emit: Emit, stop: threading.Event) -> Iterator[None]:
    address = blueprint.config.ray.address
    emit({"event": "progress", "text": f"joining Ray at {address}" if address else "starting Ray"})
    _connect(blueprint)
    try:
        if stop.is_set():
            raise StopRequestedError
        yield
    finally:
        ray.shutdown()


def _connect(blueprint: Blueprint) -> None:
    """Joins or starts Ray. A private one is tried twice: Ray gives its processes 30 s to come up,
    which a busy machine may exceed.

    Raises:
        StartError: Ray says no.
    """
    address = blueprint.config.ray.address
    options: dict[str, Any] = {"address": address}
    if not address:
        options = {
            "address": "local",
            "num_cpus": max(os.cpu_count() or 1, processors(blueprint.config)),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
    for last in (bool(address), True):
        try:
            ray.init(namespace=NAMESPACE, **options)
            return
        except Exception as error:
            # Ray raises bare exceptions when its processes do not come up.
            ray.shutdown()
            if last:
                raise StartError(f"Ray did not start: {error}") from error
            print(f"Ray is started again: {error}", file=sys.stderr)


@contextlib.contextmanager
def _compiled(compiling: threading.Thread, emit: Emit, stop: threading.Event) -> Iterator[None]:
    """Waits until this machine has its kernels, which only the first start has to make."""
    compiling.join(_SOON_S)
    if compiling.is_alive():
        emit({"event": "progress", "text": "compiling kernels, once for this installation"})
    while compiling.is_alive():
        compiling.join(_POLL_S)
        if stop.is_set():
            raise StopRequestedError
    yield


@contextlib.contextmanager
def _cluster(blueprint: Blueprint, journal: Path) -> Iterator[Any]:
    """The controller's handle; at the end everything it and Serve started is ended."""
    address = blueprint.config.ray.address
    if address:
        refuse_others(address)
    try:
        controller = controller_actor().remote(blueprint, journal)
    except ValueError as error:
        raise StartError(already_runs(address)) from error
    try:
        yield controller
    finally:
        take_down(controller, joined=bool(address))


def _bring_up(blueprint: Blueprint, controller: Any, emit: Emit, stop: threading.Event) -> None:
    """Starts the gateway while members load; returns when all of it serves."""
    emit({"event": "progress", "text": "starting the gateway and the members"})
    failed: list[ClusterError] = []

    def gateway() -> None:
        try:
            start_gateway(blueprint, stop)
        except ClusterError as error:
            failed.append(error)

    starting = threading.Thread(target=gateway, daemon=True)
    starting.start()
    deadline = time.monotonic() + blueprint.config.controller.start_timeout_s
    loaded = False
    while not loaded or starting.is_alive():
        if failed:
            raise failed[0]
        if time.monotonic() > deadline:
            raise StartError("the cluster was not ready in time (`controller.start_timeout_s`)")
        status = _status(controller)
        _fail_on_repeated_failure(status)
        emit({"event": "loading", "status": status})
        loaded = status["state"] == "ready"
        if stop.wait(_POLL_S):
            raise StopRequestedError
    if failed:
        raise failed[0]
    http = blueprint.config.http
    # A server that listens everywhere is to be asked somewhere.
    url = f"http://{reachable(f'{http.host}:{http.port}', '127.0.0.1')}"
    _await_http(url, deadline, stop)
    status = _status(controller)
    emit({"event": "ready", "url": url, "model": blueprint.model_name, "status": status})


def _watch(controller: Any, emit: Emit, stop: threading.Event) -> None:
    """Tells of every change until it is time to stop."""
    said: set[type[Exception]] = set()
    while not stop.wait(_WATCH_S):
        try:
            status = _status(controller)
        except (StartError, HinderedError) as error:
            # Ray starts it again; routers and workers go on meanwhile.
            if type(error) not in said:
                emit({"event": "progress", "text": str(error)})
            said.add(type(error))
            continue
        if said:
            emit({"event": "progress", "text": "the controller is back"})
            said.clear()
        emit({"event": "status", "status": status})


def _status(controller: Any) -> dict[str, Any]:
    try:
        status: dict[str, Any] = ray.get(controller.status.remote(), timeout=_CONTROL_S)
    except RayTaskError as error:
        raise HinderedError(f"the controller cannot work: {error.cause}") from error
    except RayError as error:
        # The last line of Ray's account is the cause; the rest is the way it took.
        cause = str(error).strip().splitlines()[-1]
        raise StartError(f"the controller does not answer: {cause}") from error
    return status


def _fail_on_repeated_failure(status: Mapping[str, Any]) -> None:
    for process in status["processes"]:
        if process["restarts"] >= _FAILURES:
            raise StartError(
                f"{process['id']} failed to start {process['restarts']} times, at last: "
                f"{process['error']}"
            )


def _await_http(url: str, deadline: float, stop: threading.Event) -> None:
    last = "no answer"
    with httpx.Client(timeout=5.0, trust_env=False) as client:
        while time.monotonic() < deadline:
            try:
                answer = client.get(f"{url}/health")
            except httpx.HTTPError as error:
                last = str(error)
            else:
                if answer.is_success:
                    return
                last = f"HTTP {answer.status_code}"
            if stop.wait(_POLL_S):
                raise StopRequestedError
    raise StartError(f"the gateway at {url} did not become healthy: {last}")


def _emitter() -> Emit:
    """Keeps the real standard output for events; what libraries print goes to the log."""
    events: TextIO = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lock = threading.Lock()

    def emit(event: Mapping[str, Any]) -> None:
        with lock, contextlib.suppress(BrokenPipeError):
            events.write(json.dumps(event) + "\n")
            events.flush()

    return emit


def _wait_for_end_of_input(stop: threading.Event) -> None:
    while sys.stdin.readline():
        pass
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
