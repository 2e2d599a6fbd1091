"""Messages to prompt tokens: the checkpoint's chat template, safe against what users write.

Only the template makes control tokens. A `<|im_end|>` in a message, a tool's description, a
tool's result or a variable is the letters it is written with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kimi_k2.errors import ModelError, TokenizerError
from kimi_k2.tokenizer import Tokenizer

Json = Any
Message = Mapping[str, Json]

_PRIVATE_USE = range(0xE000, 0xF900)


class ChatError(ModelError):
    """Messages that cannot be made into a prompt; the message says which and why."""


class ChatTemplate:
    """A compiled chat template. Immutable, so safe to share between threads."""

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        """Raises:
        TokenizerError: the template is not valid Jinja.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise TokenizerError(f"chat template, line {error.lineno}: {error.message}") from error
        self._tokenizer = tokenizer
        self._first_letters = sorted({text[0] for text in tokenizer.specials})

    @classmethod
    def from_dir(cls, path: str | Path, tokenizer: Tokenizer | None = None) -> ChatTemplate:
        """The template of a checkpoint directory: `chat_template.jinja`, or else the string
        `chat_template` of `tokenizer_config.json`.

        Raises:
            TokenizerError: there is none or it is malformed.
        """
        folder = Path(path)
        try:
            source = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        except FileNotFoundError:
            config = folder / "tokenizer_config.json"
            try:
                source = json.loads(config.read_text(encoding="utf-8"))["chat_template"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise TokenizerError(f"{folder} has no chat_template.jinja") from error
        except (OSError, UnicodeDecodeError) as error:
            raise TokenizerError(
                f"cannot read {folder / 'chat_template.jinja'}: {error}"
            ) from error
        return cls(source, tokenizer or Tokenizer.from_dir(folder))

    def encode(
        self,
        messages: Sequence[Message],
        tools: Sequence[Json] | None = None,
        thinking: bool | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Json] | None = None,
    ) -> list[int]:
        """The prompt's token ids.

        Args:
            messages: in OpenAI's shape; ids of tool calls are rewritten (`renumber_tool_calls`).
            tools: declarations in OpenAI's shape.
            thinking: the template's variable of that name; None leaves it undefined.
            add_generation_prompt: end with the opening of an assistant's turn.
            variables: further variables of the template.

        Raises:
            ChatError: the messages cannot be rendered.
        """
        stand_ins = self._stand_ins([*messages, tools, variables])
        mask = str.maketrans(stand_ins)
        context: dict[str, Json] = {k: _masked(v, mask) for k, v in (variables or {}).items()}
        if thinking is not None:
            context["thinking"] = thinking
        try:
            text = self._template.render(
                context,
                messages=[_masked_message(m, mask) for m in renumber_tool_calls(messages)],
                tools=_masked(list(tools), mask) if tools else None,
                add_generation_prompt=add_generation_prompt,
            )
        except jinja2.TemplateError as error:
            raise ChatError(f"the chat template refuses the messages: {error.message}") from error
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ChatError(f"the chat template cannot render the messages: {error}") from error
        unmask = str.maketrans({new: old for old, new in stand_ins.items()})
        return list(self._tokens(text, unmask))

    def _stand_ins(self, values: Sequence[Json]) -> dict[str, str]:
        """A private-use character that the input does not contain, for each first letter.

        With its first letter replaced, nothing in the input can be or become part of a control
        token, however the template joins its pieces.
        """
        used = set().union(*(map(set, _strings(values)))) if values else set()
        free = (chr(code) for code in _PRIVATE_USE if chr(code) not in used)
        try:
            return {letter: next(free) for letter in self._first_letters}
        except (StopIteration, RuntimeError) as error:
            raise ChatError("the messages use up the private-use characters") from error

    def _tokens(self, text: str, unmask: Mapping[int, str]) -> Iterator[int]:
        specials = self._tokenizer.specials
        pattern = "|".join(map(re.escape, sorted(specials, key=len, reverse=True))) or r"(?!)"
        start = 0
        for match in re.finditer(pattern, text):
            yield from self._tokenizer.encode(text[start : match.start()].translate(unmask))
            yield specials[match.group()]
            start = match.end()
        yield from self._tokenizer.encode(text[start:].translate(unmask))


def renumber_tool_calls(messages: Sequence[Message]) -> list[dict[str, Json]]:
    """The messages with K2's ids: `functions.NAME:IDX`, IDX from 0 over the whole conversation.

    K2 was trained on these and misbehaves when its history shows others. A tool's result gets
    the new id of the latest call with its old id, and that call's name where it has none.

    Raises:
        ChatError: a tool's result for which no call came before.
    """
    renumbered: list[dict[str, Json]] = []
    latest: dict[str, tuple[str, str]] = {}
    count = 0
    for position, message in enumerate(messages):
        copy = dict(message)
        if calls := copy.get("tool_calls"):
            copy["tool_calls"] = []
            for call in calls:
                name = str(call["function"]["name"])
                new_id = f"functions.{name}:{count}"
                count += 1
                latest[str(call.get("id", ""))] = (new_id, name)
                copy["tool_calls"].append({**call, "id": new_id})
        if copy.get("role") == "tool":
            old_id = str(copy.get("tool_call_id", ""))
            if old_id not in latest:
                raise ChatError(
                    f"messages[{position}]: tool_call_id {old_id!r} answers no tool call before it"
                )
            copy["tool_call_id"], name = latest[old_id]
            copy["name"] = copy.get("name") or name
        renumbered.append(copy)
    return renumbered


def _masked_message(message: Message, mask: Mapping[int, str]) -> dict[str, Json]:
    # The role is compared by the template, never a text of the user's.
    return {key: value if key == "role" else _masked(value, mask) for key, value in message.items()}


def _masked(value: Json, mask: Mapping[int, str]) -> Json:
    if isinstance(value, str):
        return value.translate(mask)
    if isinstance(value, Mapping):
        return {str(k).translate(mask): _masked(v, mask) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item, mask) for item in value]
    return value


def _strings(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _tojson(
    value: Json,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes for HTML, which models were not trained on."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
