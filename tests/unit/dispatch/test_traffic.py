"""Every message ends once, on time, and what the worker does wrong counts against it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import torch
from prometheus_client import CollectorRegistry
from torch import Tensor

from monitoring.metrics import RouterMetrics
from router_service.dispatch.breaker import Breaker, Fault, State
from router_service.dispatch.call import Call
from router_service.dispatch.fitness import Requirements
from router_service.dispatch.latency_window import LatencyWindow
from router_service.dispatch.link_stats import LinkStats
from router_service.dispatch.standing import Standing
from router_service.dispatch.traffic import Traffic
from router_service.dispatch_options import DispatchOptions
from tests.support.deadline import run_async, wait_until_async
from wire.codec import encode_error, encode_reply
from wire.errors import OrreryError, UnavailableError
from wire.frames import DispatchReply, ErrorReply
from wire.placement import Epoch

REQUIREMENTS = Requirements(
    fingerprint="f",
    model_hash="",
    rows_dtype=torch.float32,
    hidden_size=4,
    layers=(1,),
    n_routed_experts=8,
)


class Bench:
    """Traffic whose worker answers when the test does."""

    def __init__(self, options: DispatchOptions) -> None:
        self.breaker = Breaker(options.open_after)
        self.breaker.probe()
        self.breaker.passed()
        self.stats = LinkStats("w", RouterMetrics(CollectorRegistry()))
        standing = Standing("w", REQUIREMENTS, self.breaker)
        self.doubt = asyncio.Event()
        self.worsened = 0
        latencies = LatencyWindow(options, lambda: ())
        self.traffic = Traffic(
            *(standing, latencies, self.stats, REQUIREMENTS, options, self._worse, self.doubt)
        )
        self.replied: list[int] = []
        self.failed: list[tuple[int, OrreryError]] = []
        self.asked: list[int] = []
        self.others = True
        self.wanted = True

    def send(self) -> int:
        number = self.traffic.next_request_id()

        def replied(rows: Tensor) -> bool:
            self.replied.append(number)
            return self.wanted

        def failed(error: OrreryError) -> bool:
            self.failed.append((number, error))
            return True

        def others(won: Callable[[], None]) -> bool:
            self.asked.append(number)
            return self.others

        self.traffic.send(
            number,
            b"message",
            Call(layer=0, rows=1, pairs=3, replied=replied, failed=failed, others=others),
        )
        return number

    def answer(self, number: int) -> None:
        epoch = Epoch(term=1, counter=1)
        rows = torch.zeros(1, 4)
        reply = DispatchReply(request_id=number, epoch=epoch, layer=1, rows=rows)
        self.traffic.take(encode_reply(reply))

    def refuse(self, number: int) -> None:
        self.traffic.take(
            encode_error(ErrorReply(request_id=number, code="internal", message="broken"))
        )

    def _worse(self) -> None:
        self.worsened += 1
        self.doubt.set()


QUICK = DispatchOptions(late_min_s=0.05, late_max_s=0.05, deadline_s=0.4, open_after=2)


def test_others_are_asked_once_for_a_late_message() -> None:
    run_async(_late())


async def _late() -> None:
    bench = Bench(QUICK)
    number = bench.send()
    await wait_until_async(lambda: bench.asked == [number], "the message to be late")
    assert bench.doubt.is_set()
    assert bench.breaker.closed
    assert bench.traffic.outstanding == 3
    await asyncio.sleep(0.15)
    assert bench.asked == [number]
    bench.wanted = False
    bench.answer(number)
    assert bench.replied == [number]
    assert bench.traffic.outstanding == 0
    seen = bench.stats.snapshot()
    assert (seen["stragglers"], seen["late_answers"]) == (1, 1)
    assert seen["failovers"] == {"late": 1}


def test_late_messages_in_a_row_open_the_breaker() -> None:
    run_async(_in_a_row())


async def _in_a_row() -> None:
    bench = Bench(QUICK)
    first, second = bench.send(), bench.send()
    await wait_until_async(lambda: bench.breaker.state is State.OPEN, "the breaker to open")
    assert bench.breaker.fault is Fault.LATE
    assert bench.worsened == 1
    for number in (first, second):
        bench.answer(number)
    assert bench.breaker.state is State.OPEN


def test_without_others_it_is_waited_for_until_the_deadline() -> None:
    run_async(_deadline())


async def _deadline() -> None:
    bench = Bench(QUICK)
    bench.others = False
    number = bench.send()
    await wait_until_async(lambda: len(bench.asked) >= 3, "others to be looked for again")
    assert bench.failed == []
    await wait_until_async(lambda: bool(bench.failed), "the deadline")
    assert bench.failed[0][0] == number
    assert bench.breaker.refuses
    assert bench.stats.failovers == {"late": 1}
    bench.answer(number)
    assert bench.replied == []
    assert bench.stats.late_answers == 1


def test_answers_in_time_keep_it_closed() -> None:
    run_async(_in_time())


async def _in_time() -> None:
    bench = Bench(QUICK)
    for _ in range(50):
        bench.answer(bench.send())
    await asyncio.sleep(0.1)
    assert bench.breaker.closed
    assert not bench.asked
    assert len(bench.replied) == 50


def test_an_error_refuses_the_worker_and_a_loss_fails_all() -> None:
    run_async(_errors())


async def _errors() -> None:
    bench = Bench(QUICK)
    numbers = [bench.send() for _ in range(3)]
    bench.refuse(numbers[1])
    assert bench.breaker.refuses
    assert [number for number, _ in bench.failed] == [numbers[1]]
    bench.traffic.fail_all(UnavailableError("gone"), Fault.LOST)
    assert sorted(number for number, _ in bench.failed) == numbers
    assert bench.stats.failovers == {"error": 1, "lost": 2}
    ended: list[bool] = []
    bench.traffic.when_ended(lambda: ended.append(True))
    assert ended == [True]


def test_hedges_are_sent_before_a_message_is_late() -> None:
    run_async(_hedges())


async def _hedges() -> None:
    options = DispatchOptions(
        late_min_s=0.5, late_max_s=0.5, hedge_fraction=0.1, hedge_quantile=0.5
    )
    bench = Bench(options)
    for _ in range(40):
        bench.answer(bench.send())
    number = bench.send()
    await wait_until_async(lambda: bench.asked == [number], "the hedge", 0.4)
    assert bench.stats.hedges == {"sent": 1, "won": 0}
    assert bench.stats.stragglers == 0
    bench.answer(number)
    bench.traffic.stop()
