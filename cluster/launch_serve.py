"""Orrery as an application that Ray Serve deploys from a config, e.g. as KubeRay's RayService does.

Nobody runs `orrery serve` there: Ray and Serve are up, and Serve builds the application that
`import_path: cluster.launch_serve:app` names. Building it starts the fleet.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError

from cluster.blueprint import draw
from cluster.config_reader import load_config, to_tree
from cluster.errors import ConfigError, StartError
from cluster.home import home
from cluster.ingress.launch import gateway_app
from cluster.launch_shared import controller_actor

_POLL_S = 0.5
_ANSWER_S = 30.0

_log = logging.getLogger("ray.serve")


def app(args: Mapping[str, str]) -> serve.Application:
    """The gateway, once the controller has brought up every member: Serve calls the application
    running no earlier, so whoever switches traffic to this cluster switches to one that answers.

    Waits without bound, as for a node that an autoscaler still has to buy. Deploying again, with
    the same config file, finds the fleet and leaves it alone.

    Args:
        args: `config`, the path of a YAML file that every node has; nothing else.

    Raises:
        ConfigError: args or file cannot be served as written, or the file joins no Ray cluster.
        StartError: a fleet of another config runs here.
    """
    if set(args) != {"config"}:
        raise ConfigError(f"`args` must hold `config` and nothing else, got {sorted(args)}")
    config = load_config(Path(args["config"]), {})
    if not config.ray.address:
        raise ConfigError("`ray.address` must be `auto` where Ray Serve deploys orrery")
    blueprint = draw(config)
    controller = controller_actor(join=True).remote(blueprint, home().journal)

    def ask(page: str) -> dict[str, Any]:
        found: dict[str, Any] = ray.get(getattr(controller, page).remote(), timeout=_ANSWER_S)
        return found

    wait_until_ready(ask, to_tree(config))
    return gateway_app(blueprint)


def wait_until_ready(ask: Callable[[str], dict[str, Any]], wanted: dict[str, Any]) -> None:
    """Returns when every member is ready, and logs what it waits for.

    Args:
        ask: the controller's `config` or `status`.
        wanted: the config that it is to have.

    Raises:
        StartError: it has another one.
    """
    said = ""
    while True:
        try:
            if ask("config") != wanted:
                raise StartError(
                    "a fleet with another config runs on this Ray cluster; end it with "
                    "`orrery stop --ray-address auto`, or start a new cluster as a RayService does"
                )
            status = ask("status")
        except RayError as error:
            # Ray starts the controller again.
            news = f"the controller does not answer: {str(error).strip().splitlines()[-1]}"
        else:
            if status["state"] == "ready":
                return
            news = _account(status)
        if news != said:
            _log.info("orrery: %s", news)
            said = news
        time.sleep(_POLL_S)


def _account(status: dict[str, Any]) -> str:
    waiting = [
        f"{process['id']} {process['state']}" + (f" ({process['error']})" * bool(process["error"]))
        for process in status["processes"]
        if process["state"] != "ready"
    ]
    return f"{status['state']}: {', '.join(waiting) or 'all members are ready'}"
