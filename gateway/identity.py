"""What an answer has besides what its request says: its name, its seed, its time.

By the exactness rules an answer's tokens are a function of its request and its seed. Where these
three follow from the request's `Idempotency-Key` and body, a retry gets the same answer byte for
byte at any replica of the gateway, also at one that has just started, and nobody stores anything.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SEED_BITS = 63


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One answer's.

    name: 32 hexadecimal digits.
    seed: for a request that brings none.
    created: unix time; 0 where a retry has to get the same, since nobody then knows the first one.
    repeatable: made from a key, so that the answer must not depend on time or on other requests.
    """

    name: str
    seed: int
    created: int
    repeatable: bool

    @classmethod
    def drawn(cls) -> Identity:
        """One of its own."""
        return cls(
            name=uuid.uuid4().hex,
            seed=secrets.randbits(_SEED_BITS),
            created=int(time.time()),
            repeatable=False,
        )

    @classmethod
    def derived(cls, key: str, path: str, body: Mapping[str, Any]) -> Identity:
        """The same for the same arguments, here and elsewhere, today and later.

        Bodies are the same if they are as JSON; the order of their fields does not matter.
        """
        text = json.dumps([key, path, body], sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).digest()
        return cls(
            name=digest[:16].hex(),
            seed=int.from_bytes(digest[16:24], "little") >> (64 - _SEED_BITS),
            created=0,
            repeatable=True,
        )
