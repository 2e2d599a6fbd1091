"""One choice's tokens from the routers, across the loss of a router."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from gateway.routers import Router, RouterPool
from monitoring.request_notes import RequestNoteKind, RequestNotes
from wire.errors import (
    DeadlineExceededError,
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
_FULL_PAUSE_S = 0.1
_now = time.monotonic


@dataclass(frozen=True, kw_only=True)
class Generator:
    """Runs generations on a pool of routers.

    notes: gets what losses did to them.
    router_wait_s: bound of the search for a router, at the start and after each loss.
    timeout_s: of the whole generation; 0: each router's default.
    exact: continue a generation only where the numerics are the same, so that the bits are.
    """

    pool: RouterPool
    notes: RequestNotes
    router_wait_s: float
    timeout_s: float = 0.0
    exact: bool = True

    async def run(
        self, name: str, prompt: list[int], sampling: pb.SamplingParams
    ) -> AsyncGenerator[pb.RequestOutput, None]:
        """The outputs of one generation; the last has a finish reason.

        When a router is lost, another continues from the tokens so far with the same seed: by the
        exactness rules the client gets the tokens it would have got. Where there is no other, or
        all are full, it waits for one. Closing the iterator aborts the generation in the engine.

        Args:
            name: of the generation, for operators; need not be unique.

        Raises:
            OrreryError: the router refuses or fails the request, or no router is left.
        """
        generation = _Generation(
            name=name, prompt=prompt, sampling=sampling, timeout_s=self.timeout_s
        )
        while True:
            router = await self._router(generation)
            numerics, before = router.fingerprint, len(generation.produced)
            try:
                async with contextlib.aclosing(_attempt(router, generation.submit())) as outputs:
                    async for output in outputs:
                        self._note_move(generation, router)
                        generation.produced += output.token_ids
                        yield output
                return
            except (UnavailableError, DrainingError) as error:
                self.pool.report_lost(router)
                if not isinstance(error, DrainingError):
                    generation.lose(router)
                progress = len(generation.produced) > before
                generation.fruitless = 0 if progress else generation.fruitless + 1
                if generation.fruitless >= _FRUITLESS_ATTEMPTS:
                    self._note_failure(generation, error)
                    raise
            except OverloadedError as error:
                if not self._another(generation, router):
                    await self._wait_for_room(generation, error)
            generation.avoid.add(router.address)
            if generation.produced and self.exact:
                generation.fingerprint = numerics

    async def _router(self, generation: _Generation) -> Router:
        left_s = max(self.router_wait_s - generation.lost_for_s, 0.0)
        try:
            return await self.pool.pick(left_s, generation.avoid, generation.fingerprint)
        except UnavailableError as error:
            self._note_failure(generation, error)
            raise

    async def _wait_for_room(self, generation: _Generation, error: OverloadedError) -> None:
        """A new request is refused at once; one that was accepted and lost its router waits."""
        if generation.lost is None:
            raise error
        if generation.lost_for_s >= self.router_wait_s:
            self._note_failure(generation, error)
            raise error
        await asyncio.sleep(_FULL_PAUSE_S)

    def _another(self, generation: _Generation, full: Router) -> bool:
        avoid = {*generation.avoid, full.address}
        fitting = (r for r in self.pool.routers if r.fits(generation.fingerprint))
        return any(router.address not in avoid for router in fitting)

    def _note_move(self, generation: _Generation, router: Router) -> None:
        if generation.lost is not None:
            text = f"{generation.lost} was lost, they go on at {router.address}"
            self.notes.add(
                RequestNoteKind.MOVED, [generation.name], text=text, seconds=generation.lost_for_s
            )
            generation.lost = None

    def _note_failure(self, generation: _Generation, error: OrreryError) -> None:
        lost = f"{generation.lost} was lost: " if generation.lost else ""
        self.notes.add(RequestNoteKind.FAILED, [generation.name], text=f"{lost}{error}")


@dataclass(kw_only=True)
class _Generation:
    """A generation on its way from router to router.

    produced: the tokens so far.
    fingerprint: numerics that it is bound to; None: to none yet.
    avoid: addresses of routers that it comes from.
    lost: address of the router that it has lost and not replaced yet.
    """

    name: str
    prompt: list[int]
    sampling: pb.SamplingParams
    timeout_s: float
    produced: list[int] = field(default_factory=list)
    fingerprint: str | None = None
    avoid: set[str] = field(default_factory=set)
    fruitless: int = 0
    lost: str | None = None
    began_at: float = field(default_factory=_now)
    lost_at: float = 0.0

    @property
    def lost_for_s(self) -> float:
        """How long it has been without a router."""
        return 0.0 if self.lost is None else _now() - self.lost_at

    def lose(self, router: Router) -> None:
        if self.lost is None:
            self.lost, self.lost_at = router.address, _now()

    def submit(self) -> pb.Submit:
        """What the next router is asked.

        Raises:
            DeadlineExceededError: its time is over.
        """
        left_s = self.timeout_s - (_now() - self.began_at)
        if self.timeout_s and left_s <= 0:
            raise DeadlineExceededError(
                f"the request was not finished within its {self.timeout_s:g} s"
            )
        return pb.Submit(
            # A retry with the same name may run beside the first try.
            request_id=f"{self.name}#{uuid.uuid4().hex[:12]}",
            prompt_token_ids=self.prompt,
            output_token_ids=self.produced,
            sampling=self.sampling,
            timeout_s=left_s if self.timeout_s else 0.0,
        )


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
