"""`ray start`, made to do what Ray has no option for: to start workers by our `setup_worker`, and to call nobody.

Ray opens the folders of its sessions (logs, sockets) to everybody, whatever the umask. Here they stay their owner's.

Ray starts its dashboard's process even where there is to be no dashboard. All that this does then is to tell Ray's
makers that usage reports are off, and before that to ask in whose cloud the machine is.
"""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Do what `ray` does with this process's arguments."""
    services: Any = importlib.import_module("ray._private.services")
    services.start_api_server = lambda *_, **__: ("", None)
    utils: Any = importlib.import_module("ray._common.utils")
    utils.try_make_directory_shared = lambda _: None
    parameter: Any = importlib.import_module("ray._private.parameter")
    scripts: Any = importlib.import_module("ray.scripts.scripts")
    if sys.platform == "linux":  # elsewhere a process that has imported as much as a runner cannot be forked
        ours = str(Path(__file__).with_name("setup_worker.py"))
        parameter.RayParams = functools.partial(parameter.RayParams, setup_worker_path=ours)
    scripts.main()


if __name__ == "__main__":
    main()
