"""A router's life: bind, load, serve, drain, stop."""

from __future__ import annotations

import asyncio
import enum
import logging
import os
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import torch
from prometheus_client import CollectorRegistry

from kimi_k2.errors import ModelError
from monitoring import expert_page, request_notes
from monitoring.metrics import RouterMetrics
from monitoring.server import ListenError, MetricsServer
from router_service.config import RouterConfig
from router_service.debug_pages import (
    engine_page,
    expert_series,
    experts_page,
    integrity_page,
)
from router_service.engine import Engine
from router_service.expert_source import ExpertSource, open_source
from router_service.gateway_stream import GatewayStream
from router_service.loaded_model import LoadedModel, load_model
from router_service.servicer import Servicer
from router_service.telemetry import Telemetry
from router_service.visible_text import VisibleText
from router_service.wrong_answers import WrongAnswers
from wire.channels import new_server
from wire.errors import InternalError, OrreryError, StaleEpochError, UnavailableError
from wire.generated import orrery_pb2 as pb
from wire.health import Health
from wire.messages import epoch_to_message
from wire.placement import Placement
from wire.polite import in_thread
from wire.services import ROUTER, Context, add_router

_log = logging.getLogger(__name__)
_GOODBYE_S = 0.2
_MOST_THREADS = 4
"""Unless more are asked for: of a step of a few dozen rows, each has little to do."""


