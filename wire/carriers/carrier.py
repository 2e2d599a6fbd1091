"""What every carrier of dispatch messages can do.

The gRPC Dispatch stream is always there: for liveness, for its status, and as the carrier that
works everywhere.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from wire.envelope import Message

CarrierChoice: TypeAlias = Literal["auto", "inline", "local"]
"""auto: local where the peers share a host, else inline. inline, local: that one or none."""

INLINE, LOCAL = "inline", "local"


class CarrierError(Exception):
    """The wanted carrier cannot be had; the stream can still carry everything."""


class Carrier(Protocol):
    """The sending half; what is received goes to a callback that the carrier was made with."""

    @property
    def name(self) -> str: ...

    def put(self, message: Message) -> None:
        """Sends the message, after those put before; does nothing after `close`."""
        ...

    def close(self) -> None:
        """Sends nothing more, and calls back for nothing more."""
        ...
