"""How far runners stand behind their node."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kodo.node.executors import niceness
from kodo.node.executors.niceness import NICE, nice_of_session, step_session_back

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="runners are processes of POSIX")

PROGRAM = """
import os
from kodo.node.executors.niceness import nice_of_session, step_back, step_session_back
step_back()
step_session_back()
print(os.getpriority(os.PRIO_PROCESS, 0), nice_of_session(os.getpid()))
"""


def test_a_process_and_the_session_that_it_leads_step_back() -> None:
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, start_new_session=True, check=True
    ).stdout.split()
    assert int(told[0]) >= NICE
    assert told[1] in (str(NICE), "None")


def test_other_sessions_stay_where_they_were() -> None:
    before = nice_of_session(os.getpid())
    subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, start_new_session=True, check=True)
    assert nice_of_session(os.getpid()) == before


def test_who_may_not_do_it_just_now_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, tries, write = tmp_path / "autogroup", [], os.write

    def busy(descriptor: int, data: bytes) -> int:
        tries.append(data)
        if len(tries) < 4:
            raise BlockingIOError(errno.EAGAIN, "somebody else has just done it")
        return write(descriptor, data)

    file.touch()
    monkeypatch.setattr(niceness.os, "write", busy)
    monkeypatch.setattr(niceness.time, "sleep", lambda seconds: None)
    step_session_back(file)
    assert (len(tries), file.read_text()) == (4, str(NICE))


def test_where_sessions_are_not_told_apart_nothing_is_done(tmp_path: Path) -> None:
    step_session_back(tmp_path / "autogroup")
    assert not (tmp_path / "autogroup").exists()
