"""The environment of processes that tests start."""

from __future__ import annotations

import os

import housekeeper as hk


def environment(**variables: str) -> dict[str, str]:
    """Return what a process gets that stands for itself: it is no child of this one's schedulers.

    Else one with the ledger and tasks of a Housekeeper in the test would leave the ticks to that.
    """
    own = {name: value for name, value in os.environ.items() if name != hk.SCHEDULER}
    return {**own, **variables}
