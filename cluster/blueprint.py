"""What is to run, settled before anything starts: config and model made into a plan and ids."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.config import ClusterConfig
from cluster.errors import ConfigError
from cluster.planner import CostModel, ModelShape, Plan, WorkerSpec, choose_in_flight
from cluster.planner import plan as make_plan
from cluster.recorded_loads import read_loads
from kimi_k2.config import ModelConfig
from kimi_k2.errors import ModelError
from kimi_k2.expert_size import expert_nbytes
from router_service.config import EngineConfig

_EMBEDDED = Path("models") / "nano-k2"
# Where processes run is up to Ray: the planner takes those of one machine together, or none.
_NODE = ""
_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """model_dir: absolute. listen: host that members bind. micro_batches: of each router.
    expert_bytes: of one expert's weights, as workers hold them."""

    config: ClusterConfig
    model_dir: Path
    model_name: str
    plan: Plan
    micro_batches: int
    workers: tuple[str, ...]
    routers: tuple[str, ...]
    listen: str
    metrics_listen: str
    expert_bytes: int


def draw(
    config: ClusterConfig, loads: Path | None = None, domains: Sequence[str] = ()
) -> Blueprint:
    """The blueprint of a config.

    Args:
        loads: a file of recorded loads to plan for, and those of its domains that count; see
            `cluster.recorded_loads`. None: all experts are equal.

    Raises:
        ConfigError: the model directory is missing or not one, no placement is possible, or the
            loads are not the model's.
    """
    model_dir = find_model(config.model.path)
    try:
        model = ModelConfig.from_dir(model_dir)
    except ModelError as error:
        raise ConfigError(str(error)) from error
    workers = tuple(f"expert-{number}" for number in range(config.experts.workers))
    shape = shape_of(model, config)
    load = None if loads is None else read_loads(loads, model, domains)
    in_flight, plan = _planned(shape, workers, config, load)
    listen = config.ray.listen
    if listen == "auto":
        listen = "0.0.0.0" if config.ray.address else "127.0.0.1"
    metrics = listen if config.metrics.host == "auto" else config.metrics.host
    return Blueprint(
        config=config,
        model_dir=model_dir,
        model_name=config.model.name or model_dir.name,
        plan=plan,
        micro_batches=in_flight,
        workers=workers,
        routers=tuple(f"router-{number}" for number in range(config.router.replicas)),
        listen=listen,
        metrics_listen=metrics,
        expert_bytes=shape.expert_bytes,
    )


def find_model(path: str) -> Path:
    """The model directory that a config names, absolute; empty means the embedded nano-K2.

    Raises:
        ConfigError: it is not there; says what to do.
    """
    if path:
        model = Path(path).expanduser().absolute()
        if not model.is_dir():
            raise ConfigError(
                f"there is no model directory at {model}; give --model (or `model.path`) a "
                "directory with config.json and safetensors files"
            )
        return model
    model = Path(__file__).resolve().parents[1] / _EMBEDDED
    if not (model / "config.json").is_file():
        raise ConfigError(
            f"the embedded model is not at {model}: orrery is installed without its checkout; "
            "install it from the checkout with `pip install -e .`, or name a model with --model DIR"
        )
    return model


def shape_of(model: ModelConfig, config: ClusterConfig) -> ModelShape:
    """The planner's view of a model, held and sent in the config's activation dtype."""
    experts = config.experts
    dtype = experts.dtype
    if dtype == "auto":
        dtype = "float32" if experts.device == "cpu" else "bfloat16"
    width = _BYTES[dtype]
    return ModelShape(
        layers=model.moe_layers,
        experts=model.n_routed_experts,
        top_k=model.num_experts_per_tok,
        hidden=model.hidden_size,
        activation_bytes=width,
        expert_bytes=expert_nbytes(
            model, width, compiled=dtype == "float32" and experts.device == "cpu"
        ),
    )


def _planned(
    shape: ModelShape,
    workers: tuple[str, ...],
    config: ClusterConfig,
    load: Mapping[int, Sequence[float]] | None,
) -> tuple[int, Plan]:
    """Micro-batches in flight, and the plan for them."""
    specs = _specs(config, workers)

    def plan_for(in_flight: int) -> Plan:
        costs = costs_of(config, in_flight)
        return make_plan(
            shape,
            specs,
            costs,
            placement=config.experts.placement,
            load=load,
            redundant=config.experts.redundant_experts,
            strict=config.exactness == "strict",
        )

    asked = config.router.micro_batches
    return (asked, plan_for(asked)) if asked else choose_in_flight(plan_for)


def _specs(config: ClusterConfig, workers: tuple[str, ...]) -> list[WorkerSpec]:
    memory = int(config.experts.memory_gb * 1e9) or None
    return [
        WorkerSpec(
            worker_id=worker,
            node=_NODE,
            expert_bandwidth=config.planner.expert_gbps * 1e9,
            memory_bytes=memory,
            on_processors=config.experts.device == "cpu",
        )
        for worker in workers
    ]


def costs_of(config: ClusterConfig, micro_batches: int) -> CostModel:
    """The cost model of a config, in the planner's units."""
    planner = config.planner
    cores = planner.cores or (0 if config.ray.address else os.cpu_count() or 0)
    return CostModel(
        rows=planner.rows,
        micro_batches=micro_batches,
        least_rows=EngineConfig.min_micro_rows,
        message_seconds=planner.message_us * 1e-6,
        moved_seconds=planner.moved_us * 1e-6,
        latency_seconds=planner.latency_us * 1e-6,
        link_bandwidth=planner.link_gbps * 1e9 / 8,
        router_layer_seconds=planner.router_us * 1e-6,
        router_row_seconds=planner.router_row_us * 1e-6,
        worker_message_seconds=planner.worker_message_us * 1e-6,
        worker_moved_seconds=planner.worker_moved_us * 1e-6,
        cores={_NODE: cores} if cores else {},
        router_node=_NODE,
    )
