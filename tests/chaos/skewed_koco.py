"""`koco` on a machine whose clock is set while it runs: `$KODO_TEST_SKEW` names a file with the ms to add."""

from __future__ import annotations

import os
import time
from pathlib import Path

from kodo.cli.main import main
from kodo.node.clock import SystemClock

SKEW = Path(os.environ["KODO_TEST_SKEW"])


def skewed(clock: SystemClock) -> int:
    return time.time_ns() // 1_000_000 + int(SKEW.read_text() or 0)


if __name__ == "__main__":
    SystemClock.now_ms = skewed  # type: ignore[method-assign]
    main()
