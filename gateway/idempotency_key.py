"""The `Idempotency-Key` of a request: read from its headers, remembered for a while.

What a client gets for a key is computed anew from key and body (`gateway.identity`), so nothing
need be stored for that. Memory serves only to catch a key that is given to another body, which a
replica can know of the keys that itself has seen.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from http import HTTPStatus

from starlette.datastructures import Headers

from gateway.errors import TransportError

MOST_CHARACTERS = 255
_HEADER = "idempotency-key"
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_BARE = re.compile(r"[!#-~][!-~]*")
_ESCAPED = re.compile(r"\\(.)")
_REMEMBERED = 4096


def read_key(headers: Headers) -> str | None:
    """The key, or None: the request has none.

    It comes as a quoted string, as in the IETF's draft, or bare, as most clients send it; both
    spell the same key.

    Raises:
        TransportError: 400, the header is malformed or there are several.
    """
    values = headers.getlist(_HEADER)
    if not values:
        return None
    if len(values) > 1:
        raise _malformed("there is more than one")
    value = values[0].strip()
    if (quoted := _QUOTED.fullmatch(value)) is not None:
        key = _ESCAPED.sub(r"\1", quoted.group(1))
    elif _BARE.fullmatch(value):
        key = value
    else:
        raise _malformed("send a quoted string, or visible ASCII characters without spaces")
    if not 1 <= len(key) <= MOST_CHARACTERS:
        raise _malformed(f"it must have 1 to {MOST_CHARACTERS} characters, not {len(key)}")
    return key


class SeenKeys:
    """The requests that the last keys of this replica stood for."""

    def __init__(self, most: int = _REMEMBERED) -> None:
        self._most = most
        self._names: OrderedDict[bytes, str] = OrderedDict()

    def take(self, headers: Headers, name: str) -> None:
        """Remembers which request a key stands for; does nothing for headers without one.

        Clients with different credentials may use the same key.

        Args:
            name: of the request, the same for the same path and body.

        Raises:
            TransportError: 422, the key has stood for another request.
        """
        key = read_key(headers)
        if key is None:
            return
        owner = f"{headers.get('authorization', '')}\n{key}".encode()
        place = hashlib.sha256(owner).digest()[:16]
        if self._names.setdefault(place, name) != name:
            raise TransportError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "this Idempotency-Key has been used for another request: a retry must have the "
                "same path and body, a new request a new key",
                code="idempotency_key_reused",
            )
        self._names.move_to_end(place)
        if len(self._names) > self._most:
            self._names.popitem(last=False)


def _malformed(what: str) -> TransportError:
    return TransportError(
        HTTPStatus.BAD_REQUEST,
        f"the Idempotency-Key header is malformed: {what}",
        code="invalid_idempotency_key",
    )
