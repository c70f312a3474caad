"""Lines asked of a person, on a real pseudo-terminal."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from kodo.cli.terminal import ask_line


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Give the end of a terminal at which a person types."""
    typing, terminal = os.openpty()
    with os.fdopen(terminal, "r") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield typing
    os.close(typing)


async def test_each_line_typed_ahead_answers_one_question(person: int, capsys: pytest.CaptureFixture[str]) -> None:
    os.write(person, b"Ada\n3\n")
    assert [await ask_line("name:"), await ask_line("times:")] == ["Ada", "3"]
    assert capsys.readouterr().err == "name: times: "


async def test_an_interrupted_question_ends_its_line(person: int, capsys: pytest.CaptureFixture[str]) -> None:
    asked = asyncio.ensure_future(ask_line("name:"))
    await asyncio.sleep(0)  # lets it ask
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert capsys.readouterr().err == "name: \n"


AHEAD = """
import asyncio, fcntl, sys, termios
from kodo.cli.terminal import ask_line, forget_typed, unseen_typing
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
async def main():
    with unseen_typing():
        print("ready", flush=True)
        sys.stdin.readline()
        print("typed", flush=True)
        while not int.from_bytes(fcntl.ioctl(0, termios.FIONREAD, bytes(4)), sys.byteorder):
            pass
    forget_typed()
    print(await ask_line("Delete all?"), flush=True)
asyncio.run(main())
"""


def test_what_was_typed_before_a_question_is_not_shown_and_answers_nothing() -> None:
    typing, terminal = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", AHEAD], stdin=terminal, stdout=subprocess.PIPE, stderr=terminal, start_new_session=True
    ) as process:
        os.close(terminal)
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            os.write(typing, b"go on\n")
            assert process.stdout.readline() == b"typed\n"
            os.write(typing, b"yes\n")
            shown = b""
            while b"Delete all?" not in shown:
                shown += os.read(typing, 1000)
            os.write(typing, b"no\n")
            assert process.stdout.readline() == b"no\n"
        finally:
            process.kill()
            os.close(typing)
    assert shown.strip() == b"Delete all?"


LEFT = """
import fcntl, os, signal, sys, termios
from kodo.cli.runtime import Context, _leave
from kodo.cli.terminal import unseen_typing
from kodo.client.config import load_settings
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # as shells do, who take the terminal back
ready, is_ready = os.pipe()
go_on, goes_on = os.pipe()
command = os.fork()
if not command:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    with unseen_typing():
        os.write(is_ready, b" ")
        os.read(go_on, 1)
        if sys.argv[1] == "at once":
            _leave(Context(load_settings("/nowhere", {}, {}), json=True, verbose=False))
    os._exit(0)
os.read(ready, 1)
print("seen" if termios.tcgetattr(0)[3] & termios.ECHO else "unseen")
if sys.argv[1] == "background":
    os.tcsetpgrp(0, os.getpid())
os.write(goes_on, b" ")
_, status = os.waitpid(command, os.WUNTRACED)
print("stopped" if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status))
print("seen" if termios.tcgetattr(0)[3] & termios.ECHO else "unseen")
os.kill(command, signal.SIGKILL) if os.WIFSTOPPED(status) else None
"""


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("in order", ["unseen", "0", "seen"]),
        ("at once", ["unseen", "130", "seen"]),
        # What the shell has set by then stays; who sets it nevertheless is stopped.
        ("background", ["unseen", "0", "unseen"]),
    ],
)
def test_a_terminal_shows_again_what_is_typed_however_a_command_ends(how: str, told: list[str]) -> None:
    typing, terminal = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", LEFT, how],
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(typing)
        os.close(terminal)
    assert done.stdout.decode().split() == told
