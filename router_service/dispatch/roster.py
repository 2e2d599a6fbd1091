"""The workers of a placement, and who of them can be asked for what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.metrics import RouterMetrics
from router_service.dispatch.canaries import Canaries
from router_service.dispatch.fitness import Requirements
from router_service.dispatch.known_answers import KnownAnswers
from router_service.dispatch.latency_window import LatencyWindow
from router_service.dispatch.live_table import LiveTable
from router_service.dispatch.worker_link import WorkerLink
from router_service.dispatch_options import DispatchOptions
from wire.errors import InvalidRequestError
from wire.placement import Placement

Owned = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A worker in quarantine. pid: of the process that gave the wrong answers."""

    worker_id: str
    pid: int
    reason: str


class Roster:
    """Links to workers and the table of live experts, kept current.

    A placement takes over expert by expert: where none of its owners can be asked yet, the former
    owners still are, so that no row waits for a connection. Links that are needed no more are
    retired, which lets their calls end.

    links: in the order of the table's last dimension.
    """

    def __init__(
        self,
        router_id: str,
        requirements: Requirements,
        options: DispatchOptions,
        metrics: RouterMetrics,
        changed: Callable[[], None],
        known: KnownAnswers | None = None,
    ) -> None:
        """
        Args:
            changed: called after the table has changed.
            known: of canaries; None: workers get none.
        """
        self.links: list[WorkerLink] = []
        self._router_id = router_id
        self._requirements = requirements
        self._options = options
        self._metrics = metrics
        self._changed = changed
        self._known = known
        self._index = {layer: index for index, layer in enumerate(requirements.layers)}
        self._leaving: set[WorkerLink] = set()
        self._retired: list[WorkerLink] = []
        self._owned = self._nobody(0)
        self._former = self._nobody(0)
        self._closed = False
        self._settled = asyncio.Event()
        self.table = LiveTable.of(self._owned)

    def adopt(self, placement: Placement) -> None:
        """Makes its owners those to ask.

        Raises:
            InvalidRequestError: it does not fit the model; nothing changes.
        """
        self._check(placement)
        answerable = dict(
            zip(self.links, np.moveaxis(self._owned | self._former, 2, 0), strict=True)
        )
        staying = self._linked(placement)
        self._leaving = answerable.keys() - set(staying)
        self.links = [*staying, *(link for link in self.links if link in self._leaving)]
        self._owned = self._owners(placement)
        self._former = self._nobody(len(self.links))
        for index, link in enumerate(self.links):
            if link in answerable:
                self._former[:, :, index] = answerable[link]
            link.assign(self._owned[:, :, index], placement.epoch.term)
        self.refresh()

    async def settled(self, timeout_s: float) -> bool:
        """True once every expert that has owners can be asked of one; false after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._settled.wait()
        except TimeoutError:
            return False
        return True

    def refresh(self) -> None:
        """Makes the table anew; links call it when something about them has changed."""
        self._drop({link for link in self._leaving if link.idle})
        live, former = self._live(self._owned), self._live(self._former)
        unserved = ~np.any(live, axis=2)
        if np.any(unserved & np.any(self._owned, axis=2)):
            self._settled.clear()
            live = live | (former & np.expand_dims(unserved, 2))
        else:
            self._settled.set()
            self._drop(self._leaving)
            self._former = self._nobody(len(self.links))
            live = self._live(self._owned)
        self.table = LiveTable.of(self._preferred(live))
        self._changed()

    def snapshot(self) -> dict[str, Any]:
        """Worker id to its link as seen from here."""
        return {link.address.worker_id: link.snapshot() for link in self.links}

    def suspects(self) -> list[Suspect]:
        """Workers whose answers were wrong, as long as it is the same process that would answer."""
        return [
            Suspect(
                worker_id=link.address.worker_id,
                pid=link.standing.pid,
                reason=link.standing.breaker.reason,
            )
            for link in self.links
            if link.standing.breaker.quarantined
        ]

    async def close(self) -> None:
        """Closes every link; nothing is live any more."""
        self._closed = True
        self.refresh()
        for link in (*self.links, *self._retired):
            await link.close()

    def _linked(self, placement: Placement) -> list[WorkerLink]:
        """One link a worker of the placement, in its order; kept where worker and port stay."""
        known = {(link.address.worker_id, link.address.address): link for link in self.links}
        links: list[WorkerLink] = []
        for address in placement.workers.values():
            link = known.get((address.worker_id, address.address))
            if link is None:
                link = WorkerLink(
                    address,
                    self._router_id,
                    self._requirements,
                    self._options,
                    self._metrics,
                    self.refresh,
                    self._latencies,
                    Canaries(self._known, self._requirements.layers, seed=len(links)),
                )
            link.address = address
            links.append(link)
        return links

    def _latencies(self) -> list[LatencyWindow]:
        return [link.latencies for link in self.links]

    def _owners(self, placement: Placement) -> Owned:
        """What the placement gives to workers of our bits."""
        place = {worker_id: number for number, worker_id in enumerate(placement.workers)}
        ours = self._requirements.fingerprint
        alike = {w for w, address in placement.workers.items() if address.fingerprint in ("", ours)}
        owned = self._nobody(len(self.links))
        for layer, experts in placement.owners.items():
            for expert, ids in enumerate(experts):
                for worker_id in alike.intersection(ids):
                    owned[self._index[layer], expert, place[worker_id]] = True
        return owned

    def _live(self, owned: Owned) -> Owned:
        live = np.zeros_like(owned)
        for index, link in enumerate(self.links):
            if link.usable and not self._closed:
                live[:, :, index] = owned[:, :, index] & link.standing.held
        return live

    def _preferred(self, live: Owned) -> Owned:
        """Without those that are late or slow, where there are others."""
        avoided = np.array([not link.preferred for link in self.links], np.bool_)
        if not avoided.any():
            return live
        better = live & ~avoided
        return better | (live & ~better.any(axis=2, keepdims=True))

    def _drop(self, gone: set[WorkerLink]) -> None:
        """Takes former owners out that are not needed any more, or are of no use."""
        if not gone:
            return
        staying = [index for index, link in enumerate(self.links) if link not in gone]
        self.links = [self.links[index] for index in staying]
        self._owned = self._owned[:, :, staying]
        self._former = self._former[:, :, staying]
        self._leaving = self._leaving - gone
        for link in gone:
            self._retired.append(link)
            link.when_ended(partial(self._ended, link))
            link.retire()

    def _ended(self, link: WorkerLink) -> None:
        self._retired.remove(link)
        others = (*self.links, *self._retired)
        if all(other.address.worker_id != link.address.worker_id for other in others):
            link.stats.forget()

    def _nobody(self, workers: int) -> Owned:
        """bool [layers, experts, workers], all false."""
        shape = (len(self._index), self._requirements.n_routed_experts, workers)
        return np.zeros(shape, np.bool_)

    def _check(self, placement: Placement) -> None:
        for worker_id, address in placement.workers.items():
            if address.worker_id != worker_id:
                raise InvalidRequestError(f"worker {worker_id} is listed as {address.worker_id}")
        for layer, experts in placement.owners.items():
            if layer not in self._index:
                raise InvalidRequestError(f"layer {layer} of the model has no routed experts")
            if len(experts) != self._requirements.n_routed_experts:
                raise InvalidRequestError(
                    f"layer {layer} of the placement has {len(experts)} experts, the model's has"
                    f" {self._requirements.n_routed_experts}"
                )
            strangers = {w for ids in experts for w in ids} - set(placement.workers)
            if strangers:
                raise InvalidRequestError(f"layer {layer} names unknown worker {min(strangers)}")
