"""How members are set up: the cluster's config turned into their own configs and Ray's options."""

from __future__ import annotations

from typing import Any

from cluster.blueprint import Blueprint
from cluster.config import ClusterConfig, ExpertsSection, RouterSection
from cluster.fleet import Member, Role
from experts_service.config import WorkerConfig
from router_service.config import RouterConfig

# Ray shows GPUs to an actor that reserves any of one, however little.
_ANY_GPU = 0.001


def worker_config(blueprint: Blueprint, member: Member) -> WorkerConfig:
    """What an expert worker is told."""
    experts = blueprint.config.experts
    return WorkerConfig(
        worker_id=member.member_id,
        model=blueprint.model_dir,
        listen=f"{blueprint.listen}:0",
        metrics_listen=f"{blueprint.metrics_listen}:0",
        experts=member.experts,
        device=experts.device,
        dtype=experts.dtype,
        threads=experts.threads,
    )


def router_config(blueprint: Blueprint, router_id: str) -> RouterConfig:
    """What a router is told."""
    router = blueprint.config.router
    return RouterConfig(
        router_id=router_id,
        model=blueprint.model_dir,
        listen=f"{blueprint.listen}:0",
        metrics_listen=f"{blueprint.metrics_listen}:0",
        device=router.device,
        dtype=router.dtype,
        threads=router.threads,
        experts="remote",
        max_running=router.max_running,
        max_waiting=router.max_waiting,
        kv_blocks=router.kv_blocks,
        prefill_chunk=router.prefill_chunk,
        micro_batches=router.micro_batches,
        max_model_len=router.max_model_len or None,
        prefix_cache=router.prefix_cache,
        timeout_s=router.timeout_s,
        park_timeout_s=router.park_timeout_s,
    )


def actor_options(role: Role, config: ClusterConfig) -> dict[str, Any]:
    """The resources that one member reserves in Ray."""
    section: RouterSection | ExpertsSection = (
        config.router if role is Role.ROUTER else config.experts
    )
    if section.device == "cpu":
        return {"num_cpus": section.threads}
    return {"num_cpus": section.threads, "num_gpus": section.gpus or _ANY_GPU}


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
    return experts.workers * experts.threads + router.replicas * router.threads + gateways + 1


def reachable(address: str, host: str) -> str:
    """An address that others can connect to: a wildcard host is replaced by the node's own.

    >>> reachable("0.0.0.0:5000", "10.0.0.7")
    '10.0.0.7:5000'
    """
    bound, _, port = address.rpartition(":")
    return f"{host}:{port}" if host and bound in ("0.0.0.0", "[::]", "") else address
