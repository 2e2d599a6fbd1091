"""The error tree of everything that crosses a process boundary.

Each error has one `code`; a code maps once to a gRPC status (`wire.status`) and once to an
HTTP status (`gateway.errors`).
"""

from __future__ import annotations

import enum


class ErrorCode(enum.StrEnum):
    INVALID_REQUEST = "invalid_request"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    NOT_FOUND = "not_found"
    BAD_FRAME = "bad_frame"
    EXPERT_NOT_HELD = "expert_not_held"
    STALE_EPOCH = "stale_epoch"
    DRAINING = "draining"
    OVERLOADED = "overloaded"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    UNAVAILABLE = "unavailable"
    EXPERTS_UNAVAILABLE = "experts_unavailable"
    INTERNAL = "internal"


class OrreryError(Exception):
    """Base of every error that has a place on the wire."""

    code = ErrorCode.INTERNAL


class InvalidRequestError(OrreryError):
    """The caller's fault: a value that can never be served."""

    code = ErrorCode.INVALID_REQUEST


class ContextLengthExceededError(InvalidRequestError):
    code = ErrorCode.CONTEXT_LENGTH_EXCEEDED


class NotFoundError(OrreryError):
    code = ErrorCode.NOT_FOUND


class BadFrameError(OrreryError):
    """A dispatch frame that is malformed; nobody else's request is touched."""

    code = ErrorCode.BAD_FRAME


class ExpertNotHeldError(OrreryError):
    """The worker does not hold an expert that a frame names: the placement is out of date."""

    code = ErrorCode.EXPERT_NOT_HELD


class StaleEpochError(OrreryError):
    """A placement or command of an epoch below the highest one seen."""

    code = ErrorCode.STALE_EPOCH


class DrainingError(OrreryError):
    code = ErrorCode.DRAINING


class OverloadedError(OrreryError):
    """Admission limits reached; the same request may succeed later."""

    code = ErrorCode.OVERLOADED


class DeadlineExceededError(OrreryError):
    code = ErrorCode.DEADLINE_EXCEEDED


class UnavailableError(OrreryError):
    """The peer cannot be reached or went away."""

    code = ErrorCode.UNAVAILABLE


class ExpertsUnavailableError(OrreryError):
    """An expert had no live copy for longer than the bound."""

    code = ErrorCode.EXPERTS_UNAVAILABLE


class InternalError(OrreryError):
    code = ErrorCode.INTERNAL


def error_for(code: str, message: str) -> OrreryError:
    """The typed error for a code that came over the wire; unknown codes become `InternalError`."""
    for cls in _descendants(OrreryError):
        if cls.code == code:
            return cls(message)
    return InternalError(f"{code}: {message}")


def _descendants(cls: type[OrreryError]) -> list[type[OrreryError]]:
    direct = cls.__subclasses__()
    return direct + [leaf for sub in direct for leaf in _descendants(sub)]
