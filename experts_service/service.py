"""An expert worker's life: bind, load, serve, drain, stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

import grpc
import torch
from prometheus_client import CollectorRegistry

from experts_service.admission import Admission
from experts_service.answering import Answering, Answers
from experts_service.config import WorkerConfig
from experts_service.description import description_of
from experts_service.handler import StreamHandler
from experts_service.in_flight import InFlight
from experts_service.intake import Intake
from experts_service.model import ServedModel, open_model
from experts_service.named_experts import check_experts
from experts_service.pool import TaskPool
from experts_service.quick_answers import QuickAnswers
from experts_service.runtime import Runtime
from experts_service.servicer import Servicer
from experts_service.status import WorkerState, WorkerStatus
from kimi_k2.errors import ConfigError, ModelError
from monitoring.metrics import WorkerMetrics, set_state
from monitoring.server import ListenError, MetricsServer
from wire.channels import new_server
from wire.errors import InternalError, InvalidRequestError, OrreryError, UnavailableError
from wire.generated import orrery_pb2 as pb
from wire.health import Health
from wire.placement import Epoch
from wire.polite import in_thread
from wire.services import EXPERT_WORKER, Context, add_expert_worker

_log = logging.getLogger(__name__)
_GOODBYE_S = 0.2


class WorkerService:
    """Serves experts on the event loop that ran `start`, with a thread for the arithmetic."""

    def __init__(self, config: WorkerConfig, registry: CollectorRegistry | None = None) -> None:
        self._config = config
        registry = CollectorRegistry() if registry is None else registry
        self._metrics = WorkerMetrics(registry)
        self._metrics_server = MetricsServer(
            registry, config.metrics_listen, {"/debug/experts": self._debug_experts}
        )
        self._status = WorkerStatus()
        self._pool = TaskPool(config.max_batch_rows)
        self._in_flight = InFlight()
        self._model: ServedModel | None = None
        self._intake: Intake | None = None
        self._runtime: Runtime | None = None
        self._stopping = False
        self.failed = asyncio.Event()

    async def start(self) -> None:
        """Binds both ports and returns; loading goes on behind it. Sets torch's thread count.

        Raises:
            ListenError: a port cannot be listened on.
        """
        torch.set_num_threads(self._config.threads)
        self._loop = asyncio.get_running_loop()
        self._server = new_server()
        self._health = Health(EXPERT_WORKER)
        await self._health.add_to(self._server)
        add_expert_worker(self._server, Servicer(self))
        self.address = _bind(self._server, self._config.listen)
        try:
            self._metrics_server.start()
        except ListenError:
            await self._server.stop(None)
            raise
        self.metrics_address = self._metrics_server.address
        self._enter(WorkerState.LOADING)
        await self._server.start()
        self._loading = self._loop.create_task(self._load_assigned())

    @property
    def state(self) -> WorkerState:
        return self._status.state

    async def wait_ready(self) -> None:
        """Returns once every assigned expert serves.

        Raises:
            InternalError: loading failed; the message says why.
        """
        await asyncio.shield(self._loading)
        if self._status.state is WorkerState.FAILED:
            raise InternalError(self._status.error)

    async def load(self, epoch: Epoch, experts: Mapping[int, Sequence[int]]) -> None:
        """Loads further experts; they serve when this returns.

        Raises:
            StaleEpochError: a higher epoch was seen, and nothing is loaded; or a newer term was
                heard while experts were being loaded, and no more are.
            InvalidRequestError: the model has no such layer or expert; nothing is loaded.
            InternalError: the checkpoint cannot be read.
        """
        self._status.command(epoch)
        model = await self._ready_model()
        _check(experts, model)
        held = model.store.held()
        self._status.assigned += sum(
            len(set(ids) - set(held.get(layer, ()))) for layer, ids in experts.items()
        )
        wanted = partial(self._status.check_command, epoch)
        try:
            for layer, ids in experts.items():
                await asyncio.to_thread(model.store.add, layer, ids, wanted)
        except Exception as error:
            self._status.assigned = model.store.count
            if isinstance(error, OrreryError):
                raise
            raise InternalError(f"loading experts failed: {_text(error)}") from error
        finally:
            self._note_held(model)

    async def evict(self, epoch: Epoch, experts: Mapping[int, Sequence[int]]) -> None:
        """Drops experts; requests that wait for them get a typed error.

        Raises:
            StaleEpochError: a higher epoch was seen, and nothing is dropped; or a newer term was
                heard meanwhile, and no more are.
            InvalidRequestError: the model has no such layer or expert; nothing is dropped.
        """
        self._status.command(epoch)
        model = await self._ready_model()
        _check(experts, model)
        wanted = partial(self._status.check_command, epoch)
        try:
            for layer, ids in experts.items():
                await asyncio.to_thread(model.store.remove, layer, ids, wanted)
        finally:
            self._status.assigned = model.store.count
            self._note_held(model)

    async def drain(self, deadline_s: float) -> bool:
        """Refuses new frames; true once all accepted ones are answered, false at the deadline."""
        if self._status.state is not WorkerState.FAILED:
            self._enter(WorkerState.DRAINING)
        await self._health.set_serving(False)
        try:
            async with asyncio.timeout(deadline_s):
                await self._in_flight.below(1)
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Closes the ports and ends every thread; whatever still runs is not answered."""
        if self._stopping:
            return
        self._stopping = True
        await self._health.set_serving(False)
        await self._server.stop(_GOODBYE_S)
        await asyncio.gather(self._loading, return_exceptions=True)
        if self._runtime is not None:
            await asyncio.to_thread(self._runtime.stop)
        await asyncio.to_thread(self._metrics_server.stop)

    async def serve_stream(self, frames: AsyncIterator[bytes], context: Context) -> None:
        """One router's stream, to its end.

        Raises:
            UnavailableError: the worker is still loading, or has failed meanwhile.
        """
        model, intake = self._model, self._intake
        if model is None or intake is None or self._status.state is WorkerState.FAILED:
            raise UnavailableError(f"the worker is {self._status.state.value}")
        admission = Admission(model.config, model.numerics.dtype, self._status)
        parts = admission, intake, self._in_flight, self._metrics
        handler = StreamHandler(*parts, self._config.carrier)
        stream = self._loop.create_task(handler.run(frames, context))
        failed = self._loop.create_task(self.failed.wait())
        try:
            await asyncio.wait((stream, failed), return_when=asyncio.FIRST_COMPLETED)
            if not stream.done():
                # Nobody answers any more: the router is to ask another worker at once.
                raise UnavailableError(f"the worker has failed: {self._status.error}")
            stream.result()
        finally:
            stream.cancel()
            failed.cancel()
            await asyncio.gather(stream, failed, return_exceptions=True)

    def hear(self, term: int) -> None:
        """Takes note of a controller's term, so that commands of an older one move no expert; what
        `describe` says from then on stays true until the new one commands."""
        self._status.hear(term)

    def describe(self) -> pb.WorkerDescription:
        return description_of(self._config, self._status, self._model, self.metrics_address)

    async def _load_assigned(self) -> None:
        self._status.assigned = sum(len(set(ids)) for ids in self._config.experts.values())
        try:
            model = await in_thread(self._config.polite, partial(open_model, self._config))
            self._model = model
            for layer, ids in sorted(self._config.experts.items()):
                if self._stopping:
                    return
                add = partial(model.store.add, layer, ids)
                await in_thread(self._config.polite, add)
                self._note_held(model)
        except Exception as error:  # noqa: BLE001
            # Such as an AssertionError of torch for a device that this build does not know.
            _log.exception("worker %s cannot serve", self._config.worker_id)
            self._fail(_text(error))
            return
        parts = model.store, model.numerics, self._status, model.counts, self._metrics
        answering = Answering(*parts)
        quick = QuickAnswers(model.config, model.numerics, self._status, model.store, answering)
        self._intake = Intake(self._pool, answering, quick, self._runtime_died)
        self._runtime = Runtime(self._pool, answering, self._deliver, self._runtime_died)
        self._runtime.start()
        if self._status.state is WorkerState.LOADING:
            self._enter(WorkerState.READY)
            await self._health.set_serving(True)

    async def _ready_model(self) -> ServedModel:
        await self.wait_ready()
        if self._model is None:
            raise UnavailableError("the worker is stopping")
        return self._model

    def _deliver(self, answers: Answers) -> None:
        self._loop.call_soon_threadsafe(_answer, answers)

    def _runtime_died(self) -> None:
        self._loop.call_soon_threadsafe(self._fail, "the arithmetic failed")

    def _fail(self, error: str) -> None:
        self._status.error = error
        self._enter(WorkerState.FAILED)
        self.failed.set()

    def _enter(self, state: WorkerState) -> None:
        self._status.state = state
        set_state(self._metrics.state, [s.value for s in WorkerState], state.value)

    def _note_held(self, model: ServedModel) -> None:
        held = model.store.held()
        for layer in model.config.moe_layers:
            self._metrics.experts_held.labels(layer=str(layer)).set(len(held.get(layer, ())))
        self._metrics.memory_bytes.set(model.store.nbytes)

    def _debug_experts(self) -> dict[str, Any]:
        model = self._model
        return {
            "worker_id": self._config.worker_id,
            "held": {} if model is None else model.store.held(),
            "tokens": {} if model is None else model.counts.by_layer(),
        }


def _answer(answers: Answers) -> None:
    for task, answer in answers:
        task.answer(answer)


def _text(error: Exception) -> str:
    """What it says, and its kind where it is not one that was foreseen."""
    return str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"


def _check(experts: Mapping[int, Sequence[int]], model: ServedModel) -> None:
    try:
        check_experts(experts, model.config)
    except ConfigError as error:
        raise InvalidRequestError(str(error)) from error


def _bind(server: grpc.aio.Server, listen: str) -> str:
    host = listen.rpartition(":")[0]
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise ListenError(f"cannot listen on {listen}: {error}") from error
    if port == 0:
        raise ListenError(f"cannot listen on {listen}: the port is in use or not this machine's")
    return f"{host}:{port}"
