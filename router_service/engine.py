"""The engine: requests in, tokens out, several micro-batches in flight."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Collection, Iterable
from functools import partial

import torch

from kimi_k2.experts import Experts
from kimi_k2.latent_cache import BLOCK_SIZE
from router_service.config import EngineConfig
from router_service.delivery import deliver
from router_service.failures import not_finite, step_failed
from router_service.kv_cache import KVCache
from router_service.live_requests import LiveRequests
from router_service.outputs import Ending, FinishReason, OutputSink, RequestOutput
from router_service.request import Request
from router_service.sampler import Choice, Sampler
from router_service.scheduler import Scheduler
from router_service.sequence import Sequence
from router_service.served_model import ServedModel
from router_service.step_plan import StepPlan
from router_service.stop_checker import Detokenizer, StopChecker
from router_service.telemetry import Telemetry
from wire.errors import (
    DeadlineExceededError,
    DrainingError,
    ExpertsUnavailableError,
    OrreryError,
    UnavailableError,
)

_log = logging.getLogger(__name__)
_now = time.monotonic


class Engine:
    """Runs requests on one model. Everything happens on the event loop that called `start`.

    Each accepted request ends in exactly one final output. A micro-batch that fails ends its own
    requests and no others.
    """

    def __init__(
        self,
        model: ServedModel,
        experts: Experts,
        new_detokenizer: Callable[[], Detokenizer],
        config: EngineConfig,
        telemetry: Telemetry,
        device: torch.device | None = None,
    ) -> None:
        """Allocates the KV cache.

        Args:
            new_detokenizer: makes the one with which a request's stop strings are watched.
            device: where the model takes its token ids; None: the CPU.
        """
        self._model = model
        self._experts = experts
        self._new_detokenizer = new_detokenizer
        self._config = config
        self._telemetry = telemetry
        self._device = device or torch.device("cpu")
        self._tensors = model.new_cache(config.kv_blocks)
        self._sampler = Sampler(model.config.eos_token_ids)
        self._numbers = itertools.count()
        self._live = LiveRequests()
        self._steps: dict[asyncio.Task[None], StepPlan] = {}
        self._woken = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._refusal: OrreryError | None = UnavailableError("the engine is not started")
        self.failed = asyncio.Event()
        self.kv = KVCache(
            config.kv_blocks,
            prefix_cache=config.prefix_cache,
            wipe=partial(model.wipe, self._tensors),
        )
        self.scheduler = Scheduler(config, self.kv)
        self.max_model_len = min(
            config.max_model_len or model.config.max_position_embeddings,
            model.config.max_position_embeddings,
            config.kv_blocks * BLOCK_SIZE,
        )

    def start(self) -> None:
        """Starts the loop that launches micro-batches; from now on requests are accepted."""
        self._loop = asyncio.create_task(self._run(), name="engine")
        self._loop.add_done_callback(self._loop_ended)
        self._refusal = None

    def refuse_all(self) -> None:
        """Accepts no further request; those accepted go on."""
        self._refusal = self._refusal or DrainingError("this router is draining; use another one")

    async def drain(self, deadline_s: float) -> bool:
        """Refuses new requests and waits for the accepted ones; false: some are left."""
        self.refuse_all()
        return await self._live.wait_until_none(deadline_s)

    async def stop(self) -> None:
        """Ends what still runs with `UnavailableError`, so that another router can go on."""
        self._refusal = UnavailableError("this router has stopped")
        self._end_now(self._live.all, self._refusal)
        tasks = [task for task in (self._loop, *self._steps) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def refusal(self) -> OrreryError | None:
        """Why no request is accepted now; None while requests are."""
        return self._refusal

    # -- requests

    def submit(self, request: Request, sink: OutputSink) -> Sequence:
        """Accepts a request; its outputs go to `sink`. Returns the handle for `abort`.

        Raises:
            InvalidRequestError, ContextLengthExceededError: it can never be served.
            OverloadedError, DrainingError, UnavailableError: not now, or not here.
        """
        if self._refusal is not None:
            raise self._refusal
        request.check(vocab_size=self._model.config.vocab_size, max_model_len=self.max_model_len)
        stops = StopChecker(
            request.sampling,
            max_output=request.max_output_tokens(self.max_model_len),
            eos_token_ids=self._model.config.eos_token_ids,
            new_detokenizer=self._new_detokenizer,
        )
        seq = Sequence(
            number=next(self._numbers), request=request, sink=sink, stops=stops, now=_now()
        )
        ending = stops.replay(request.output_token_ids)
        if ending is None:
            self.scheduler.add(seq)
        self._live.add(seq, request.timeout_s or self._config.timeout_s, self._expire)
        if ending is not None:
            deliver([(seq, self._end(seq, ending))])
        self._woken.set()
        return seq

    def abort(self, seq: Sequence) -> None:
        """Ends a request now; does nothing if it has ended."""
        if not seq.finished:
            deliver([(seq, self._end(seq, Ending(reason=FinishReason.ABORT)))])

    def refuse(self, seq: Sequence, error: OrreryError) -> None:
        """Ends a request now with an error of its caller's; does nothing if it has ended."""
        if not seq.finished:
            self._end_now([seq], error)

    def experts_changed(self) -> None:
        """Notices that experts may have come back: parked requests are looked at."""
        self._woken.set()

    def check_integrity(self) -> list[str]:
        """What is wrong with sequences and blocks; an idle engine has to hold none in use."""
        found = self.scheduler.violations()
        if self._live.none and not self._steps:
            if self.kv.pool.used:
                found.append(f"{self.kv.pool.used} blocks are used by nobody")
            if self.scheduler.sequences:
                found.append(f"{len(self.scheduler.sequences)} sequences are left behind")
        return found

    # -- the loop

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            self._resume_parked()
            self._launch()
            self._telemetry.levels(self.scheduler, self.kv.pool)
            await self._wait()

    def _resume_parked(self) -> None:
        if not self.scheduler.parked:
            return
        self.scheduler.resume(self._experts.is_live)
        for seq in self.scheduler.parked:
            waited = _now() - (seq.parked_at or 0.0)
            if seq.missing and waited >= self._config.park_timeout_s:
                layer, expert = seq.missing
                message = f"expert {expert} of layer {layer} had no live copy for {waited:.0f} s"
                self._end_now([seq], ExpertsUnavailableError(message))

    def _launch(self) -> None:
        while len(self._steps) < self._config.micro_batches:
            plan = self.scheduler.schedule()
            if plan is None:
                return
            self._telemetry.scheduled(plan, _now())
            task = asyncio.create_task(self._step(plan), name="micro-batch")
            self._steps[task] = plan
            task.add_done_callback(self._step_ended)

    async def _wait(self) -> None:
        if not self.scheduler.parked:
            await self._woken.wait()
            return
        # Liveness may change without a notice, and parking has a bound.
        timer = asyncio.get_running_loop().call_later(self._config.park_poll_s, self._woken.set)
        await self._woken.wait()
        timer.cancel()

    async def _step(self, plan: StepPlan) -> None:
        try:
            await self._advance(plan)
        except BaseException as error:
            # Before anything else runs: its sequences must not be scheduled once more.
            self._fail(plan, error)
            raise

    async def _advance(self, plan: StepPlan) -> None:
        began = _now()
        batch = plan.micro_batch(self._device)
        result = await self._model.forward(batch, self._tensors, self._experts)
        sampling = self.scheduler.settle(plan, result.missing, _now(), result.broken)
        if result.broken:
            self._end_broken(plan, result.broken)
        rows = [batch.logit_rows.index(planned.last_row) for planned in sampling]
        logits = result.logits if len(rows) == len(batch.logit_rows) else result.logits[rows]
        sequences = [planned.sequence for planned in sampling]
        self._accept_all(sequences, self._sampler.sample(logits, sequences))
        now = _now()
        self._telemetry.stepped(plan, now - began, now)

    def _end_broken(self, plan: StepPlan, broken: Collection[int]) -> None:
        ending = [p.sequence for p in plan.segments if not p.intact(broken)]
        _log.error("%d rows of a micro-batch are not finite", len(broken))
        self._end_now([seq for seq in ending if not seq.finished], not_finite())

    def _accept_all(self, sequences: list[Sequence], choices: list[Choice]) -> None:
        outputs: list[tuple[Sequence, RequestOutput]] = []
        try:
            for seq, choice in zip(sequences, choices, strict=True):
                outputs.append((seq, self._accept(seq, choice)))
        finally:
            # Even when one of them fails, the others may have had their final output.
            deliver(outputs)

    def _accept(self, seq: Sequence, choice: Choice) -> RequestOutput:
        if choice.token is None:
            return self._end(seq, Ending.by(not_finite()))
        seq.append(choice.token)
        self._telemetry.generated(seq, _now())
        ending = seq.stops.push(choice.token)
        if ending is not None:
            return self._end(seq, ending, choice)
        return seq.output(token=choice.token, logprobs=choice.logprobs)

    def _fail(self, plan: StepPlan, error: BaseException) -> None:
        self.scheduler.abandon(plan)
        left = [p.sequence for p in plan.segments if not p.sequence.finished]
        if left:
            _log.error("a micro-batch failed, %d requests end", len(left), exc_info=error)
        self._end_now(left, step_failed(error))

    def _step_ended(self, task: asyncio.Task[None]) -> None:
        del self._steps[task]
        if not task.cancelled():
            task.exception()  # `_fail` has dealt with it; asyncio wants it looked at
        self._woken.set()

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.critical("the engine failed", exc_info=error)
            self._refusal = UnavailableError(f"the engine failed: {error!r}")
            self._end_now(self._live.all, self._refusal)
            self.failed.set()

    # -- endings

    def _end(self, seq: Sequence, ending: Ending, choice: Choice | None = None) -> RequestOutput:
        """Takes the request out; returns its final output, which the caller delivers."""
        self._live.remove(seq)
        self.scheduler.finish(seq)
        self._telemetry.ended(seq, ending.reason, _now())
        if choice is None:
            return seq.output(ending=ending)
        return seq.output(token=choice.token, logprobs=choice.logprobs, ending=ending)

    def _end_now(self, sequences: Iterable[Sequence], error: OrreryError) -> None:
        deliver([(seq, self._end(seq, Ending.by(error))) for seq in sequences])

    def _expire(self, seq: Sequence) -> None:
        waited = _now() - seq.arrived_at
        message = f"the request was not finished within its {waited:.1f} s"
        self._end_now([seq], DeadlineExceededError(message))
