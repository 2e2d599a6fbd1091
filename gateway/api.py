"""What the endpoints share: the model, the routers, and the way from jobs to a response."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from gateway.answer import Answer, Job, run_jobs
from gateway.body import read_json
from gateway.chat_request import Delivery
from gateway.config import GatewayConfig
from gateway.disconnect import until_disconnect
from gateway.generation import Generator
from gateway.idempotency_key import SeenKeys, read_key
from gateway.identity import Identity
from gateway.responses import EventStream, events, json_response
from gateway.routers import RouterPool
from gateway.sampling import Sampling
from gateway.served_model import ServedModel
from monitoring.metrics import GatewayMetrics
from monitoring.request_notes import RequestNotes
from wire.errors import ContextLengthExceededError
from wire.generated import orrery_pb2 as pb

Result = TypeVar("Result")

# Longer bodies are tokenized and rendered in a thread, so that other streams do not stall.
_LONG_BODY_CHARS = 50_000


@dataclass(frozen=True, kw_only=True)
class Api:
    """Everything an endpoint needs."""

    config: GatewayConfig
    model: ServedModel
    pool: RouterPool
    metrics: GatewayMetrics
    seen: SeenKeys
    notes: RequestNotes

    @property
    def generator(self) -> Generator:
        return Generator(
            pool=self.pool,
            notes=self.notes,
            router_wait_s=self.config.router_wait_s,
            timeout_s=self.config.request_timeout_s,
            exact=self.config.exact,
        )

    @property
    def fingerprint(self) -> str:
        """`system_fingerprint`: equal ones promise equal bits for equal seeds."""
        found = {router.fingerprint for router in self.pool.routers if router.healthy}
        return f"fp_{found.pop()[:16]}" if len(found) == 1 else "fp_mixed"

    async def body(self, request: Request) -> dict[str, Any]:
        """The request's JSON, for a model that is served here.

        Raises:
            OrreryError: it is malformed, or names another model.
        """
        body = await read_json(
            request,
            max_bytes=self.config.max_body_bytes,
            max_depth=self.config.max_json_depth,
            max_values=self.config.max_json_values,
        )
        self.model.check_name(body.get("model"))
        return body

    async def identity(self, request: Request, body: Mapping[str, Any]) -> Identity:
        """Of the answer to this request: by its `Idempotency-Key`, else drawn.

        Raises:
            TransportError: the key is malformed.
        """
        key = read_key(request.headers)
        if key is None:
            return Identity.drawn()
        path = request.url.path
        return await self.compute(request, lambda: Identity.derived(key, path, body))

    async def compute(self, request: Request, work: Callable[[], Result]) -> Result:
        """Runs `work` on the request's text: in a thread when that is long."""
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) < _LONG_BODY_CHARS:
            return work()
        return await asyncio.to_thread(work)

    async def context(self) -> int:
        """Tokens of prompt and output that the routers serve.

        Raises:
            UnavailableError: no router was ready in time.
        """
        if self.pool.max_model_len is None:
            await self.pool.pick(self.config.router_wait_s)
        return self.pool.max_model_len or 0

    def jobs(
        self, name: str, prompts: Sequence[list[int]], sampling: Sampling, n: int, context: int
    ) -> list[Job]:
        """`n` jobs a prompt, in the order of the choices; `name` is that of the answer.

        Raises:
            ContextLengthExceededError: a prompt, with what it asks for, is too long.
        """
        jobs: list[Job] = []
        for prompt in prompts:
            max_tokens = _max_tokens(len(prompt), sampling.max_tokens, context)
            for sample in range(n):
                params = sampling.for_choice(sample, max_tokens)
                choice = f"{name}/{len(jobs)}" if jobs else name
                jobs.append(Job(name=choice, prompt=prompt, sampling=params, sample=sample))
        return jobs

    async def respond(
        self,
        request: Request,
        identity: Identity,
        jobs: Sequence[Job],
        answer: Answer,
        delivery: Delivery,
    ) -> Response:
        """Runs the jobs; the first error before any byte is raised, so that it has a status.

        Raises:
            OrreryError: the engine refuses or fails, or the request's key stood for another one.
            ClientGoneError: nobody waits any more; the generation has been aborted.
        """
        self.seen.take(request.headers, identity.name)
        outputs = run_jobs(self.generator, jobs, in_turns=identity.repeatable)
        if not delivery.stream:
            await until_disconnect(request.receive, _collect(answer, outputs))
            return json_response(answer.body())
        stream = events(answer, outputs, include_usage=delivery.include_usage)
        first = await until_disconnect(request.receive, _first(stream))
        return EventStream(first, stream, self.metrics.open_streams, self.config.client_stall_s)


async def _collect(
    answer: Answer, outputs: AsyncGenerator[tuple[int, pb.RequestOutput], None]
) -> None:
    async with contextlib.aclosing(outputs):
        async for index, output in outputs:
            answer.take(index, output)


async def _first(stream: AsyncGenerator[bytes, None]) -> bytes:
    try:
        return await anext(stream)
    except asyncio.CancelledError:
        await stream.aclose()
        raise


def _max_tokens(prompt: int, asked: int | None, context: int) -> int:
    if prompt >= context:
        raise ContextLengthExceededError(
            f"This model's maximum context length is {context} tokens, but the prompt has {prompt} "
            "tokens. Shorten the prompt."
        )
    if asked is not None and prompt + asked > context:
        raise ContextLengthExceededError(
            f"This model's maximum context length is {context} tokens, but {prompt + asked} were "
            f"requested: {prompt} in the prompt and {asked} for the answer. Reduce either."
        )
    return context - prompt if asked is None else asked
