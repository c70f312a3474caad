"""The reference says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kodo.cli.commands import COMMANDS, load
from kodo.cli.exits import Exit
from kodo.protocol.calls import OPS
from kodo.protocol.events import EVENTS
from scripts.reference import MAKERS
from scripts.reference.blocks import fill, names

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
WITH_BLOCKS = [page for page in PAGES if names(page.read_text("utf-8"))]


def page(name: str) -> str:
    return (ROOT / "docs" / "reference" / f"{name}.md").read_text("utf-8")


@pytest.mark.parametrize("path", WITH_BLOCKS, ids=lambda path: path.name)
def test_generated_blocks_are_fresh(path: Path) -> None:
    text = path.read_text("utf-8")
    assert fill(text, MAKERS) == text, "run scripts/docs, and commit what it changed"


def test_every_maker_has_a_page() -> None:
    assert sorted(name for path in WITH_BLOCKS for name in names(path.read_text("utf-8"))) == sorted(MAKERS)


def test_every_op_is_described_with_its_args() -> None:
    rows = [
        re.split(r"(?<!\\)\|", line)
        for line in page("ops").partition("## Args in detail")[0].splitlines()
        if "|" in line
    ]
    described = {op: row[2] for row in rows for op in re.findall(r"`([a-z]+\.[a-z]+)`", row[1])}
    assert described.keys() == OPS.keys()
    for op, model in OPS.items():
        for name, field in model.model_fields.items():
            if name != "behalf" or op in ("run.list",):
                assert re.search(rf"\b{field.alias or name}\b", described[op]), (op, name)


def test_every_event_is_described() -> None:
    rows = [line.split("|") for line in page("events").splitlines() if line.startswith("| `")]
    assert {name for row in rows if len(row) == 4 for name in re.findall(r"`([a-z-]+)`", row[1])} >= EVENTS.keys()


def test_every_command_says_what_it_prints_as_json() -> None:
    said = {
        word for line in page("json").splitlines() if line.startswith("|") for word in re.findall(r"[a-z]+", line)
    }
    assert COMMANDS.keys() - said == set()


def test_every_exit_code_is_described() -> None:
    codes = {value for name, value in vars(Exit).items() if name.isupper()}
    assert {str(code) for code in codes} <= set(re.findall(r"\d+", page("json").partition("## Errors")[2]))


def test_the_page_of_koco_has_every_option() -> None:
    text = page("koco")
    for name in COMMANDS:
        command = load(name)
        for each in getattr(command, "commands", {"": command}).values():
            assert all(
                option in text
                for parameter in each.params
                if parameter.param_type_name == "option"
                for option in parameter.opts
            ), name
