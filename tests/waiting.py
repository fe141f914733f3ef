"""Waiting for what has no event to wait on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PATIENCE = 60.0  # seconds after which a test gives up, on however slow a machine


def eventually(condition: Callable[[], object], within: float = PATIENCE) -> None:
    """Wait for what has no event to wait on; fail when it does not come."""
    until, never = time.monotonic() + within, threading.Event()
    while not condition():
        assert time.monotonic() < until, "it never came"
        never.wait(0.01)
