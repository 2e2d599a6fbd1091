"""One router and its expert workers, each a process, laid out by the planner."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from google.protobuf import json_format

from benchmarks.serving.services import address, service
from cluster.blueprint import Blueprint, draw
from cluster.config import ClusterConfig, ExpertsSection, ModelSection, RouterSection
from wire.clients.expert_worker import ExpertWorkerClient
from wire.messages import placement_to_message
from wire.placement import Epoch, Placement, WorkerAddress


@dataclass(frozen=True, kw_only=True)
class ClusterShape:
    """placement: as in the cluster's config: auto, expert-major, layer-major, 2x2 ...

    micro_batches: in flight at a time; None: the config's default.
    """

    model: Path
    placement: str = "auto"
    workers: int = 4
    micro_batches: int | None = None
    router_threads: int = 1
    worker_threads: int = 1

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


@asynccontextmanager
async def cluster(shape: ClusterShape) -> AsyncIterator[str]:
    """The address of the router, while router and workers run."""
    blueprint = shape.blueprint()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        processes = []
        for worker in blueprint.workers:
            held = folder / f"{worker}.json"
            held.write_text(json.dumps(blueprint.plan.experts_of(worker)))
            processes.append(
                await stack.enter_async_context(
                    service(
                        [
                            *("-m", "experts_service", "--model", str(shape.model)),
                            *("--worker-id", worker, "--experts", str(held)),
                            *("--threads", str(shape.worker_threads)),
                        ]
                    )
                )
            )
        addresses = await asyncio.gather(*map(address, processes))
        described = [
            await _describe(worker, place)
            for worker, place in zip(blueprint.workers, addresses, strict=True)
        ]
        placement = Placement(
            epoch=Epoch(term=1, counter=1),
            workers={worker.worker_id: worker for worker in described},
            owners=blueprint.plan.owners,
        )
        file = folder / "placement.json"
        file.write_text(json_format.MessageToJson(placement_to_message(placement)))
        router = await stack.enter_async_context(
            service(
                [
                    *("-m", "router_service", "--model", str(shape.model)),
                    *("--placement", str(file), "--threads", str(shape.router_threads)),
                    *("--micro-batches", str(blueprint.config.router.micro_batches)),
                ]
            )
        )
        yield await address(router)


@asynccontextmanager
async def local_router(model: Path, threads: int | None) -> AsyncIterator[str]:
    """The address of a router that computes the experts itself; None: torch's own threads."""
    chosen = [] if threads is None else ["--threads", str(threads)]
    arguments = ["-m", "router_service", "--model", str(model), "--local-experts", *chosen]
    async with service(arguments) as process:
        yield await address(process)


@asynccontextmanager
async def gateway(model: Path, router: str) -> AsyncIterator[str]:
    """The address of an HTTP gateway in front of a router."""
    arguments = ["-m", "gateway", "--model", str(model), "--routers", router]
    async with service([*arguments, "--listen", "127.0.0.1:0"]) as process:
        yield await address(process)


async def _describe(worker: str, place: str) -> WorkerAddress:
    async with ExpertWorkerClient(place) as client:
        said = await client.describe()
    return WorkerAddress(worker_id=worker, address=place, fingerprint=said.fingerprint, node="")
