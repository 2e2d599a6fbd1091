"""A router in memory: the seam's twin for tests and demonstrations, without model or network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from wire.errors import InvalidRequestError, OrreryError, UnavailableError
from wire.generated import orrery_pb2 as pb

Reply = Callable[[pb.Submit], Iterable[pb.RequestOutput]]


def tokens(
    ids: Sequence[int],
    *,
    per_step: int = 1,
    finish: pb.FinishReason = pb.FINISH_REASON_STOP,
    stop_reason: str = "",
    cached_tokens: int = 0,
) -> Reply:
    """A reply of these token ids, whatever the prompt; it honours max_tokens, asked-for logprobs
    and the tokens that another router has produced."""

    def reply(submit: pb.Submit) -> Iterable[pb.RequestOutput]:
        allowed = list(ids)[: submit.sampling.max_tokens]
        reason = finish if len(allowed) == len(ids) else pb.FINISH_REASON_LENGTH
        todo = allowed[len(submit.output_token_ids) :]
        steps = [todo[i : i + per_step] for i in range(0, len(todo), per_step)] or [[]]
        for place, step in enumerate(steps, start=1):
            last = place == len(steps)
            yield pb.RequestOutput(
                token_ids=step,
                logprobs=[_logprob(i, submit.sampling.logprobs) for i in step]
                if submit.sampling.HasField("logprobs")
                else [],
                prompt_tokens=len(submit.prompt_token_ids),
                cached_tokens=cached_tokens,
                finish_reason=reason if last else pb.FINISH_REASON_UNSPECIFIED,
                stop_reason=stop_reason if last else "",
            )

    return reply


def _logprob(index: int, top: int) -> pb.TokenLogprobs:
    return pb.TokenLogprobs(
        token_id=index,
        logprob=-0.5,
        top_token_ids=range(index, index + top),
        top_logprobs=[-0.5 - i for i in range(top)],
    )


def failure(code: str, message: str) -> pb.RequestOutput:
    """The output that ends a request with an error."""
    error = pb.Error(code=code, message=message)
    return pb.RequestOutput(finish_reason=pb.FINISH_REASON_ERROR, error=error)


@dataclass(eq=False, kw_only=True)
class MemoryRouter:
    """Answers each request with `reply(submit)`, an output every `step_s` seconds.

    lose_after: outputs after which the connection is lost, once; None: never.
    submits, aborted: what was asked of it, for tests to look at.
    """

    reply: Reply
    step_s: float = 0.0
    state: str = "ready"
    max_model_len: int = 4096
    fingerprint: str = "memory"
    lose_after: int | None = None
    submits: list[pb.Submit] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    running: set[str] = field(default_factory=set)

    async def describe(self) -> pb.RouterDescription:
        if self.state == "unreachable":
            raise UnavailableError("unreachable")
        return pb.RouterDescription(
            router_id="memory",
            state=self.state,
            max_model_len=self.max_model_len,
            fingerprint=self.fingerprint,
            running=len(self.running),
        )

    async def submit(self, submit: pb.Submit) -> AsyncIterator[pb.RequestOutput]:
        if self.state == "unreachable":
            raise UnavailableError("unreachable")
        if submit.request_id in self.running:
            raise InvalidRequestError(f"request_id {submit.request_id!r} is in use")
        self.submits.append(submit)
        return self._outputs(submit)

    async def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)
        self.running.discard(request_id)

    async def close(self) -> None:
        self.running.clear()

    async def _outputs(self, submit: pb.Submit) -> AsyncIterator[pb.RequestOutput]:
        self.running.add(submit.request_id)
        try:
            for count, output in enumerate(self.reply(submit)):
                await asyncio.sleep(self.step_s)
                if self.lose_after is not None and count >= self.lose_after:
                    self.lose_after = None
                    raise UnavailableError("the stream to the router was lost")
                output.request_id = submit.request_id
                yield output
        except OrreryError:
            self.running.discard(submit.request_id)
            raise
        self.running.discard(submit.request_id)
