"""kodo as its users start it: `koco` in processes of its own, a node with a home and a Ray of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from kodo.node.executors.ray.cluster import MARK

KOCO = str(Path(sys.executable).with_name("koco"))
SCOPE = Path(__file__).parent / "scope" / "scope.yaml"
READY_SECONDS = 90


def environment(home: Path, **more: str) -> dict[str, str]:
    """Give the environment of a user whose home is `home`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KODO_", "RAY_"))}
    return {**kept, "KODO_HOME": str(home), "NO_COLOR": "1", **more}


def koco(home: Path, *words: str, timeout: float = 120, **more: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [KOCO, *words],
        env=environment(home, **more),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def koco_json(home: Path, *words: str, exit_code: int = 0, **more: str) -> list[dict[str, Any]]:
    """Run one command with `--json` and give its lines; it must end with `exit_code`."""
    done = koco(home, *words, "--json", timeout=120, **more)
    assert done.returncode == exit_code, (words, done.returncode, done.stdout[-2000:], done.stderr[-4000:])
    return [json.loads(line) for line in done.stdout.splitlines()]


class NodeProcess:
    """`koco up` in a process.

    Args:
        words: further options.
        program: what stands for `koco`.
        more: further environment.
    """

    scope = SCOPE
    """What it offers."""

    def __init__(self, home: Path, *words: str, program: Sequence[str] = (KOCO,), **more: str) -> None:
        self.home = home
        self.stderr: list[str] = []
        sizes = ["--num-cpus", "2", "--object-store", "150MB"]
        command = [*program, "up", str(self.scope), "--json", *sizes, "--no-lan", *words]
        self.process = subprocess.Popen(
            command,
            env=environment(home, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read_stderr, daemon=True)
        self._reader.start()
        killer = threading.Timer(READY_SECONDS, self.process.kill)
        killer.start()
        line = self.process.stdout.readline()
        killer.cancel()
        assert line, f"the node did not start: {self.stderr}"
        self.ready: dict[str, Any] = json.loads(line)
        assert self.ready.get("ready") is True, self.ready

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.stderr.append(f"{time.strftime('%H:%M:%S')} {line}")

    @property
    def address(self) -> str:
        """An address on loopback."""
        return str(next(each for each in self.ready["addrs"] if each.startswith("/ip4/127.0.0.1/")))

    def kill(self) -> None:
        """End it as a crash does; Ray and the runs live on."""
        self.process.kill()
        self.process.wait()
        self._close()

    def stop(self, seconds: float = 40) -> int:
        """End it in order."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(seconds)
        self._close()
        return code

    def _close(self) -> None:
        self._reader.join(10)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def node(home: Path, *words: str, **more: str) -> Iterator[NodeProcess]:
    """Run a node; at the end it is stopped, and nothing of it may be left."""
    running = NodeProcess(home, *words, **more)
    try:
        yield running
        if running.process.poll() is None:
            assert running.stop() == 0, running.stderr
    finally:
        if running.process.poll() is None:
            running.kill()
        end_all(home)


def processes_of(home: Path) -> list[psutil.Process]:
    """Find every process that was started for `home`, by its environment or its command line.

    The node is told its home; Ray's processes and the flows are not, but carry the folder of their Ray.
    """
    marks = {"KODO_HOME": str(home), MARK: str(home / "ray")}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                words, variables = process.cmdline(), process.environ()
                marked = any(variables.get(name) == value for name, value in marks.items())
                if marked or any(str(home) in word for word in words):
                    found.append(process)
    return found


def end_all(home: Path) -> None:
    """End what a failed test left behind, by process id."""
    for process in processes_of(home):
        with contextlib.suppress(psutil.Error):
            process.kill()


def eventually(what: Any, seconds: float = 30) -> Any:
    """Wait until `what()` is true and give it; a deadline, not a measurement."""
    deadline = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)
