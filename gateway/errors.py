"""Errors as OpenAI's clients know them: one table from our codes to HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from kimi_k2.chat import ChatError
from kimi_k2.errors import ModelError
from wire.errors import ErrorCode, InvalidRequestError, NotFoundError, OrreryError


@dataclass(frozen=True)
class HttpError:
    """status, and OpenAI's `type` and `code`."""

    status: int
    type: str
    code: str | None = None


_INVALID = "invalid_request_error"
_SERVER = "server_error"

_TABLE: Mapping[ErrorCode, HttpError] = MappingProxyType(
    {
        ErrorCode.INVALID_REQUEST: HttpError(400, _INVALID),
        ErrorCode.CONTEXT_LENGTH_EXCEEDED: HttpError(400, _INVALID, "context_length_exceeded"),
        ErrorCode.NOT_FOUND: HttpError(404, _INVALID, "not_found"),
        ErrorCode.BAD_FRAME: HttpError(500, _SERVER, "bad_frame"),
        ErrorCode.EXPERT_NOT_HELD: HttpError(503, _SERVER, "expert_not_held"),
        ErrorCode.STALE_EPOCH: HttpError(503, _SERVER, "stale_epoch"),
        ErrorCode.DRAINING: HttpError(503, _SERVER, "draining"),
        ErrorCode.OVERLOADED: HttpError(429, "rate_limit_error", "overloaded"),
        ErrorCode.DEADLINE_EXCEEDED: HttpError(504, _SERVER, "deadline_exceeded"),
        ErrorCode.UNAVAILABLE: HttpError(503, _SERVER, "unavailable"),
        ErrorCode.EXPERTS_UNAVAILABLE: HttpError(503, _SERVER, "experts_unavailable"),
        ErrorCode.INTERNAL: HttpError(500, _SERVER, "internal_error"),
    }
)


class FieldError(InvalidRequestError):
    """A field of the request body is wrong; `param` names it as OpenAI's errors do."""

    def __init__(self, param: str, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.api_code = code


class UnsupportedFieldError(FieldError):
    """The field is known but what it asks for is not served."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(param, message, code="unsupported_parameter")


class ModelNotFoundError(NotFoundError):
    """No such model here."""


class TransportError(OrreryError):
    """The HTTP request itself is wrong: method, path, headers or size."""

    code = ErrorCode.INVALID_REQUEST

    def __init__(self, status: HTTPStatus, message: str, *, code: str | None = None) -> None:
        """`code`: of the API's error; None: the status's name."""
        super().__init__(message)
        self.status = status
        self.api_code = code or status.name.lower()


def http_error(error: OrreryError | ModelError) -> HttpError:
    """Where the error stands in HTTP."""
    if isinstance(error, TransportError):
        return HttpError(error.status, _INVALID, error.api_code)
    if isinstance(error, ModelNotFoundError):
        return HttpError(404, _INVALID, "model_not_found")
    if isinstance(error, FieldError):
        return HttpError(400, _INVALID, error.api_code)
    if isinstance(error, OrreryError):
        return _TABLE[error.code]
    if isinstance(error, ChatError):
        return HttpError(400, _INVALID, "invalid_messages")
    return _TABLE[ErrorCode.INTERNAL]


def error_body(error: OrreryError | ModelError) -> dict[str, Any]:
    """OpenAI's error object."""
    place = http_error(error)
    param = error.param if isinstance(error, FieldError) else None
    if isinstance(error, ChatError):
        param = "messages"
    message = str(error) or place.code or "error"
    return {"error": {"message": message, "type": place.type, "param": param, "code": place.code}}
