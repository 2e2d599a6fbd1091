"""The controller's own settings, from the config and the blueprint."""

from __future__ import annotations

from cluster.autoscale import Autoscaler
from cluster.blueprint import Blueprint
from cluster.config import ClusterConfig
from cluster.rules import Pace, Rules


def rules_of(blueprint: Blueprint) -> Rules:
    """What the controller's mind goes by."""
    config = blueprint.config
    balance = config.rebalance
    return Rules(
        misses=config.controller.misses,
        start_timeout_s=config.controller.start_timeout_s,
        strict=config.exactness == "strict",
        redundant=config.experts.redundant_experts,
        expert_bytes=blueprint.expert_bytes,
        memory_bytes=int(config.experts.memory_gb * 1e9) or None,
        bandwidth=config.planner.expert_gbps * 1e9,
        router_drain_s=config.router.timeout_s,
        drain_s=balance.drain_s,
        balance=balance.enabled,
        hysteresis=balance.hysteresis,
        loads_bytes=int(balance.max_load_gb * 1e9) or None,
    )


def pace_of(config: ClusterConfig) -> Pace:
    """How often the controller looks at things."""
    return Pace(
        interval_s=config.controller.health_interval_s,
        timeout_s=config.controller.health_timeout_s,
        weigh_s=config.rebalance.interval_s,
        window_s=config.rebalance.window_s,
    )


def autoscaler_of(config: ClusterConfig) -> Autoscaler | None:
    """None where nobody asks for one."""
    scale = config.experts.autoscale
    if not scale.max:
        return None
    return Autoscaler(
        least=min(scale.min, scale.max),
        most=scale.max,
        target=scale.target,
        down_after_s=scale.down_after_s,
    )
