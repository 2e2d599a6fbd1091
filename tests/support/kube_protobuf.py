"""What `kubectl create` writes of a Namespace or a Secret."""

from __future__ import annotations

import base64
from typing import Any


def from_protobuf(message: bytes) -> dict[str, Any]:
    """A Namespace or a Secret: type, name, data."""
    outer = dict(_fields(message))
    kind, raw = dict(_fields(outer[1])), _fields(outer[2])
    item: dict[str, Any] = {
        "apiVersion": kind[1].decode(),
        "kind": kind[2].decode(),
        "metadata": {"name": dict(_fields(dict(raw)[1]))[1].decode()},
    }
    if item["kind"] == "Secret":
        entries = [dict(_fields(value)) for number, value in raw if number == 2]
        item["data"] = {e[1].decode(): base64.b64encode(e[2]).decode() for e in entries}
    return item


def _fields(message: bytes) -> list[tuple[int, bytes]]:
    """The numbers and bytes of a message's fields; those that are no bytes are left out."""
    found, at = [], 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = varint()
        size = varint()
        if tag & 7 == 2:
            found.append((tag >> 3, message[at : at + size]))
            at += size
    return found
