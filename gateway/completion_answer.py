"""Completions in OpenAI's shape, as chunks and as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.answer import Chunk, Job, Usage, finish_reason
from gateway.identity import Identity
from gateway.logprobs import CompletionLogprobs
from gateway.stop_text import StopText
from kimi_k2.detokenizer import IncrementalDetokenizer
from kimi_k2.tokenizer import Tokenizer
from wire.generated import orrery_pb2 as pb


@dataclass(kw_only=True)
class _Choice:
    detokenizer: IncrementalDetokenizer
    stop: StopText
    offsets: CompletionLogprobs
    text: str
    logprobs: dict[str, list[Any]] = field(default_factory=dict)
    finish_reason: str | None = None


class CompletionAnswer:
    """One `gateway.answer.Answer` for `/v1/completions`."""

    def __init__(
        self,
        jobs: Sequence[Job],
        echoes: Sequence[str],
        *,
        name: str,
        identity: Identity,
        model: str,
        fingerprint: str,
        tokenizer: Tokenizer,
        logprobs: bool,
    ) -> None:
        """Args:
        name: the answer's id.
        echoes: what each text begins with, one a job.
        fingerprint: `system_fingerprint`; alike fingerprints and seeds give alike answers.
        """
        self.usage = Usage(jobs, tell_cached=not identity.repeatable)
        self._logprobs = logprobs
        self._choices = [
            _Choice(
                detokenizer=IncrementalDetokenizer(tokenizer),
                stop=StopText(job.sampling.stop),
                offsets=CompletionLogprobs(tokenizer),
                text=echo,
            )
            for job, echo in zip(jobs, echoes, strict=True)
        ]
        self._head = {
            "id": name,
            "object": "text_completion",
            "created": identity.created,
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def opening(self) -> list[Chunk]:
        texts = [choice.text for choice in self._choices]
        return [self._chunk(i, text) for i, text in enumerate(texts) if text]

    def take(self, index: int, output: pb.RequestOutput) -> list[Chunk]:
        self.usage.count(index, output)
        choice = self._choices[index]
        matched = output.stop_reason
        text = choice.stop.push(choice.detokenizer.push(output.token_ids), matched)
        reason = finish_reason(output)
        if reason is not None:
            if not matched:
                text += choice.stop.push(choice.detokenizer.finish())
            text += choice.stop.flush()
            choice.finish_reason = reason
        choice.text += text
        logprobs = None
        if self._logprobs and output.logprobs:
            logprobs = choice.offsets.push(output.logprobs)
            for key, values in logprobs.items():
                choice.logprobs.setdefault(key, []).extend(values)
        if not text and logprobs is None and reason is None:
            return []
        return [self._chunk(index, text, logprobs, reason)]

    def closing(self) -> Chunk:
        return {**self._head, "choices": [], "usage": self.usage.body()}

    def body(self) -> dict[str, Any]:
        choices = [
            _choice_body(
                index,
                choice.text,
                choice.logprobs if self._logprobs else None,
                choice.finish_reason,
            )
            for index, choice in enumerate(self._choices)
        ]
        return {**self._head, "choices": choices, "usage": self.usage.body()}

    def _chunk(
        self,
        index: int,
        text: str,
        logprobs: dict[str, Any] | None = None,
        reason: str | None = None,
    ) -> Chunk:
        return {**self._head, "choices": [_choice_body(index, text, logprobs, reason)]}


def _choice_body(
    index: int, text: str, logprobs: dict[str, Any] | None, reason: str | None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