class RouterState(enum.StrEnum):
    """Where a router is in its life."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class RouterService:
    """Serves one model on one event loop, the one that ran `start`.

    Ready means that the engine runs. The health service says SERVING once there is also a
    placement, since without one every request would only be parked.
    """

    def __init__(self, config: RouterConfig, registry: CollectorRegistry | None = None) -> None:
        self._config = config
        registry = CollectorRegistry() if registry is None else registry
        self._metrics = RouterMetrics(registry)
        self._telemetry = Telemetry(self._metrics)
        pages = {
            "/debug/engine": lambda: engine_page(self._engine),
            "/debug/experts": lambda: experts_page(self._experts),
            "/debug/integrity": lambda: integrity_page(self._engine, self._loop),
            request_notes.PATH: self._telemetry.notes.page,
        }
        series = {expert_page.PATH: lambda: expert_series(self._experts)}
        self._metrics_server = MetricsServer(registry, config.metrics_listen, pages, series)
        self._loaded: LoadedModel | None = None
        self._experts: ExpertSource | None = None
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._placement: Placement | None = None
        self._term = 0
        self._state = RouterState.LOADING
        self._error = ""
        self._watching: asyncio.Task[None] | None = None
        self._stopping = False
        self.failed = asyncio.Event()

    async def start(self) -> None:
        """Binds both ports and returns; loading goes on behind it. Sets torch's thread count.

        Raises:
            ListenError: a port cannot be listened on.
        """
        processors = len(os.sched_getaffinity(0))
        torch.set_num_threads(self._config.threads or min(processors, _MOST_THREADS))
        self._loop = asyncio.get_running_loop()
        self._server = new_server()
        self._health = Health(ROUTER)
        await self._health.add_to(self._server)
        add_router(self._server, Servicer(self))
        self.address = _bind(self._server, self._config.listen)
        self._metrics_server.start()
        self.metrics_address = self._metrics_server.address
        await self._server.start()
        self._loading = asyncio.create_task(self._load(), name="load")
        self._loading.add_done_callback(self._load_ended)

    async def wait_ready(self) -> None:
        """Returns once the engine takes requests.

        Raises:
            InternalError: loading failed; the message says why.
        """
        await asyncio.wait([self._loading])
        if self._state is RouterState.FAILED:
            raise InternalError(self._error)

    @property
    def state(self) -> RouterState:
        return self._state

    @property
    def engine(self) -> Engine | None:
        """None until it is ready."""
        return self._engine

    async def set_placement(self, placement: Placement) -> None:
        """Dispatches by `placement` from now on, or as soon as the model is loaded.

        Raises:
            StaleEpochError: a higher epoch was seen, or a higher term heard.
            InvalidRequestError: it does not fit the model.
        """
        if placement.epoch.term < self._term:
            raise StaleEpochError(f"{placement.epoch} is of an older term than {self._term}")
        known = self._placement
        if known is not None and placement.epoch < known.epoch:
            raise StaleEpochError(
                f"{placement.epoch} is below {known.epoch}, which this router has"
            )
        if self._experts is not None:
            self._experts.set_placement(placement)
        self._placement = placement
        self.hear(placement.epoch.term)
        await self._note_health()

    async def drain(self, deadline_s: float) -> bool:
        """Refuses new requests; true once all accepted ones have ended, false at the deadline."""
        if self._state is not RouterState.FAILED:
            self._state = RouterState.DRAINING
        await self._note_health()
        return True if self._engine is None else await self._engine.drain(deadline_s)

    async def stop(self) -> None:
        """Closes the ports; what still runs ends with `UnavailableError`."""
        if self._stopping:
            return
        self._stopping = True
        await self._health.set_serving(False)
        await asyncio.wait([self._loading])
        if self._watching is not None:
            self._watching.cancel()
        if self._engine is not None:
            await self._engine.stop()
        await self._server.stop(_GOODBYE_S)
        if self._experts is not None:
            await self._experts.close()
        await asyncio.to_thread(self._metrics_server.stop)

    async def serve_stream(
        self, requests: AsyncIterator[pb.GenerateRequest], context: Context
    ) -> None:
        """One gateway's stream, to its end.

        Raises:
            UnavailableError: the router is still loading, or failed to.
        """
        if self._engine is None:
            raise UnavailableError(f"the router is {self._state.value}")
        await GatewayStream(self._engine).run(requests, context)

    def hear(self, term: int) -> None:
        """Takes note of a controller's term: from then on placements of a lower one are refused."""
        self._term = max(self._term, term)

    def describe(self) -> pb.RouterDescription:
        description = pb.RouterDescription(
            router_id=self._config.router_id,
            state=self._state.value,
            device=self._config.device,
            metrics_address=self.metrics_address,
            pid=os.getpid(),
            error=self._error,
            term=self._term,
        )
        if self._placement is not None:
            description.epoch.CopyFrom(epoch_to_message(self._placement.epoch))
        if self._loaded is not None:
            numerics = self._loaded.model.numerics
            description.model_hash = self._loaded.model_hash
            description.fingerprint = numerics.fingerprint
            description.dtype = str(numerics.dtype).removeprefix("torch.")
        if self._experts is not None:
            description.suspects.extend(
                pb.Suspect(worker_id=suspect.worker_id, pid=suspect.pid, reason=suspect.reason)
                for suspect in self._experts.suspects()
            )
        if (engine := self._engine) is not None:
            description.running = engine.scheduler.running
            description.waiting = engine.scheduler.waiting
            description.parked = len(engine.scheduler.parked)
            description.kv_blocks_total = engine.kv.pool.num_blocks
            description.kv_blocks_used = engine.kv.pool.used
            description.max_model_len = engine.max_model_len
        return description

    async def _load(self) -> None:
        config = self._config
        try:
            loaded = await in_thread(config.polite, partial(load_model, config))
            experts = await open_source(config, loaded, self._metrics)
        except (ModelError, OSError, RuntimeError) as error:
            _log.error("router %s cannot serve: %s", config.router_id, error)
            self._fail(str(error))
            return
        engine = Engine(
            loaded.model,
            experts.experts,
            partial(VisibleText, loaded.tokenizer),
            config,
            self._telemetry,
            loaded.model.numerics.device,
        )
        experts.add_listener(WrongAnswers(experts.suspects, engine.kv.distrust).look)
        experts.add_listener(engine.experts_changed)
        engine.start()
        self._loaded, self._experts, self._engine = loaded, experts, engine
        self._place_pending(experts)
        self._watching = asyncio.create_task(self._watch(engine), name="engine-watch")
        if self._state is RouterState.LOADING:
            self._state = RouterState.READY
        else:
            engine.refuse_all()
        await self._note_health()

    def _place_pending(self, experts: ExpertSource) -> None:
        """Uses the placement that came while the model was loading."""
        if self._placement is None:
            return
        try:
            experts.set_placement(self._placement)
        except OrreryError as error:
            _log.error("the placement %s does not fit: %s", self._placement.epoch, error)
            self._placement = None

    def _load_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("router %s failed to load", self._config.router_id, exc_info=error)
            self._fail(f"loading failed: {error!r}")

    async def _watch(self, engine: Engine) -> None:
        await engine.failed.wait()
        self._fail(str(engine.refusal))
        await self._note_health()

    def _fail(self, error: str) -> None:
        self._error = error
        self._state = RouterState.FAILED
        self.failed.set()

    async def _note_health(self) -> None:
        placed = self._config.experts == "local" or self._placement is not None
        await self._health.set_serving(self._state is RouterState.READY and placed)


def _bind(server: Any, listen: str) -> str:
    host = listen.rpartition(":")[0]
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise _cannot_listen(listen) from error
    if port == 0:
        raise _cannot_listen(listen)
    return f"{host}:{port}"


def _cannot_listen(listen: str) -> ListenError:
    return ListenError(
        f"cannot listen on {listen}: the port is in use or the address is not this machine's; "
        "give another host:port, port 0 takes a free one"
    )
