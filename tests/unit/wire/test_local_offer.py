"""Only the router that was told gets in, and nothing stays in the file system."""

from __future__ import annotations

import asyncio
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deadline import run_async
from wire.carriers import agreement
from wire.carriers.agreement import enter, local_answer, local_wish, this_host, wants_local
from wire.carriers.carrier import CarrierError
from wire.carriers.local_offer import LocalOffer


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where sockets are made."""
    # pytest's own directories are longer than a socket's name may be.
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        yield Path(short)


def modes(directory: Path) -> list[int]:
    return [stat.S_IMODE(made.stat().st_mode) for made in directory.iterdir()]


def test_a_router_that_was_told_gets_in(directory: Path) -> None:
    run_async(_gets_in(directory))


async def _gets_in(directory: Path) -> None:
    offer = LocalOffer()
    assert modes(directory) == [0o700]
    path, token = (value for _, value in offer.metadata)
    accepting = asyncio.create_task(offer.accept(5.0))
    stranger = agreement.local_socket()
    loop = asyncio.get_running_loop()
    await loop.sock_connect(stranger, path)
    await loop.sock_sendall(stranger, bytes(32))
    assert await loop.sock_recv(stranger, 1) == b""
    stranger.close()
    with pytest.raises(CarrierError, match="not welcome"):
        await enter(local_answer(path, bytes.fromhex(token)[::-1]), 5.0)
    router = await enter(offer.metadata, 5.0)
    worker = await accepting
    assert modes(directory) == []
    await loop.sock_sendall(router, b"hello")
    assert await loop.sock_recv(worker, 5) == b"hello"
    with pytest.raises(CarrierError, match="cannot be reached"):
        await enter(offer.metadata, 5.0)
    router.close()
    worker.close()


def test_nobody_comes(directory: Path) -> None:
    run_async(_nobody(directory))


async def _nobody(directory: Path) -> None:
    with pytest.raises(CarrierError, match="did not come"):
        await LocalOffer().accept(0.05)
    assert modes(directory) == []


def test_a_worker_that_does_not_answer() -> None:
    run_async(_silent())


async def _silent() -> None:
    offer = LocalOffer()
    with pytest.raises(CarrierError, match="no welcome"):
        await enter(offer.metadata, 0.05)
    offer.close()
    offer.close()


def test_a_path_too_long(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = directory / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(CarrierError, match="too long"):
        LocalOffer()
    assert modes(deep) == []


def test_no_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    with pytest.raises(CarrierError, match="no directory"):
        LocalOffer()


@pytest.mark.parametrize(
    "answer",
    [
        (),
        (("orrery-socket", "/nowhere/dispatch"), ("orrery-token", "00" * 32)),
        (("orrery-socket", "/nowhere/dispatch"), ("orrery-token", "no token")),
        (("orrery-socket", "/nowhere/dispatch"), ("orrery-token", "00")),
        (("orrery-socket", "/" + "x" * 200), ("orrery-token", "00" * 32)),
    ],
)
def test_answers_that_lead_nowhere(answer: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(CarrierError):
        run_async(enter(answer, 1.0))


def test_only_routers_of_this_host_are_offered_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    wish = local_wish()
    assert wants_local(wish)
    assert not wants_local(())
    assert not wants_local((("orrery-router", "r"), wish[1]))
    assert not wants_local((wish[0], (wish[1][0], "another host")))
    monkeypatch.setattr(agreement, "_BOOT_ID", Path("/nowhere"))
    assert this_host() == ""
    assert not wants_local(local_wish())


def test_the_sockets_do_not_block() -> None:
    made = agreement.local_socket()
    assert not made.getblocking()
    assert made.family is socket.AF_UNIX
    made.close()
