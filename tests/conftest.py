"""What holds for every test: quiet third parties, few threads, a private home, no process left."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

# Read when torch, Ray and the tokenizers are imported or start their first process, so set here.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Threads that wait for each other sleep: on busy processors, spinning takes half a minute.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray lowers its workers' priority by 15, which starves actors on a loaded machine.
os.environ.setdefault("RAY_worker_niceness", "0")

from tests.support.processes import MARK, describe, wait_for_none

GRACE_SECONDS = 10.0
# Cheap tests first: what is plainly broken shows within the first minute.
TIERS = ("unit", "parity", "integration", "e2e", "chaos")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        default="cpu",
        help="where the exactness tests compute: cpu (default), cuda",
    )
    parser.addoption(
        "--chaos",
        default="short",
        choices=("short", "full"),
        help="how long tests/chaos takes: about a minute (default), or minutes a scenario",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_tier)
    for item in items:
        if item.get_closest_marker("ray"):
            # Ray leaves sockets, pipes and log files to the garbage collector.
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))
            item.add_marker(
                pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
            )


def _tier(item: pytest.Item) -> int:
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    return TIERS.index(folder) if folder in TIERS else len(TIERS)


@pytest.fixture(scope="session", autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run files of started clusters go to a temporary directory, not to the person's home."""
    home = tmp_path_factory.mktemp("orrery-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORRERY_HOME", str(home))
        yield home


@pytest.fixture(scope="session", autouse=True)
def no_process_left(private_home: Path) -> Iterator[None]:
    """Fails the session when something that it started is still alive at its end."""
    session = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, session)
        yield
    left = wait_for_none(session, GRACE_SECONDS)
    names = [describe(process) for process in left]
    for process in left:
        process.kill()
    if names:
        pytest.fail("processes left behind:\n" + "\n".join(names))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).parents[1]
