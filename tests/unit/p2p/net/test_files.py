"""Files that are made once, with and without hard links, and read by their owner only."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import kodo.p2p
from kodo.p2p.errors import UsageError
from kodo.p2p.net.files import clear_parts, make_once, whole_file
from kodo.p2p.net.keystore import make_home, read_private, write_private


def _refuse(number: int) -> Callable[[Path, Path], None]:
    def link(old: Path, new: Path) -> None:
        raise OSError(number, os.strerror(number))

    return link


@pytest.mark.parametrize("link", [os.link, _refuse(errno.EPERM), _refuse(errno.EOPNOTSUPP), _refuse(errno.ENOSYS)])
def test_a_file_is_made_once_also_where_there_are_no_hard_links(
    tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    path = tmp_path / "key"
    assert make_once(path, b"first", link=link)
    assert not make_once(path, b"second", link=link)
    assert read_private(path) == b"first"
    assert os.listdir(tmp_path) == ["key"]


def test_what_cannot_be_given_its_name_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        make_once(tmp_path / "key", b"x", link=_refuse(errno.EIO))
    assert os.listdir(tmp_path) == []


def test_a_link_that_leads_nowhere_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.symlink_to(tmp_path / "elsewhere")
    assert not make_once(path, b"x")
    assert not make_once(path, b"x", link=_refuse(errno.EPERM))
    assert not (tmp_path / "elsewhere").exists()


def test_what_others_may_read_is_refused_and_what_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_private(tmp_path / "key") is None
    write_private(tmp_path / "key", b"x")
    (tmp_path / "key").chmod(0o604)
    with pytest.raises(UsageError, match="chmod 600"):
        read_private(tmp_path / "key")


def crashed(folder: Path) -> Path:
    """What a process leaves that ends while it writes a whole file."""
    body = "import os, sys; from pathlib import Path; from kodo.p2p.net.files import whole_file\n"
    body += "with whole_file(Path(sys.argv[1])) as file: file.write(b'half a secret'); file.flush(); os._exit(1)"
    subprocess.run([sys.executable, "-c", body, str(folder / "user.key")], check=False)
    [part] = folder.iterdir()
    return part


def long_ago(path: Path) -> None:
    os.utime(path, (0, 0))


def test_what_a_crash_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    part = crashed(tmp_path)
    clear_parts(tmp_path)
    assert part.exists()  # somebody may be about to write to it
    names = (".part", ".0123.part", "0123456789abcdef.part", f"x{part.name}", ".0123456789abcdef.partly")
    others = [tmp_path / name for name in names]
    for path in [*others, part]:
        path.touch()
        long_ago(path)
    (tmp_path / ".fedcba9876543210.part").symlink_to(others[0])
    with whole_file(tmp_path / "node.key") as file:
        long_ago(Path(file.name))
        clear_parts(tmp_path)
        assert Path(file.name).exists()  # somebody is writing to it
    assert not part.exists()
    assert all(path.exists() for path in others)
    clear_parts(tmp_path / "nowhere")


@pytest.mark.parametrize("way", [make_home, lambda home: write_private(home / "logins.json", b"{}")])
def test_what_a_crash_left_beside_keys_is_gone_at_the_next_start(
    tmp_path: Path, way: Callable[[Path], object]
) -> None:
    long_ago(part := crashed(tmp_path))
    way(tmp_path)
    assert not part.exists()


CLEANERS = {
    "kodo/cli/reading.py": "clear_parts",
    "kodo/node/backup.py": "clear_parts",
    "kodo/node/catalog/scope_code.py": "at its start it removes all that an earlier node kept",
    "kodo/mcp/state.py": "it is in a home, which make_home looks after",
    "kodo/web/port.py": "it is in a home, which make_home looks after",
    "kodo/web/server.py": "it is in a home, which make_home looks after",
    "kodo/flow/_runtime/files.py": "the run's folder goes with it",
    "kodo/flow/delegation.py": "the flow's own folder, which goes with it",
    "kodo/flow/memory.py": "the flow's own folder, which goes with it",
    "kodo/node/executors/ray/cluster.py": "clear_parts",
    "kodo/node/runs/vault.py": "at its start it removes all that is of no unfinished run",
    "kodo/p2p/net/keystore.py": "clear_parts",
    "kodo/registry/store/backup.py": "clear_parts",
}
"""Who writes whole files, and what becomes of one that a crash has left."""


def test_whatever_writes_whole_files_has_what_a_crash_left_removed() -> None:
    writers = {}
    for path in Path(kodo.p2p.__path__[0]).parents[2].glob("*/kodo/**/*.py"):
        source = path.read_text("utf-8")
        name = "kodo/" + path.as_posix().rpartition("/kodo/")[2]
        if name != "kodo/p2p/net/files.py" and re.search(r"\b(whole_file|make_once)\(", source):
            writers[name] = source
    assert set(writers) == set(CLEANERS)
    assert [name for name, how in CLEANERS.items() if how == "clear_parts" and how not in writers[name]] == []


def test_a_home_may_be_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "home").symlink_to("real")
    write_private(make_home(tmp_path / "home") / "key", b"x")
    assert make_once(tmp_path / "home" / "other", b"y", link=_refuse(errno.EPERM))
    assert sorted(os.listdir(tmp_path / "real")) == ["key", "other"]
