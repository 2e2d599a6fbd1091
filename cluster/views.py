"""What the controller shows of the fleet: status, placement and Prometheus targets, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster.fleet import Fleet, Member, Phase, Role, epoch_of
from monitoring import expert_page
from wire.placement import Epoch

# A page with a label of its own: two targets with equal labels would overwrite each other's `up`.
_EXPERT_PAGE = {"page": "experts", "__metrics_path__": expert_page.PATH}


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that is not a member, e.g. a gateway replica or the controller itself."""

    process_id: str
    role: str
    node: str
    pid: int
    address: str
    metrics_address: str
    state: str


def status_view(fleet: Fleet, others: Sequence[Process]) -> dict[str, Any]:
    """Every process, with what it holds and how it is."""
    return {
        "state": _state(fleet),
        "epoch": _epoch(fleet.placement.epoch),
        "wanted": {"experts": fleet.workers, "spares": fleet.spares},
        "change": _change(fleet),
        "processes": [
            *(_process_row(process, fleet) for process in others),
            *(_member_row(member) for member in fleet.members.values()),
        ],
    }


def placement_view(fleet: Fleet) -> dict[str, Any]:
    """The published placement, worker by worker, with experts as ranges such as `0-95,98`."""
    placement = fleet.placement
    return {
        "epoch": _epoch(placement.epoch),
        "workers": {
            worker_id: {
                "address": worker.address,
                "node": worker.node,
                "fingerprint": worker.fingerprint,
                "experts": {
                    str(layer): ranges(experts)
                    for layer, experts in placement.experts_of(worker_id).items()
                },
            }
            for worker_id, worker in placement.workers.items()
        },
        "without_owner": {
            str(layer): ranges(missing)
            for layer, experts in placement.owners.items()
            if (missing := [expert for expert, ids in enumerate(experts) if not ids])
        },
    }


def targets_view(fleet: Fleet, others: Sequence[Process]) -> list[dict[str, Any]]:
    """Every metrics page in the form of Prometheus' HTTP service discovery."""
    rows = [
        (other.process_id, other.role, other.node, other.metrics_address) for other in others
    ] + [(m.member_id, m.role, m.node, m.metrics_address) for m in fleet.members.values()]
    return [
        {
            "targets": [address],
            "labels": {"role": str(role), "id": process_id, "node": node, **page},
        }
        for process_id, role, node, address in rows
        if address
        for page in ({}, _EXPERT_PAGE)
        if not page or role == Role.ROUTER
    ]


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers, shortened.

    >>> ranges([0, 1, 2, 5, 7, 8])
    '0-2,5,7-8'
    """
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)


def _state(fleet: Fleet) -> str:
    if fleet.superseded:
        return "superseded"
    if fleet.settled:
        return "ready"
    return "degraded" if fleet.placement.epoch.counter else "starting"


def _epoch(epoch: Epoch) -> dict[str, int]:
    return {"term": epoch.term, "counter": epoch.counter}


def _change(fleet: Fleet) -> dict[str, Any] | None:
    """What is under way, or asked for and not begun; None: nothing."""
    going = sorted(m.member_id for m in fleet.members.values() if m.leaving or m.resting)
    waiting = {"leaving": going, "to_restart": list(fleet.restarts)}
    change = fleet.change
    if change is not None:
        return {"reason": change.reason, "cause": change.cause, "copies": change.copies, **waiting}
    growing = len(fleet.serving) != fleet.workers or any(
        m.phase is not Phase.READY for m in fleet.serving
    )
    if going or fleet.restarts or growing or fleet.restless:
        return {"reason": "", "cause": "", "copies": 0, **waiting}
    return None


def _process_row(process: Process, fleet: Fleet) -> dict[str, Any]:
    return {
        "id": process.process_id,
        "role": process.role,
        "state": process.state,
        "node": process.node,
        "pid": process.pid,
        "address": process.address,
        "metrics_address": process.metrics_address,
        "epoch": _epoch(fleet.placement.epoch) if process.role == "controller" else None,
        "layers": [],
        "experts": 0,
        "load": {},
        "restarts": 0,
        "spare": False,
        "leaving": False,
        "error": "",
    }


def _member_row(member: Member) -> dict[str, Any]:
    report = member.report
    return {
        "id": member.member_id,
        "role": str(member.role),
        "state": str(member.phase),
        "node": member.node,
        "pid": member.pid,
        "address": member.address,
        "metrics_address": member.metrics_address,
        "epoch": _epoch(epoch_of(member)) if member.role is Role.ROUTER else None,
        "layers": list(member.experts),
        "experts": sum(len(experts) for experts in member.experts.values()),
        "loaded": report.loaded if report else 0,
        "load": dict(report.load) if report else {},
        "device": report.device if report else "",
        "dtype": report.dtype if report else "",
        "fingerprint": member.fingerprint,
        "model_hash": report.model_hash if report else "",
        "restarts": member.restarts,
        "spare": member.spare,
        "leaving": member.leaving or member.resting,
        "error": member.error,
    }
