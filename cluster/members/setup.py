"""How members are set up: the cluster's config turned into their own configs and Ray's options."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, get_args

from cluster.blueprint import Blueprint
from cluster.config import ClusterConfig, ExpertsSection, RouterSection
from cluster.fleet import Member, Role
from experts_service.config import WorkerConfig
from router_service.config import RouterConfig
from router_service.dispatch_options import DispatchOptions
from wire.carriers.carrier import CarrierChoice

# Ray shows GPUs to an actor that reserves any of one, however little.
_ANY_GPU = 0.001
_NODE_ID = "ray.io/node-id"


def worker_config(blueprint: Blueprint, member: Member, *, polite: bool = False) -> WorkerConfig:
    """What an expert worker is told."""
    experts = blueprint.config.experts
    return WorkerConfig(
        worker_id=member.member_id,
        model=blueprint.model_dir,
        listen=f"{blueprint.listen}:{experts.port}",
        metrics_listen=f"{blueprint.metrics_listen}:{experts.metrics_port}",
        experts=member.experts,
        device=experts.device,
        dtype=experts.dtype,
        threads=experts.threads,
        carrier=_carrier(experts),
        polite=polite,
    )


def router_config(blueprint: Blueprint, router_id: str, *, polite: bool = False) -> RouterConfig:
    """What a router is told."""
    router = blueprint.config.router
    return RouterConfig(
        router_id=router_id,
        model=blueprint.model_dir,
        listen=f"{blueprint.listen}:{router.port}",
        metrics_listen=f"{blueprint.metrics_listen}:{router.metrics_port}",
        device=router.device,
        dtype=router.dtype,
        threads=router.threads or None,
        experts="remote",
        max_running=router.max_running,
        max_waiting=router.max_waiting,
        kv_blocks=router.kv_blocks,
        prefill_chunk=router.prefill_chunk,
        micro_batches=blueprint.micro_batches,
        max_model_len=router.max_model_len or None,
        prefix_cache=router.prefix_cache,
        timeout_s=router.timeout_s,
        park_timeout_s=router.park_timeout_s,
        carrier=_carrier(blueprint.config.experts),
        dispatch=DispatchOptions(**dataclasses.asdict(router.dispatch)),
        polite=polite,
    )


def _carrier(experts: ExpertsSection) -> CarrierChoice:
    return next(choice for choice in get_args(CarrierChoice) if choice == experts.carrier)


def actor_options(role: Role, config: ClusterConfig) -> dict[str, Any]:
    """What one member reserves in Ray, and where it may be."""
    section: RouterSection | ExpertsSection = (
        config.router if role is Role.ROUTER else config.experts
    )
    options: dict[str, Any] = {"num_cpus": max(1, section.threads)}
    if section.device != "cpu":
        options["num_gpus"] = section.gpus or _ANY_GPU
    if role is Role.ROUTER and section.nodes:
        # Expert workers go where their placement group's bundles are.
        options["label_selector"] = labels(section.nodes)
    return options


def further_member(role: Role, config: ClusterConfig, avoid: Collection[str]) -> dict[str, Any]:
    """Options, besides `actor_options`, of a member that is not among the planned ones: a spare, a
    worker that scaling has added, a router that takes over from another. They have no bundle, but
    are spread over the nodes too.

    A private Ray reserves nothing for them: nobody else competes for its processors.
    """
    section = config.router if role is Role.ROUTER else config.experts
    selector = labels(section.nodes)
    if avoid:
        selector[_NODE_ID] = f"!in({','.join(sorted(avoid))})"
    options: dict[str, Any] = {"scheduling_strategy": "SPREAD"}
    if not config.ray.address:
        options["num_cpus"] = 0
    if selector:
        options["label_selector"] = selector
    return options


def labels(nodes: str) -> dict[str, str]:
    """Ray's label selector for a config's `nodes`.

    >>> labels("zone=a")
    {'zone': 'a'}
    """
    key, _, value = nodes.partition("=")
    return {key: value} if nodes else {}


def at_most_one_a_node(section: RouterSection | ExpertsSection) -> bool:
    """Whether members of this kind listen on fixed ports, which two on a node could not share."""
    return bool(section.port or section.metrics_port)


def bundle(config: ClusterConfig) -> dict[str, float]:
    """One expert worker's resources, in a placement group's words."""
    options = actor_options(Role.EXPERT, config)
    resources = {"CPU": float(options["num_cpus"])}
    if "num_gpus" in options:
        resources["GPU"] = float(options["num_gpus"])
    return resources


def processors(config: ClusterConfig) -> int:
    """Processors that all members reserve; a private Ray is told it has as many, since on a small
    machine members share processors and Ray must not refuse to place them."""
    experts, router = config.experts, config.router
    gateways = config.gateway.replicas
    routers = router.replicas * max(1, router.threads)
    return experts.workers * experts.threads + routers + gateways + 1


def reachable(address: str, host: str) -> str:
    """An address that others can connect to: a wildcard host is replaced by the node's own.

    >>> reachable("0.0.0.0:5000", "10.0.0.7")
    '10.0.0.7:5000'
    """
    bound, _, port = address.rpartition(":")
    return f"{host}:{port}" if host and bound in ("0.0.0.0", "[::]", "") else address
