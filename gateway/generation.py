"""One choice's tokens from the routers, across the loss of a router."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from gateway.routers import Router, RouterPool
from wire.errors import (
    DrainingError,
    InternalError,
    OrreryError,
    OverloadedError,
    UnavailableError,
    error_for,
)
from wire.generated import orrery_pb2 as pb

# Attempts in a row that brought no token: a request that kills its routers must not kill them all.
_FRUITLESS_ATTEMPTS = 3
_ABORT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Generator:
    """Runs generations on a pool of routers.

    router_wait_s: bound of the search for a router, at the start and after each loss.
    timeout_s: of the whole generation, in the router; 0: its default.
    exact: continue a generation only where the numerics are the same, so that the bits are.
    """

    pool: RouterPool
    router_wait_s: float
    timeout_s: float = 0.0
    exact: bool = True

    async def run(
        self, prompt: list[int], sampling: pb.SamplingParams
    ) -> AsyncGenerator[pb.RequestOutput, None]:
        """The outputs of one generation; the last has a finish reason.

        When a router is lost, another continues from the tokens so far with the same seed: by the
        exactness rules the client gets the tokens it would have got. Closing the iterator aborts
        the generation in the engine.

        Raises:
            OrreryError: the router refuses or fails the request, or no router is left.
        """
        produced: list[int] = []
        fingerprint: str | None = None
        avoid: set[str] = set()
        fruitless = 0
        while True:
            router = await self.pool.pick(self.router_wait_s, avoid, fingerprint)
            numerics = router.fingerprint
            submit = pb.Submit(
                request_id=uuid.uuid4().hex,
                prompt_token_ids=prompt,
                output_token_ids=produced,
                sampling=sampling,
                timeout_s=self.timeout_s,
            )
            before = len(produced)
            try:
                async with contextlib.aclosing(_attempt(router, submit)) as outputs:
                    async for output in outputs:
                        produced += output.token_ids
                        yield output
                return
            except (UnavailableError, DrainingError) as error:
                self.pool.report_lost(router)
                failure: OrreryError = error
            except OverloadedError as error:
                failure = error
            avoid.add(router.address)
            if produced and self.exact:
                fingerprint = numerics
            fruitless = fruitless + 1 if len(produced) == before else 1
            full = isinstance(failure, OverloadedError) and not self._another(avoid, fingerprint)
            if full or fruitless >= _FRUITLESS_ATTEMPTS:
                raise failure

    def _another(self, avoid: set[str], fingerprint: str | None) -> bool:
        return any(r.fits(fingerprint) and r.address not in avoid for r in self.pool.routers)


async def _attempt(router: Router, submit: pb.Submit) -> AsyncGenerator[pb.RequestOutput, None]:
    """The outputs of one router; aborts there what is not finished when closed.

    Raises:
        OrreryError: also for an output that says so.
    """
    router.outstanding += 1
    finished = False
    try:
        async for output in await router.link.submit(submit):
            finished = output.finish_reason != pb.FINISH_REASON_UNSPECIFIED
            if output.finish_reason == pb.FINISH_REASON_ERROR:
                raise error_for(output.error.code, output.error.message)
            if output.finish_reason == pb.FINISH_REASON_ABORT:
                raise UnavailableError(output.error.message or "the router ended the request")
            yield output
        if not finished:
            raise InternalError("the router's stream of outputs ended without a finish reason")
    except UnavailableError:
        finished = True
        raise
    finally:
        router.outstanding -= 1
        if not finished:
            await _abort(router, submit.request_id)


async def _abort(router: Router, request_id: str) -> None:
    with contextlib.suppress(OrreryError, TimeoutError):
        async with asyncio.timeout(_ABORT_S):
            await router.link.abort(request_id)
