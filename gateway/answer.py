"""What both APIs' answers share: jobs for the engine, usage, and who writes chunks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.generation import Generator
from gateway.merge import merge, merge_in_turns
from wire.generated import orrery_pb2 as pb

Chunk = dict[str, Any]

_FINISH = {pb.FINISH_REASON_STOP: "stop", pb.FINISH_REASON_LENGTH: "length"}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one choice asks of the engine.

    name: of the choice, in what operators see.
    sample: which of the prompt's `n` choices it is.
    """

    name: str
    prompt: list[int]
    sampling: pb.SamplingParams
    sample: int = 0


class Usage:
    """Tokens of a whole answer; a prompt counts once, however many choices it has."""

    def __init__(self, jobs: Sequence[Job], *, tell_cached: bool) -> None:
        """`tell_cached`: how much of the prompt was cached, which a retry would find otherwise."""
        self._tell_cached = tell_cached
        self._first_samples = {i for i, job in enumerate(jobs) if job.sample == 0}
        self._prompt = sum(len(jobs[i].prompt) for i in self._first_samples)
        self._cached: dict[int, int] = {}
        self._completion = 0
        self.reasoning = 0

    def count(self, index: int, output: pb.RequestOutput) -> None:
        """Takes an output of choice `index`."""
        self._completion += len(output.token_ids)
        # Only the first output speaks of the client's prompt: a continuation on another router
        # finds what the first one computed.
        if index in self._first_samples:
            self._cached.setdefault(index, output.cached_tokens)

    def body(self) -> dict[str, Any]:
        """OpenAI's usage object."""
        body: dict[str, Any] = {
            "prompt_tokens": self._prompt,
            "completion_tokens": self._completion,
            "total_tokens": self._prompt + self._completion,
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }
        if self._tell_cached:
            body["prompt_tokens_details"] = {"cached_tokens": sum(self._cached.values())}
        return body


class Answer(Protocol):
    """Turns the outputs of all choices into one answer, as chunks and as a whole."""

    usage: Usage

    def opening(self) -> list[Chunk]:
        """Chunks before the first output."""
        ...

    def take(self, index: int, output: pb.RequestOutput) -> list[Chunk]:
        """Chunks for an output of choice `index`."""
        ...

    def closing(self) -> Chunk:
        """The chunk with the usage and no choices."""
        ...

    def body(self) -> dict[str, Any]:
        """The whole answer, after the last output."""
        ...


def run_jobs(
    generator: Generator, jobs: Sequence[Job], *, in_turns: bool
) -> AsyncGenerator[tuple[int, pb.RequestOutput]]:
    """(choice, output) of all jobs, as they come, or in an order that no timing changes."""
    runs = [generator.run(job.name, job.prompt, job.sampling) for job in jobs]
    return merge_in_turns(runs) if in_turns else merge(runs)


def finish_reason(output: pb.RequestOutput) -> str | None:
    """OpenAI's name of it; None while the choice goes on."""
    return _FINISH.get(output.finish_reason)
