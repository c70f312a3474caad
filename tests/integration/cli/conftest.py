"""A node that `koco up` started, and `koco` as a user with a home of their own."""

from __future__ import annotations

import json
import os
import pty
import queue
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

KOCO = [sys.executable, "-c", "from kodo.cli.main import main; main()"]
FLOWS = Path(__file__).parent / "flows"
READY_SECONDS = 90
COMMAND_SECONDS = 90


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KODO_")}
    small = {"KODO_NUM_CPUS": "1", "KODO_RUNNERS": "1", "KODO_OBJECT_STORE": "100MB"}
    return {**kept, **small, "KODO_HOME": str(home), "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def row(self) -> dict[str, Any]:
        [row] = self.rows
        return row


class User:
    """Runs `koco`; `home` is whose keys and pins are used, `prefix` the words before it."""

    def __init__(self, home: Path, prefix: Sequence[str] = ()):
        self.home = home
        self.prefix = prefix

    def __call__(self, *words: str, cwd: Path | None = None) -> Done:
        done = subprocess.run(
            [*self.prefix, *KOCO, *words],
            env=environment(self.home),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
            cwd=cwd,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*KOCO, *words],
            env=environment(self.home),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


class Person:
    """Someone at a terminal: waits for words on the screen, then types."""

    def __init__(self, home: Path, *words: str):
        self.process, self._terminal = pty.fork()
        if self.process == 0:
            os.execve(KOCO[0], [*KOCO, *words], environment(home))
        self.screen = ""
        self._seen = 0

    def sees(self, words: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.screen[self._seen :]:
            assert time.monotonic() < deadline, self.screen
            assert self._read(), self.screen
        self._seen = self.screen.index(words, self._seen) + len(words)

    def types(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def leaves(self) -> int:
        while self._read():
            pass
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])

    def _read(self) -> bool:
        if select.select([self._terminal], [], [], 1)[0]:
            try:
                data = os.read(self._terminal, 65536)
            except OSError:
                return False
            self.screen += data.decode("utf-8", "replace")
            return bool(data)
        return True


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    # Not pytest's own folder: the sockets of Ray lie below, and their paths are bounded to 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="kc-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def on_ray() -> bool:
    """Whether the node of a module of tests runs flows on Ray; a module for which it does overrides this."""
    return False


@pytest.fixture(scope="module")
def node(base: Path, on_ray: bool) -> Iterator[dict[str, Any]]:
    """What `koco up --json` printed, and its `home`, `process` and registry."""
    home = base / "node"
    scope = base / "scope.yaml"
    shutil.copytree(FLOWS, base / "flows")
    offered = ["flows.cli_flows", "flows.ways", "./flows/sized.yaml", "./flows/generated.yaml"]
    scope.write_text(f"name: cli-test.example\nflows: {json.dumps(offered)}\n")
    log = (base / "up.err").open("wb")
    executor = () if on_ray else ("--executor", "process")
    process = subprocess.Popen(
        [*KOCO, "up", str(scope), "--json", "--with-registry", "--registry-port", "0", *executor],
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
    )
    try:
        lines: queue.Queue[bytes] = queue.Queue()
        stdout = process.stdout
        assert stdout is not None
        threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
        try:
            line = lines.get(timeout=READY_SECONDS)
        except queue.Empty:
            line = b""
        assert line, (base / "up.err").read_text()
        yield {**json.loads(line), "home": home, "process": process}
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        log.close()
        stdout.close()
    assert code == 0, (base / "up.err").read_text()
    assert not (home / "node.json").exists()


@pytest.fixture(scope="module")
def address(node: dict[str, Any]) -> str:
    """The node's loopback address: found without the network."""
    return str(next(each for each in node["addrs"] if each.startswith("/ip4/127.")))


@pytest.fixture
def user(base: Path, tmp_path: Path) -> User:
    return User(tmp_path / "home")
