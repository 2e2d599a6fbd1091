"""Error codes and gRPC statuses: one mapping each way.

Several codes share a status, so the exact code also travels in the trailing metadata; a peer
that is not Orrery, or a connection that broke, has only its status.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import grpc

from wire.errors import ErrorCode, OrreryError, error_for

CODE_KEY = "orrery-error-code"

_TO_STATUS: Mapping[ErrorCode, grpc.StatusCode] = MappingProxyType(
    {
        ErrorCode.INVALID_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
        ErrorCode.CONTEXT_LENGTH_EXCEEDED: grpc.StatusCode.OUT_OF_RANGE,
        ErrorCode.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        ErrorCode.BAD_FRAME: grpc.StatusCode.INVALID_ARGUMENT,
        ErrorCode.EXPERT_NOT_HELD: grpc.StatusCode.FAILED_PRECONDITION,
        ErrorCode.STALE_EPOCH: grpc.StatusCode.ABORTED,
        ErrorCode.DRAINING: grpc.StatusCode.UNAVAILABLE,
        ErrorCode.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        ErrorCode.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
        ErrorCode.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        ErrorCode.EXPERTS_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        ErrorCode.INTERNAL: grpc.StatusCode.INTERNAL,
    }
)

_FROM_STATUS: Mapping[grpc.StatusCode, ErrorCode] = MappingProxyType(
    {
        grpc.StatusCode.INVALID_ARGUMENT: ErrorCode.INVALID_REQUEST,
        grpc.StatusCode.OUT_OF_RANGE: ErrorCode.CONTEXT_LENGTH_EXCEEDED,
        grpc.StatusCode.NOT_FOUND: ErrorCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION: ErrorCode.EXPERT_NOT_HELD,
        grpc.StatusCode.ABORTED: ErrorCode.STALE_EPOCH,
        grpc.StatusCode.RESOURCE_EXHAUSTED: ErrorCode.OVERLOADED,
        grpc.StatusCode.DEADLINE_EXCEEDED: ErrorCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNAVAILABLE: ErrorCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED: ErrorCode.UNAVAILABLE,
    }
)


def status_of(code: ErrorCode) -> grpc.StatusCode:
    return _TO_STATUS[code]


def code_of(status: grpc.StatusCode) -> ErrorCode:
    """The code for a status alone; `internal` for those we never send."""
    return _FROM_STATUS.get(status, ErrorCode.INTERNAL)


def error_of(failure: grpc.aio.AioRpcError) -> OrreryError:
    """The typed error for a failed call: by its metadata if Orrery sent it, else its status."""
    metadata: Any = failure.trailing_metadata()
    for key, value in metadata or ():
        if key == CODE_KEY:
            text = value.decode(errors="replace") if isinstance(value, bytes) else value
            return error_for(text, failure.details() or text)
    code = code_of(failure.code())
    return error_for(code, failure.details() or code)
