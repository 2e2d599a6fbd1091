"""The engine's promises, on a model without arithmetic."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable

import pytest

from router_service.engine import Engine
from router_service.outputs import FinishReason, RequestOutput
from router_service.request_stream import RequestStream
from tests.support.deadline import run_async, wait_until_async
from tests.unit.router_service.fake_model import (
    FakeDetokenizer,
    FakeExperts,
    FakeModel,
    collect,
    engine,
    expected_greedy,
    letter,
    request,
    tokens_of,
)
from wire.errors import (
    ContextLengthExceededError,
    DeadlineExceededError,
    DrainingError,
    ExpertsUnavailableError,
    InternalError,
    InvalidRequestError,
    OverloadedError,
    UnavailableError,
)


def run(served: Engine, scenario: Callable[[], Awaitable[None]]) -> None:
    """Runs `scenario` on a started engine, which must be clean afterwards."""

    async def main() -> None:
        served.start()
        await scenario()
        assert await served.drain(10.0)
        await wait_until_async(lambda: not served.check_integrity(), "a clean engine", 5.0)
        await served.stop()

    run_async(main())


def prompt(length: int, seed: int = 0) -> list[int]:
    generator = random.Random(f"{length}/{seed}")
    return [generator.randrange(2, 50) for _ in range(length)]


@pytest.mark.parametrize("micro_batches", [1, 2, 4])
@pytest.mark.parametrize("prefix_cache", [True, False])
@pytest.mark.parametrize("prefill_chunk", [1, 7, 64, 300])
def test_a_mixed_batch_gets_what_each_would_get_alone(
    micro_batches: int, prefix_cache: bool, prefill_chunk: int
) -> None:
    served = engine(
        micro_batches=micro_batches, prefix_cache=prefix_cache, prefill_chunk=prefill_chunk
    )

    async def scenario() -> None:
        prompts = [prompt(length) for length in (1, 2, 63, 64, 65, 127, 128, 129, 200)]
        prompts += [prompts[-1], prompts[-1][:130] + prompt(20, 9)]
        streams = [RequestStream(served, request(p, f"r{n}")) for n, p in enumerate(prompts)]
        got = await asyncio.gather(*map(tokens_of, streams))
        assert got == [expected_greedy(p, 8) for p in prompts]

    run(served, scenario)


def test_the_prefix_cache_spares_full_blocks_but_never_the_last_token() -> None:
    model = FakeModel()
    served = engine(model)

    async def scenario() -> None:
        first = await collect(RequestStream(served, request(prompt(128))))
        model.batches.clear()
        again = await collect(RequestStream(served, request(prompt(128))))
        assert (first[-1].cached_tokens, again[-1].cached_tokens) == (0, 64)
        assert model.batches[0].segments[0].position == 64
        assert [o.token_ids for o in first] == [o.token_ids for o in again]

    run(served, scenario)


@pytest.mark.parametrize("micro_batches", [1, 2, 4])
def test_too_few_blocks_preempt_and_change_nothing(micro_batches: int) -> None:
    served = engine(kv_blocks=9, micro_batches=micro_batches, prefill_chunk=50)

    async def scenario() -> None:
        prompts = [prompt(length, 3) for length in (100, 60, 30, 120, 5, 70)]
        streams = [
            RequestStream(served, request(p, f"r{n}", max_tokens=150))
            for n, p in enumerate(prompts)
        ]
        got = await asyncio.gather(*map(tokens_of, streams))
        assert got == [expected_greedy(p, 150) for p in prompts]
        assert served.scheduler.preemptions > 0

    run(served, scenario)


def test_micro_batches_are_in_flight_together() -> None:
    model = FakeModel(pauses=5)
    served = engine(model, micro_batches=3, min_micro_rows=1)

    async def scenario() -> None:
        streams = [RequestStream(served, request(prompt(9, n), f"r{n}")) for n in range(9)]
        await asyncio.gather(*map(tokens_of, streams))
        assert model.most_in_flight == 3

    run(served, scenario)


def test_a_replay_at_every_cut_continues_alike() -> None:
    served = engine()
    sampling = {
        "temperature": 1.0,
        "seed": 7,
        "max_tokens": 20,
        "logprobs": 3,
        "presence_penalty": 0.5,
        "repetition_penalty": 1.2,
        "min_tokens": 3,
    }

    async def scenario() -> None:
        whole = await collect(RequestStream(served, request(prompt(70), **sampling)))
        tokens = [token for output in whole for token in output.token_ids]
        for cut in range(len(tokens)):
            again = request(prompt(70), outputs=tokens[:cut], **sampling)
            rest = await collect(RequestStream(served, again))
            assert [o.token_ids for o in rest] == [o.token_ids for o in whole[cut:]]
            assert [o.logprobs for o in rest] == [o.logprobs for o in whole[cut:]]
        finished = request(prompt(70), outputs=tokens, **sampling)
        last = await collect(RequestStream(served, finished))
        assert [(o.token_ids, o.finish_reason) for o in last] == [((), FinishReason.LENGTH)]

    run(served, scenario)


def test_a_stop_string_across_tokens_ends_the_request() -> None:
    served = engine()
    tokens = expected_greedy(prompt(10), 8)
    stop = letter(tokens[2]) + letter(tokens[3])

    async def scenario() -> None:
        outputs = await collect(RequestStream(served, request(prompt(10), stop=(stop,))))
        assert [t for o in outputs for t in o.token_ids] == tokens[:4]
        assert (outputs[-1].finish_reason, outputs[-1].stop_reason) == (FinishReason.STOP, stop)

    run(served, scenario)


def test_eos_and_stop_tokens_end_the_request() -> None:
    served = engine()
    tokens = expected_greedy(prompt(10), 8)

    async def scenario() -> None:
        stopped = request(prompt(10), stop_token_ids=(tokens[3],))
        outputs = await collect(RequestStream(served, stopped))
        assert [t for o in outputs for t in o.token_ids] == tokens[:4]
        assert outputs[-1].finish_reason is FinishReason.STOP
        later = request(prompt(10), stop_token_ids=(tokens[0],), min_tokens=4, max_tokens=5)
        outputs = await collect(RequestStream(served, later))
        assert tokens[0] not in [t for o in outputs[:4] for t in o.token_ids]

    run(served, scenario)


def test_parked_sequences_wait_while_others_go_on() -> None:
    experts = FakeExperts()
    served = engine(experts=experts, park_poll_s=0.02)
    experts.dead = {40}

    async def scenario() -> None:
        stuck_prompt = [*prompt(100, 1), 40, *prompt(30, 2)]
        stuck = RequestStream(served, request(stuck_prompt, "stuck"))
        other_prompt = [t for t in prompt(80, 4) if t != 40]
        other = await tokens_of(RequestStream(served, request(other_prompt, max_tokens=1)))
        assert other == expected_greedy(other_prompt, 1)
        await wait_until_async(lambda: len(served.scheduler.parked) == 1, "parking", 5.0)
        experts.dead = set()
        assert await tokens_of(stuck) == expected_greedy(stuck_prompt, 8)
        # Blocks behind the missing row never entered the prefix cache.
        assert await tokens_of(RequestStream(served, request(stuck_prompt))) == expected_greedy(
            stuck_prompt, 8
        )

    run(served, scenario)


def test_parking_ends_at_its_bound_and_names_the_expert() -> None:
    experts = FakeExperts()
    experts.dead = {40}
    served = engine(experts=experts, park_poll_s=0.02, park_timeout_s=0.1)

    async def scenario() -> None:
        outputs = await collect(RequestStream(served, request([3, 40, 5])))
        assert isinstance(outputs[-1].error, ExpertsUnavailableError)
        assert "expert 40 of layer 1" in str(outputs[-1].error)

    run(served, scenario)


def test_parked_sequences_give_their_blocks_to_those_that_can_run() -> None:
    experts = FakeExperts()
    experts.dead = {40}
    served = engine(experts=experts, park_poll_s=0.02, kv_blocks=4)

    async def scenario() -> None:
        stuck_prompt = [*[t for t in prompt(150, 1) if t != 40], 40]
        stuck = RequestStream(served, request(stuck_prompt, "stuck"))
        await wait_until_async(lambda: len(served.scheduler.parked) == 1, "parking", 5.0)
        free = [t for t in prompt(150, 2) if t != 40]
        assert await tokens_of(RequestStream(served, request(free, logit_bias={40: -100.0})))
        experts.dead = set()
        assert await tokens_of(stuck) == expected_greedy(stuck_prompt, 8)

    run(served, scenario)


def test_a_failing_micro_batch_ends_only_its_own_requests(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = FakeModel()
    served = engine(model, min_micro_rows=1)

    def fail_on_49(batch: object) -> None:
        if 49 in batch.token_ids.tolist():  # type: ignore[attr-defined]
            raise ZeroDivisionError("made up")

    model.before = fail_on_49

    async def scenario() -> None:
        good = RequestStream(served, request([2, 3, 4], "good", logit_bias={49: -100.0}))
        assert (await good.__anext__()).finish_reason is None
        bad = await collect(RequestStream(served, request([49], "bad")))
        assert isinstance(bad[-1].error, InternalError)
        assert "made up" in str(bad[-1].error)
        again = RequestStream(served, request([5, 6], "again", logit_bias={49: -100.0}))
        assert len(await tokens_of(again)) == 8

    run(served, scenario)
    assert "made up" in caplog.text


def test_a_failure_while_tokens_are_accepted_loses_no_final_output(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served = engine()

    def push(self: FakeDetokenizer, ids: Iterable[int]) -> str:
        raise LookupError("made up")

    monkeypatch.setattr(FakeDetokenizer, "push", push)

    async def scenario() -> None:
        ending = RequestStream(served, request([2, 3], "ending", max_tokens=1))
        broken = RequestStream(served, request([4, 5], "broken", stop=("x",)))
        after = RequestStream(served, request([6, 7], "after"))
        assert (await collect(ending))[-1].finish_reason is FinishReason.LENGTH
        for stream in (broken, after):
            assert isinstance((await collect(stream))[-1].error, InternalError)

    run(served, scenario)
    assert "made up" in caplog.text


def test_aborts_in_every_state() -> None:
    model = FakeModel()
    model.gate = asyncio.Event()
    served = engine(model, max_running=1, micro_batches=1)

    async def scenario() -> None:
        flying = RequestStream(served, request(prompt(80), "flying"))
        waiting = RequestStream(served, request(prompt(80), "waiting"))
        await wait_until_async(lambda: model.in_flight == 1, "a micro-batch in flight", 5.0)
        for stream in (flying, waiting):
            stream.abort()
            stream.abort()
            outputs = await collect(stream)
            assert [o.finish_reason for o in outputs] == [FinishReason.ABORT]
        assert served.kv.pool.used > 0
        model.gate.set()

    run(served, scenario)


def test_a_deadline_ends_the_request() -> None:
    model = FakeModel()
    model.gate = asyncio.Event()
    served = engine(model)

    async def scenario() -> None:
        outputs = await collect(RequestStream(served, request([2, 3], timeout_s=0.05)))
        assert isinstance(outputs[-1].error, DeadlineExceededError)
        model.gate.set()

    run(served, scenario)


def test_too_many_requests_are_refused_and_the_rest_served() -> None:
    served = engine(max_running=2, max_waiting=1)

    async def scenario() -> None:
        streams = [RequestStream(served, request(prompt(9, n), f"r{n}")) for n in range(3)]
        with pytest.raises(OverloadedError, match="try again later"):
            RequestStream(served, request([2]))
        assert [len(tokens) for tokens in await asyncio.gather(*map(tokens_of, streams))] == [8] * 3

    run(served, scenario)


def test_what_can_never_be_served_is_refused_at_the_door() -> None:
    served = engine(kv_blocks=2)

    async def scenario() -> None:
        with pytest.raises(ContextLengthExceededError, match="at most 128"):
            RequestStream(served, request(prompt(128)))
        with pytest.raises(InvalidRequestError, match="token id 50"):
            RequestStream(served, request([50]))
        with pytest.raises(InvalidRequestError, match="at least one token"):
            RequestStream(served, request([]))
        outputs = await collect(RequestStream(served, request(prompt(120), max_tokens=500)))
        assert sum(len(o.token_ids) for o in outputs) == 8
        assert outputs[-1].finish_reason is FinishReason.LENGTH

    run(served, scenario)


def test_stopping_ends_every_request_once() -> None:
    model = FakeModel()
    model.gate = asyncio.Event()
    served = engine(model)

    async def main() -> list[list[RequestOutput]]:
        served.start()
        streams = [RequestStream(served, request(prompt(9, n), f"r{n}")) for n in range(5)]
        await wait_until_async(lambda: model.in_flight == 1, "a micro-batch in flight", 5.0)
        await served.stop()
        assert not served.check_integrity()
        with pytest.raises(UnavailableError):
            RequestStream(served, request([2]))
        return [await collect(stream) for stream in streams]

    for outputs in run_async(main()):
        assert isinstance(outputs[-1].error, UnavailableError)


def test_draining_refuses_new_requests_and_finishes_old_ones() -> None:
    served = engine()

    async def scenario() -> None:
        stream = RequestStream(served, request(prompt(9)))
        drained = asyncio.ensure_future(served.drain(10.0))
        await asyncio.sleep(0)
        with pytest.raises(DrainingError):
            RequestStream(served, request([2]))
        assert await drained
        assert len(await tokens_of(stream)) == 8

    run(served, scenario)


def test_logits_that_are_not_finite_end_one_request() -> None:
    class Broken(FakeModel):
        def _compute(self, batch, cache, experts):  # type: ignore[no-untyped-def]
            result = super()._compute(batch, cache, experts)
            if 49 in batch.token_ids.tolist():
                result.logits[-1, 3] = float("nan")
            return result

    served = engine(Broken())

    async def scenario() -> None:
        good = RequestStream(served, request([2, 3], "good", max_tokens=1))
        bad = RequestStream(served, request([4, 49], "bad", max_tokens=1))
        assert len(await tokens_of(good)) == 1
        assert isinstance((await collect(bad))[-1].error, InternalError)

    run(served, scenario)
