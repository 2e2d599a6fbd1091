"""`python -m experts_service`: one expert worker without Ray."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from experts_service.config import WorkerConfig
from experts_service.named_experts import parse_experts
from experts_service.service import WorkerService
from kimi_k2.config import ModelConfig
from kimi_k2.errors import ModelError
from monitoring.server import ListenError
from wire.carriers.carrier import CarrierChoice
from wire.errors import OrreryError
from wire.hosting import say, serve_until_told

_DRAIN_S = 30.0


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT, then drains; the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        config = _config(arguments)
        return asyncio.run(serve_until_told(partial(WorkerService, config), _DRAIN_S))
    except (ModelError, ListenError, OrreryError) as error:
        say(event="failed", error=str(error))
        print(f"experts_service: {error}", file=sys.stderr)
        return 1


def _config(arguments: argparse.Namespace) -> WorkerConfig:
    return WorkerConfig(
        worker_id=arguments.worker_id,
        model=arguments.model,
        listen=arguments.listen,
        experts=parse_experts(arguments.experts, ModelConfig.from_dir(arguments.model)),
        device=arguments.device,
        dtype=arguments.dtype,
        threads=arguments.threads,
        metrics_listen=arguments.metrics_listen,
        carrier=arguments.carrier,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experts_service",
        description="Serves routed experts of a checkpoint over gRPC.",
        epilog="example: python -m experts_service --model models/nano-k2 --experts 1:0-95,2:0-95",
    )
    parser.add_argument("--model", type=Path, required=True, help="checkpoint directory")
    parser.add_argument("--worker-id", default="expert-0", help="name in placements")
    parser.add_argument("--listen", default="127.0.0.1:0", help="host:port of gRPC")
    parser.add_argument(
        "--experts",
        default="all",
        help="all, layer:first-last[,...], or a JSON file of layer to list; '' for none",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ...")
    parser.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the arithmetic")
    parser.add_argument("--metrics-listen", default="127.0.0.1:0", help="host:port of /metrics")
    parser.add_argument(
        "--carrier",
        default="auto",
        choices=get_args(CarrierChoice),
        help="inline: offer routers of this host no local socket",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
