"""The command line of `benchmarks.bench_serving`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.serving.peer_side import PEERS

SIDES = ("cluster", "cluster-http", "in-process", *PEERS)
_NANO = Path(__file__).resolve().parents[2] / "models" / "nano-k2"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_serving",
        description="Tokens/s, TTFT and ITL of the cluster and its rivals, in interleaved rounds.",
        epilog="example: python -m benchmarks.bench_serving --quick --placement 2x2",
    )
    add = made.add_argument
    add("--model", type=Path, default=_NANO, help="checkpoint directory; default: nano-K2")
    add("--only", default="", help=f"sides, by commas: {','.join(SIDES)}")
    add("--quick", action="store_true", help="cluster and in-process, 24 tokens, one round")
    add("--concurrent", default="", help="requests at a time; default 1,8,32, quick 1,32")
    add("--prompt-tokens", type=int, default=64)
    add("--max-tokens", type=int, default=0, help="of each answer; default 128, quick 24")
    add("--rounds", type=int, default=0, help="default 5, quick 1")
    add("--placement", default="auto", help="auto, expert-major, layer-major, 2x2 ...")
    add("--workers", type=int, default=4, help="expert workers of the cluster")
    add("--micro-batches", type=int, help="in flight; default: the cluster config's")
    add("--router-threads", type=int, default=1)
    add("--worker-threads", type=int, default=1)
    add("--local-threads", type=int, help="of the in-process engine; default: torch's own")
    add("--quiet-wait", type=float, default=0.0, help="most seconds to wait for a quiet machine")
    add("--quiet-tries", type=int, default=1, help="runs at most until others leave one alone")
    add("--peers", type=Path, default=Path(".venv-peers"), help="made by `make bench-peers`")
    add("--replay", type=Path, metavar="TRACE", help="replay its arrivals too, scaled down")
    add("--replay-requests", type=int, default=64, help="the first so many of the trace")
    add("--replay-seconds", type=float, default=60.0, help="their arrivals are pressed into")
    add("--weights", type=Path, help="keep the float32 checkpoint here: vLLM compiles it once")
    add("--json", type=Path, help="file to write")
    add("--plot", type=Path, help="picture of the --json file to write; needs the bench extra")
    return made
