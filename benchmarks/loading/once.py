"""One service loaded once, in a process of its own, and its bytes read for comparison.

`python -m benchmarks.loading.once worker|router --model DIR [--cold]` prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter, time
from typing import Any
from unittest import mock

import numba  # noqa: F401
import psutil
import torch

import experts_service.model
import kimi_k2.load
from benchmarks.phases import Phases
from experts_service.config import WorkerConfig
from experts_service.service import WorkerService
from kimi_k2.checkpoint import Checkpoint
from kimi_k2.safetensors_file import SafetensorsFile
from kimi_k2.tokenizer import Tokenizer
from router_service.config import RouterConfig
from router_service.service import RouterService

_AT_ONCE = 16 << 20
_READS = 5

Run = tuple[int, int]
"""Offset and length."""


class Reads:
    """The parts of each file that were read."""

    def __init__(self) -> None:
        self.runs: dict[Path, list[Run]] = {}

    def noting(self, read: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(file: SafetensorsFile, reads: Any) -> Any:
            wanted = list(reads)
            self.runs.setdefault(file.path, []).extend(
                (read.entry.begin, read.entry.end - read.entry.begin) for read in wanted
            )
            return read(file, wanted)

        return wrapped

    @property
    def size(self) -> int:
        return sum(length for runs in self.runs.values() for _, length in runs)


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m benchmarks.loading.once")
    made.add_argument("what", choices=("worker", "router"))
    made.add_argument("--model", type=Path, required=True)
    made.add_argument("--cold", action="store_true")
    arguments = made.parse_args()
    # Modules are part of starting the process, those too that are imported when first needed.
    process_s = time() - psutil.Process().create_time()
    phases, reads = Phases(), Reads()
    files = sorted(arguments.model.glob("*.safetensors"))
    if arguments.cold:
        forget(files)
    else:
        sequential({file: [(0, file.stat().st_size)] for file in files})
    with _watched(phases, reads):
        ready_s = asyncio.run(_ready(arguments.what, arguments.model))
    joined = {path: joined_runs(runs) for path, runs in sorted(reads.runs.items())}
    times = []
    for _ in range(1 if arguments.cold else _READS):
        if arguments.cold:
            forget(files)
        times.append(sequential(joined))
    phases.seconds["other"] = max(0.0, ready_s - sum(phases.seconds.values()))
    found = {"process_s": process_s, "ready_s": ready_s, "read_s": min(times), "bytes": reads.size}
    print(json.dumps({**found, "phases": phases.seconds}))


@contextmanager
def _watched(phases: Phases, reads: Reads) -> Iterator[None]:
    read = phases.timed("reading", reads.noting(SafetensorsFile.read))
    methods = (
        (Checkpoint, "check", "checking the checkpoint"),
        (Checkpoint, "expert_weights", "unpacking and arranging"),
        (Checkpoint, "router_weights", "unpacking and arranging"),
    )
    names = (
        (experts_service.model, "prove_numerics", "self-test and kernels"),
        (kimi_k2.load, "prove_numerics", "self-test and kernels"),
        (Tokenizer, "from_dir", "tokenizer"),
    )
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(SafetensorsFile, "read", read))
        for owner, method, phase in (*methods, *names):
            timed = phases.timed(phase, getattr(owner, method))
            stack.enter_context(mock.patch.object(owner, method, timed))
        yield


async def _ready(what: str, model: Path) -> float:
    """Seconds from a started process, all modules in memory, to a service that serves."""
    torch.set_num_threads(1)
    began = perf_counter()
    service: WorkerService | RouterService
    if what == "worker":
        config = Checkpoint(model).config
        experts = {layer: range(config.n_routed_experts) for layer in config.moe_layers}
        service = WorkerService(
            WorkerConfig(
                worker_id="expert-0",
                model=model,
                listen="127.0.0.1:0",
                experts=experts,
                metrics_listen="127.0.0.1:0",
            )
        )
    else:
        service = RouterService(RouterConfig(model=model, threads=1))
    await service.start()
    try:
        await service.wait_ready()
        return perf_counter() - began
    finally:
        await service.stop()


def joined_runs(runs: list[Run]) -> list[Run]:
    """In the order of the file, those without a gap between them as one."""
    found: list[Run] = []
    for offset, length in sorted(runs):
        if found and sum(found[-1]) == offset:
            found[-1] = (found[-1][0], found[-1][1] + length)
        else:
            found.append((offset, length))
    return found


def sequential(runs: dict[Path, list[Run]]) -> float:
    """Seconds to read them all into one buffer that is used again and again."""
    buffer = memoryview(bytearray(_AT_ONCE))
    began = perf_counter()
    for path, wanted in runs.items():
        with path.open("rb", buffering=0) as file:
            for offset, length in wanted:
                end = offset + length
                while offset < end:
                    part = buffer[: min(_AT_ONCE, end - offset)]
                    offset += os.preadv(file.fileno(), [part], offset)
    return perf_counter() - began


def forget(files: list[Path]) -> None:
    """Has the system drop the files from its page cache, where it does as it is told."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
