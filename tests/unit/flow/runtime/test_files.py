"""What may be the source of an output."""

import io
import os
import socket
from pathlib import Path

import pytest

from kodo.flow._runtime import files
from kodo.flow._runtime.files import is_name_of_file, write_file
from kodo.p2p.errors import CapacityError, UsageError


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def folder(place: Path) -> Path:
    (place / "folder").mkdir()
    return place / "folder"


def of_socket(place: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "s"))
    return place / "s"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (pipe, "is a pipe, which may never end"),
        (folder, "is a folder: write its files one by one"),
        (lambda _: Path("/dev/zero"), "is a device"),
        (lambda _: open("/dev/zero", "rb"), "is a device"),  # noqa: SIM115
    ],
)
def test_what_never_ends_or_is_no_file_is_refused_with_words(tmp_path, make, said):
    source = make(tmp_path)
    with pytest.raises(UsageError, match=said):
        write_file(tmp_path / "out", source)
    assert not (tmp_path / "out").exists()
    if hasattr(source, "close"):
        source.close()


def test_a_socket_is_no_source(tmp_path):
    with pytest.raises(OSError, match="No such device"):
        write_file(tmp_path / "out", of_socket(tmp_path))


def test_a_pipe_that_the_flow_opened_is_read_to_its_end(tmp_path):
    reading, writing = os.pipe()
    os.write(writing, b"text")
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        assert write_file(tmp_path / "out", file).size == 4


def test_a_file_that_is_larger_than_the_disk_is_refused_before_it_is_copied(tmp_path, monkeypatch):
    sparse = tmp_path / "sparse"
    with open(sparse, "wb") as file:
        file.truncate(1 << 42)
    monkeypatch.setattr(files, "_read", lambda file: pytest.fail("it was read"))
    with pytest.raises(CapacityError, match=r"'out' does not fit on this machine's disk"):
        write_file(tmp_path / "out", sparse)


def test_pieces_that_never_end_stop_before_the_disk_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LEAST_FREE_BYTES", 1 << 60)
    monkeypatch.setattr(files, "_CHECK_EVERY_BYTES", 1 << 20)

    def endless():
        while True:
            yield bytes(1 << 19)

    with pytest.raises(CapacityError, match="would be left"):
        write_file(tmp_path / "out", endless())
    assert list(tmp_path.iterdir()) == []


def test_files_in_memory_are_sources(tmp_path):
    assert write_file(tmp_path / "out", io.BytesIO(b"1")).size == 1
    assert write_file(tmp_path / "out", io.StringIO("ü")).size == 2


@pytest.mark.parametrize(
    ("text", "is_name"), [("there.md", True), ("not-there.md", False), ("a\nb", False), ("", False)]
)
def test_a_text_that_names_a_file_is_known(tmp_path, monkeypatch, text, is_name):
    monkeypatch.chdir(tmp_path)
    Path("there.md").touch()
    assert is_name_of_file(text) == is_name
    assert not is_name_of_file(text.encode())
