"""Where the routed experts come from: this process, or expert workers."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

from kimi_k2.checkpoint import Checkpoint
from kimi_k2.experts import Experts
from kimi_k2.load import load_local_experts
from monitoring.metrics import RouterMetrics
from router_service.config import RouterConfig
from router_service.dispatch import RemoteExperts, known_answers
from router_service.dispatch.roster import Suspect
from router_service.loaded_model import LoadedModel
from wire.placement import Placement


class ExpertSource(Protocol):
    """The routed experts, with what a router tells them and asks of them."""

    @property
    def experts(self) -> Experts: ...

    def set_placement(self, placement: Placement) -> None:
        """Raises StaleEpochError for a lower epoch, InvalidRequestError for a misfit."""
        ...

    def add_listener(self, changed: Callable[[], None]) -> None:
        """`changed` is called when experts may have come back."""
        ...

    def snapshot(self) -> Any:
        """State for the debug page, as JSON."""
        ...

    def suspects(self) -> list[Suspect]:
        """Expert workers whose answers were wrong."""
        ...

    async def close(self) -> None: ...


class LocalSource:
    """All experts in this process; placements mean nothing to it."""

    def __init__(self, experts: Experts) -> None:
        self.experts = experts

    def set_placement(self, placement: Placement) -> None: ...

    def add_listener(self, changed: Callable[[], None]) -> None: ...

    def snapshot(self) -> Any:
        return {"experts": "local"}

    def suspects(self) -> list[Suspect]:
        return []

    async def close(self) -> None: ...


class RemoteSource:
    """Experts at expert workers; none is live before the first placement."""

    def __init__(self, experts: RemoteExperts) -> None:
        self.experts = experts
        self.set_placement = experts.set_placement
        self.add_listener = experts.add_listener
        self.snapshot = experts.snapshot
        self.suspects = experts.suspects
        self.close = experts.close


async def open_source(
    config: RouterConfig, loaded: LoadedModel, metrics: RouterMetrics
) -> ExpertSource:
    """Raises ModelError when the experts cannot be loaded."""
    numerics = loaded.model.numerics
    if config.experts == "local":
        local = await asyncio.to_thread(load_local_experts, config.model, numerics=numerics)
        return LocalSource(local)
    return RemoteSource(
        RemoteExperts(
            loaded.model.config,
            numerics,
            config.router_id,
            metrics,
            dataclasses.replace(config.dispatch, carrier=config.carrier),
            model_hash=loaded.model_hash,
            known=known_answers(Checkpoint(config.model), numerics),
        )
    )
