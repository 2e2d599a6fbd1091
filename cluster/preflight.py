"""What is checked before anything starts, so that a mistake costs a second and no process."""

from __future__ import annotations

import socket

from cluster.blueprint import Blueprint, draw
from cluster.config import ClusterConfig
from cluster.errors import ConfigError, PreflightError
from kimi_k2.errors import ModelError


def check_request(config: ClusterConfig) -> Blueprint:
    """The blueprint of what is asked for, once its ports are known to be free. Takes milliseconds.

    Raises:
        ConfigError: what is asked for is impossible.
        PreflightError: a port is taken.
    """
    blueprint = draw(config)
    check_port(config.http.host, config.http.port, "--port or `http.port`")
    if config.controller.port:
        check_port(config.controller.host, config.controller.port, "`controller.port`")
    return blueprint


def check_model(blueprint: Blueprint) -> None:
    """Reads the checkpoint's headers: every tensor there, whole, of the right shape and type.

    Raises:
        PreflightError: the checkpoint is damaged.
    """
    # torch takes seconds to import; mistakes in the request are told without waiting for it.
    from kimi_k2.checkpoint import Checkpoint

    try:
        Checkpoint(blueprint.model_dir).check()
    except ModelError as error:
        raise PreflightError(
            f"the checkpoint in {blueprint.model_dir} cannot be served: {error}"
        ) from error


def check_port(host: str, port: int, key: str) -> None:
    """Binds the port for a moment.

    Raises:
        PreflightError: it is taken.
        ConfigError: the host is none of this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise ConfigError(f"cannot find the address {host!r}: {error}") from error
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        # As servers do: a port whose last connections only linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen()
        except OSError as error:
            raise PreflightError(
                f"cannot listen on {host}:{port}: {error.strerror}; "
                f"choose another with {key}, or end what uses it"
            ) from error
