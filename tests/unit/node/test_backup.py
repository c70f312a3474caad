"""A node's home as one file: whole, of one moment, without keys unless asked for; nothing else comes out of it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kodo.flow._runtime.memory_store import MemoryStore
from kodo.node.backup import back_up, restore
from kodo.node.home import hold_home
from kodo.node.store.rows import NewEvent
from kodo.node.store.schema import SCHEMA_VERSION
from kodo.node.store.store import Store
from kodo.p2p.errors import IntegrityError, UsageError
from kodo.p2p.net.keystore import load_identity
from tests.unit.node.conftest import FIRST, StillClock, fid_of, new_run

KEYS = ("node.key", "node.crt", "user.key", "secrets.key", "secrets/1", "logins.json", "outgoing/user.key")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir(mode=0o700)
    load_identity(made, "node")
    load_identity(made, "user")
    for name in (
        *KEYS[3:],
        "node.crt",
        "kodo.toml",
        "outputs/1/report.md",
        "uploads/2",
        "ray/session/big",
        "node.lock",
    ):
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"what {name} holds")
    (made / "outputs" / "link").symlink_to("/etc/passwd")
    return made


def members(file: Path) -> set[str]:
    with tarfile.open(file) as archive:
        return set(archive.getnames())


async def test_a_home_in_use_comes_back_as_it_was(home: Path, tmp_path: Path, clock: StillClock) -> None:
    file, again = tmp_path / "x.tar.gz", tmp_path / "again"
    with hold_home(home):
        async with Store(home / "node.db", clock=clock) as store:
            await store.create(new_run(1), FIRST, None)
            told = back_up(home, file, keys=True)
            await store.append(fid_of(1), [NewEvent.make("final", {"result": 1}, 1)])
    assert restore(file, again).peer_id == told.peer_id == str(load_identity(home, "node").peer_id)
    for name in (*KEYS, "kodo.toml", "outputs/1/report.md", "uploads/2"):
        assert (again / name).read_bytes() == (home / name).read_bytes()
        assert (again / name).stat().st_mode & 0o777 == 0o600
    assert not (again / "ray").exists()
    assert not (again / "outputs" / "link").exists()
    async with Store(again / "node.db", clock=clock) as store:
        assert len(await store.events(fid_of(1))) == 3


def test_memories_are_copied_as_databases(home: Path, tmp_path: Path) -> None:
    open_database(home)
    memory = MemoryStore(home / "memory", lambda: 1)
    memory.open()
    try:
        memory.perform("set", "long", "flows.a", {"key": "seen", "value": 1})
        back_up(home, tmp_path / "x.tar", keys=False)
    finally:
        memory.close()
    restore(tmp_path / "x.tar", tmp_path / "again")
    copy = MemoryStore(tmp_path / "again" / "memory", lambda: 1)
    copy.open()
    try:
        assert copy.perform("get", "long", "flows.a", {"key": "seen"})["value"] == 1
    finally:
        copy.close()


def open_database(home: Path) -> None:
    from kodo.node.store.schema import NODE_FILE

    NODE_FILE.open_writer(home / "node.db").close()


def test_without_keys_there_is_none_in_it(home: Path, tmp_path: Path) -> None:
    open_database(home)
    back_up(home, tmp_path / "x.tar", keys=False)
    names = members(tmp_path / "x.tar")
    assert names == {
        "database.db",
        "files/kodo.toml",
        "files/outputs/1/report.md",
        "files/uploads/2",
        "manifest.json",
    }
    whole = (tmp_path / "x.tar").read_bytes()
    assert not any((home / key).read_bytes() in whole for key in KEYS)
    assert (tmp_path / "x.tar").stat().st_mode & 0o777 == 0o600


def test_outputs_may_be_left_out(home: Path, tmp_path: Path) -> None:
    open_database(home)
    back_up(home, tmp_path / "x.tar", keys=False, outputs=False)
    assert members(tmp_path / "x.tar") == {"database.db", "files/kodo.toml", "manifest.json"}


@pytest.mark.parametrize("name", ["node.db", "outputs/1", "memory/memory.db"])
def test_a_home_that_has_a_node_is_left_alone(home: Path, tmp_path: Path, name: str) -> None:
    open_database(home)
    back_up(home, tmp_path / "x.tar", keys=True)
    again = tmp_path / "again"
    (again / name).parent.mkdir(parents=True, mode=0o700)
    (again / name).write_text("kept")
    again.chmod(0o700)
    with pytest.raises(UsageError, match="already"):
        restore(tmp_path / "x.tar", again)
    assert (again / name).read_text() == "kept"


def test_keys_that_are_there_are_not_replaced(home: Path, tmp_path: Path) -> None:
    open_database(home)
    back_up(home, tmp_path / "x.tar", keys=True)
    again = tmp_path / "again"
    again.mkdir(mode=0o700)
    mine = load_identity(again, "user").peer_id
    with pytest.raises(UsageError, match=r"user\.key already"):
        restore(tmp_path / "x.tar", again)
    assert load_identity(again, "user").peer_id == mine
    assert [path.name for path in again.iterdir() if path.name not in ("user.key", "node.lock")] == []


def test_what_is_no_home_or_lies_in_it_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no database"):
        back_up(home, tmp_path / "x.tar", keys=False)
    open_database(home)
    with pytest.raises(UsageError, match="lies in the home"):
        back_up(home, home / "x.tar", keys=False)
    with pytest.raises(UsageError, match="cannot be written"):
        back_up(home, tmp_path / "missing" / "x.tar", keys=False)


Change = Callable[[dict[str, bytes]], None]


def damaged(contents: dict[str, bytes]) -> None:
    contents["files/kodo.toml"] = b"other"


def short(contents: dict[str, bytes]) -> None:
    del contents["files/uploads/2"]


def more(contents: dict[str, bytes]) -> None:
    contents["files/outputs/extra"] = b"x"


def bare(contents: dict[str, bytes]) -> None:
    del contents["manifest.json"]


def outside(contents: dict[str, bytes]) -> None:
    contents["files/outputs/../../../evil"] = b"x"


def unknown(contents: dict[str, bytes]) -> None:
    contents["files/.bashrc"] = b"x"


def no_json(contents: dict[str, bytes]) -> None:
    contents["manifest.json"] = b"{"


@pytest.mark.parametrize("change", [damaged, short, more, bare, outside, unknown, no_json])
def test_a_changed_backup_is_refused_and_nothing_of_it_is_left(home: Path, tmp_path: Path, change: Change) -> None:
    file = rewritten(home, tmp_path, change)
    with pytest.raises(IntegrityError):
        restore(file, tmp_path / "again")
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["node.lock"]
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(("field", "value"), [("format", 2), ("schema", SCHEMA_VERSION + 1)])
def test_a_backup_of_a_newer_kodo_is_refused_with_its_version(
    home: Path, tmp_path: Path, field: str, value: int
) -> None:
    def newer(contents: dict[str, bytes]) -> None:
        manifest: dict[str, Any] = json.loads(contents["manifest.json"])
        contents["manifest.json"] = json.dumps({**manifest, field: value, "kodo": "9.9"}).encode()

    with pytest.raises(UsageError, match=r"kodo 9\.9, which is newer"):
        restore(rewritten(home, tmp_path, newer), tmp_path / "again")


@pytest.mark.parametrize("length", [0, 100, 1000])
def test_a_backup_that_is_cut_short_is_refused(home: Path, tmp_path: Path, length: int) -> None:
    open_database(home)
    back_up(home, tmp_path / "x.tar.gz", keys=False)
    (tmp_path / "cut").write_bytes((tmp_path / "x.tar.gz").read_bytes()[:length])
    with pytest.raises(IntegrityError):
        restore(tmp_path / "cut", tmp_path / "again")


def rewritten(home: Path, tmp_path: Path, change: Change) -> Path:
    """A backup whose contents were changed."""
    open_database(home)
    back_up(home, tmp_path / "x.tar", keys=False)
    with tarfile.open(tmp_path / "x.tar") as archive:
        contents = {each.name: archive.extractfile(each).read() for each in archive}  # type: ignore[union-attr]
    change(contents)
    with tarfile.open(tmp_path / "y.tar", "w") as archive:
        for name in sorted(contents, key=lambda name: name == "manifest.json"):
            info = tarfile.TarInfo(name)
            info.size = len(contents[name])
            archive.addfile(info, io.BytesIO(contents[name]))
    return tmp_path / "y.tar"
