"""The least that a threaded scheduler can be: what every comparison is a ratio to."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Floor:
    """A heap, Condition.wait and ThreadPoolExecutor.submit; no calendar, no record, no errors."""

    def __init__(self, workers: int = 10) -> None:
        self._heap: list[tuple[float, int, float, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._workers = ThreadPoolExecutor(workers)
        self._stopped = False

    def add(self, first: float, every: float, run: Callable[[], object]) -> None:
        """Call something at a time.time(), and then every so many seconds."""
        with self._changed:
            heapq.heappush(self._heap, (first, next(self._numbers), every, run))
            self._changed.notify()

    def start(self) -> None:
        threading.Thread(target=self._loop, daemon=True).start()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._workers.shutdown()

    def _loop(self) -> None:
        heap = self._heap
        with self._changed:
            while not self._stopped:
                now = time.time()
                while heap and heap[0][0] <= now:
                    tick, number, every, run = heap[0]
                    heapq.heapreplace(heap, (tick + every, number, every, run))
                    self._workers.submit(run)
                self._changed.wait(max(0.0, heap[0][0] - time.time()) if heap else None)
