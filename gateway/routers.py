"""The routers that a gateway replica can ask, and which one it asks next."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from wire.errors import OrreryError, UnavailableError
from wire.generated import orrery_pb2 as pb

_log = logging.getLogger(__name__)
_DESCRIBE_S = 2.0
_READY = "ready"


class RouterDirectory(Protocol):
    """Where the routers are."""

    async def addresses(self) -> Sequence[str]:
        """host:port of every router.

        Raises:
            OrreryError: they cannot be known now; the last answer stays in force.
        """
        ...


class RouterLink(Protocol):
    """The way to one router: requests multiplexed over one stream."""

    async def describe(self) -> pb.RouterDescription: ...

    async def submit(self, submit: pb.Submit) -> AsyncIterator[pb.RequestOutput]:
        """The request's outputs; raises UnavailableError, also later, when the way is lost."""
        ...

    async def abort(self, request_id: str) -> None: ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class StaticDirectory:
    """A fixed list of routers."""

    routers: tuple[str, ...]

    async def addresses(self) -> Sequence[str]:
        return self.routers


@dataclass(eq=False, kw_only=True)
class Router:
    """A router as this gateway sees it.

    outstanding: generations of this gateway that run there.
    retired: no longer in the directory; closed once nothing runs there.
    description: what it last said of itself; None while it cannot be reached.
    losses: how often it has been reported lost.
    """

    address: str
    link: RouterLink
    outstanding: int = 0
    retired: bool = False
    description: pb.RouterDescription | None = field(default=None)
    losses: int = 0

    @property
    def healthy(self) -> bool:
        description = self.description
        return not self.retired and description is not None and description.state == _READY

    @property
    def fingerprint(self) -> str:
        """Of its numerics; empty while unknown. Bits agree only between equal ones."""
        return self.description.fingerprint if self.description is not None else ""

    def fits(self, fingerprint: str | None) -> bool:
        """Whether it is healthy and has these numerics; None: any."""
        return self.healthy and fingerprint in (None, self.fingerprint)


class RouterPool:
    """Keeps links to the routers of a directory and hands out the least loaded healthy one."""

    def __init__(
        self,
        directory: RouterDirectory,
        connect: Callable[[str], RouterLink],
        *,
        poll_s: float = 0.5,
    ) -> None:
        self._directory = directory
        self._connect = connect
        self._poll_s = poll_s
        self._routers: dict[str, Router] = {}
        self._changed = asyncio.Event()
        self._wake = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._failures: dict[str, str] = {}

    @property
    def routers(self) -> tuple[Router, ...]:
        return tuple(self._routers.values())

    @property
    def max_model_len(self) -> int | None:
        """The context that every healthy router serves; None while there is none."""
        return min((_described(r).max_model_len for r in self.routers if r.healthy), default=None)

    async def start(self) -> None:
        """Looks at the routers once, then keeps watching."""
        await self._refresh()
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Closes every link, which aborts what still runs on them."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None
        routers, self._routers = self._routers, {}
        await asyncio.gather(*(router.link.close() for router in routers.values()))

    async def pick(
        self, wait_s: float, avoid: Collection[str] = (), fingerprint: str | None = None
    ) -> Router:
        """The healthy router with the fewest outstanding generations.

        Args:
            wait_s: how long to wait for one.
            avoid: addresses to take only if there is no other.
            fingerprint: numerics that it must have; None: any.

        Raises:
            UnavailableError: there was none in time.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while not (healthy := [r for r in self.routers if r.fits(fingerprint)]):
                    self._changed.clear()
                    self._wake.set()
                    await self._changed.wait()
                return min(healthy, key=lambda r: (r.address in avoid, r.outstanding))
        kind = "router" if fingerprint is None else "router with the same numerics"
        raise UnavailableError(f"no {kind} was ready within {wait_s:g} s")

    def report_lost(self, router: Router) -> None:
        """Takes the router out until it answers again."""
        router.description = None
        router.losses += 1
        self._wake.set()

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._wake.wait()
                    # A lost router is not asked in a busy loop.
                    await asyncio.sleep(self._poll_s / 10)
            self._wake.clear()
            # Whatever goes wrong in one look, the next one is taken: without it this gateway
            # would go on with the routers of long ago.
            (error,) = await asyncio.gather(self._refresh(), return_exceptions=True)
            self._note("the look at the routers", error)

    async def _refresh(self) -> None:
        try:
            wanted = set(await self._directory.addresses())
        except OrreryError as error:
            self._note("the router directory", error)
            wanted = set(self._routers)
        else:
            self._note("the router directory", None)
        for router in self.routers:
            router.retired = router.address not in wanted
        gone = [r for r in self.routers if r.retired and not r.outstanding]
        for router in gone:
            del self._routers[router.address]
        for address in sorted(wanted - set(self._routers)):
            self._routers[address] = Router(address=address, link=self._connect(address))
        # One router's unexpected error must not hide the others.
        errors = await asyncio.gather(
            *(self._look_at(router) for router in self.routers),
            *(router.link.close() for router in gone),
            return_exceptions=True,
        )
        self._changed.set()
        if failed := [error for error in errors if error is not None]:
            raise failed[0]

    async def _look_at(self, router: Router) -> None:
        description, losses = None, router.losses
        try:
            async with asyncio.timeout(_DESCRIBE_S):
                description = await router.link.describe()
        except (OrreryError, TimeoutError):
            pass  # It stays out until it answers.
        finally:
            # What it said before it was lost says nothing of now.
            router.description = description if losses == router.losses else None
            self._changed.set()

    def _note(self, what: str, error: BaseException | None) -> None:
        """Logs a failure when it begins, changes or ends, not with every look."""
        text = "" if error is None else f"{type(error).__name__}: {error}"
        if text == self._failures.get(what, ""):
            return
        self._failures[what] = text
        if error is None:
            _log.info("%s: works again", what)
        elif isinstance(error, OrreryError):
            _log.warning("%s: %s", what, error)
        else:
            _log.error("%s failed unexpectedly", what, exc_info=error)


def _described(router: Router) -> pb.RouterDescription:
    return router.description or pb.RouterDescription()
