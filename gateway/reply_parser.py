"""Tokens of an assistant's turn to content, reasoning and tool calls, as they arrive."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.stop_text import StopText
from kimi_k2.detokenizer import IncrementalDetokenizer
from kimi_k2.tokenizer import Tokenizer

_THINK, _END_THINK = "<think>", "</think>"
_SECTION, _END_SECTION = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
_CALL, _ARGUMENTS, _END_CALL = (
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
)
_MARKS = (_THINK, _END_THINK, _SECTION, _END_SECTION, _CALL, _ARGUMENTS, _END_CALL)
_HEADER = re.compile(r"\s*(?:functions\.)?([a-zA-Z0-9_.-]{1,64}?)(?::\d*)?\s*")


@dataclass(frozen=True, kw_only=True)
class ToolCallDelta:
    """A piece of a tool call; id and name come with its first piece.

    index: place among the calls of this reply.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, kw_only=True)
class Delta:
    """A piece of a reply; exactly one of the three is there."""

    content: str = ""
    reasoning: str = ""
    tool_call: ToolCallDelta | None = None


class _State(enum.Enum):
    CONTENT = enum.auto()
    REASONING = enum.auto()
    SECTION = enum.auto()
    HEADER = enum.auto()
    ARGUMENTS = enum.auto()


class ReplyParser:
    """One choice's tokens to deltas.

    Control tokens, not text, divide a reply, so text that looks like them divides nothing. A tool
    call whose opening is malformed, or that nobody offered tools for, comes out as content with
    its control tokens written out.

    tool_calls, reasoning_tokens: how many there have been.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        reasoning_open: bool = False,
        first_call: int | None = None,
        stops: Sequence[str] = (),
    ) -> None:
        """Args:
        reasoning_open: the prompt ends inside `<think>`.
        first_call: number of tool calls in the history; None: no tools were offered.
        stops: the request's stop strings.
        """
        self._tokenizer = tokenizer
        self._marks = {
            tokenizer.specials[mark]: mark for mark in _MARKS if mark in tokenizer.specials
        }
        self._first_call = first_call
        self._detokenizer = IncrementalDetokenizer(tokenizer)
        self._stop = StopText(stops)
        self._state = _State.REASONING if reasoning_open else _State.CONTENT
        self._raw = ""  # control tokens and header of a call that is not certain yet
        self._header = ""
        self._no_arguments_yet = False
        self._matched = ""
        self._deltas: list[Delta] = []
        self.tool_calls = 0
        self.reasoning_tokens = 0

    def push(self, ids: Iterable[int], matched: str = "") -> list[Delta]:
        """The deltas that these further ids make certain.

        Args:
            matched: the stop string that ended the output with these ids.
        """
        self._matched = matched
        for index in ids:
            self.reasoning_tokens += self._state is _State.REASONING
            if mark := self._marks.get(index):
                self._flush()
                self._divide(mark)
            else:
                self._text(self._detokenizer.push((index,)))
        return self._take()

    def finish(self) -> list[Delta]:
        """What was held back, when no token follows.

        Behind a stop string nothing follows: neither the bytes of a character that its last token
        began, nor a tool call that it cut off before it was certain.
        """
        rest = self._detokenizer.finish()
        if not self._matched:
            self._text(rest)
        self._emit(self._stop.flush(self._matched))
        if self._state in (_State.SECTION, _State.HEADER) and not self._matched:
            self._degrade("")
        return self._take()

    def _take(self) -> list[Delta]:
        deltas, self._deltas = self._deltas, []
        return deltas

    def _text(self, text: str) -> None:
        if self._state is _State.HEADER:
            self._header += text
        elif self._state is _State.SECTION:
            if text.strip():
                self._degrade("")
                self._text(text)
        else:
            self._emit(self._stop.push(text, self._matched))

    def _flush(self) -> None:
        self._text(self._detokenizer.finish())
        self._emit(self._stop.flush(self._matched))

    def _emit(self, text: str) -> None:
        if not text:
            return
        if self._state is _State.REASONING:
            self._deltas.append(Delta(reasoning=text))
        elif self._state is _State.ARGUMENTS:
            self._no_arguments_yet = False
            call = ToolCallDelta(index=self.tool_calls - 1, arguments=text)
            self._deltas.append(Delta(tool_call=call))
        else:
            self._deltas.append(Delta(content=text))

    def _divide(self, mark: str) -> None:
        """Takes a control token; everything before it has been given out."""
        if self._state is _State.ARGUMENTS and self._no_arguments_yet:
            self._emit("{}")
        match self._state, mark:
            case (_State.HEADER, "<|tool_call_argument_begin|>"):
                self._begin_call(mark)
            case (_State.HEADER, _):
                self._degrade(mark)
            case (_State.SECTION | _State.ARGUMENTS, "<|tool_call_begin|>"):
                self._open_header()
            case (_State.ARGUMENTS, "<|tool_call_end|>"):
                self._state = _State.SECTION
            case (_State.SECTION | _State.ARGUMENTS, "<|tool_calls_section_end|>"):
                self._raw = ""
                self._state = _State.CONTENT
            case (_State.SECTION, _):
                self._degrade(mark)
            case (_State.ARGUMENTS, _):
                self._emit(mark)
            case (_, "<think>"):
                self._state = _State.REASONING
            case (_, "</think>"):
                self._state = _State.CONTENT
            case (_, "<|tool_calls_section_begin|>") if self._first_call is not None:
                self._raw = mark
                self._state = _State.SECTION
            case (_, "<|tool_call_begin|>") if self._first_call is not None:
                self._open_header()
            case _:
                self._degrade(mark)

    def _open_header(self) -> None:
        self._raw += _CALL
        self._header = ""
        self._state = _State.HEADER

    def _begin_call(self, mark: str) -> None:
        match = _HEADER.fullmatch(self._header)
        if match is None:
            self._degrade(mark)
            return
        name = match.group(1)
        # Counted here, not copied, so that ids are unique over the conversation.
        number = (self._first_call or 0) + self.tool_calls
        call = ToolCallDelta(index=self.tool_calls, id=f"functions.{name}:{number}", name=name)
        self._deltas.append(Delta(tool_call=call))
        self.tool_calls += 1
        self._raw = self._header = ""
        self._no_arguments_yet = True
        self._state = _State.ARGUMENTS

    def _degrade(self, text: str) -> None:
        """Gives out as content what looked like a tool call, and `text` after it."""
        if self._state is not _State.REASONING:
            self._state = _State.CONTENT
        text = self._raw + self._header + text
        self._raw = self._header = ""
        self._emit(text)
