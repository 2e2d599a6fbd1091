"""The body of `/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import FieldError, UnsupportedFieldError
from gateway.fields import Fields
from gateway.messages import read_messages, read_tools
from gateway.sampling import Sampling, SamplingDefaults, read_sampling, read_top_logprobs

# They label, route, bill or cache; the answer is the same without them.
HARMLESS = (
    "metadata",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
)
_UNSUPPORTED = (
    "audio",
    "function_call",
    "functions",
    "moderation",
    "prediction",
    "verbosity",
    "web_search_options",
)
_OWN_VARIABLES = ("messages", "tools", "add_generation_prompt")


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How answers go out, in both APIs."""

    n: int
    stream: bool
    include_usage: bool


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A checked chat request.

    tools: what the model is shown; empty with tool_choice none.
    thinking: None: as the template has it.
    variables: further variables of the template.
    logprobs: whether the answer shows log probabilities.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    thinking: bool | None
    variables: Mapping[str, Any]
    sampling: Sampling
    delivery: Delivery
    logprobs: bool


def read_chat_request(
    body: Mapping[str, Any],
    defaults: SamplingDefaults,
    *,
    vocab_size: int,
    max_choices: int,
    seed: int,
) -> ChatRequest:
    """Raises:
    FieldError: a field is wrong, unknown, or asks for what is not served.
    """
    fields = Fields(body)
    fields.string("model")
    messages = read_messages(fields)
    tools = read_tools(fields)
    if not _tools_allowed(fields):
        tools = []
    thinking, variables = _template_variables(fields)
    logprobs = fields.boolean("logprobs", False)
    if fields.given("top_logprobs") and not logprobs:
        raise FieldError("top_logprobs", "top_logprobs needs logprobs to be true")
    top = read_top_logprobs(fields, "top_logprobs")
    sampling = read_sampling(
        fields, defaults, vocab_size=vocab_size, logprobs=top if logprobs else None, seed=seed
    )
    delivery = read_delivery(fields, max_choices)
    _refuse_unsupported(fields)
    fields.ignore(HARMLESS)
    fields.refuse_unknown()
    return ChatRequest(
        messages=messages,
        tools=tools,
        thinking=thinking,
        variables=variables,
        sampling=sampling,
        delivery=delivery,
        logprobs=logprobs,
    )


def read_delivery(fields: Fields, max_choices: int) -> Delivery:
    """`n`, `stream` and `stream_options`.

    Raises:
        FieldError: one of them is wrong.
    """
    stream = fields.boolean("stream", False)
    options = Fields(fields.mapping("stream_options"), "stream_options")
    if fields.given("stream_options") and not stream:
        raise FieldError("stream_options", "stream_options needs stream to be true")
    include_usage = options.boolean("include_usage", False)
    options.ignore(("include_obfuscation",))
    options.refuse_unknown()
    return Delivery(
        n=fields.integer("n", 1, low=1, high=max_choices),
        stream=stream,
        include_usage=include_usage,
    )


def _tools_allowed(fields: Fields) -> bool:
    choice = fields.value("tool_choice")
    if choice in (None, "auto", "none"):
        return bool(choice != "none")
    raise UnsupportedFieldError(
        "tool_choice", "tool_choice must be 'auto' or 'none': forcing a call is not supported"
    )


def _template_variables(fields: Fields) -> tuple[bool | None, dict[str, Any]]:
    """`thinking` (true, false, or `{"type": "enabled" | "disabled"}`) or the same in
    `chat_template_kwargs`, with whatever else the template knows."""
    variables = dict(fields.mapping("chat_template_kwargs"))
    for name in _OWN_VARIABLES:
        if name in variables:
            param = f"chat_template_kwargs.{name}"
            raise FieldError(param, f"{param} is set from the request itself")
    thinking = variables.pop("thinking", None)
    if thinking is not None and not isinstance(thinking, bool):
        param = "chat_template_kwargs.thinking"
        raise FieldError(param, f"{param} must be true or false", code="invalid_type")
    value = fields.value("thinking")
    if isinstance(value, dict) and value.get("type") in ("enabled", "disabled"):
        value = value["type"] == "enabled"
    if value is not None and not isinstance(value, bool):
        raise FieldError(
            "thinking",
            "thinking must be true, false, or {'type': 'enabled' or 'disabled'}",
            code="invalid_type",
        )
    if thinking is not None and value is not None and value != thinking:
        raise FieldError("thinking", "thinking and chat_template_kwargs.thinking differ: give one")
    return (thinking if value is None else value), variables


def _refuse_unsupported(fields: Fields) -> None:
    for field in _UNSUPPORTED:
        if fields.given(field):
            raise UnsupportedFieldError(field, f"{field} is not supported")
    response_format = fields.mapping("response_format")
    if response_format and response_format != {"type": "text"}:
        raise UnsupportedFieldError("response_format", "only response_format 'text' is supported")
    if fields.value("modalities") not in (None, ["text"]):
        raise UnsupportedFieldError("modalities", "only the modality 'text' is supported")
    if not fields.boolean("parallel_tool_calls", True):
        raise UnsupportedFieldError(
            "parallel_tool_calls", "parallel_tool_calls cannot be switched off"
        )
    if fields.given("reasoning_effort"):
        raise UnsupportedFieldError(
            "reasoning_effort", "reasoning_effort is not supported: use thinking: true or false"
        )
