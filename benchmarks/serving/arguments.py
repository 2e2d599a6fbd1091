"""Command lines: what benchmarks that start services have in common, and bench_serving's."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.serving.cluster import ClusterShape
from benchmarks.serving.peer_side import PEERS

SIDES = ("cluster", "cluster-http", "in-process", *PEERS)
QUICK_SIDES = ("cluster", "in-process")
NANO = Path(__file__).resolve().parents[2] / "models" / "nano-k2"


def add_cluster(made: argparse.ArgumentParser) -> None:
    """What `shape_of` reads."""
    add = made.add_argument
    add("--model", type=Path, default=NANO, help="checkpoint directory; default: nano-K2")
    add("--placement", default="auto", help="auto, expert-major, layer-major, 2x2 ...")
    add("--workers", type=int, default=4, help="expert workers of the cluster")
    add("--micro-batches", type=int, help="in flight; default: the cluster config's")
    add("--router-threads", type=int, help="default: the router's own choice")
    add("--worker-threads", type=int, default=1)


def shape_of(arguments: argparse.Namespace) -> ClusterShape:
    return ClusterShape(
        model=arguments.model,
        placement=arguments.placement,
        workers=arguments.workers,
        micro_batches=arguments.micro_batches,
        router_threads=arguments.router_threads,
        worker_threads=arguments.worker_threads,
    )


def add_sides(made: argparse.ArgumentParser) -> None:
    """What `serving.sides.open_sides` reads, and --only."""
    add_cluster(made)
    add = made.add_argument
    add("--only", default="", help=f"sides, by commas: {','.join(SIDES)}")
    add("--local-threads", type=int, help="of the in-process engine; default: torch's own")
    add("--peers", type=Path, default=Path(".venv-peers"), help="made by `make bench-peers`")
    add("--weights", type=Path, help="keep the float32 checkpoint here: vLLM compiles it once")


def chosen_sides(only: str, default: tuple[str, ...]) -> tuple[str, ...]:
    """The sides that `--only` names, or the default; ends the program at an unknown one."""
    chosen = tuple(only.split(",")) if only else default
    if unknown := set(chosen) - set(SIDES):
        sys.exit(f"no side {', '.join(sorted(unknown))}; known: {', '.join(SIDES)}")
    return chosen


def add_outputs(made: argparse.ArgumentParser) -> None:
    """Where the figures and their picture go; `check_outputs` sees to it that they fit."""
    made.add_argument("--json", type=Path, help="file to write")
    made.add_argument(
        "--plot", type=Path, help="picture of the --json file to write; needs the bench extra"
    )


def check_outputs(arguments: argparse.Namespace) -> None:
    if arguments.plot and not arguments.json:
        sys.exit("--plot draws what --json writes; give both")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_serving",
        description="Tokens/s, TTFT and ITL of the cluster and its rivals, in interleaved rounds.",
        epilog="example: python -m benchmarks.bench_serving --quick --placement 2x2",
    )
    add_sides(made)
    add_outputs(made)
    add = made.add_argument
    add("--quick", action="store_true", help="cluster and in-process, 24 tokens, one round")
    add("--concurrent", default="", help="requests at a time; default 1,8,32, quick 1,32")
    add("--prompt-tokens", type=int, default=64)
    add("--max-tokens", type=int, default=0, help="of each answer; default 128, quick 24")
    add("--rounds", type=int, default=0, help="default 5, quick 1")
    add("--quiet-wait", type=float, default=0.0, help="most seconds to wait for a quiet machine")
    add("--quiet-tries", type=int, default=1, help="runs at most until others leave one alone")
    return made
