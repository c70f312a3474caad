"""`ray start`, made to start its workers by our `setup_worker`: Ray itself has no option for that."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Do what `ray` does with this process's arguments."""
    parameter: Any = importlib.import_module("ray._private.parameter")
    scripts: Any = importlib.import_module("ray.scripts.scripts")
    ours = str(Path(__file__).with_name("setup_worker.py"))
    parameter.RayParams = functools.partial(parameter.RayParams, setup_worker_path=ours)
    scripts.main()


if __name__ == "__main__":
    main()
