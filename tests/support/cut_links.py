"""Ways to routers that break after a given number of outputs, however fast the router is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from gateway.routers import RouterLink
from wire.errors import UnavailableError
from wire.generated import orrery_pb2 as pb


@dataclass(eq=False, kw_only=True)
class Scissors:
    """What a test sets: when the next requests lose their router, and what happens then.

    after: outputs of a request until it is cut; empty: none is. Each takes the first that is left.
    then: called with the router's address.
    """

    after: list[int] = field(default_factory=list)
    then: Callable[[str], None] = lambda address: None
    cuts: int = 0


class CutLink:
    """A link whose outputs end where the scissors say; the router goes on for all that it knows,
    and what it says afterwards reaches nobody."""

    def __init__(self, link: RouterLink, address: str, scissors: Scissors) -> None:
        self._link = link
        self._address = address
        self._scissors = scissors

    async def describe(self) -> pb.RouterDescription:
        return await self._link.describe()

    async def submit(self, submit: pb.Submit) -> AsyncIterator[pb.RequestOutput]:
        after = self._scissors.after.pop(0) if self._scissors.after else None
        return self._outputs(await self._link.submit(submit), submit.request_id, after)

    async def abort(self, request_id: str) -> None:
        await self._link.abort(request_id)

    async def close(self) -> None:
        await self._link.close()

    async def _outputs(
        self, outputs: AsyncIterator[pb.RequestOutput], request_id: str, after: int | None
    ) -> AsyncIterator[pb.RequestOutput]:
        count = 0
        async for output in outputs:
            if count == after:
                self._scissors.cuts += 1
                self._scissors.then(self._address)
                await self._link.abort(request_id)
                raise UnavailableError("cut by the test")
            count += 1
            yield output
