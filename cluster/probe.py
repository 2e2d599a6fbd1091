"""Health checks and placements over gRPC: the controller's line to its members."""

from __future__ import annotations

from cluster.fleet import Member, Report, Role
from wire.clients.expert_worker import ExpertWorkerClient
from wire.clients.router import RouterClient
from wire.generated import orrery_pb2 as pb
from wire.messages import epoch_from_message
from wire.placement import Placement

_WORKER_STATES = {
    pb.WORKER_STATE_LOADING: "loading",
    pb.WORKER_STATE_READY: "ready",
    pb.WORKER_STATE_DRAINING: "draining",
    pb.WORKER_STATE_FAILED: "failed",
}


class GrpcLink:
    """Keeps one channel to each member's present address."""

    def __init__(self) -> None:
        self._clients: dict[str, ExpertWorkerClient | RouterClient] = {}

    async def describe(self, member: Member, timeout_s: float) -> Report:
        """The member's own account.

        Raises:
            wire.errors.OrreryError: `UnavailableError` when nobody listens there,
                `DeadlineExceededError` when no answer came in time, or what it answered.
        """
        client = await self._client(member)
        if isinstance(client, ExpertWorkerClient):
            return _worker_report(await client.describe(timeout_s=timeout_s))
        return _router_report(await client.describe(timeout_s=timeout_s))

    async def publish(self, router: Member, placement: Placement, timeout_s: float) -> Report:
        """Gives a router the placement; errors as in `describe`, and `StaleEpochError`."""
        client = await self._client(router)
        if not isinstance(client, RouterClient):
            raise TypeError(f"{router.member_id} is no router")
        return _router_report(await client.set_placement(placement, timeout_s=timeout_s))

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    async def _client(self, member: Member) -> ExpertWorkerClient | RouterClient:
        known = self._clients.get(member.member_id)
        if known is not None and known.address == member.address:
            return known
        make = ExpertWorkerClient if member.role is Role.EXPERT else RouterClient
        fresh: ExpertWorkerClient | RouterClient = make(member.address)
        self._clients[member.member_id] = fresh
        if known is not None:
            await known.close()
        return fresh


def _worker_report(message: pb.WorkerDescription) -> Report:
    return Report(
        state=_WORKER_STATES.get(message.state, "loading"),
        epoch=epoch_from_message(message.epoch),
        fingerprint=message.fingerprint,
        model_hash=message.model_hash,
        dtype=message.dtype,
        device=message.device,
        error=message.error,
        loaded=message.experts_loaded,
        assigned=message.experts_assigned,
        load={"tokens": message.tokens_total, "memory_bytes": message.memory_bytes},
    )


def _router_report(message: pb.RouterDescription) -> Report:
    known = message.state in ("loading", "ready", "draining", "failed")
    return Report(
        state=message.state if known else "loading",
        epoch=epoch_from_message(message.epoch),
        fingerprint=message.fingerprint,
        model_hash=message.model_hash,
        dtype=message.dtype,
        device=message.device,
        error=message.error,
        load={
            "running": message.running,
            "waiting": message.waiting,
            "parked": message.parked,
            "kv_blocks_used": message.kv_blocks_used,
            "kv_blocks_total": message.kv_blocks_total,
        },
    )
