"""Outputs read where one is: what comes from a flow acts on no terminal, and archives hold what was verified."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from kodo.cli import reading
from kodo.cli.runtime import Context
from kodo.client.config import load_settings
from kodo.p2p.errors import CapacityError, NotFoundError, UsageError
from tests.support.world import DATA, FID, World

EVIL = "\x1b[2J\x1b]0;owned\x07\u202e\x9b"


def clean(text: str) -> bool:
    return not any(character in text for character in "\x1b\x07\u202e\x9b")


@pytest.mark.parametrize("name", ["x.txt", "x.json", "x.csv", "x.tsv", "x.md", "x"])
@pytest.mark.parametrize("text", [EVIL, f'{{"a": "{EVIL}"}}', f"a,b\n{EVIL},2\n", "[" * 5000, 'a,"b', "a\x00b"])
def test_no_output_acts_on_the_terminal(name: str, text: str) -> None:
    assert clean(reading.as_text(name, "", text))


def test_json_is_indented_and_a_broken_one_shown_as_it_is() -> None:
    assert reading.as_text("x.json", "", '{"b":[1,"ü"]}') == '{\n  "b": [\n    1,\n    "ü"\n  ]\n}'
    assert reading.as_text("x", "application/json", "{}") == "{}"
    assert reading.as_text("x.json", "", "{oops") == "{oops"


def test_a_table_has_its_columns_whatever_they_are_called() -> None:
    head, *rows = reading.as_text("x.csv", "", "name,name,n\nUlm,x,1\nParis,y\n").splitlines()
    assert head.replace("\u200d", "").split() == ["name", "name", "n"]
    assert [row.split() for row in rows] == [["Ulm", "x", "1"], ["Paris", "y"]]
    assert reading.as_text("x.tsv", "", "a\tb\n1\t2") == reading.as_text("x.csv", "", "a,b\n1,2")
    assert reading.as_text("x.csv", "", "") == ""


def test_a_long_table_says_how_much_is_missing() -> None:
    text = reading.as_text("x.csv", "", "n\n" + "\n".join(map(str, range(2100))))
    assert text.splitlines()[-1] == "and 100 rows more"


def context(home: Path, *, json: bool = False) -> Context:
    return Context(load_settings(home, {}, {}), json=json, verbose=False)


class Stdout:
    def __init__(self) -> None:
        self.buffer = io.BytesIO()

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        return self.buffer.write(text.encode())

    def flush(self) -> None:
        return None


async def run_of(client: Any) -> Any:
    return await client.run(FID, node="n.example")


async def test_an_archive_has_what_was_verified(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, out = context(tmp_path / "h"), tmp_path / "o.zip"
    async with world.client(tmp_path / "h") as client:
        run = await run_of(client)
        await reading.pack(here, run, None, out, overwrite=False)
        with pytest.raises(UsageError, match="overwrite"):
            await reading.pack(here, run, None, out, overwrite=False)
        with pytest.raises(UsageError, match="not a folder"):
            await reading.pack(here, run, None, tmp_path / "no" / "o.zip", overwrite=False)
        await reading.pack(here, run, ["x.bin"], out, overwrite=True)
        with monkeypatch.context() as patch:
            stdout = Stdout()
            patch.setattr(sys, "stdout", stdout)
            await reading.pack(here, run, None, None, overwrite=False)
            piped = stdout.buffer.getvalue()
            stdout.buffer = io.BytesIO()
            await reading.pour(here, run, None)
            poured = stdout.buffer.getvalue()
    for archive in (out.read_bytes(), piped):
        with zipfile.ZipFile(io.BytesIO(archive)) as file:
            assert {name: file.read(name) for name in file.namelist()} == {"x.bin": DATA}
    assert poured == DATA
    assert sorted(os.listdir(tmp_path)) == ["h", "o.zip"]
    assert not [op for op, _ in world.service.calls if op == "run.ack"]


async def test_what_cannot_be_shown_is_refused_before_it_is_fetched(world: World, tmp_path: Path) -> None:
    here = context(tmp_path / "h")
    async with world.client(tmp_path / "h") as client:
        run = await run_of(client)
        with pytest.raises(UsageError, match="no text"):
            await reading.show_output(here, run, "x.bin")
        with pytest.raises(NotFoundError, match=r"x\.bin"):
            await reading.show_output(here, run, "y.bin")
        world.service.made = [{"name": "x.bin", "size": reading.MAX_SHOWN_BYTES + 1}]
        asked = len(world.service.calls)
        with pytest.raises(CapacityError):
            await reading.show_output(here, run, "x.bin")
        assert [op for op, _ in world.service.calls[asked:]] == ["output.list"]
        world.service.made = [{"name": name, "size": 1} for name in "ab"]
        with pytest.raises(UsageError, match="the run has 2"):
            await reading.pour(here, run, None)


async def test_no_output_is_written_to_a_terminal_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Any = None
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    poured = reading.pour(nothing, nothing, ["a"])
    packed = reading.pack(nothing, nothing, None, None, overwrite=False)
    for writing in (poured, packed):
        with pytest.raises(UsageError, match="is for a pipe or a file"):
            await writing
