"""`koco up` at a terminal: one key does not end what others wait for."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.integration.cli.conftest import KOCO, environment

ASKER = '''
from kodo.flow import flow, lock

@flow(name="Asker", author="a", organization="b", release="1")
def ask():
    """Ask once."""
    return lock("Which?", str)
'''
INTERRUPT = b"\x03"
QUESTION = "keep them for the next"


class Terminal:
    """`koco up` at a terminal of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.said = ""
        self.pid, self.handle = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have it ignored
            command = [*KOCO, "up", "scope.yaml", "--executor", "process", "--no-lan", "--host", "127.0.0.1", *words]
            os.execve(command[0], command, environment(folder / "home"))

    def until(self, text: str) -> None:
        """Read until `text` has been said, and forget what was said up to then."""
        deadline = time.monotonic() + 60
        while text not in self.said:
            ready, _, _ = select.select([self.handle], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"{text!r} was not said: {self.said}"
            try:
                piece = os.read(self.handle, 65536)
            except OSError:
                piece = b""
            assert piece, f"it ended without saying {text!r}: {self.said}"
            self.said += piece.decode()
        self.said = self.said.partition(text)[2]

    def key(self, keys: bytes) -> None:
        os.write(self.handle, keys)

    def code(self) -> int:
        self.until("stopping")
        with contextlib.suppress(OSError):
            while os.read(self.handle, 65536):
                pass
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.handle)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@contextlib.contextmanager
def up(folder: Path, *words: str) -> Iterator[Terminal]:
    terminal = Terminal(folder, *words)
    try:
        terminal.until("Ctrl-C stops it")
        yield terminal
    finally:
        terminal.close()


def koco(folder: Path, *words: str) -> dict[str, object]:
    command = [*KOCO, *words, "--node", "asker.example", "--json", "--no-lan"]
    done = subprocess.run(command, env=environment(folder / "home"), capture_output=True, text=True, check=False)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def state(folder: Path, fid: str) -> object:
    return koco(folder, "state", fid)["state"]


def waits(folder: Path, fid: str) -> None:
    deadline = time.monotonic() + 60
    while state(folder, fid) != "locked":
        assert time.monotonic() < deadline


def test_ctrl_c_asks_what_becomes_of_runs_that_have_begun(tmp_path: Path) -> None:
    (tmp_path / "asker.py").write_text(ASKER)
    (tmp_path / "scope.yaml").write_text("name: asker.example\nflows: [asker]\n")
    with up(tmp_path) as first:
        fid = str(koco(tmp_path, "run", "asker.ask", "--detach")["fid"])
        waits(tmp_path, fid)
        first.key(INTERRUPT)
        first.until("1 run has begun, of which 1 waits for an answer")
        first.until(QUESTION)
        first.key(b"what?\r")
        first.until("enter k, e or c")
        first.key(b"c\r")
        first.until("the node goes on")
        assert state(tmp_path, fid) == "locked"
        first.key(INTERRUPT)
        first.until(QUESTION)
        first.key(INTERRUPT)
        assert first.code() == 0
    with up(tmp_path) as second:
        assert state(tmp_path, fid) == "locked"
        second.key(INTERRUPT)
        second.until(QUESTION)
        second.key(b"e\r")
        assert second.code() == 0
    with up(tmp_path) as third:
        assert state(tmp_path, fid) == "error"
        third.key(INTERRUPT)  # nothing has begun, so nothing is asked
        assert third.code() == 0


def test_a_closed_terminal_keeps_runs_and_who_has_decided_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "asker.py").write_text(ASKER)
    (tmp_path / "scope.yaml").write_text("name: asker.example\nflows: [asker]\n")
    with up(tmp_path) as first:
        fid = str(koco(tmp_path, "run", "asker.ask", "--detach")["fid"])
        waits(tmp_path, fid)
        os.close(first.handle)
        os.waitpid(first.pid, 0)
        first.pid = 0
    with up(tmp_path, "--end-runs") as second:
        assert state(tmp_path, fid) == "locked"
        second.key(INTERRUPT)
        assert second.code() == 0
    with up(tmp_path) as third:
        assert state(tmp_path, fid) == "error"
        third.key(INTERRUPT)
        assert third.code() == 0
