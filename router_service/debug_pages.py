"""The JSON debug pages beside the metrics. Read in another thread: copies, and only the page that
checks waits for the event loop."""

from __future__ import annotations

import asyncio
from typing import Any

from monitoring.expert_page import expert_page
from router_service.engine import Engine
from router_service.expert_source import ExpertSource

_LOOP_ANSWERS_S = 10.0


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


def integrity_page(engine: Engine | None, loop: asyncio.AbstractEventLoop | None) -> dict[str, Any]:
    """What `Engine.check_integrity` finds, and how many requests run or wait; empty while the
    model loads.

    Looked at on the engine's loop, where nothing changes meanwhile; costs a step's pause there.

    Raises:
        TimeoutError: the loop does not answer.
    """
    if engine is None or loop is None:
        return {}

    async def look() -> dict[str, Any]:
        return {
            "violations": engine.check_integrity(),
            "sequences": len(engine.scheduler.sequences),
        }

    return asyncio.run_coroutine_threadsafe(look(), loop).result(_LOOP_ANSWERS_S)


def experts_page(experts: ExpertSource | None) -> Any:
    """What the source of the routed experts tells of itself; empty while the model loads."""
    return {} if experts is None else experts.snapshot()


def expert_series(experts: ExpertSource | None) -> str:
    """Tokens by layer and expert for Prometheus; nothing where this process computes them."""
    return expert_page(experts_page(experts).get("tokens", {}))
