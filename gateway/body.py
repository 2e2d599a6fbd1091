"""The bytes of an HTTP request to a JSON object, whatever a client sends."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from starlette.requests import Request

from gateway.errors import TransportError
from wire.errors import InvalidRequestError

# Parsed in a thread, so that other streams do not stall.
_LONG_BODY_BYTES = 500_000
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


async def read_json(request: Request, *, max_bytes: int, max_depth: int) -> dict[str, Any]:
    """The request's JSON object.

    Raises:
        TransportError: wrong content type or encoding, or more than `max_bytes`.
        InvalidRequestError: not UTF-8, not JSON, not an object, or deeper than `max_depth`.
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
        return parse_json(body, max_depth=max_depth)
    return await asyncio.to_thread(parse_json, body, max_depth=max_depth)


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


def parse_json(body: bytes, *, max_depth: int) -> dict[str, Any]:
    """A JSON object, strictly: no NaN, no lone surrogates, a bounded depth.

    Raises:
        InvalidRequestError: with what is wrong and where.
    """
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


def check_depth(body: bytes, max_depth: int) -> None:
    """Refuses JSON that nests deeper, before a recursive parser sees it.

    Raises:
        InvalidRequestError: it does.
    """
    if body.count(b"[") + body.count(b"{") <= max_depth:
        return
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(body):
        mark = match.group()
        if mark in (b"[", b"{"):
            depth += 1
            if depth > max_depth:
                raise InvalidRequestError(f"the body nests deeper than {max_depth} levels")
        elif mark in (b"]", b"}"):
            depth -= 1


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
