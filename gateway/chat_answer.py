"""Chat completions in OpenAI's shape, as chunks and as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.answer import Chunk, Job, Usage, finish_reason
from gateway.identity import Identity
from gateway.logprobs import chat_logprobs
from gateway.reply_parser import Delta, ReplyParser, ToolCallDelta
from kimi_k2.tokenizer import Tokenizer
from wire.generated import orrery_pb2 as pb


@dataclass(kw_only=True)
class _Choice:
    parser: ReplyParser
    content: str = ""
    reasoning: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None


class ChatAnswer:
    """One `gateway.answer.Answer` for `/v1/chat/completions`."""

    def __init__(
        self,
        jobs: Sequence[Job],
        parsers: Sequence[ReplyParser],
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
        parsers: one a job.
        fingerprint: `system_fingerprint`; alike fingerprints and seeds give alike answers.
        """
        self.usage = Usage(jobs, tell_cached=not identity.repeatable)
        self._choices = [_Choice(parser=parser) for parser in parsers]
        self._tokenizer = tokenizer
        self._logprobs = logprobs
        self._head = {
            "id": name,
            "created": identity.created,
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def opening(self) -> list[Chunk]:
        delta = {"role": "assistant", "content": ""}
        return [self._chunk(index, dict(delta)) for index in range(len(self._choices))]

    def take(self, index: int, output: pb.RequestOutput) -> list[Chunk]:
        self.usage.count(index, output)
        choice = self._choices[index]
        deltas = choice.parser.push(output.token_ids, output.stop_reason)
        self.usage.reasoning = sum(c.parser.reasoning_tokens for c in self._choices)
        reason = finish_reason(output)
        if reason is not None:
            deltas += choice.parser.finish()
            called = choice.parser.tool_calls and reason == "stop"
            choice.finish_reason = "tool_calls" if called else reason
        for delta in deltas:
            _add(choice, delta)
        chunks = [self._chunk(index, _delta_body(delta)) for delta in deltas]
        if self._logprobs and output.logprobs:
            logprobs = chat_logprobs(self._tokenizer, output.logprobs)
            choice.logprobs += logprobs["content"]
            chunks = chunks or [self._chunk(index, {})]
            chunks[0]["choices"][0]["logprobs"] = logprobs
        if reason is not None:
            chunks.append(self._chunk(index, {}, choice.finish_reason))
        return chunks

    def closing(self) -> Chunk:
        return {
            **self._head,
            "object": "chat.completion.chunk",
            "choices": [],
            "usage": self.usage.body(),
        }

    def body(self) -> dict[str, Any]:
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [self._whole(index) for index in range(len(self._choices))],
            "usage": self.usage.body(),
        }

    def _chunk(self, index: int, delta: dict[str, Any], reason: str | None = None) -> Chunk:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}

    def _whole(self, index: int) -> dict[str, Any]:
        choice = self._choices[index]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": choice.content if choice.content or not choice.calls else None,
            "refusal": None,
        }
        if choice.reasoning:
            message["reasoning_content"] = choice.reasoning
        if choice.calls:
            message["tool_calls"] = choice.calls
        logprobs = {"content": choice.logprobs, "refusal": None} if self._logprobs else None
        return {
            "index": index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": choice.finish_reason,
        }


def _add(choice: _Choice, delta: Delta) -> None:
    choice.content += delta.content
    choice.reasoning += delta.reasoning
    call = delta.tool_call
    if call is None:
        return
    if call.id:
        function = {"name": call.name, "arguments": ""}
        choice.calls.append({"id": call.id, "type": "function", "function": function})
    choice.calls[call.index]["function"]["arguments"] += call.arguments


def _delta_body(delta: Delta) -> dict[str, Any]:
    if delta.tool_call is not None:
        return {"tool_calls": [_call_body(delta.tool_call)]}
    if delta.reasoning:
        return {"reasoning_content": delta.reasoning}
    return {"content": delta.content}


def _call_body(call: ToolCallDelta) -> dict[str, Any]:
    if call.id:
        function = {"name": call.name, "arguments": call.arguments}
        return {"index": call.index, "id": call.id, "type": "function", "function": function}
    return {"index": call.index, "function": {"arguments": call.arguments}}
