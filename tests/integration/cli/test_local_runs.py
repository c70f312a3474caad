"""`koco run ./file.py`: what is refused before anything starts, where `breakpoint()` stops, what the flow is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cli.conftest import Person, User

FLOWS = """
import os
from kodo.flow import flow, lock

@flow
def stops(n: int = 4) -> str:
    total = n
    breakpoint()
    return f"ended with {total}"

@flow
def steps() -> str:
    breakpoint()
    fine = lock("Fine?", bool)
    return f"ended with {fine}"

@flow
def asks(topic: str) -> bool:
    return lock("Really?", bool)

@flow
def told() -> list[str]:
    return [os.environ["KODO_FID"], os.environ["KODO_NODE"]]
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "local_flows.py").write_text(FLOWS)
    return str(tmp_path / "local_flows.py")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([":asks", "topik=x"], "did you mean topic?"),
        ([":asks"], "the flow needs topic; give topic=…"),
        ([":stop"], "did you mean stops?"),
        (["", "topic=x"], "4 flows (stops, steps, asks, told); name one"),
        ([":stops", "n=many"], "n should be"),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(user: User, file: str, words: list[str], why: str) -> None:
    done = user("run", file + words[0], *words[1:])
    assert (done.code, done.out) == (2, "")
    assert why in done.err
    assert "starting" not in done.err


def test_defaults_are_no_answer_to_a_question_without(user: User, file: str) -> None:
    done = user("run", f"{file}:asks", "topic=x", "--yes", "--json")
    assert done.code == 2
    assert "'Really?' has no default" in done.rows[-1]["error"]["message"]


def test_a_flow_knows_its_run_and_its_node(user: User, file: str) -> None:
    done = user("run", f"{file}:told", "--json")
    assert done.rows[-1]["final"]["result"] == [done.rows[-1]["fid"], "local"]


def test_a_breakpoint_stops_on_the_terminal_of_the_run(user: User, file: str) -> None:
    person = Person(user.home, "run", f"{file}:stops")
    person.sees("(Pdb) ")
    person.types("total = 7\n")
    person.sees("(Pdb) ")
    person.types("continue\n")
    person.sees("ended with 7")
    assert person.leaves() == 0
    assert "unlock" not in person.screen


def test_a_question_that_the_debugger_steps_over_is_asked_on_its_terminal(user: User, file: str) -> None:
    person = Person(user.home, "run", f"{file}:steps")
    person.sees("(Pdb) ")
    person.types("next\n")
    person.sees("? Fine?")
    person.types("yes\n")
    person.sees("(Pdb) ")
    person.types("continue\n")
    person.sees("ended with True")
    assert person.leaves() == 0


def test_a_breakpoint_without_a_terminal_is_skipped_and_told(user: User, file: str) -> None:
    done = user("run", f"{file}:stops", "--json")
    assert (done.code, done.rows[-1]["final"]["result"]) == (0, "ended with 4")
    [text] = [row["data"]["text"] for row in done.rows if row.get("event") == "log"]
    assert text.startswith("breakpoint() at local_flows.py:8 was skipped")
