"""Only files in the named folders are read and written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kodo.mcp.files import Folders
from kodo.p2p.errors import UsageError

UPLOAD = "upload-01arz3ndektsv4rrffq69g5fav"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "named"
    (made / "sub").mkdir(parents=True)
    (made / "in.txt").write_text("in")
    (tmp_path / "out.txt").write_text("out")
    (made / "link").symlink_to(tmp_path / "out.txt")
    (made / "away").symlink_to(tmp_path)
    (made / "home").symlink_to(made)
    os.mkfifo(made / "pipe")
    return made


@pytest.mark.parametrize("text", ["in.txt", "sub/../in.txt", "home/in.txt", "./in.txt"])
def test_a_file_inside_is_found(folder: Path, text: str) -> None:
    assert Folders([folder]).source(text) == folder / "in.txt"
    assert Folders([folder]).source(str(folder / text)) == folder / "in.txt"


@pytest.mark.parametrize(
    "text",
    [
        "../out.txt",
        "link",
        "away/out.txt",
        "sub/../../out.txt",
        "/etc/passwd",
        "~/.ssh/id",
        "pipe",
        "sub",
        "no",
        "",
        "\0",
    ],
)
def test_no_other_file_is(folder: Path, text: str) -> None:
    with pytest.raises(UsageError):
        Folders([folder]).source(text)


def test_a_folder_beside_with_the_same_beginning_is_another(folder: Path) -> None:
    other = folder.with_name("named-not")
    other.mkdir()
    (other / "x").write_text("x")
    with pytest.raises(UsageError):
        Folders([folder]).source(str(other / "x"))


@pytest.mark.parametrize("text", ["..", "away", "away/new", "/tmp", "in.txt", "link"])
def test_nothing_is_written_elsewhere(folder: Path, text: str) -> None:
    with pytest.raises(UsageError):
        Folders([folder]).target(text)


def test_without_a_folder_there_are_no_files(tmp_path: Path) -> None:
    for work in (Folders([]).source, Folders([]).target):
        with pytest.raises(UsageError, match="--files"):
            work(str(tmp_path))
    with pytest.raises(UsageError, match="is not a folder"):
        Folders([tmp_path / "no"])


def test_files_are_put_in_the_places_that_ask_for_one(folder: Path) -> None:
    file = {"type": "string", "format": "file"}
    schema = {
        "type": "object",
        "properties": {
            "one": file,
            "many": {"type": "array", "items": {"$ref": "#/$defs/F"}},
            "maybe": {"anyOf": [file, {"type": "null"}]},
            "inner": {"type": "object", "properties": {"file": file}},
            "text": {"type": "string"},
            "path": {"type": "string", "format": "path"},
        },
        "$defs": {"F": file},
    }
    there = folder / "in.txt"
    given = {
        "one": "in.txt",
        "many": ["in.txt", UPLOAD, f"kodo://{UPLOAD}"],
        "maybe": None,
        "inner": {"file": "in.txt"},
        "text": "in.txt",
        "path": "/etc/passwd",
        "unknown": "in.txt",
    }
    assert Folders([folder]).fill(given, schema) == {
        **given,
        "one": there,
        "many": [there, UPLOAD, UPLOAD],
        "inner": {"file": there},
    }
    for bad in ({"one": "../out.txt"}, {"many": ["link"]}, {"inner": {"file": "away/out.txt"}}):
        with pytest.raises(UsageError):
            Folders([folder]).fill(bad, schema)
