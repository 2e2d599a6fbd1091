"""Whole layers dealt out anew, where workers hold them whole.

The planner does not cut such a layer up when a worker joins, since that would multiply the
messages; but a worker with several layers can give some away.
"""

from __future__ import annotations

from collections.abc import Mapping

from cluster.holdings import Owners
from cluster.planner import WorkerSpec, WorkerState


def deal_out(owners: Owners, workers: list[WorkerState], expert_bytes: int) -> Owners:
    """The owners with whole layers moved from those with the most to those with the fewest.

    A layer moves only to a worker that holds nothing but whole layers, has the same bits and room,
    and only if that brings the two closer; never onto a node that has another copy of it while
    the one that gives it away has not.
    """
    taking = {w.spec.worker_id: w.spec for w in workers if w.live and not w.leaving and not w.spare}
    whole = {layer: ids[0] for layer, ids in owners.items() if len(set(ids)) == 1}
    split = {w for layer, ids in owners.items() if layer not in whole for own in ids for w in own}
    able = {w: spec for w, spec in taking.items() if w not in split}
    held = {w: [layer for layer, ids in whole.items() if w in ids] for w in able}
    size = len(next(iter(owners.values()))) * expert_bytes
    while True:
        moves = [
            (len(held[rich]) - len(held[poor]), -layer, rich, poor)
            for poor in able
            for rich in able
            if len(held[rich]) - len(held[poor]) > 1
            for layer in held[rich]
            if poor not in whole[layer]
            if able[rich].fingerprint == able[poor].fingerprint
            if (memory := able[poor].memory_bytes) is None or (len(held[poor]) + 1) * size <= memory
            if not _crowds(whole[layer], rich, poor, taking)
        ]
        if not moves:
            break
        _, minus_layer, rich, poor = max(moves)
        layer = -minus_layer
        whole[layer] = tuple(poor if w == rich else w for w in whole[layer])
        held[rich].remove(layer)
        held[poor].append(layer)
    return {
        layer: (whole[layer],) * len(ids) if layer in whole else ids
        for layer, ids in owners.items()
    }


def _crowds(ids: tuple[str, ...], rich: str, poor: str, specs: Mapping[str, WorkerSpec]) -> bool:
    others = {specs[w].node for w in ids if w != rich and w in specs} - {""}
    return specs[poor].node in others and specs[rich].node not in others
