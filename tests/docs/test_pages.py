"""What the documentation shows works: its code blocks are run, against real nodes."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.pages import Block, Reader, blocks

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if path != DOCS / "README.md")
RUN = [path for path in PAGES if any(block.kind in ("python", "sh") for block in blocks(path))]


ENVIRONMENT = re.compile(r"<!-- runs in: (\w+) -->")
"""The virtual environment that a page needs, when it is not this one: a test of `integration/` runs it there."""


def is_run_here(path: Path) -> bool:
    found = ENVIRONMENT.search(path.read_text("utf-8"))
    return (found[1] if found else "") == os.environ.get("KODO_DOCS_ENVIRONMENT", "")


HERE = [path for path in RUN if is_run_here(path)]


def runs(block: Block) -> bool:
    return block.kind in ("python", "sh") and not block.asked("not run:") and not block.file


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KODO_", "RAY_", "PYTEST_"))}
    small = {"KODO_NUM_CPUS": "1", "KODO_RUNNERS": "0", "KODO_OBJECT_STORE": "100MB", "KODO_LAN": "no"}
    small["KODO_EXECUTOR"] = "auto"  # a page whose flow needs Ray gets it
    small["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # a reader has pytest alone, and ours take seconds
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    shown = {"NO_COLOR": "1", "COLUMNS": "120", "TERM": "dumb", "PYTHONUNBUFFERED": "1"}
    return {**kept, **small, **shown, "PATH": path, "KODO_HOME": str(home)}


def id_of(path: Path) -> str:
    return path.relative_to(DOCS).as_posix()


@pytest.mark.parametrize("path", [path for path in HERE if any(map(runs, blocks(path)))], ids=id_of)
def test_what_a_page_shows_works(path: Path, tmp_path: Path) -> None:
    folder, home = tmp_path / "work", tmp_path / "home"
    folder.mkdir()
    Reader(folder, environment(home)).follow(path)


@pytest.mark.parametrize("path", RUN, ids=id_of)
def test_what_is_not_run_says_why(path: Path) -> None:
    for block in blocks(path):
        for reason in block.asked("not run:"):
            assert len(reason) > 10, block.text


def test_the_reader_notices_a_command_that_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\nkoco show ./missing.py\n```\n")
    with pytest.raises(AssertionError, match="there is no file"):
        Reader(tmp_path, environment(tmp_path / "home")).follow(page)


def test_the_reader_types_answers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    asks = "python -c \"print('got', input('Sure? yes or no: '))\""
    page.write_text(f'<!-- typed after "Sure?": yes -->\n```sh\n{asks}\n```\n')
    reader = Reader(tmp_path, environment(tmp_path / "home"))
    reader.follow(page)
    assert "got yes" in reader.printed[-1]


def test_the_reader_asks_again_until_a_command_prints_what_is_expected(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- again until: ... -->\n```sh\nprintf . >> dots; cat dots\n```\n")
    reader = Reader(tmp_path, environment(tmp_path / "home"))
    reader.follow(page)
    assert reader.printed == ["..."]
