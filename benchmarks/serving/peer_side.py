"""Another engine in a process of its own, asked through a pipe."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.serving.load import Answer, Ask
from benchmarks.serving.services import READY_S, ServiceError, message, service

_ROOT = Path(__file__).resolve().parents[2]
_ENGINES = _ROOT / "benchmarks" / "peers"
_RUN_S = 1200.0


@dataclass(frozen=True, kw_only=True)
class Peer:
    """own: whether the engine lives in the virtual environment of the peers.

    takes_arrivals: whether requests may come while others run.
    """

    script: str
    own: bool
    takes_arrivals: bool = True
    arguments: tuple[str, ...] = ()


PEERS: Mapping[str, Peer] = {
    "transformers": Peer(script="transformers_engine.py", own=False, takes_arrivals=False),
    "vllm": Peer(script="vllm_engine.py", own=True),
    "vllm-eager": Peer(script="vllm_engine.py", own=True, arguments=("--eager",)),
}


class PeerSide:
    """versions: of the engine and of torch beneath it."""

    def __init__(
        self, name: str, process: asyncio.subprocess.Process, versions: Mapping[str, str]
    ) -> None:
        self.name = name
        self.takes_arrivals = PEERS[name].takes_arrivals
        self.versions = versions
        self._process = process

    async def run(self, asks: Sequence[Ask]) -> list[Answer]:
        """Raises `ServiceError` when the engine ended."""
        assert self._process.stdin is not None
        line = json.dumps({"asks": [asdict(ask) for ask in asks]}) + "\n"
        self._process.stdin.write(line.encode())
        await self._process.stdin.drain()
        said = await message(self._process, _RUN_S)
        answers = said["answers"]
        if not isinstance(answers, list):
            raise ServiceError(f"{self.name} gave no answers: {said}")
        return [
            Answer(
                sent_s=answer["sent_s"],
                tokens_s=tuple(answer["tokens_s"]),
                token_ids=tuple(answer["token_ids"]),
            )
            for answer in answers
        ]


@asynccontextmanager
async def peer_side(name: str, weights: Path, environment: Path) -> AsyncIterator[PeerSide]:
    """weights: a float32 checkpoint. environment: the virtual environment of the peers.

    Raises:
        ServiceError: the environment is not there, or the engine did not start.
    """
    peer = PEERS[name]
    python = str(_python(environment)) if peer.own else sys.executable
    arguments = [str(_ENGINES / peer.script), str(weights), *peer.arguments]
    async with service(arguments, python=python) as process:
        said = await message(process, READY_S)
        versions = said.get("versions")
        yield PeerSide(name, process, versions if isinstance(versions, dict) else {})


def _python(environment: Path) -> Path:
    python = (environment / "bin" / "python").absolute()
    if not python.exists():
        raise ServiceError(f"there is no {python}: `make bench-peers` makes it")
    return python
