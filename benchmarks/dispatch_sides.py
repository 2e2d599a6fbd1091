"""What `bench_dispatch` compares: one round trip to so many processes, by each way."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch
from prometheus_client import CollectorRegistry

from benchmarks.dispatch_peer import NUMERICS, ROW, bench_config
from monitoring.metrics import RouterMetrics
from router_service.dispatch import DispatchOptions, RemoteExperts
from wire.carriers.carrier import INLINE, LOCAL, CarrierChoice
from wire.channels import open_channel
from wire.placement import Epoch, Placement, WorkerAddress
from wire.services import dispatch_stream

REPOSITORY = Path(__file__).parents[1]
TCP, GRPC = "tcp echo", "grpc echo"
SIDES = (TCP, GRPC, INLINE, LOCAL)

Round = Callable[[], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """workers: processes at the other end. rows: of Kimi K2's width, to each of them."""

    model: Path
    workers: int
    rows: int

    @property
    def payload_bytes(self) -> int:
        return 2 * ROW * self.rows


@dataclass(frozen=True, kw_only=True)
class Peers:
    """The processes of one side."""

    addresses: tuple[str, ...]
    processes: tuple[psutil.Process, ...]

    def processor_s(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self.processes)


@dataclass(frozen=True, kw_only=True)
class Way:
    """once: a round trip to all peers, and what has to be done to have its result."""

    once: Round
    peers: Peers

    def processor_s(self) -> tuple[float, float]:
        """Of this process and of the peers, so far."""
        return time.process_time(), self.peers.processor_s()


@contextlib.asynccontextmanager
async def ways(case: Case) -> AsyncIterator[dict[str, Way]]:
    """Every side, warm; all processes are gone at the end."""
    async with contextlib.AsyncExitStack() as stack:
        tcp = stack.enter_context(peers("tcp", case))
        grpc = stack.enter_context(peers("grpc", case))
        workers = stack.enter_context(peers("worker", case))
        payload = bytes(case.payload_bytes)
        rounds = {
            TCP: (stack.enter_context(_tcp(tcp, payload)), tcp),
            GRPC: (await stack.enter_async_context(_grpc(grpc, payload)), grpc),
            INLINE: (await stack.enter_async_context(_dispatch(workers, case, "inline")), workers),
            LOCAL: (await stack.enter_async_context(_dispatch(workers, case, "local")), workers),
        }
        found = {name: Way(once=once, peers=there) for name, (once, there) in rounds.items()}
        for way in found.values():
            for _ in range(20):
                await way.once()
        yield found


@contextlib.contextmanager
def peers(kind: str, case: Case) -> Iterator[Peers]:
    """So many processes, listening; gone at the end."""
    workers = str(case.workers)
    command = [sys.executable, "-m", "benchmarks.dispatch_peer", kind, "--model", str(case.model)]
    command += ["--experts", workers, "--top-k", workers, "--of", workers]
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(case.workers):
            process = subprocess.Popen(
                [*command, "--number", str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=REPOSITORY,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            started.append(process)
        lines = [process.stdout.readline().strip() for process in started if process.stdout]
        if not all(lines):
            raise RuntimeError(f"a peer did not start: {lines}")
        yield Peers(
            addresses=tuple(lines),
            processes=tuple(psutil.Process(process.pid) for process in started),
        )


@contextlib.contextmanager
def _tcp(there: Peers, payload: bytes) -> Iterator[Round]:
    """Blocking sockets: the least that two processes can do over TCP."""
    with contextlib.ExitStack() as stack:
        sockets = []
        for address in there.addresses:
            host, _, port = address.rpartition(":")
            connection = socket.create_connection((host, int(port)))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sockets.append(stack.enter_context(connection))
        message = struct.pack("<Q", len(payload)) + payload
        into = memoryview(bytearray(len(message)))

        async def once() -> None:
            for connection in sockets:
                connection.sendall(message)
            for connection in sockets:
                received = 0
                while received < len(into):
                    received += connection.recv_into(into[received:])

        yield once


@contextlib.asynccontextmanager
async def _grpc(there: Peers, payload: bytes) -> AsyncIterator[Round]:
    """A bare stream of grpcio's asyncio API to each."""
    async with contextlib.AsyncExitStack() as stack:
        streams = []
        for address in there.addresses:
            channel = await stack.enter_async_context(open_channel(address))
            stream = dispatch_stream(channel)()
            stack.callback(stream.cancel)
            streams.append(stream)

        async def once() -> None:
            for stream in streams:
                await stream.write(payload)
            for stream in streams:
                await stream.read()

        yield once


@contextlib.asynccontextmanager
async def _dispatch(there: Peers, case: Case, carrier: CarrierChoice) -> AsyncIterator[Round]:
    """Rows with one identity expert at each worker, combined here (by the worker if it is one)."""
    config = bench_config(case.model, case.workers, case.workers)
    experts = RemoteExperts(
        config,
        NUMERICS,
        "bench",
        RouterMetrics(CollectorRegistry()),
        DispatchOptions(carrier=carrier),
    )
    ids = [f"expert-{number}" for number in range(case.workers)]
    known = {
        worker: WorkerAddress(worker_id=worker, address=address, fingerprint="", node="here")
        for worker, address in zip(ids, there.addresses, strict=True)
    }
    owners = {layer: tuple((worker,) for worker in ids) for layer in config.moe_layers}
    experts.set_placement(Placement(epoch=Epoch(term=1, counter=1), workers=known, owners=owners))
    if not await experts.settled(20.0):
        raise RuntimeError("the workers cannot be used")
    layer = config.moe_layers[0]
    x = torch.randn(case.rows, ROW).to(NUMERICS.dtype)
    idx = torch.arange(len(ids)).repeat(case.rows, 1)
    weights = torch.full((case.rows, len(ids)), 1 / len(ids))

    async def once() -> None:
        await (await experts.dispatch(layer, x, idx, weights, None))

    try:
        yield once
    finally:
        await experts.close()
