"""One process at the other end: a bare echo over TCP or gRPC, or a worker of identity experts.

`python -m benchmarks.dispatch_peer KIND --model DIR --experts N --top-k K --number I --of W`
prints its address when it listens, and serves until its standard input closes.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import torch
from prometheus_client import CollectorRegistry
from torch import Tensor

from experts_service.admission import Admission
from experts_service.answering import Answering, Answers
from experts_service.handler import StreamHandler
from experts_service.in_flight import InFlight
from experts_service.intake import Intake
from experts_service.pool import TaskPool
from experts_service.runtime import Runtime
from experts_service.servicer import Servicer
from experts_service.status import WorkerState, WorkerStatus
from experts_service.store import ExpertStore
from experts_service.token_counts import TokenCounts
from kimi_k2.config import ModelConfig
from kimi_k2.expert_weights import ExpertWeights
from kimi_k2.numerics import Numerics
from monitoring.metrics import WorkerMetrics
from wire.carriers.carrier import LOCAL
from wire.channels import new_server
from wire.errors import UnavailableError
from wire.generated import orrery_pb2 as pb
from wire.messages import experts_to_message
from wire.placement import Epoch
from wire.services import Context, add_expert_worker

ROW = 7168
NUMERICS = Numerics(
    row_quantum=1,
    max_rows=1 << 20,
    fingerprint="identity",
    dtype=torch.bfloat16,
    device=torch.device("cpu"),
)


def bench_config(model: Path, experts: int, top_k: int) -> ModelConfig:
    """A model with rows of Kimi K2's width, 14 KB in bfloat16."""
    return dataclasses.replace(
        ModelConfig.from_dir(model),
        hidden_size=ROW,
        n_routed_experts=experts,
        num_experts_per_tok=top_k,
    )


class Echo:
    """The least that a server of this stream can do."""

    def describe(self) -> pb.WorkerDescription:
        return pb.WorkerDescription()

    def hear(self, term: int) -> None:
        """No controller has a say here."""

    async def serve_stream(self, frames: AsyncIterator[bytes], context: Context) -> None:
        async for frame in frames:
            await context.write(frame)

    async def load(self, epoch: Epoch, experts: Mapping[int, Sequence[int]]) -> None:
        raise UnavailableError("an echo has no experts")

    async def evict(self, epoch: Epoch, experts: Mapping[int, Sequence[int]]) -> None:
        raise UnavailableError("an echo has no experts")

    async def drain(self, deadline_s: float) -> bool:
        return True


class IdentityWorker(Echo):
    """Everything of a worker but the checkpoint and the arithmetic of its experts."""

    def __init__(self, config: ModelConfig, experts: Sequence[int]) -> None:
        self._config = config
        self._metrics = WorkerMetrics(CollectorRegistry())
        self._status = WorkerStatus()
        self._status.state = WorkerState.READY
        pool = TaskPool(max_rows=4096)
        self._in_flight = InFlight()
        self._store = ExpertStore(config.n_routed_experts, _no_weights)
        for layer in config.moe_layers:
            self._store.add(layer, experts)
        self._loop = asyncio.get_running_loop()
        counts = TokenCounts(config.moe_layers, config.n_routed_experts)
        answering = Answering(self._store, NUMERICS, self._status, counts, self._metrics, _identity)
        self._intake = Intake(pool, answering, None, died=lambda: None)
        self._runtime = Runtime(pool, answering, self._deliver, died=lambda: None)
        self._runtime.start()

    def describe(self) -> pb.WorkerDescription:
        return pb.WorkerDescription(
            state=pb.WORKER_STATE_READY,
            fingerprint=NUMERICS.fingerprint,
            dtype="bfloat16",
            hidden_size=ROW,
            experts=experts_to_message(self._store.held()),
            carriers=[LOCAL],
        )

    async def serve_stream(self, frames: AsyncIterator[bytes], context: Context) -> None:
        admission = Admission(self._config, NUMERICS.dtype, self._status)
        handler = StreamHandler(admission, self._intake, self._in_flight, self._metrics)
        await handler.run(frames, context)

    def _deliver(self, answers: Answers) -> None:
        self._loop.call_soon_threadsafe(_answer, answers)


def _answer(answers: Answers) -> None:
    for task, answer in answers:
        task.answer(answer)


def _no_weights(layer: int, experts: Sequence[int]) -> ExpertWeights:
    number = len(experts)
    return ExpertWeights(gate_up=torch.zeros(number, 2, 1), down=torch.zeros(number, 1, 1))


def _identity(x: Tensor, slots: Tensor, weights: ExpertWeights, numerics: Numerics) -> Tensor:
    return x


def _serve_tcp() -> None:
    """Blocking, a connection in the one thread there is: eight bytes of length, then so many."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"127.0.0.1:{listener.getsockname()[1]}", flush=True)
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = memoryview(bytearray(1 << 16))
        with connection:
            while received := connection.recv_into(buffer):
                size = 8 + int.from_bytes(buffer[:8], "little")
                if size > len(buffer):
                    start = bytes(buffer[:received])
                    buffer = memoryview(bytearray(size))
                    buffer[:received] = start
                while received < size:
                    received += connection.recv_into(buffer[received:size])
                connection.sendall(buffer[:size])


async def _serve(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    worker: Echo = Echo()
    if arguments.kind == "worker":
        config = bench_config(arguments.model, arguments.experts, arguments.top_k)
        worker = IdentityWorker(config, range(arguments.number, arguments.experts, arguments.of))
    server = new_server()
    add_expert_worker(server, Servicer(worker))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


def main() -> None:
    parser = argparse.ArgumentParser(description="The other end of bench_dispatch.")
    parser.add_argument("kind", choices=("tcp", "grpc", "worker"))
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--experts", type=int, required=True)
    parser.add_argument("--top-k", type=int, required=True)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--of", type=int, required=True)
    arguments = parser.parse_args()
    if arguments.kind == "tcp":
        _serve_tcp()
    else:
        asyncio.run(_serve(arguments))


if __name__ == "__main__":
    main()
