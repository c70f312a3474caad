"""Whoever writes a file by way of a temporary one: no name, and no other writer, gets in its way."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from kodo.flow._runtime import current as context
from kodo.flow._runtime.console import ConsoleContext
from kodo.flow.delegation import Delegation
from kodo.flow.memory import Memory
from kodo.node.executors.runner.context import RunnerContext
from kodo.p2p.net.files import whole_file
from kodo.p2p.net.keystore import write_private
from kodo.protocol.manifest import MAX_PART_BYTES, check_output_name
from kodo.registry.store.backup import back_up

Meanwhile = Callable[[], None]
"""What happens while a file is half written."""

Writer = Callable[[Path, str, bytes, Meanwhile], Path]
"""Writes a file of that name; gives where it is."""


def pieces(data: bytes, meanwhile: Meanwhile) -> Iterator[bytes]:
    yield data[: len(data) // 2]
    meanwhile()
    yield data[len(data) // 2 :]


class Asked(RunnerContext):
    """A run whose node answers with one file, in two pieces."""

    def __init__(self, data: bytes, meanwhile: Meanwhile):
        super().__init__()
        self.data = data
        self.meanwhile = meanwhile

    def ask(self, op: str, args: Mapping[str, Any]) -> Future[Any]:
        half = len(self.data) // 2
        offset = args["offset"]
        if offset:
            self.meanwhile()
        size, sha256 = len(self.data), hashlib.sha256(self.data).hexdigest()
        answer: Future[Any] = Future()
        answer.set_result(
            {"data": self.data[offset : offset + half + 1], "size": size, "sha256": sha256, "version": 1}
        )
        return answer


RUNNERS: dict[Path, RunnerContext] = {}


def output_of_a_run(folder: Path, name: str, data: bytes, meanwhile: Meanwhile) -> Path:
    run = RUNNERS.setdefault(folder, RunnerContext())
    run.folder = folder / "files"
    run.write_output(name, pieces(data, meanwhile), None)
    return folder / "files" / name


def output_without_a_node(folder: Path, name: str, data: bytes, meanwhile: Meanwhile) -> Path:
    ConsoleContext().write_output(name, pieces(data, meanwhile), None)
    return folder / "outputs" / name


def file_of_a_memory(folder: Path, name: str, data: bytes, meanwhile: Meanwhile) -> Path:
    context.install(Asked(data, meanwhile))
    fetched: Path = Memory("short").files.fetch(name)
    return fetched


def output_of_another_node(folder: Path, name: str, data: bytes, meanwhile: Meanwhile) -> Path:
    context.install(Asked(data, meanwhile))
    run = Delegation("node/flow", {})
    run._handle = {"fid": "f", "node": "n"}
    fetched: Path = run.fetch(name, to=folder / name)
    return fetched


def whole(folder: Path, name: str, data: bytes, meanwhile: Meanwhile) -> Path:
    with whole_file(folder / name) as file:
        for piece in pieces(data, meanwhile):
            file.write(piece)
    return folder / name


WRITERS: list[Writer] = [
    output_of_a_run,
    output_without_a_node,
    file_of_a_memory,
    output_of_another_node,
    whole,
]

HEAD = "x" * 100
NAMES = [
    (f"{HEAD}-first.md", f"{HEAD}-second.md"),
    ("a.md", ".a.md.part"),
    (".a.md.part", "a.md"),
    ("報" * (MAX_PART_BYTES // 3), "報" * (MAX_PART_BYTES // 3 - 1)),
    ("n" * MAX_PART_BYTES, "m" * MAX_PART_BYTES),
    ("parts", ".part"),
]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    RUNNERS.clear()
    yield
    context.install(None)


@pytest.mark.parametrize("names", NAMES, ids=lambda names: f"{names[0][:12]}+{names[1][-12:]}")
@pytest.mark.parametrize("write", WRITERS)
def test_two_files_that_are_written_at_once_are_both_what_was_written(
    tmp_path: Path, write: Writer, names: tuple[str, str]
) -> None:
    first, second = map(check_output_name, names)
    places: list[Path] = []
    places.append(write(tmp_path, first, b"first one", lambda: places.append(write(tmp_path, second, b"2nd", bool))))
    assert sorted((place.name, place.read_bytes()) for place in places) == sorted(
        [(first, b"first one"), (second, b"2nd")]
    )


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_that_could_not_be_written_leaves_nothing_and_what_was_there(tmp_path: Path, write: Writer) -> None:
    def fail() -> None:
        raise ValueError("no more")

    def files() -> list[str]:
        return [path.name for path in tmp_path.rglob("*") if path.is_file()]

    with pytest.raises(ValueError, match="no more"):
        write(tmp_path, "a.md", b"new one", fail)
    assert files() == []
    place = write(tmp_path, "a.md", b"old", bool)
    if write is not output_of_a_run:  # its names are used once
        with pytest.raises(ValueError, match="no more"):
            write(tmp_path, "a.md", b"new one", fail)
    assert (files(), place.read_bytes()) == (["a.md"], b"old")


def test_what_is_on_its_way_is_not_among_the_outputs(tmp_path: Path) -> None:
    seen: list[list[Path]] = []
    output_of_a_run(tmp_path, "a.md", b"content", lambda: seen.append(list((tmp_path / "files").iterdir())))
    assert seen == [[]]


def test_a_private_file_may_have_the_longest_name(tmp_path: Path) -> None:
    path = tmp_path / ("報" * (MAX_PART_BYTES // 3))
    write_private(path, b"key")
    assert path.read_bytes() == b"key"


def test_a_backup_leaves_the_files_beside_it_alone(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "registry.db").execute("CREATE TABLE t (x)").connection.close()
    other = tmp_path / "copy.db.part"
    other.write_bytes(b"mine")
    back_up(tmp_path / "registry.db", tmp_path / "copy.db")
    assert other.read_bytes() == b"mine"
