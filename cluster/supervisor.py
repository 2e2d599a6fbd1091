"""The process at the terminal: it starts the one that runs Ray, and answers for its end.

Ray writes to any terminal it can reach, catches signals and leaves processes when interrupted at
a bad moment. So it lives in a child, in a session of its own: Ctrl-C reaches only us, its words go
to a log file, and what is left of it after its end is swept up. If we are killed outright, the
child sees its standard input end and stops by itself.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.config import ClusterConfig
from cluster.config_reader import to_tree
from cluster.descendants import adopt_orphans, end_all
from cluster.errors import StartError
from cluster.home import Home
from cluster.ingress.haproxy import write_haproxy

_STOP_S = 25.0
_SWEEP_S = 3.0
_MARGIN_S = 60
Event = Mapping[str, Any]


def supervise(
    config: ClusterConfig,
    home: Home,
    check: Callable[[], None],
    on_event: Callable[[Event], None],
) -> None:
    """Runs the cluster until a signal asks for its end; then nothing of it is left.

    Args:
        check: called while the child still imports; when it raises, nothing has been started.
        on_event: called in this thread with each event of `cluster.launch`.

    Raises:
        StartError: the cluster did not come up, or broke down.
    """
    adopt_orphans()
    inbox: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    with (
        _signals(inbox),
        home.open_log() as log,
        # Short, for sockets: their paths must stay below 108 characters.
        tempfile.TemporaryDirectory(
            prefix="orrery-", dir="/tmp", ignore_cleanup_errors=True
        ) as scratch,
    ):
        child = subprocess.Popen(
            [sys.executable, "-m", "cluster.launch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={
                **environment(os.environ, config, Path(scratch)),
                "RAY_SERVE_HAPROXY_BINARY_PATH": str(write_haproxy(home.path)),
            },
            start_new_session=True,
        )
        reader = threading.Thread(target=_read, args=(child, inbox), daemon=True)
        reader.start()
        told = False
        try:
            check()
            told = True
            _tell(
                child,
                {"config": to_tree(config), "journal": str(home.journal), "scratch": scratch},
            )
            failure = _follow(child, inbox, on_event)
        finally:
            _end(child, _SWEEP_S if told else 0.0)
            end_all(_SWEEP_S)
            reader.join(_SWEEP_S)
    if failure is not None:
        raise StartError(f"{failure}\nThe whole story is in {home.log}")


def environment(base: Mapping[str, str], config: ClusterConfig, scratch: Path) -> dict[str, str]:
    """The child's environment: what Ray and Serve read at import, and hand down to every process.

    Serve's helper ports are fixed by default and would collide with a second cluster's. Its
    patience with its own proxy, 15 s in all, is too short for a busy machine. HAProxy waits for a
    client, and after a reload for the answers under way, as long as a request may last. Threads of
    torch that wait for one another would else spin, on processors that other processes want.

    Args:
        scratch: a folder for HAProxy's files.
    """
    longest = math.ceil(config.router.timeout_s + config.gateway.router_wait_s) + _MARGIN_S
    fallback, metrics, stats = _free_ports(3)
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, [base.get("PYTHONPATH")])]
    defaults = {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONUNBUFFERED": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(scratch / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(longest),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(scratch / "metrics.sock"),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(scratch),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(scratch / "server-state"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(scratch / "admin.sock"),
        "RAY_SERVE_HAPROXY_STARTUP_TIMEOUT_S": "120",
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(longest),
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }
    if not config.ray.address:
        # Ray listens on every interface of the machine; only our own processes may talk to ours.
        defaults |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return {**defaults, **base, "PYTHONPATH": os.pathsep.join(paths)}


def _follow(
    child: subprocess.Popen[bytes],
    inbox: queue.SimpleQueue[Event | None],
    on_event: Callable[[Event], None],
) -> str | None:
    """Passes events on until the child is done; why it failed, or None."""
    stopping = False
    failure = None
    while True:
        event = inbox.get()
        if event is None:
            if failure is None and not stopping:
                failure = "the cluster's process ended unexpectedly"
            return failure
        if event["event"] == "signal":
            if stopping:
                return failure
            stopping = True
            on_event({"event": "stopping"})
            _hang_up(child)
            threading.Thread(target=_give_up, args=(child, inbox), daemon=True).start()
        elif event["event"] == "error":
            failure = str(event["message"])
        else:
            on_event(event)


def _give_up(child: subprocess.Popen[bytes], inbox: queue.SimpleQueue[Event | None]) -> None:
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        inbox.put(None)


def _read(child: subprocess.Popen[bytes], inbox: queue.SimpleQueue[Event | None]) -> None:
    if child.stdout is not None:
        for line in child.stdout:
            try:
                inbox.put(json.loads(line))
            except ValueError:
                continue
    inbox.put(None)


def _tell(child: subprocess.Popen[bytes], spec: Mapping[str, Any]) -> None:
    # A child that is gone already, e.g. since an import failed, is reported by `_follow`.
    with contextlib.suppress(OSError):
        if child.stdin is not None:
            child.stdin.write(json.dumps(spec).encode() + b"\n")
            child.stdin.flush()


def _hang_up(child: subprocess.Popen[bytes]) -> None:
    # Closing flushes what a child that is gone has not read.
    with contextlib.suppress(OSError):
        if child.stdin is not None:
            child.stdin.close()


def _end(child: subprocess.Popen[bytes], grace_s: float) -> None:
    _hang_up(child)
    end = time.monotonic() + grace_s
    while child.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    if child.poll() is None:
        child.kill()
        child.wait()


@contextlib.contextmanager
def _signals(inbox: queue.SimpleQueue[Event | None]) -> Iterator[None]:
    def note(number: int, frame: object) -> None:
        inbox.put({"event": "signal", "number": number})

    wanted = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # Ignored under nohup, which asks us to outlive the terminal.
        wanted.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
