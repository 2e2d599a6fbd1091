"""What a request is told when a step of the engine went wrong."""

from __future__ import annotations

from wire.errors import InternalError, OrreryError


def not_finite() -> InternalError:
    return InternalError("what the model computed for this request is not finite")


def step_failed(error: BaseException) -> OrreryError:
    """A typed error as it is, anything else as `InternalError`."""
    if isinstance(error, OrreryError):
        return error
    return InternalError(f"the engine step of this request failed: {error!r}")
