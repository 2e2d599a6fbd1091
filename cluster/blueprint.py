"""What is to run, settled before anything starts: config and model made into a plan and ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cluster.config import ClusterConfig
from cluster.errors import ConfigError
from cluster.planner import CostModel, ModelShape, Plan, WorkerSpec, plan
from kimi_k2.config import ModelConfig
from kimi_k2.errors import ModelError

_EMBEDDED = Path("models") / "nano-k2"
_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """model_dir: absolute. listen: host that members bind."""

    config: ClusterConfig
    model_dir: Path
    model_name: str
    plan: Plan
    workers: tuple[str, ...]
    routers: tuple[str, ...]
    listen: str
    metrics_listen: str


def draw(config: ClusterConfig) -> Blueprint:
    """The blueprint of a config.

    Raises:
        ConfigError: the model directory is missing or not one, or no placement is possible.
    """
    model_dir = find_model(config.model.path)
    try:
        model = ModelConfig.from_dir(model_dir)
    except ModelError as error:
        raise ConfigError(str(error)) from error
    workers = tuple(f"expert-{number}" for number in range(config.experts.workers))
    listen = config.ray.listen
    if listen == "auto":
        listen = "0.0.0.0" if config.ray.address else "127.0.0.1"
    metrics = listen if config.metrics.host == "auto" else config.metrics.host
    return Blueprint(
        config=config,
        model_dir=model_dir,
        model_name=config.model.name or model_dir.name,
        plan=plan(
            shape_of(model, config),
            _specs(config, workers),
            _costs(config),
            placement=config.experts.placement,
        ),
        workers=workers,
        routers=tuple(f"router-{number}" for number in range(config.router.replicas)),
        listen=listen,
        metrics_listen=metrics,
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
        expert_bytes=3 * model.hidden_size * model.moe_intermediate_size * width,
    )


def _specs(config: ClusterConfig, workers: tuple[str, ...]) -> list[WorkerSpec]:
    memory = int(config.experts.memory_gb * 1e9) or None
    return [
        WorkerSpec(
            worker_id=worker,
            node="",
            expert_bandwidth=config.planner.expert_gbps * 1e9,
            memory_bytes=memory,
        )
        for worker in workers
    ]


def _costs(config: ClusterConfig) -> CostModel:
    planner = config.planner
    return CostModel(
        rows=planner.rows,
        micro_batches=config.router.micro_batches,
        message_seconds=planner.message_us * 1e-6,
        latency_seconds=planner.latency_us * 1e-6,
        link_bandwidth=planner.link_gbps * 1e9 / 8,
        router_layer_seconds=planner.router_us * 1e-6,
    )
