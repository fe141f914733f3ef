"""One measurement of one contestant, in a process of its own; prints JSON."""

from __future__ import annotations

import json
import os
import sys

from tests.benchmarks import measures
from tests.benchmarks.contestants import CONTESTANTS


def main() -> None:
    """Measure what the arguments name: a measurement, a contestant, and the options as JSON."""
    measure, name, options = sys.argv[1:]
    work = measures.Work(contestant=CONTESTANTS[name], **json.loads(options))
    try:
        figures = getattr(measures, measure)(work)
    except measures.NotReady:
        sys.exit(measures.NotReady.CODE)
    print(json.dumps(figures), flush=True)
    # What is being measured does not include how it ends.
    os._exit(0)


if __name__ == "__main__":
    main()
