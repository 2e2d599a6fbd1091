"""What the ways of starting orrery share: the controller's actor, and a life on others' Ray."""

from __future__ import annotations

import logging
import sys
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.actor import CONTROLLER, ControllerActor
from cluster.errors import NotRunningError, StartError
from cluster.ingress.launch import NAMESPACE_OF_SERVE, stop_gateway
from cluster.members.actor import NAMESPACE, sweep

_STOP_S = 12.0
_CONTROLLER_CALLS = 16
_HEAD = {"node:__internal_head__": 0.001}


def controller_actor(*, join: bool = False) -> Any:
    """The controller's actor, on the head and outliving whoever starts it: call `.remote` on it.

    Args:
        join: take the one that runs, if there is one; else Ray raises ValueError.
    """
    return ControllerActor.options(
        name=CONTROLLER,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=join,
        num_cpus=0,
        resources=_HEAD,
        max_restarts=-1,
        max_concurrency=_CONTROLLER_CALLS,
    )


def refuse_others(address: str) -> None:
    """Called before anything is started on a cluster that was joined.

    Raises:
        StartError: an orrery runs there already, or Serve does, whose HTTP options and end we
            would then share with somebody.
    """
    actors = ray.util.list_named_actors(all_namespaces=True)
    if any(a["namespace"] == NAMESPACE and a["name"] == CONTROLLER for a in actors):
        raise StartError(already_runs(address))
    if any(a["namespace"] == NAMESPACE_OF_SERVE for a in actors):
        raise StartError(
            f"the Ray cluster at {address} already runs Ray Serve; orrery needs a cluster whose "
            "Serve is its own: end the other with `serve shutdown`, or join another cluster"
        )


def already_runs(address: str) -> str:
    """What to say and do when there is one."""
    return (
        f"the Ray cluster at {address or 'this machine'} already runs an orrery; end it with "
        f"`orrery stop` where it was started, or with `orrery stop --ray-address {address}` if "
        "nothing is left there"
    )


def take_down(controller: Any, *, joined: bool) -> None:
    """Ends members, controller and gateway. The members first: Serve may take its time, and who
    waits for us does so only for a while."""
    if controller is not None:
        try:
            ray.get(controller.stop.remote(), timeout=_STOP_S)
        except RayError as error:
            print(f"the controller did not stop by itself: {error}", file=sys.stderr)
        ray.kill(controller)
    sweep()
    stop_gateway(joined=joined)


def end_orrery(address: str) -> None:
    """Ends the orrery of a Ray cluster whose own `orrery serve` is gone.

    Raises:
        StartError: there is no such cluster.
        NotRunningError: it runs no orrery.
    """
    try:
        ray.init(
            address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise StartError(f"cannot join Ray at {address}: {error}") from error
    try:
        actors = ray.util.list_named_actors(all_namespaces=True)
        ours = {a["name"] for a in actors if a["namespace"] == NAMESPACE}
        if not ours:
            raise NotRunningError(f"the Ray cluster at {address} runs no orrery")
        controller = ray.get_actor(CONTROLLER, namespace=NAMESPACE) if CONTROLLER in ours else None
        take_down(controller, joined=True)
    finally:
        ray.shutdown()
