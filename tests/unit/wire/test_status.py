"""Each error code has one status, and comes back as itself."""

from __future__ import annotations

import grpc
import pytest

from wire.errors import ErrorCode, error_for
from wire.status import CODE_KEY, code_of, error_of, status_of


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_code_has_a_status_and_survives_in_metadata(code: ErrorCode) -> None:
    status = status_of(code)
    assert status is not grpc.StatusCode.OK
    trailing = grpc.aio.Metadata((CODE_KEY, str(code)))
    failure = grpc.aio.AioRpcError(status, grpc.aio.Metadata(), trailing, details="why")
    error = error_of(failure)
    assert error.code == code and str(error) == "why"


@pytest.mark.parametrize("status", [s for s in grpc.StatusCode if s is not grpc.StatusCode.OK])
def test_every_status_alone_is_a_typed_error(status: grpc.StatusCode) -> None:
    failure = grpc.aio.AioRpcError(status, grpc.aio.Metadata(), grpc.aio.Metadata(), details="")
    error = error_of(failure)
    assert error.code == code_of(status)


def test_a_lost_connection_is_unavailable() -> None:
    assert code_of(grpc.StatusCode.UNAVAILABLE) is ErrorCode.UNAVAILABLE
    assert code_of(grpc.StatusCode.UNKNOWN) is ErrorCode.INTERNAL


def test_an_unknown_code_becomes_internal() -> None:
    assert error_for("from the future", "x").code is ErrorCode.INTERNAL
