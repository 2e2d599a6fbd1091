"""Messages and tools of a chat request, checked before the template sees them."""

from __future__ import annotations

import re
from typing import Any

from gateway.errors import FieldError, UnsupportedFieldError
from gateway.fields import Fields

_ROLES = ("system", "developer", "user", "assistant", "tool")
_FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


def read_messages(fields: Fields) -> list[dict[str, Any]]:
    """`messages` as plain dicts with one string of content each.

    Raises:
        FieldError: naming the message and what is wrong with it.
    """
    values = fields.array("messages")
    if not values:
        raise FieldError(
            "messages", "messages must have at least one message", code="missing_required_parameter"
        )
    return [_message(value, f"messages[{index}]") for index, value in enumerate(values)]


def read_tools(fields: Fields) -> list[dict[str, Any]]:
    """`tools`, unchanged once checked.

    Raises:
        FieldError: naming the tool and what is wrong with it.
    """
    tools = fields.array("tools")
    for index, value in enumerate(tools):
        path = f"tools[{index}]"
        tool = _object(value, path)
        if tool.string("type") != "function":
            raise UnsupportedFieldError(f"{path}.type", f"{path}.type must be 'function'")
        function = Fields(tool.mapping("function"), f"{path}.function")
        _function_name(function)
        function.string("description", "")
        function.mapping("parameters")
        if function.boolean("strict", False):
            raise UnsupportedFieldError(
                f"{path}.function.strict", "strict tool schemas are not supported"
            )
    return tools


def _message(value: object, path: str) -> dict[str, Any]:
    fields = _object(value, path)
    role = fields.string("role")
    if role not in _ROLES:
        raise FieldError(
            f"{path}.role",
            f"{path}.role must be one of {', '.join(_ROLES)}, not {role[:40]!r}",
            code="invalid_value",
        )
    message: dict[str, Any] = {"role": "system" if role == "developer" else role}
    if fields.given("name"):
        message["name"] = fields.string("name")
    if role == "assistant":
        _assistant(fields, message)
    if role == "tool":
        message["tool_call_id"] = fields.string("tool_call_id")
    # An assistant may have said nothing: it called tools, or its answer was cut off in thought.
    silent = role == "assistant" and not fields.given("content")
    message["content"] = "" if silent else _content(fields)
    fields.refuse_unknown()
    return message


def _assistant(fields: Fields, message: dict[str, Any]) -> None:
    # What the SDK writes back when a reply is put into the history as it came.
    fields.ignore(("annotations",))
    for field in ("audio", "function_call", "refusal"):
        if fields.given(field):
            raise UnsupportedFieldError(
                fields.name(field), f"{fields.name(field)} is not supported"
            )
    # Both names are in use among clients.
    thoughts = {
        name: fields.string(name)
        for name in ("reasoning_content", "reasoning")
        if fields.given(name)
    }
    if len(set(thoughts.values())) > 1:
        name = fields.name("reasoning")
        raise FieldError(name, f"{name} and reasoning_content differ: give one")
    for thought in thoughts.values():
        message["reasoning_content"] = thought
    if fields.given("tool_calls"):
        path = fields.name("tool_calls")
        calls = fields.array("tool_calls")
        message["tool_calls"] = [_call(call, f"{path}[{i}]") for i, call in enumerate(calls)]


def _call(value: object, path: str) -> dict[str, Any]:
    fields = _object(value, path)
    fields.ignore(("index",))
    if fields.string("type", "function") != "function":
        raise UnsupportedFieldError(f"{path}.type", f"{path}.type must be 'function'")
    function = Fields(fields.mapping("function"), f"{path}.function")
    call = {
        "id": fields.string("id"),
        "type": "function",
        "function": {
            "name": _function_name(function),
            "arguments": function.string("arguments", ""),
        },
    }
    function.refuse_unknown()
    fields.refuse_unknown()
    return call


def _function_name(function: Fields) -> str:
    name = function.string("name")
    if not _FUNCTION_NAME.fullmatch(name):
        raise FieldError(
            function.name("name"),
            f"{function.name('name')} must be 1 to 64 letters, digits, '_', '-' or '.'",
            code="invalid_value",
        )
    return name


def _content(fields: Fields) -> str:
    value = fields.value("content")
    if isinstance(value, list):
        return "".join(_part(p, f"{fields.name('content')}[{i}]") for i, p in enumerate(value))
    if value is not None and not isinstance(value, str):
        raise fields.wrong("content", "a string or an array of text parts")
    return fields.string("content")


def _part(value: object, path: str) -> str:
    fields = _object(value, path)
    kind = fields.string("type")
    if kind != "text":
        raise UnsupportedFieldError(
            f"{path}.type", f"{path}: content of type {kind[:40]!r} is not supported, only 'text'"
        )
    fields.ignore(("cache_control",))
    text = fields.string("text", "")
    fields.refuse_unknown()
    return text


def _object(value: object, path: str) -> Fields:
    if not isinstance(value, dict):
        raise FieldError(path, f"{path} must be an object", code="invalid_type")
    return Fields(value, path)
