"""The JSON debug pages beside the metrics. Read in another thread: copies, never waits."""

from __future__ import annotations

from typing import Any

from router_service.engine import Engine
from router_service.expert_source import ExpertSource


def engine_page(engine: Engine | None) -> dict[str, Any]:
    """Every sequence and the use of the KV blocks; empty while the model loads."""
    if engine is None:
        return {}
    pool = engine.kv.pool
    return {
        "max_model_len": engine.max_model_len,
        "kv_blocks": {"used": pool.used, "cached": pool.cached, "free": pool.free},
        "preemptions": engine.scheduler.preemptions,
        "sequences": [
            {
                "request_id": seq.request.request_id,
                "prompt_tokens": seq.prompt_length,
                "output_tokens": seq.output_length,
                "computed_tokens": seq.computed,
                "kv_blocks": len(seq.block_table),
                "in_flight": seq.in_flight,
                "missing": seq.missing,
            }
            for seq in engine.scheduler.sequences
        ],
    }


def experts_page(experts: ExpertSource | None) -> Any:
    """What the source of the routed experts tells of itself; empty while the model loads."""
    return {} if experts is None else experts.snapshot()
