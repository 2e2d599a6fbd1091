"""Which functions belong to which part of a step, and how they are found.

Each is replaced in the module that calls it. A seam that has moved is an error: what is not wrapped
would silently be counted as something else.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from benchmarks.phases import Phases

ATTENTION = "attention and gate"
"""From 8 rows on with the shared expert or dense network of the layer before, in one call."""
SHARED = "shared expert, dense layer"
HEAD = "embedding, head"
EXPERTS = "experts"
COMBINE = "combine"
"""Apart from the experts only where it is a call of its own: in compiled experts it is not."""
SAMPLER = "sampler"
SCHEDULING = "scheduling"
DISPATCH = "dispatch"
SERIALIZATION = "serialization"
CARRIER = "sockets and streams"
WAITING = "waiting"
REST = "event loop, gRPC, the rest"
"""What no seam covers."""

_CARRIERS = {
    "wire.carriers.framed_socket:FramedSocket.put": CARRIER,
    "wire.carriers.framed_socket:FramedSocket._readable": CARRIER,
    "wire.carriers.framed_socket:FramedSocket._writable": CARRIER,
    "wire.carriers.outbox:Outbox.put": CARRIER,
    "wire.carriers.outbox:Outbox._advance": CARRIER,
    "selectors:EpollSelector.select": WAITING,
}
ROUTER: Mapping[str, str] = {
    "kimi_k2.pass_kernels:advance": ATTENTION,
    "kimi_k2.layer_kernels:mlp_half": SHARED,
    "kimi_k2.pass_kernels:finish": HEAD,
    "kimi_k2.torch_layers:TorchPass.attend": ATTENTION,
    "kimi_k2.torch_layers:TorchPass.run_mlp": SHARED,
    "kimi_k2.torch_layers:TorchPass.logits": HEAD,
    "kimi_k2.compiled_layers:CompiledLayers.start": HEAD,
    "kimi_k2.torch_layers:TorchLayers.start": HEAD,
    "kimi_k2.local_experts:LocalExperts.dispatch": EXPERTS,
    "kimi_k2.local_experts:combine": COMBINE,
    "router_service.dispatch.remote_experts:RemoteExperts.dispatch": DISPATCH,
    "router_service.dispatch.remote_experts:request_message": SERIALIZATION,
    "router_service.dispatch.traffic:Traffic.take": DISPATCH,
    "router_service.dispatch.traffic:decode_answer": SERIALIZATION,
    "router_service.dispatch.rows_in_flight:RowsInFlight._combine_here": COMBINE,
    "router_service.sampler:Sampler.sample": SAMPLER,
    "router_service.scheduler:Scheduler.schedule": SCHEDULING,
    "router_service.scheduler:Scheduler.settle": SCHEDULING,
    "router_service.step_plan:StepPlan.micro_batch": SCHEDULING,
    "router_service.engine:Engine._accept_all": SCHEDULING,
    "router_service.gateway_stream:outputs_to_message": SERIALIZATION,
    **_CARRIERS,
}
WORKER: Mapping[str, str] = {
    "experts_service.quick_answers:QuickAnswers.answer": SERIALIZATION,
    "kimi_k2.raw_routing:route_raw": EXPERTS,
    "experts_service.answering:compute": EXPERTS,
    "experts_service.grouped:combine": COMBINE,
    "experts_service.admission:decode_request": SERIALIZATION,
    "experts_service.answering:blank_reply": SERIALIZATION,
    "experts_service.answering:encode_reply": SERIALIZATION,
    **_CARRIERS,
}


class SeamError(Exception):
    """A function that is to be timed is not where it was."""


def find(place: str) -> tuple[Any, str]:
    """The owner of a seam, `module:name` or `module:Class.method`, and its name there.

    Raises:
        SeamError: it is not there.
    """
    module, _, path = place.partition(":")
    *outer, name = path.split(".")
    try:
        owner: Any = importlib.import_module(module)
        for part in outer:
            owner = getattr(owner, part)
        getattr(owner, name)
    except (ImportError, AttributeError) as error:
        raise SeamError(f"{place} is gone; put it right in {__file__}") from error
    return owner, name


def wrap(seams: Mapping[str, str], phases: Phases) -> None:
    """Replaces each seam by itself, timed; for good.

    Raises:
        SeamError: one is not there.
    """
    for place, phase in seams.items():
        owner, name = find(place)
        call = getattr(owner, name)
        timed = phases.timed_coroutine if inspect.iscoroutinefunction(call) else phases.timed
        setattr(owner, name, timed(phase, call))
