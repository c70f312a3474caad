"""`@flow(check=…)`: what an author's check may be and say, and what of it reaches whoever launches."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from pydantic import BaseModel

from kodo.flow import File, flow
from kodo.flow._runtime.describe import flow_info
from kodo.flow._runtime.form import InputsError
from kodo.flow._runtime.input_check import CheckFailedError, InputCheck
from kodo.flow._runtime.load import LoadedFlow
from kodo.flow.decorator import FLOW_ATTRIBUTE
from kodo.flow.locks import DeniedError
from kodo.p2p.errors import UsageError
from kodo.testing import run


class Guest(BaseModel):
    name: str
    age: int = 0


class Attached(BaseModel):
    doc: File


def trip(
    start: date,
    end: date = date(2030, 1, 1),
    guest: Guest | None = None,
    doc: File | None = None,
    attached: Attached | None = None,
) -> int:
    return (end - start).days


def loaded(check: Any, target: Any = trip) -> LoadedFlow:
    fresh = FunctionType(target.__code__, target.__globals__, target.__name__, target.__defaults__)
    fresh.__annotations__ = target.__annotations__
    marked = flow(check=check)(fresh)
    return LoadedFlow("t.trip", "t:trip", marked, getattr(marked, FLOW_ATTRIBUTE), "")


def faults(check: Any, **inputs: Any) -> list[dict[str, str]]:
    one = loaded(check)
    return InputCheck(one, one.inputs_schema()).faults({"start": "2026-01-31", **inputs})


def at(place: str, message: str) -> dict[str, str]:
    return {"at": place, "message": message}


async def later(start: date) -> dict[str, str]:
    return {"start": "too late"}


def raising(error: BaseException) -> Callable[[date], None]:
    def check(start: date) -> None:
        raise error

    return check


@pytest.mark.parametrize(
    ("check", "found"),
    [
        (lambda start: None, []),
        (lambda start: True, []),
        (lambda start: {}, []),
        (lambda start: [], []),
        (lambda start: {"start": None, "end": ""}, []),
        (lambda start: False, [at("", "not accepted")]),
        (lambda start: "no", [at("", "no")]),
        (lambda start: ["no", "never"], [at("", "no"), at("", "never")]),
        (lambda start: {"start": "no"}, [at("/start", "no")]),
        (
            lambda start: {"start": ["no", "never"], "": "at all"},
            [at("/start", "no"), at("/start", "never"), at("", "at all")],
        ),
        (lambda start: {"/guest/name": "who?"}, [at("/guest/name", "who?")]),
        (lambda start: {"stat": "no"}, [at("", "stat: no")]),
        (later, [at("/start", "too late")]),
        (raising(ValueError("no")), [at("", "no")]),
        (raising(DeniedError(["no", "never"])), [at("", "no"), at("", "never")]),
        (lambda start: Guest.model_validate({"name": 5}), [at("", "name: Input should be a valid string")]),
    ],
)
def test_a_check_says_what_is_wrong_in_any_of_these_ways(check: Any, found: list[dict[str, str]]) -> None:
    assert faults(check) == found


@pytest.mark.parametrize("said", [7, object(), {"start": 7}, [None], b"no"])
def test_what_is_no_answer_is_a_failure_of_the_check_that_names_what_to_return(said: Any) -> None:
    with pytest.raises(CheckFailedError, match="return a map of names"):
        faults(lambda start: said)


@pytest.mark.parametrize("error", [KeyError("x"), SystemExit(0), RecursionError(), MemoryError()])
def test_another_error_than_a_value_error_is_a_failure_of_the_check_and_names_its_line(error: BaseException) -> None:
    with pytest.raises(CheckFailedError, match=rf"{type(error).__name__}: .*\(test_input_check\.py:\d+\)"):
        faults(raising(error))


def test_a_check_gets_what_it_names_in_the_types_of_the_flow_and_with_its_defaults() -> None:
    seen: list[Any] = []
    assert faults(lambda end, start, guest: seen.extend([start, end, guest]), guest={"name": "Ada"}) == []
    assert seen == [date(2026, 1, 31), date(2030, 1, 1), Guest(name="Ada")]


def test_a_check_of_all_names_gets_all_but_files() -> None:
    seen: dict[str, Any] = {}
    assert faults(lambda **inputs: seen.update(inputs), doc="upload-" + "0" * 26) == []
    assert set(seen) == {"start", "end", "guest"}


def test_inputs_that_the_types_refuse_are_refused_before_the_check() -> None:
    assert [place["at"] for place in faults(lambda: pytest.fail("called"), start="tomorrow", guest={"name": 5})] == [
        "/start",
        "/guest/name",
    ]


def test_more_and_longer_faults_than_a_refusal_holds_are_cut() -> None:
    found = faults(lambda start: ["x" * 1000] * 1000)
    assert len(found) == 20
    assert {len(place["message"]) for place in found} == {300}


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda strat: None, "'strat', which is no input"),
        (lambda *inputs: None, "cannot be given by name"),
        (lambda start, /: None, "cannot be given by name"),
        (lambda doc: None, "the file 'doc'"),
        (lambda attached: None, "the file 'attached'"),
        (7, "cannot be called"),
    ],
)
def test_a_check_that_cannot_be_called_makes_the_flow_a_broken_one(check: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        flow_info(loaded(check))


def test_what_is_said_of_a_flow_tells_whether_it_has_a_check() -> None:
    assert flow_info(loaded(lambda start: None)).has_check
    assert not flow_info(loaded(None)).has_check


def test_kodo_testing_judges_inputs_as_a_node_does_and_plain_calls_do_not() -> None:
    marked = loaded(lambda start, end: {"end": "before the start"} if end < start else None).target
    assert run(marked, start="2026-01-31").result == (date(2030, 1, 1) - date(2026, 1, 31)).days
    with pytest.raises(InputsError, match="/end: before the start") as refused:
        run(marked, start="2026-01-31", end="2025-01-31")
    assert refused.value.places == [at("/end", "before the start")]
    assert marked(date(2026, 1, 31), date(2025, 1, 31)) == -365


MODULE = """
from kodo.flow import flow, lock, memory, output, progress
print("noise at import")

