"""The routed experts, asked of expert workers."""

from __future__ import annotations

import math
import zlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kimi_k2.config import ModelConfig
from kimi_k2.experts import RoutedRows
from kimi_k2.numerics import Numerics
from monitoring.metrics import RouterMetrics
from router_service.dispatch.call import Call
from router_service.dispatch.expert_tokens import ExpertTokens
from router_service.dispatch.finite import all_finite
from router_service.dispatch.fitness import Requirements
from router_service.dispatch.known_answers import KnownAnswers
from router_service.dispatch.live_table import NOBODY, Ids, Owners
from router_service.dispatch.part import Part
from router_service.dispatch.roster import Roster, Suspect
from router_service.dispatch.rows_in_flight import RowsInFlight
from router_service.dispatch_options import DispatchOptions
from wire.codec import request_message
from wire.errors import StaleEpochError
from wire.placement import Epoch, Placement

_NO_PLACEMENT = Epoch(term=0, counter=0)


class RemoteExperts:
    """Implements `Experts` over the workers of a placement.

    Each row goes to a worker at most once; rows of which one worker holds all experts come back
    combined, the others are combined here. A worker that is lost, late or refuses has its rows
    asked of another owner at once; rows without one are parked. Where it is only late, both are
    asked, and the first answer is taken. Only workers whose numerics
    fingerprint equals the router's are asked.

    Everything runs on the event loop that made it.
    """

    def __init__(
        self,
        config: ModelConfig,
        numerics: Numerics,
        router_id: str,
        metrics: RouterMetrics,
        options: DispatchOptions | None = None,
        model_hash: str = "",
        known: KnownAnswers | None = None,
    ) -> None:
        """
        Args:
            model_hash: when given, workers with another one are not asked.
            known: right answers, to try workers with; None: they are believed.
        """
        self._layers = {layer: index for index, layer in enumerate(config.moe_layers)}
        requirements = Requirements(
            fingerprint=numerics.fingerprint,
            model_hash=model_hash,
            rows_dtype=numerics.dtype,
            hidden_size=config.hidden_size,
            layers=config.moe_layers,
            n_routed_experts=config.n_routed_experts,
        )
        self._metrics = metrics
        self._tokens = ExpertTokens(config.moe_layers, config.n_routed_experts, metrics)
        self._epoch = _NO_PLACEMENT
        self._listeners: list[Callable[[], None]] = []
        self._roster = Roster(
            router_id,
            requirements,
            DispatchOptions() if options is None else options,
            metrics,
            self._tell,
            known,
        )
        self._chance = np.random.default_rng(zlib.crc32(router_id.encode()))

    @property
    def epoch(self) -> Epoch:
        """Of the placement in use; (0, 0) before the first."""
        return self._epoch

    def set_placement(self, placement: Placement) -> None:
        """Dispatches by this placement from now on; what is on its way goes on.

        Raises:
            StaleEpochError: a higher epoch is in use.
            InvalidRequestError: layers or numbers of experts are not the model's.
        """
        if placement.epoch < self._epoch:
            raise StaleEpochError(f"{placement.epoch} is below {self._epoch}, which is in use")
        self._roster.adopt(placement)
        self._epoch = placement.epoch
        self._metrics.epoch.labels(part="term").set(placement.epoch.term)
        self._metrics.epoch.labels(part="counter").set(placement.epoch.counter)

    async def settled(self, timeout_s: float) -> bool:
        """True once the newest placement is fully in effect; false if not after `timeout_s`.

        Until then rows are still asked of former owners, which had better not be evicted.
        """
        return await self._roster.settled(timeout_s)

    async def dispatch(
        self, layer: int, x: Tensor, topk_idx: Tensor, topk_weights: Tensor, active: Tensor | None
    ) -> Awaitable[RoutedRows]:
        """See `Experts.dispatch`; the messages are on their way when this returns."""
        index = self._layers[layer]
        here = _here(x)
        ids: NDArray[np.int64] = _here(topk_idx).numpy()
        experts = ids.astype(np.uint16, order="C")
        weights = np.ascontiguousarray(_here(topk_weights).numpy())
        flight = RowsInFlight(
            here,
            experts,
            weights,
            layer,
            x.device,
            choose=partial(self._choose, index),
            send=partial(self._send, index),
        )
        rows = range(len(ids)) if active is None else active.nonzero()[:, 0].tolist()
        if all_finite(here) and math.isfinite(np.add.reduce(weights, axis=None)):
            flight.start(rows)
        else:
            sound = (here.isfinite().all(dim=1).numpy() & np.isfinite(weights).all(axis=1)).tolist()
            flight.start(
                [row for row in rows if sound[row]], [row for row in rows if not sound[row]]
            )
        self._tokens.add(index, experts if active is None else experts[rows])
        return flight.done

    def is_live(self, layer: int, expert: int) -> bool:
        """See `Experts.is_live`."""
        return self._roster.table.is_live(self._layers[layer], expert)

    def add_listener(self, callback: Callable[[], None]) -> None:
        """`callback` is called on the loop whenever liveness may have changed."""
        self._listeners.append(callback)

    def snapshot(self) -> dict[str, Any]:
        """For the debug page: each worker as seen from here, tokens by layer and expert."""
        return {
            "epoch": {"term": self._epoch.term, "counter": self._epoch.counter},
            "workers": self._roster.snapshot(),
            "tokens": self._tokens.by_layer(),
            "dead": {
                layer: int((self._roster.table.only[index] == NOBODY).sum())
                for layer, index in self._layers.items()
            },
        }

    def suspects(self) -> list[Suspect]:
        """Workers whose answers were wrong."""
        return self._roster.suspects()

    def expert_tokens(self) -> NDArray[np.int64]:
        """[layers, experts] pairs dispatched since the start, in the order of `moe_layers`."""
        return self._tokens.counts

    async def close(self) -> None:
        """Closes every stream; rows on their way are parked."""
        await self._roster.close()

    def _tell(self) -> None:
        for callback in tuple(self._listeners):
            callback()

    def _choose(self, layer: int, experts: Ids, tried: frozenset[str]) -> int | Owners:
        table, links = self._roster.table, self._roster.links
        if not tried:
            sole = table.sole[layer]
            if sole != NOBODY:
                return sole
            if not table.replicated[layer]:
                return table.settled(layer, experts)
        without = None
        if tried:
            without = np.array([link.address.worker_id in tried for link in links])
        load = np.array([link.outstanding for link in links], np.float64)
        order = self._chance.permutation(len(links)) if table.crowded[layer] else None
        return table.choose(layer, experts, load, without, order)

    def _send(self, layer: int, flight: RowsInFlight, part: Part) -> None:
        link = self._roster.links[part.worker]
        traffic, worker_id = link.traffic, link.address.worker_id
        request_id = traffic.next_request_id()
        x, experts, weights = flight.sections(part)
        message = request_message(
            request_id,
            self._epoch,
            flight.layer_number,
            x,
            bytes(part.counts),
            bytes(part.whole),
            experts,
            weights,
        )
        call = Call(
            layer=layer,
            rows=part.answer_rows,
            pairs=len(part.pairs),
            replied=partial(flight.replied, part),
            failed=partial(flight.failed, part, worker_id),
            others=partial(flight.second, part, worker_id),
        )
        traffic.send(request_id, message, call)


def _here(x: Tensor) -> Tensor:
    """The same on the CPU and without a history; mostly it is so already."""
    return x if x.is_cpu and not x.requires_grad else x.detach().to("cpu")
