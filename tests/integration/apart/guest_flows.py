"""Flows of the tests of `--runner-user`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from kodo.flow import File, flow, lock, memory, output, progress
from kodo.flow._runtime.current import current

ABOUT = {"author": "a", "organization": "o", "release": "1"}


@flow(name="Everything", **ABOUT)
def everything(doc: File, plant: str = "") -> dict[str, object]:
    """Use what a node has for its flows: a file, memory, an output, a lock."""
    text = Path(doc).read_text()
    memory.long.set("seen", (memory.long.get("seen") or 0) + 1)
    memory.short.files.write("kept.txt", text)
    output.write("answer.txt", text.upper())
    agreed = lock("Go on?", bool)
    return {"uid": os.getuid(), "agreed": agreed, "seen": memory.long.get("seen"), "home": os.path.expanduser("~")}


VERSION = 1


@flow(name="Moment", **ABOUT)
def moment(word: str = "") -> int:
    """Return which code it is."""
    return VERSION


@flow(name="Planter", **ABOUT)
def planter(target: str, outputs: bool) -> None:
    """Put links to somebody else's file wherever the run's files are, and die."""
    run = Path.cwd().parent
    places = ["crash", "unfetched", "events", "parts/x", "storage/x", "inputs", "files/second.txt"]
    for place in places:
        path = run / place
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)
    for log in (run.parent.parent / "sessions").glob("session_*/logs/*"):
        if log.is_file():
            log.unlink()
            log.symlink_to(target)
    progress(50, "planted")
    if outputs:
        # One that is at a place that leads elsewhere.
        runner = current()
        runner._outputs["second.txt"] = "second.txt"
        runner.emit("output", {"name": "second.txt", "size": 6, "sha256": "0" * 64, "media_type": "text/plain"})
        time.sleep(60)
    time.sleep(2)  # the node fetches what was said, as its file is somewhere else now
    os.kill(os.getpid(), signal.SIGKILL)


HIDES = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
print(os.getpid(), flush=True)
os.close(1)
os.close(2)
time.sleep(600)
"""


@flow(name="Leaver", **ABOUT)
def leaver(ends: bool) -> None:
    """Leave a child in a session of its own, and a daemon that nothing leads to; end when there is a file `go`."""
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    told = subprocess.run([sys.executable, "-c", HIDES], env={}, cwd="/", capture_output=True, check=True)
    progress(50, f"{os.getpid()} {child.pid} {int(told.stdout)}")
    while not ends or not Path(__file__).with_name("go").exists():
        time.sleep(0.05)
