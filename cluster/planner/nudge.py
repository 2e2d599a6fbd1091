"""What a few loads can do for one layer: relieve whoever is busiest, one copy at a time."""

from __future__ import annotations

import numpy as np

from cluster.planner.crew import Counts, Crew, Held, Loads


def nudge(
    held: Held, weight: Loads, home: Counts, crew: Crew, reach: Held, room: Counts, loads: int
) -> Held:
    """bool [experts, workers]: `held` after at most `loads` further copies, as many in all.

    An expert of the busiest worker moves to another, or gets a copy there for which the coldest
    expert that has several gives one up; whichever leaves the two least busy. Ends early when
    neither helps.

    Args:
        weight: [experts], tokens. home: [experts], fingerprints.
        reach: [workers], who shares the layer. room: [workers], experts of it that memory takes.
    """
    held = held.copy()
    allowed = np.array([crew.alike(int(printed)) for printed in home]) & crew.taking & reach
    for _ in range(loads):
        copies: Counts = held.sum(axis=1)
        share = weight / np.maximum(copies, 1)
        time = np.where(reach, share @ held / crew.speed, -np.inf)
        busy = int(time.argmax())
        mine = np.flatnonzero(held[:, busy])
        if not len(mine):
            break
        able = allowed[mine] & ~held[mine] & (held.sum(axis=0) < room)
        cold = _coldest(copies, weight)
        moved = share[mine]
        added = weight[mine] / (copies[mine] + 1)
        options = [
            _worst(time, busy, moved, moved, able & _apart(held[mine], able, crew, busy), crew),
            _worst(time, busy, moved - added, added, able & _apart(held[mine], able, crew), crew),
        ]
        if cold is None:
            options[1][:] = np.inf
        elif cold in mine:
            options[1][mine == cold] = np.inf
        kind = int(options[1].min() < options[0].min())
        row, place = np.unravel_index(int(options[kind].argmin()), able.shape)
        if options[kind][row, place] >= time[busy] * (1 - 1e-6):
            break
        held[mine[row], place] = True
        if kind == 0:
            held[mine[row], busy] = False
        else:
            held[cold, max(np.flatnonzero(held[cold]), key=lambda place: time[place])] = False
    return held


def _worst(time: Loads, busy: int, less: Loads, more: Loads, able: Held, crew: Crew) -> Loads:
    """[experts, workers]: the later of two workers, when `busy` has `less` and one has `more`."""
    relieved = time[busy] - less / crew.speed[busy]
    charged = time + more[:, None] / crew.speed
    return np.where(able, np.maximum(relieved[:, None], charged), np.inf)


def _apart(held: Held, able: Held, crew: Crew, leaves: int | None = None) -> Held:
    """[experts, workers]: on the nodes that have the fewest copies of those that can take one."""
    there = held.copy()
    if leaves is not None:
        there[:, leaves] = False
    nodes = crew.node[:, None] == np.arange(crew.nodes)
    crowd = (there.astype(np.int64) @ nodes)[:, crew.node]
    least = np.where(able, crowd, len(crew.ids)).min(axis=1, keepdims=True)
    return np.asarray(crowd == least)


def _coldest(copies: Counts, weight: Loads) -> int | None:
    """The expert whose other copies feel it least when one goes; None when all have only one."""
    if not (copies > 1).any():
        return None
    felt = np.where(copies > 1, weight / np.maximum(copies * (copies - 1), 1), np.inf)
    return int(felt.argmin())
