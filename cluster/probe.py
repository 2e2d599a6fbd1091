"""Health checks and placements over gRPC: the controller's line to its members."""

from __future__ import annotations

import asyncio

import grpc
import httpx
from prometheus_client.parser import text_string_to_metric_families

from cluster.fleet import Member, Report, Role
from cluster.holdings import Experts
from cluster.loads import Tokens
from wire.channels import open_channel
from wire.clients.expert_worker import ExpertWorkerClient
from wire.clients.router import RouterClient
from wire.errors import UnavailableError
from wire.generated import orrery_pb2 as pb
from wire.messages import epoch_from_message, experts_from_message
from wire.placement import Epoch, Placement

_WORKER_STATES = {
    pb.WORKER_STATE_LOADING: "loading",
    pb.WORKER_STATE_READY: "ready",
    pb.WORKER_STATE_DRAINING: "draining",
    pb.WORKER_STATE_FAILED: "failed",
}

_BUSY = "orrery_worker_ffn_seconds_sum"


class GrpcLink:
    """Keeps one channel to each member's present address."""

    def __init__(self) -> None:
        self._clients: dict[str, ExpertWorkerClient | RouterClient] = {}
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._http = httpx.AsyncClient(trust_env=False)

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

    async def broken(self, member: Member) -> None:
        """Returns when the connection that stands breaks, as at once when the process is killed;
        never if there is none."""
        channel = self._channels.get(member.member_id)
        if channel is None or channel.get_state() is not grpc.ChannelConnectivity.READY:
            await asyncio.get_running_loop().create_future()
        elif channel is not None:
            await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)

    async def load(self, worker: Member, epoch: Epoch, experts: Experts) -> None:
        """Returns when the worker holds the experts; errors as in `describe`, and
        `StaleEpochError`."""
        await self._worker(await self._client(worker)).load(epoch, experts)

    async def evict(self, worker: Member, epoch: Epoch, experts: Experts) -> None:
        """Returns when the worker has dropped the experts; errors as in `load`."""
        await self._worker(await self._client(worker)).evict(epoch, experts)

    async def tokens(self, router: Member, timeout_s: float) -> Tokens:
        """Layer to the tokens of each logical expert since the router's start.

        Raises:
            UnavailableError: its debug page does not answer as it should.
        """
        page = await self._get(router, "/debug/experts", timeout_s)
        try:
            return {int(layer): row for layer, row in page.json().get("tokens", {}).items()}
        except (ValueError, AttributeError) as error:
            raise UnavailableError(f"its page of experts cannot be read: {error}") from error

    async def busy_seconds(self, worker: Member, timeout_s: float) -> float:
        """Seconds of arithmetic since the worker's start; errors as in `tokens`."""
        page = await self._get(worker, "/metrics", timeout_s)
        try:
            return sum(
                sample.value
                for family in text_string_to_metric_families(page.text)
                for sample in family.samples
                if sample.name == _BUSY
            )
        except ValueError as error:
            raise UnavailableError(f"its metrics cannot be read: {error}") from error

    async def close(self) -> None:
        await self._http.aclose()
        for channel in self._channels.values():
            await channel.close(None)
        self._clients.clear()
        self._channels.clear()

    async def _get(self, member: Member, path: str, timeout_s: float) -> httpx.Response:
        url = f"http://{member.metrics_address}{path}"
        try:
            return (await self._http.get(url, timeout=timeout_s)).raise_for_status()
        except httpx.HTTPError as error:
            raise UnavailableError(f"{url}: {error}") from error

    def _worker(self, client: ExpertWorkerClient | RouterClient) -> ExpertWorkerClient:
        if not isinstance(client, ExpertWorkerClient):
            raise TypeError(f"{client.address} is no expert worker")
        return client

    async def _client(self, member: Member) -> ExpertWorkerClient | RouterClient:
        known = self._clients.get(member.member_id)
        if known is not None and known.address == member.address:
            return known
        make = ExpertWorkerClient if member.role is Role.EXPERT else RouterClient
        former = self._channels.get(member.member_id)
        channel = self._channels[member.member_id] = open_channel(member.address)
        fresh: ExpertWorkerClient | RouterClient = make(member.address, channel)
        self._clients[member.member_id] = fresh
        if former is not None:
            await former.close(None)
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
        held=experts_from_message(message.experts),
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
        suspects={suspect.worker_id: (suspect.pid, suspect.reason) for suspect in message.suspects},
    )
