"""One router and its expert workers, each a process, laid out by the planner."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from google.protobuf import json_format

from benchmarks.serving.services import Ready, ready, service
from cluster.blueprint import Blueprint, draw
from cluster.config import ClusterConfig, ExpertsSection, ModelSection, RouterSection
from wire.clients.expert_worker import ExpertWorkerClient
from wire.messages import placement_to_message
from wire.placement import Epoch, Placement, WorkerAddress


@dataclass(frozen=True, kw_only=True)
class ClusterShape:
    """placement: as in the cluster's config: auto, expert-major, layer-major, 2x2 ...

    micro_batches: in flight at a time; None: the config's default.
    router_threads: None: the router's own choice.
    traceable: for a profiler.
    router_module, worker_module: what runs them, after `python -m`.
    """

    model: Path
    placement: str = "auto"
    workers: int = 4
    micro_batches: int | None = None
    router_threads: int | None = None
    worker_threads: int = 1
    traceable: bool = False
    router_module: tuple[str, ...] = ("router_service",)
    worker_module: tuple[str, ...] = ("experts_service",)

    def blueprint(self) -> Blueprint:
        """What `orrery serve` would start for this shape."""
        router = (
            RouterSection()
            if self.micro_batches is None
            else RouterSection(micro_batches=self.micro_batches)
        )
        return draw(
            ClusterConfig(
                model=ModelSection(path=str(self.model)),
                router=router,
                experts=ExpertsSection(workers=self.workers, placement=self.placement),
            )
        )


@dataclass(frozen=True, kw_only=True)
class Running:
    """One router and its expert workers, ready."""

    router: Ready
    workers: Mapping[str, Ready]


@asynccontextmanager
async def cluster(shape: ClusterShape) -> AsyncIterator[Running]:
    """Laid out as `shape.blueprint()` says, ended when the context is left."""
    blueprint = shape.blueprint()
    plan = blueprint.plan
    async with AsyncExitStack() as stack:
        held = {worker: plan.experts_of(worker) for worker in blueprint.workers}
        workers = await stack.enter_async_context(expert_workers(shape, held))
        placement = Placement(
            epoch=Epoch(term=1, counter=1), workers=await described(workers), owners=plan.owners
        )
        folder = Path(stack.enter_context(TemporaryDirectory()))
        file = folder / "placement.json"
        file.write_text(json_format.MessageToJson(placement_to_message(placement)))
        router = await stack.enter_async_context(
            remote_router(shape, blueprint.micro_batches, placement=file)
        )
        yield Running(router=router, workers=workers)


@asynccontextmanager
async def expert_workers(
    shape: ClusterShape, held: Mapping[str, Mapping[int, Sequence[int]]]
) -> AsyncIterator[dict[str, Ready]]:
    """A worker for each id, with the experts of each layer that it is to hold."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        processes = []
        for worker, experts in held.items():
            file = folder / f"{worker}.json"
            file.write_text(json.dumps(experts))
            arguments = [
                *("-m", *shape.worker_module, "--model", str(shape.model)),
                *("--worker-id", worker, "--experts", str(file)),
                *("--threads", str(shape.worker_threads)),
            ]
            processes.append(
                await stack.enter_async_context(service(arguments, traceable=shape.traceable))
            )
        started = await asyncio.gather(*map(ready, processes))
        yield dict(zip(held, started, strict=True))


@asynccontextmanager
async def remote_router(
    shape: ClusterShape, micro_batches: int, *, placement: Path | None = None
) -> AsyncIterator[Ready]:
    """A router without experts; None: it waits for a placement."""
    arguments = [
        *("-m", *shape.router_module, "--model", str(shape.model)),
        *([] if shape.router_threads is None else ["--threads", str(shape.router_threads)]),
        *("--micro-batches", str(micro_batches)),
        *(("--placement", str(placement)) if placement else ()),
    ]
    async with service(arguments, traceable=shape.traceable) as process:
        yield await ready(process)


@asynccontextmanager
async def local_router(
    model: Path, threads: int | None, module: tuple[str, ...] = ("router_service",)
) -> AsyncIterator[Ready]:
    """A router that computes the experts itself, run by `module`; None: torch's own threads."""
    chosen = [] if threads is None else ["--threads", str(threads)]
    arguments = ["-m", *module, "--model", str(model), "--local-experts", *chosen]
    async with service(arguments) as process:
        yield await ready(process)


@asynccontextmanager
async def gateway(model: Path, router: str) -> AsyncIterator[Ready]:
    """An HTTP gateway in front of the router at an address."""
    arguments = ["-m", "gateway", "--model", str(model), "--routers", router]
    async with service([*arguments, "--listen", "127.0.0.1:0"]) as process:
        yield await ready(process)


async def described(workers: Mapping[str, Ready]) -> dict[str, WorkerAddress]:
    """The workers as a placement names them."""
    found = {}
    for worker, running in workers.items():
        async with ExpertWorkerClient(running.address) as client:
            said = await client.describe()
        found[worker] = WorkerAddress(
            worker_id=worker, address=running.address, fingerprint=said.fingerprint, node=""
        )
    return found
