"""Programs of `lab_peer` on many hosts of a lab, as processes that share what this one has loaded.

python -m tests.support.lab_peers: reads lines `[NAMESPACE, NAME, WORDS]`, starts a program for each, and says
`[NAME, VALUE]` for each value that one says. All end with its stdin.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from tests.support import lab_peer

CLONE_NEWNET = 0x4000_0000
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def run(namespace: str, name: str, words: list[str]) -> NoReturn:
    """Be the program, in a process of its own."""

    def say(value: Any) -> None:
        os.write(1, json.dumps([name, value]).encode() + b"\n")

    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with Path("/run/netns", namespace).open() as file:
        if _libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "cannot enter the network namespace", namespace)
    lab_peer.say = say
    asyncio.run(lab_peer.main(words))
    os._exit(0)


def main() -> None:
    started = []
    gc.freeze()
    for line in sys.stdin:
        namespace, name, words = json.loads(line)
        process = os.fork()
        if not process:
            try:
                os.close(0)
                run(namespace, name, words)
            finally:
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
                os._exit(1)
        started.append(process)
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


if __name__ == "__main__":
    main()
