"""What a caller may close: a standard stream, or the terminal in the middle of a run."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

KOCO = [sys.executable, "-c", "from kodo.cli.main import main; main()"]
COMMANDS = [["config"], ["ps", "--no-lan"], ["user", "list", "--node", "nobody"]]

ASKER = '''
from kodo.flow import flow, lock, output

@flow(name="Asker", author="a", organization="b", release="1")
def ask():
    """Ask once."""
    output.write("secret.txt", "mine")
    return lock("Which?", str)
'''


def environment(home: Path) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KODO_")}
    return {**kept, "KODO_HOME": str(home), "KODO_LAN": "false"}


@pytest.mark.parametrize("json_wanted", [False, True])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("closed", [(0,), (2,), (0, 1, 2)], ids=str)
def test_a_command_whose_streams_are_closed_does_what_it_would(
    command: list[str], closed: tuple[int, ...], json_wanted: bool, tmp_path: Path
) -> None:
    def run(*without: int) -> subprocess.CompletedProcess[bytes]:
        words = " ".join(f"{number}{'<' if number == 0 else '>'}&-" for number in without)
        return subprocess.run(
            ["sh", "-c", f'exec "$@" {words}', "sh", *KOCO, *command, *["--json"] * json_wanted],
            env=environment(tmp_path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )

    usual, done = run(), run(*closed)
    assert done.returncode == usual.returncode
    assert b"internal" not in done.stderr
    if json_wanted and 1 not in closed:
        # Nothing that belongs on stderr comes out where JSON is read.
        kept = [json.loads(line) for line in done.stdout.splitlines()]
        assert [row.keys() for row in kept] == [json.loads(line).keys() for line in usual.stdout.splitlines()]


def test_a_terminal_that_closes_in_the_middle_of_a_local_run_leaves_nothing_of_it(tmp_path: Path) -> None:
    (tmp_path / "asker.py").write_text(ASKER)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        words = [*KOCO, "run", "./asker.py"]
        os.execve(words[0], words, {**environment(tmp_path / "home"), "TMPDIR": str(temporary)})
    said = b""
    while b"answer:" not in said:
        said += os.read(terminal, 4096)
    assert list(temporary.glob("koco-*"))
    os.close(terminal)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)
    assert list(temporary.glob("koco-*")) == []
