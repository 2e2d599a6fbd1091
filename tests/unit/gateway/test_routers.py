from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence

import pytest

from gateway.memory_router import MemoryRouter, tokens
from gateway.routers import RouterPool
from tests.support.deadline import run_async, wait_until_async
from wire.errors import UnavailableError
from wire.generated import orrery_pb2 as pb


class Directory:
    """A directory that tests change."""

    def __init__(self, *addresses: str) -> None:
        self.now: tuple[str, ...] | None = addresses

    async def addresses(self) -> Sequence[str]:
        if self.now is None:
            raise UnavailableError("no controller")
        return self.now


@contextlib.asynccontextmanager
async def pool_of(
    directory: Directory, routers: dict[str, MemoryRouter]
) -> AsyncIterator[RouterPool]:
    pool = RouterPool(directory, routers.__getitem__, poll_s=0.02)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.stop()


def some(*names: str) -> dict[str, MemoryRouter]:
    return {name: MemoryRouter(reply=tokens([])) for name in names}


def test_routers_come_and_go_with_the_directory() -> None:
    async def run() -> None:
        directory, routers = Directory("a"), some("a", "b")
        async with pool_of(directory, routers) as pool:
            first = await pool.pick(1)
            assert first.address == "a"
            first.outstanding += 1
            directory.now = ("b",)
            await wait_until_async(lambda: first.retired, "the change")
            assert (await pool.pick(1)).address == "b"
            # What still runs on a router that left the directory may end there.
            assert first in pool.routers
            first.outstanding -= 1
            await wait_until_async(lambda: first not in pool.routers, "the removal")

    run_async(run())


def test_a_directory_that_does_not_answer_changes_nothing() -> None:
    async def run() -> None:
        directory = Directory("a")
        async with pool_of(directory, some("a")) as pool:
            directory.now = None
            with pytest.raises(TimeoutError):
                await wait_until_async(lambda: not pool.routers, "nothing", 0.2)
            assert (await pool.pick(1)).address == "a"

    run_async(run())


class Broken(MemoryRouter):
    """Has a bug: its errors are none of ours."""

    broken = False

    async def describe(self) -> pb.RouterDescription:
        if self.broken:
            raise RuntimeError("a bug")
        return await super().describe()


def test_an_unexpected_error_of_one_router_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        broken = Broken(reply=tokens([]))
        routers = {"a": broken, **some("b", "c")}
        directory = Directory("a", "b")
        async with pool_of(directory, routers) as pool:
            broken.broken = True
            await wait_until_async(
                lambda: [r.address for r in pool.routers if r.healthy] == ["b"], "the loss"
            )
            directory.now = ("a", "c")
            await wait_until_async(lambda: "c" in [r.address for r in pool.routers], "the change")
            broken.broken = False
            await wait_until_async(lambda: all(r.healthy for r in pool.routers), "the recovery")

    run_async(run())
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 1
    assert errors[0].exc_info is not None


def test_an_unexpected_error_of_the_directory_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        directory = Directory("a")
        async with pool_of(directory, some("a", "b")) as pool:
            directory.now = (7,)  # type: ignore[assignment]
            await wait_until_async(lambda: bool(caplog.records), "the log")
            directory.now = ("b",)
            await wait_until_async(lambda: [r.address for r in pool.routers] == ["b"], "the change")

    run_async(run())
    assert [r.levelno for r in caplog.records if r.levelno > logging.INFO] == [logging.ERROR]


def test_a_failing_lookup_is_logged_when_it_begins_and_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        directory = Directory("a")
        looks = 0

        async def addresses() -> Sequence[str]:
            nonlocal looks
            looks += 1
            return await Directory.addresses(directory)

        directory.addresses = addresses  # type: ignore[method-assign]
        async with pool_of(directory, some("a")):
            directory.now = None
            seen = looks
            await wait_until_async(lambda: looks > seen + 5, "some polls")
            directory.now = ("a",)
            seen = looks
            await wait_until_async(lambda: looks > seen + 2, "some polls")

    with caplog.at_level(logging.INFO):
        run_async(run())
    said = [r.getMessage() for r in caplog.records if r.name == "gateway.routers"]
    assert said == ["the router directory: no controller", "the router directory: works again"]


def test_only_ready_routers_are_picked() -> None:
    async def run() -> None:
        routers = some("a", "b")
        routers["a"].state = "draining"
        async with pool_of(Directory("a", "b"), routers) as pool:
            assert (await pool.pick(1)).address == "b"
            routers["b"].state = "unreachable"
            await wait_until_async(lambda: not any(r.healthy for r in pool.routers), "the loss")
            with pytest.raises(UnavailableError, match="no router was ready"):
                await pool.pick(0.1)
            routers["a"].state = "ready"
            assert (await pool.pick(1)).address == "a"

    run_async(run())


def test_the_context_is_what_all_of_them_serve() -> None:
    async def run() -> None:
        routers = some("a", "b")
        routers["b"].max_model_len = 100
        async with pool_of(Directory("a", "b"), routers) as pool:
            assert pool.max_model_len == 100
        async with pool_of(Directory(), routers) as pool:
            assert pool.max_model_len is None

    run_async(run())


def test_a_router_to_avoid_is_the_last_resort() -> None:
    async def run() -> None:
        async with pool_of(Directory("a", "b"), some("a", "b")) as pool:
            b = next(r for r in pool.routers if r.address == "b")
            b.outstanding = 5
            assert (await pool.pick(1)).address == "a"
            assert (await pool.pick(1, {"a"})).address == "b"
            assert (await pool.pick(1, {"a", "b"})).address == "a"

    run_async(run())
