"""The bytes of an HTTP request to a JSON object, whatever a client sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from itertools import accumulate
from types import MappingProxyType
from typing import Any

from starlette.requests import Request

from gateway.errors import TransportError
from wire.errors import InvalidRequestError

# Longer bodies are parsed in a thread, so that other requests go on between the steps. Within a
# step they do not: the parser keeps Python's lock, so its work is bounded by `max_values`.
_LONG_BODY_BYTES = 500_000
_STEPS: Mapping[int, int] = MappingProxyType({ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1})
_NOT_STRUCTURE = bytes(set(range(256)) - {ord('"'), *_STEPS})


async def read_json(
    request: Request, *, max_bytes: int, max_depth: int, max_values: int
) -> dict[str, Any]:
    """The request's JSON object.

    Raises:
        TransportError: wrong content type or encoding, or more than `max_bytes`.
        InvalidRequestError: not UTF-8, not JSON, not an object, deeper than `max_depth`, or of
            more than `max_values` values.
    """
    content_type = request.headers.get("content-type", "application/json")
    if content_type.split(";")[0].strip().lower() != "application/json":
        raise TransportError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"content type {content_type!r} is not supported: send application/json",
        )
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise TransportError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"content encoding {encoding!r} is not supported: send the body uncompressed",
        )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    body = await _read(request.stream(), max_bytes)
    if len(body) < _LONG_BODY_BYTES:
        return parse_json(body, max_depth=max_depth, max_values=max_values)
    return await asyncio.to_thread(parse_json, body, max_depth=max_depth, max_values=max_values)


async def _read(chunks: AsyncIterator[bytes], max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(body)


def _too_large(max_bytes: int) -> TransportError:
    return TransportError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request body is larger than {max_bytes} bytes"
    )


def parse_json(body: bytes, *, max_depth: int, max_values: int) -> dict[str, Any]:
    """A JSON object, strictly: no NaN, no lone surrogates, bounded depth and number of values.

    Raises:
        InvalidRequestError: with what is wrong and where.
    """
    check_values(body, max_values)
    check_depth(body, max_depth)
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"the body is not UTF-8: bad byte at {error.start}") from error
    except json.JSONDecodeError as error:
        raise InvalidRequestError(
            f"the body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from error
    except ValueError as error:
        raise InvalidRequestError(f"the body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidRequestError("the body must be a JSON object")
    if b"\\u" in body:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidRequestError("the body has an unpaired \\u surrogate") from error
    return value


def check_values(body: bytes, max_values: int) -> None:
    """Refuses JSON of more values, before a parser spends seconds on them.

    Every value but the first follows a comma or an opening bracket. Those within strings are
    counted too: telling them apart would cost what this saves.

    Raises:
        InvalidRequestError: it may have more.
    """
    found = body.count(b",") + body.count(b"[") + body.count(b"{")
    if found > max_values:
        raise InvalidRequestError(
            f"the body has {found} commas and opening brackets, also counting those in texts; "
            f"at most {max_values} are allowed"
        )


def check_depth(body: bytes, max_depth: int) -> None:
    """Refuses JSON that nests deeper, before a recursive parser sees it.

    Raises:
        InvalidRequestError: it does.
    """
    opened = body.count(b"[") + body.count(b"{")
    if opened <= max_depth:
        return
    marks = body.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NOT_STRUCTURE)
    # Joining neighbouring strings leaves everything else outside of strings; what then remains
    # between two quotes is at least one bracket, so there are few pieces to split into.
    brackets = b"".join(marks.replace(b'""', b"").split(b'"')[::2])
    # A parser gives up at the first bracket too many, so no more closing ones matter.
    depths = accumulate(map(_STEPS.__getitem__, brackets[: 2 * opened + 1]))
    if max(depths, default=0) > max_depth:
        raise InvalidRequestError(f"the body nests deeper than {max_depth} levels")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
