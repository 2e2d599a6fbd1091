"""A grid made concrete: which layers and how many of their experts each worker gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cluster.planner.divide import divide
from cluster.planner.fleet import WorkerSpec
from cluster.planner.grid import Grid
from cluster.planner.shape import ModelShape


@dataclass(frozen=True, kw_only=True)
class Share:
    """The experts of one layer that one worker holds, ascending."""

    worker: WorkerSpec
    experts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Infeasible:
    """Why a grid cannot be built."""

    reason: str


T = TypeVar("T")
Layout = Mapping[int, tuple[Share, ...]]
Load = Mapping[int, Sequence[float]]


def lay_out(
    shape: ModelShape, workers: Sequence[WorkerSpec], grid: Grid, load: Load | None = None
) -> Layout | Infeasible:
    """Layer to the shares of its experts: each expert in exactly one.

    Groups are consecutive layers and consecutive workers. Layers go to groups, and experts to the
    workers of a group, in proportion to bandwidth, within memory. With `load` (layer to tokens by
    expert) a layer's experts are dealt so that workers get equal work; else they are contiguous.
    """
    if grid.workers != len(workers):
        return Infeasible(reason=f"needs {grid.workers} workers, there are {len(workers)}")
    if len(grid.shards) > len(shape.layers):
        return Infeasible(
            reason=f"{len(grid.shards)} groups, but only {len(shape.layers)} layers with experts"
        )
    if max(grid.shards) > shape.experts:
        return Infeasible(
            reason=f"{max(grid.shards)} workers share a layer of {shape.experts} experts"
        )
    groups = _consecutive(workers, grid.shards)
    depths = divide(
        len(shape.layers),
        [sum(worker.expert_bandwidth for worker in group) for group in groups],
        [_most_layers(shape, group) for group in groups],
        least=1,
    )
    if depths is None:
        return Infeasible(reason=_memory_reason(shape, workers))
    layout: dict[int, tuple[Share, ...]] = {}
    for group, layers in zip(groups, _consecutive(shape.layers, depths), strict=True):
        counts = divide(
            shape.experts,
            [worker.expert_bandwidth for worker in group],
            [_most_experts(shape, worker, len(layers)) for worker in group],
            least=1,
        )
        if counts is None:
            return Infeasible(reason=_memory_reason(shape, workers))
        for layer in layers:
            dealt = _deal(group, counts, load[layer] if load else None)
            layout[layer] = tuple(
                Share(worker=worker, experts=experts)
                for worker, experts in zip(group, dealt, strict=True)
            )
    return layout


def _deal(
    group: Sequence[WorkerSpec], counts: Sequence[int], load: Sequence[float] | None
) -> list[tuple[int, ...]]:
    if load is None:
        return [tuple(part) for part in _consecutive(range(sum(counts)), counts)]
    work = [0.0] * len(group)
    dealt: list[list[int]] = [[] for _ in group]
    # The heaviest first, each to whoever would be done with it first: within 4/3 of the best.
    for expert in sorted(range(sum(counts)), key=lambda expert: (-load[expert], expert)):
        open_places = [place for place in range(len(group)) if len(dealt[place]) < counts[place]]
        place = min(
            open_places,
            key=lambda place: (work[place] + load[expert]) / group[place].expert_bandwidth,
        )
        work[place] += load[expert]
        dealt[place].append(expert)
    return [tuple(sorted(experts)) for experts in dealt]


def _most_experts(shape: ModelShape, worker: WorkerSpec, layers: int) -> int | None:
    if worker.memory_bytes is None:
        return None
    return worker.memory_bytes // (layers * shape.expert_bytes)


def _most_layers(shape: ModelShape, group: Sequence[WorkerSpec]) -> int:
    """The most layers whose experts fit into the group, each worker holding at least one."""
    fits = 0
    for layers in range(1, len(shape.layers) + 1):
        room = [_most_experts(shape, worker, layers) for worker in group]
        if any(most == 0 for most in room):
            break
        if all(most is not None for most in room) and sum(map(int, filter(None, room))) < (
            shape.experts
        ):
            break
        fits = layers
    return fits


def _memory_reason(shape: ModelShape, workers: Sequence[WorkerSpec]) -> str:
    room = sum(worker.memory_bytes or 0 for worker in workers)
    return (
        f"the experts take {shape.total_bytes / 1e9:.2f} GB and this grid does not fit them into "
        f"the workers' {room / 1e9:.2f} GB"
    )


def _consecutive(items: Sequence[T], sizes: Sequence[int]) -> list[Sequence[T]]:
    parts, start = [], 0
    for size in sizes:
        parts.append(items[start : start + size])
        start += size
    return parts
