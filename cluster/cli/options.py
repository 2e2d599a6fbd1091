"""Flags that several commands share; each lays one key over the config file."""

from __future__ import annotations

import argparse
from pathlib import Path

from cluster.config import ClusterConfig
from cluster.config_reader import load_config

_KEYS = {
    "model": "model.path",
    "host": "http.host",
    "port": "http.port",
    "workers": "experts.workers",
    "placement": "experts.placement",
    "redundant_experts": "experts.redundant_experts",
    "routers": "router.replicas",
    "ray_address": "ray.address",
}


def add_fleet_flags(parser: argparse.ArgumentParser) -> None:
    """--config and what describes the fleet."""
    parser.add_argument("--config", metavar="FILE", type=Path, help="YAML; flags win over it")
    parser.add_argument("--model", metavar="DIR", help="a Hugging Face model directory")
    parser.add_argument("--workers", metavar="N", type=int, help="expert workers (4)")
    parser.add_argument("--routers", metavar="N", type=int, help="routers (1)")
    parser.add_argument(
        "--placement",
        metavar="GRID",
        help="auto, expert-major, layer-major, a grid such as 2x2 (2 layer groups of 2 workers), "
        "or group sizes such as 2+1",
    )
    parser.add_argument(
        "--redundant-experts",
        metavar="N",
        type=_number_or_word,
        help="copies in each layer besides the first ones, or `twice`: two of every expert (0)",
    )


def add_http_flags(parser: argparse.ArgumentParser) -> None:
    """Where to listen, and on which cluster to run."""
    parser.add_argument("--host", metavar="HOST", help="address of the HTTP API (127.0.0.1)")
    parser.add_argument("--port", metavar="PORT", type=int, help="port of the HTTP API (8000)")
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="join this Ray cluster; else a private one"
    )


def _number_or_word(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def config_of(options: argparse.Namespace) -> ClusterConfig:
    """The config file with the given flags laid over it; raises ConfigError."""
    overrides = {
        key: value
        for flag, key in _KEYS.items()
        if (value := getattr(options, flag, None)) is not None
    }
    return load_config(options.config, overrides)
