"""Requests are grouped by layer, oldest layer first."""

from __future__ import annotations

import threading

import numpy as np
import torch

from experts_service.pool import Task, TaskPool
from wire.frames import DispatchRequest
from wire.placement import Epoch


def task(number: int, layer: int, rows: int = 1) -> Task:
    request = DispatchRequest(
        request_id=number,
        epoch=Epoch(term=1, counter=0),
        layer=layer,
        x=torch.zeros(rows, 2),
        counts=np.ones(rows, np.uint8),
        combine=np.zeros(rows, np.bool_),
        experts=np.zeros(rows, np.uint16),
        weights=np.ones(rows, np.float32),
    )
    return Task(request=request, arrived=float(number), answer=lambda message: None)


def taken(pool: TaskPool) -> list[int] | None:
    tasks = pool.take()
    return None if tasks is None else [t.request.request_id for t in tasks]


def test_all_of_the_oldest_layer() -> None:
    pool = TaskPool(max_rows=100)
    for number, layer in enumerate([2, 1, 2, 1, 3], start=1):
        pool.put(task(number, layer))
    assert [taken(pool) for _ in range(3)] == [[1, 3], [2, 4], [5]]


def test_a_batch_has_a_bound_but_always_one_request() -> None:
    pool = TaskPool(max_rows=10)
    for number, rows in enumerate([25, 4, 6, 1], start=1):
        pool.put(task(number, 1, rows))
    assert [taken(pool) for _ in range(3)] == [[1], [2, 3], [4]]


def test_closing_empties_the_pool_first() -> None:
    pool = TaskPool(max_rows=10)
    pool.put(task(1, 1))
    pool.close()
    assert taken(pool) == [1]
    assert taken(pool) is None


def test_take_waits() -> None:
    pool = TaskPool(max_rows=10)
    got: list[list[int] | None] = []
    thread = threading.Thread(target=lambda: got.append(taken(pool)))
    thread.start()
    pool.put(task(3, 1))
    thread.join(10)
    assert got == [[3]]
