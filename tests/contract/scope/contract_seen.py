"""What a run can see of its process, for the executors' contract."""

import locale
import logging
import os
import signal
import sys
import warnings
from typing import Any


def seen() -> dict[str, Any]:
    """Return what modules may change, without what differs from run to run."""
    folder = os.environ["KODO_FOLDER"]
    return {
        "environment": {
            name: value.replace(folder, "FOLDER")
            for name, value in os.environ.items()
            if not name.startswith(("KODO_", "RAY_"))
        },
        "path": list(sys.path),
        "modules": sorted(name for name in sys.modules if name.startswith("contract_")),
        "filters": [str(each) for each in warnings.filters],
        "levels": {name: logging.getLogger(name).level for name in ("", "kodo.flow", "contract")},
        "handlers": [type(each).__name__ for each in logging.getLogger().handlers],
        "locale": locale.setlocale(locale.LC_ALL),
        "signals": {number.name: _handler(number) for number in (signal.SIGTERM, signal.SIGUSR1)},
        "works in": os.path.basename(os.getcwd()),
    }


def _handler(number: signal.Signals) -> str:
    """Return what handles a signal by its name: where it lies in memory differs from process to process."""
    found = signal.getsignal(number)
    return getattr(found, "__qualname__", str(found))
