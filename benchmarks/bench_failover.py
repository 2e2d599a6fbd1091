"""`python -m benchmarks.bench_failover`: what clients see when a worker is killed.

Tokens/s and the gaps between tokens before, during and after a `kill -9`, with two copies of every
expert and with one. Every answer is held against that of the undisturbed run.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.failover.clients import Clients
from benchmarks.failover.gaps import Gap
from benchmarks.failover.phases import BEFORE_S, Loss, account, rate
from benchmarks.failover.server import Server, serving
from benchmarks.failover.ways import GrpcWay
from benchmarks.failover.wishes import CLIENTS, SEED, wishes
from benchmarks.record import bar_line, machine, read_record, write_record
from benchmarks.serving.arguments import add_outputs, check_outputs

SIDES: dict[str, int | str] = {"every expert twice": "twice", "no replicas": 0}
P99_MS = 250.0
_SHOWN_S = (-BEFORE_S, 15.0)
_WIDTH_S = 0.2
# Asking costs processor time, which the clients of this process need.
_LOOK_S = 0.2


def main() -> int:
    """0: nothing failed and nothing differed; 1: something did. Time alone does not fail."""
    arguments = _parser().parse_args()
    check_outputs(arguments)
    kills = 1 if arguments.quick else arguments.kills
    sides = {name: _side(name, copies, arguments.workers, kills) for name, copies in SIDES.items()}
    p99 = sides["every expert twice"]["phases"]["gaps with a kill"]["p99_ms"]
    print(bar_line("p99 of gaps with a kill, every expert twice, ms", p99, P99_MS, most=True))
    if arguments.json:
        body = {"clients": CLIENTS, "workers": arguments.workers, "kills": kills, "sides": sides}
        write_record(arguments.json, body)
        if arguments.plot:
            plot(arguments.json, arguments.plot)
    return int(any(side["failed"] or side["different"] for side in sides.values()))


def _side(name: str, copies: int | str, workers: int, kills: int) -> dict[str, Any]:
    config = {
        "http": {"port": _free_port()},
        "experts": {"workers": workers, "redundant_experts": copies},
        "rebalance": {"enabled": False},
    }
    with (
        tempfile.TemporaryDirectory(prefix="orrery-") as folder,
        serving(Path(folder), config) as server,
    ):
        clients = Clients(partial(GrpcWay, server.rows("router")[0]["address"]), wishes())
        answers = clients.undisturbed()
        draw = random.Random(SEED)
        with clients.streaming() as load:
            losses = [_lose(server, draw, replicated=bool(copies)) for _ in range(kills)]
    found = account(load.gaps, losses)
    different = len(load.other_than(answers))
    print(
        f"\n{name}: {kills} kills, {len(load.told)} requests, {len(load.failed)} failed, "
        f"{different} different"
    )
    for phase, figures in found.items():
        print(f"  {phase:17}", ", ".join(f"{key} {value:.0f}" for key, value in figures.items()))
    if not copies:
        away = ", ".join(f"{loss.away_s:.2f}" for loss in losses)
        print(f"  without a live copy of some experts for {away} s")
    return {
        "requests": len(load.told),
        "failed": len(load.failed),
        "different": different,
        "phases": found,
        "losses": [asdict(loss) for loss in losses],
        "gaps": [(gap.begun, gap.ended) for gap in load.gaps],
    }


def _lose(server: Server, draw: random.Random, *, replicated: bool) -> Loss:
    """Kills one of the workers that serve, after and before some seconds of calm."""
    time.sleep(BEFORE_S)
    known = len(server.events())
    victim = draw.choice([row for row in server.rows("expert") if row["experts"]])
    killed = time.perf_counter()
    os.kill(victim["pid"], signal.SIGKILL)
    away = 0.0 if replicated else server.recovered(known)
    while any(row["pid"] == victim["pid"] for row in server.rows("expert")):
        time.sleep(_LOOK_S)
    server.rest()
    rested = time.perf_counter()
    time.sleep(BEFORE_S)
    return Loss(killed=killed, rested=rested, ended=time.perf_counter(), away_s=away)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def plot(report: Path, picture: Path) -> None:
    """Tokens/s and gaps around the kills, a column a side."""
    from matplotlib.figure import Figure

    read = read_record(report)
    figure = Figure(figsize=(13, 7), layout="constrained")
    grid = figure.subplots(2, len(read["sides"]), sharex=True, sharey="row")
    for (name, side), speed, waits in zip(read["sides"].items(), *grid, strict=True):
        gaps = [Gap(begun=begun, ended=ended) for begun, ended in side["gaps"]]
        losses = [Loss(**loss) for loss in side["losses"]]
        speed.plot(*rate(gaps, losses, _WIDTH_S, *_SHOWN_S))
        speed.set_title(f"{name}: tokens/s, mean of {len(losses)} kills")
        speed.set_ylim(bottom=0)
        for loss in losses:
            shown = [g for g in gaps if _SHOWN_S[0] <= g.ended - loss.killed <= _SHOWN_S[1]]
            moments = [gap.ended - loss.killed for gap in shown]
            waits.plot(moments, [1e3 * gap.seconds for gap in shown], ".", markersize=2)
        waits.set_title("gaps between tokens, ms")
        waits.set_yscale("log")
        waits.set_xlabel("seconds after the kill")
        for axes in (speed, waits):
            axes.axvline(0.0, color="grey", linewidth=0.8)
            axes.grid(alpha=0.3)
    figure.suptitle(f"{read['clients']} clients, {read['workers']} workers; {machine(read)}")
    figure.savefig(picture, dpi=110)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_failover",
        description="Tokens/s and gaps before, during and after a worker is killed.",
        epilog="example: python -m benchmarks.bench_failover --kills 3",
    )
    add_outputs(made)
    add = made.add_argument
    add("--quick", action="store_true", help="one kill a side")
    add("--kills", type=int, default=5, help="of each side, one after the other")
    add("--workers", type=int, default=4)
    return made


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
