"""Counting that costs next to nothing where it happens, and is published when somebody looks.

Counting on a Prometheus series takes a lock and some microseconds of cold code. On the path of a
dispatch message, of which a token needs one a layer, that would be a tenth of the whole.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_MOST_WAITING = 1024


class Deferred(Collector):
    """What is published before every scrape of a registry.

    Must be registered before the series that it fills: a scrape goes through them in order.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._publishing: dict[object, Callable[[], None]] = {}
        self._lock = threading.Lock()
        registry.register(self)

    def add(self, owner: object, publish: Callable[[], None]) -> None:
        """Has `publish` called before every scrape, in the scraping thread, one at a time."""
        with self._lock:
            self._publishing[owner] = publish

    def remove(self, owner: object) -> None:
        with self._lock:
            self._publishing.pop(owner, None)

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            for publish in tuple(self._publishing.values()):
                publish()
        return ()


class DeferredCount:
    """Added to by one thread; published by another as an increase of a counter."""

    __slots__ = ("_counter", "_published", "value")

    def __init__(self, deferred: Deferred, counter: Counter) -> None:
        self.value = 0
        self._published = 0
        self._counter = counter
        deferred.add(self, self.publish)

    def publish(self) -> None:
        value = self.value
        self._counter.inc(value - self._published)
        self._published = value


class DeferredTimes:
    """Observations that wait for the next scrape, or until there are many of them."""

    __slots__ = ("_histogram", "_waiting")

    def __init__(self, deferred: Deferred, histogram: Histogram) -> None:
        self._waiting: deque[float] = deque()
        self._histogram = histogram
        deferred.add(self, self.publish)

    def observe(self, value: float) -> None:
        waiting = self._waiting
        waiting.append(value)
        if len(waiting) > _MOST_WAITING:
            self.publish()

    def publish(self) -> None:
        """May run in two threads at a time: each value is taken by one of them."""
        waiting = self._waiting
        while waiting:
            try:
                value = waiting.popleft()
            except IndexError:
                return
            self._histogram.observe(value)
