"""How Orrery's processes reach each other: channel and server options in one place."""

from __future__ import annotations

import grpc

from wire.envelope import MAX_FRAME_BYTES

_KEEPALIVE_MS = 10_000
_KEEPALIVE_TIMEOUT_MS = 5_000
_MAX_MESSAGE = MAX_FRAME_BYTES + 1024

_SHARED: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", _MAX_MESSAGE),
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
    # Of every ping; by gRPC's default of a minute, what is frozen would be waited for so long.
    ("grpc.http2.ping_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    *_SHARED,
    # Workers are addressed directly; a proxy from the environment would only break that.
    ("grpc.enable_http_proxy", 0),
    # A pool of its own gives each channel its own reconnect clock: a worker that came back is
    # not kept waiting by the backoff that another channel to the same address had built up.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *_SHARED,
    ("grpc.http2.min_ping_interval_without_data_ms", _KEEPALIVE_MS // 2),
    ("grpc.http2.max_ping_strikes", 0),
    # Two servers on one port would share its connections; the second shall fail to bind.
    ("grpc.so_reuseport", 0),
)


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to `host:port`; connects on first use."""
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


def new_server() -> grpc.aio.Server:
    """A server without services or ports."""
    return grpc.aio.server(options=SERVER_OPTIONS)
