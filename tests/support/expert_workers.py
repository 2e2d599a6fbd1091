"""Expert workers for tests: in this process or in their own, and rows to send them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from prometheus_client import CollectorRegistry
from torch import Tensor

from experts_service.config import WorkerConfig
from experts_service.service import WorkerService
from kimi_k2.checkpoint import Checkpoint
from kimi_k2.config import ModelConfig
from kimi_k2.local_experts import LocalExperts
from kimi_k2.numerics import Numerics, prove_numerics
from monitoring.metrics import RouterMetrics
from router_service.dispatch import DispatchOptions, RemoteExperts, known_answers
from tests.support.deadline import wait_until_async
from wire.carriers.carrier import CarrierChoice
from wire.placement import Epoch, Placement, WorkerAddress

REPOSITORY = Path(__file__).parents[2]
READY_SECONDS = 120.0

Grid = Mapping[str, Mapping[int, Sequence[int]]]
"""Worker id to the experts of each layer that it holds."""


@dataclass(frozen=True)
class ExpertModel:
    """A checkpoint with all its experts in memory, as the reference."""

    path: Path
    config: ModelConfig
    numerics: Numerics
    local: LocalExperts

    @classmethod
    def load(cls, path: Path) -> ExpertModel:
        checkpoint = Checkpoint(path)
        config = checkpoint.config
        numerics = prove_numerics(config)
        everything = range(config.n_routed_experts)
        weights = {
            layer: checkpoint.expert_weights(layer, everything, numerics.dtype, numerics.device)
            for layer in config.moe_layers
        }
        return cls(path, config, numerics, LocalExperts(weights, numerics))

    def with_fingerprint(self, fingerprint: str) -> ExpertModel:
        """The same as a machine with other arithmetic would see it."""
        return replace(self, numerics=replace(self.numerics, fingerprint=fingerprint))

    def rows(self, number: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """x, topk_idx, topk_weights of so many random rows."""
        generator = torch.Generator().manual_seed(seed)
        experts, top_k = self.config.n_routed_experts, self.config.num_experts_per_tok
        x = torch.randn(number, self.config.hidden_size, generator=generator)
        order = torch.rand(number, experts, generator=generator).argsort(dim=1)
        idx = order[:, :top_k].sort(dim=1).values
        weights = torch.rand(number, top_k, generator=generator)
        return x.to(self.numerics.dtype), idx, weights

    def remote(
        self, options: DispatchOptions | None = None, canaries: bool = False
    ) -> RemoteExperts:
        """`canaries`: whether workers are tried with some."""
        metrics = RouterMetrics(CollectorRegistry())
        known = known_answers(Checkpoint(self.path), self.numerics) if canaries else None
        return RemoteExperts(
            self.config, self.numerics, "router-test", metrics, options, known=known
        )


def expert_major(config: ModelConfig, workers: int) -> Grid:
    """Every layer's experts dealt out to all workers."""
    return {
        f"expert-{w}": {
            layer: range(w, config.n_routed_experts, workers) for layer in config.moe_layers
        }
        for w in range(workers)
    }


def layer_major(config: ModelConfig, workers: int) -> Grid:
    """Whole layers dealt out to the workers."""
    everything = range(config.n_routed_experts)
    return {
        f"expert-{w}": dict.fromkeys(config.moe_layers[w::workers], everything)
        for w in range(workers)
    }


def mixed(config: ModelConfig, workers: int) -> Grid:
    """The first worker holds the first layer whole; all share the others, some experts twice."""
    first, *others = config.moe_layers
    experts = config.n_routed_experts
    grid: dict[str, dict[int, Sequence[int]]] = {f"expert-{w}": {} for w in range(workers)}
    grid["expert-0"][first] = range(experts)
    for layer in others:
        for w in range(workers):
            own = set(range(w, experts, workers)) | {(w * 5) % experts, (w * 7 + 1) % experts}
            grid[f"expert-{w}"][layer] = sorted(own)
    return grid


def placement(
    config: ModelConfig,
    grid: Grid,
    addresses: Mapping[str, str],
    fingerprint: str = "",
    epoch: Epoch | None = None,
) -> Placement:
    """Every expert of the grid owned by all workers that hold it."""
    owners = {
        layer: tuple(
            tuple(worker for worker in grid if expert in grid[worker].get(layer, ()))
            for expert in range(config.n_routed_experts)
        )
        for layer in config.moe_layers
    }
    workers = {
        worker: WorkerAddress(
            worker_id=worker, address=addresses[worker], fingerprint=fingerprint, node="here"
        )
        for worker in grid
    }
    epoch = Epoch(term=1, counter=1) if epoch is None else epoch
    return Placement(epoch=epoch, workers=workers, owners=owners)


def worker_config(
    model: Path,
    worker_id: str,
    experts: Mapping[int, Sequence[int]],
    carrier: CarrierChoice = "auto",
) -> WorkerConfig:
    return WorkerConfig(worker_id=worker_id, model=model, experts=experts, carrier=carrier)


@asynccontextmanager
async def serving(
    model: Path, grid: Grid, carrier: CarrierChoice = "auto"
) -> AsyncIterator[dict[str, WorkerService]]:
    """Workers of this process, ready; stopped at the end."""
    services = {w: WorkerService(worker_config(model, w, grid[w], carrier)) for w in grid}
    try:
        for service in services.values():
            await service.start()
        for service in services.values():
            await service.wait_ready()
        yield services
    finally:
        for service in services.values():
            await service.stop()


@dataclass(frozen=True)
class WorkerProcess:
    process: subprocess.Popen[str]
    address: str
    metrics_address: str


@contextmanager
def worker_process(
    model: Path,
    worker_id: str,
    experts: str,
    listen: str = "127.0.0.1:0",
    temporary: Path = Path("/tmp"),
) -> Iterator[WorkerProcess]:
    """`python -m experts_service`, ready; killed at the end if it still runs."""
    command = [sys.executable, "-m", "experts_service", "--model", str(model)]
    command += ["--worker-id", worker_id, "--experts", experts, "--listen", listen]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        ready = json.loads(line or "{}")
        if ready.get("event") != "ready":
            raise RuntimeError(f"the worker is not ready: {line!r}")
        yield WorkerProcess(process, ready["address"], ready["metrics_address"])
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(READY_SECONDS)
        if process.stdout:
            process.stdout.close()


async def all_live(experts: RemoteExperts, config: ModelConfig) -> None:
    """Returns once every expert has a live copy."""
    await wait_until_async(
        lambda: all(
            experts.is_live(layer, e)
            for layer in config.moe_layers
            for e in range(config.n_routed_experts)
        ),
        "a live copy of every expert",
    )
