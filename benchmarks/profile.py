"""`python -m benchmarks.profile`: flame graphs of router and expert workers under load.

py-spy samples each process from outside, native code with it, while requests run: one SVG a
process. The wider a frame, the more of the samples it was in.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from benchmarks.serving.arguments import add_cluster, shape_of
from benchmarks.serving.cluster import Running, cluster
from benchmarks.serving.grpc_side import GrpcSide, grpc_side
from benchmarks.serving.load import batch
from benchmarks.serving.services import end_on_sigterm
from kimi_k2.config import ModelConfig

_WRITE_S = 120.0
_DENIED = """\
profile: py-spy may not look into the processes:
{said}
In a container run it with --cap-add SYS_PTRACE; elsewhere as root, or after
`sysctl kernel.yama.ptrace_scope=1`."""


class ProfileError(Exception):
    """No flame graph could be made; the message says why and what helps."""


def main() -> int:
    """0: the SVGs are written; 1: they could not be."""
    arguments = _parser().parse_args()
    try:
        asyncio.run(_profile(arguments))
    except ProfileError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


async def _profile(arguments: argparse.Namespace) -> None:
    end_on_sigterm()
    spy = shutil.which("py-spy", path=Path(sys.executable).parent) or shutil.which("py-spy")
    if spy is None:
        raise ProfileError("profile: there is no py-spy; the `bench` extra has it")
    arguments.out.mkdir(parents=True, exist_ok=True)
    vocab_size = ModelConfig.from_dir(arguments.model).vocab_size
    async with (
        cluster(replace(shape_of(arguments), traceable=True)) as running,
        grpc_side("cluster", running.router.address) as side,
    ):
        load = asyncio.create_task(_load(side, arguments.concurrent, vocab_size))
        try:
            await asyncio.sleep(1.0)
            await asyncio.gather(
                *(
                    _record(spy, pid, arguments.out / f"{name}.svg", arguments)
                    for name, pid in _processes(running).items()
                )
            )
            if load.done():
                load.result()
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)


def _processes(running: Running) -> dict[str, int]:
    return {
        "router": running.router.pid,
        **{name: worker.pid for name, worker in running.workers.items()},
    }


async def _load(side: GrpcSide, concurrent: int, vocab_size: int) -> None:
    """Batches of requests, one after another, until it is cancelled."""
    number = 0
    while True:
        asks = batch(
            concurrent,
            prompt_tokens=64,
            max_tokens=128,
            vocab_size=vocab_size,
            seed=f"profile {number}",
        )
        began = perf_counter()
        answers = await side.run(asks)
        tokens = sum(len(answer.tokens_s) for answer in answers)
        print(f"{tokens / (perf_counter() - began):.0f} tokens/s while sampled", flush=True)
        number += 1


async def _record(spy: str, pid: int, svg: Path, arguments: argparse.Namespace) -> None:
    command = [
        *(spy, "record", "--pid", str(pid), "--output", str(svg), "--format", "flamegraph"),
        *("--duration", str(arguments.seconds), "--rate", str(arguments.rate)),
        *("--threads", "--nonblocking"),
        *(["--native"] if arguments.native else []),
        *(["--idle"] if arguments.idle else []),
    ]
    status, said = await _run(command, arguments.seconds + _WRITE_S)
    if status != 0:
        if "ermission" in said:
            raise ProfileError(_DENIED.format(said=said.strip()))
        raise ProfileError(f"profile: py-spy ended with status {status}: {said.strip()}")
    print(f"{svg}", flush=True)


async def _run(command: Sequence[str], timeout_s: float) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError:
        raise ProfileError(f"profile: py-spy did not end within {timeout_s:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, said.decode(errors="replace")


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.profile",
        description="Flame graphs (SVG) of the router and each expert worker under load.",
        epilog="example: python -m benchmarks.profile --concurrent 1 --native",
    )
    add_cluster(made)
    add = made.add_argument
    add("--out", type=Path, default=Path("benchmarks/results/profile"), help="folder for the SVGs")
    add("--concurrent", type=int, default=32, help="requests at a time")
    add("--seconds", type=int, default=10)
    add("--rate", type=int, default=100, help="samples a second")
    add("--native", action="store_true", help="C and C++ frames too; slower, needs symbols")
    add("--idle", action="store_true", help="count waiting threads too")
    return made


if __name__ == "__main__":
    sys.exit(main())
