"""`python -m router_service`: one router without Ray."""

from __future__ import annotations

import argparse
import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import get_args

from kimi_k2.errors import ModelError
from monitoring.server import ListenError
from router_service.config import RouterConfig
from router_service.placement_file import read_placement
from router_service.service import RouterService
from wire.carriers.carrier import CarrierChoice
from wire.errors import OrreryError
from wire.hosting import say, serve_until_told
from wire.placement import Placement

_DRAIN_S = 30.0


def main() -> int:
    """Serves until SIGTERM or SIGINT, then drains; the exit status."""
    arguments = _parser().parse_args()
    try:
        placement = read_placement(arguments.placement) if arguments.placement else None
        make = partial(RouterService, _config(arguments))
        started = partial(_publish, placement) if placement else None
        return asyncio.run(serve_until_told(make, _DRAIN_S, started))
    except (ModelError, ListenError, OrreryError, ValueError) as error:
        say(event="failed", error=str(error))
        print(f"router_service: {error}", file=sys.stderr)
        return 1


async def _publish(placement: Placement, service: RouterService) -> None:
    await service.set_placement(placement)


def _config(arguments: argparse.Namespace) -> RouterConfig:
    local = arguments.local_experts
    # One thread that computes the experts too never waits: more would only be smaller batches.
    in_flight = arguments.micro_batches or (1 if local and arguments.threads == 1 else 2)
    return RouterConfig(
        router_id=arguments.router_id,
        model=arguments.model,
        listen=arguments.listen,
        metrics_listen=arguments.metrics_listen,
        device=arguments.device,
        dtype=arguments.dtype,
        threads=arguments.threads,
        experts="local" if local else "remote",
        carrier=arguments.carrier,
        micro_batches=in_flight,
        max_running=arguments.max_running,
        max_waiting=arguments.max_waiting,
        kv_blocks=arguments.kv_blocks,
        prefill_chunk=arguments.prefill_chunk,
        attention_budget=arguments.attention_budget,
        max_model_len=arguments.max_model_len,
        prefix_cache=not arguments.no_prefix_cache,
        park_timeout_s=arguments.park_timeout,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m router_service",
        description="Serves a checkpoint over gRPC; its routed experts come from expert workers.",
        epilog="example: python -m router_service --model models/nano-k2 --local-experts",
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, help="checkpoint directory")
    add("--router-id", default="router-0", help="name in metrics and at expert workers")
    add("--listen", default="127.0.0.1:0", help="host:port of gRPC")
    add("--metrics-listen", default="127.0.0.1:0", help="host:port of /metrics and /debug")
    add("--local-experts", action="store_true", help="compute the experts in this process")
    add("--placement", type=Path, help="JSON file that says which worker holds which experts")
    add(
        "--carrier",
        default="auto",
        choices=get_args(CarrierChoice),
        help="of rows to workers: in gRPC, by a socket of this host, or auto",
    )
    add("--device", default="cpu", help="cpu, cuda, cuda:1 ...")
    add("--dtype", default="auto", help="auto, float32 or bfloat16")
    add("--threads", type=int, help="CPU threads of the arithmetic")
    add(
        "--micro-batches",
        type=int,
        help="in flight at a time; default 2, or 1 with local experts on one thread",
    )
    add("--max-running", type=int, default=64, help="requests with KV blocks at a time")
    add("--max-waiting", type=int, default=256, help="requests queued behind them")
    add("--kv-blocks", type=int, default=1024, help="KV blocks of 64 tokens")
    add("--prefill-chunk", type=int, default=256, help="most prompt tokens in a micro-batch")
    add(
        "--attention-budget",
        type=int,
        default=1 << 20,
        help="most prompt tokens times tokens before them in a micro-batch",
    )
    add("--max-model-len", type=int, help="prompt and output together; default: the model's")
    add(
        "--park-timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="that a request waits for an expert without a live copy",
    )
    add("--no-prefix-cache", action="store_true", help="compute every prompt anew")
    return parser


if __name__ == "__main__":
    sys.exit(main())