class Crew:
    def kickoff(self, inputs): ...

def judge(n):
    import os, sys
    print("noise"); os.write(1, b"more noise")
    if n == 1:
        b"x" * (4 << 30)
    if n == 2:
        input()
    if n == 6:
        lock("Really?")
    if n == 8:
        output.write("a.txt", "a")
    if n == 10:
        memory.long.get("a")
    progress(5, "nobody sees it")
    return {"n": "odd"} if n % 2 else None

@flow(check=judge)
def one(n: int): ...

crew = Crew()
"""


@pytest.mark.parametrize(
    ("inputs", "answer"),
    [
        ({"n": 3}, {"places": [at("/n", "odd")]}),
        ({"n": 4}, {"places": []}),
        ({"n": 1}, {"failed": "MemoryError"}),
        ({"n": 2}, {"failed": "EOFError"}),
        ({"n": 6}, {"failed": "UsageError"}),
        ({"n": 8}, {"failed": "UsageError"}),
        ({"n": 10}, {"failed": "UsageError"}),
    ],
)
def test_the_process_answers_in_json_whatever_the_check_prints_and_takes(
    tmp_path: Path, inputs: dict[str, Any], answer: dict[str, Any]
) -> None:
    (tmp_path / "checked.py").write_text(MODULE)
    request = json.dumps({"roots": [str(tmp_path)], "entry": "checked:one", "inputs": inputs})
    done = subprocess.run(
        [sys.executable, "-m", "kodo.flow._runtime.input_check"],
        check=False,
        input=request,
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = json.loads(done.stdout)
    assert {key: value.partition(":")[0] if key == "failed" else value for key, value in told.items()} == answer
