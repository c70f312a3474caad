"""Lines asked of a person, on a real pseudo-terminal."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import termios
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
with unseen_typing():
    print("ready", flush=True)
    sys.stdin.buffer.raw.read(1)
    if sys.argv[1] == "at once":
        _leave(Context(load_settings("/nowhere", {}, {}), json=True, verbose=False))
    if sys.argv[1] == "background":
        shell = os.fork()
        if not shell:
            os.setpgid(0, 0)
            signal.pause()
        while os.getpgid(shell) != shell:
            pass
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(0, shell)
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        os.kill(shell, signal.SIGKILL)
print("ended", flush=True)
"""


@pytest.mark.parametrize(("how", "shows"), [("in order", True), ("at once", True), ("background", False)])
def test_a_terminal_shows_again_what_is_typed_however_a_command_ends(how: str, shows: bool) -> None:
    typing, terminal = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", LEFT, how],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            assert not termios.tcgetattr(terminal)[3] & termios.ECHO
            os.write(typing, b"\n")
            # One that sets the terminal of another program is stopped.
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert not os.WIFSTOPPED(status)
            assert os.waitstatus_to_exitcode(status) == (130 if how == "at once" else 0)
            # What another program has set by then stays.
            assert bool(termios.tcgetattr(terminal)[3] & termios.ECHO) is shows
        finally:
            process.kill()
            os.close(typing)
            os.close(terminal)
