"""Apps written for kodosumi, unchanged, are flows: small ones of each of its kinds are described and run."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kodo.flow._runtime.describe import describe
from kodo.flow._runtime.form import InputsError
from kodo.flow._runtime.input_check import InputCheck
from kodo.flow._runtime.load import load_entry
from kodo.flow.adapters.kodosumi import faults
from kodo.flow.decorator import FLOW_ATTRIBUTE
from kodo.flow.kodosumi import forms
from kodo.flow.kodosumi.app import ServeAPI
from kodo.flow.kodosumi.errors import InputsError as KodosumiInputsError
from kodo.p2p.errors import NotFoundError, UsageError
from kodo.testing import run, tries

TESTS = Path(__file__).parents[2]
APPS = [TESTS / "support" / "kodosumi", TESTS / "integration" / "ray" / "scope"]


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave nothing of what a process of flows has: its import path, its finder, its modules."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = set(sys.modules)
    yield
    own = {path.stem for folder in APPS for path in folder.iterdir()} | {"kodosumi"}
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in own or name == "ray.serve":
            del sys.modules[name]


def described(*flows: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = describe({"roots": [*map(str, APPS)], "base": str(APPS[1]), "flows": list(flows)})[
        "flows"
    ]
    return found


def entry(name: str) -> Any:
    module, _, attribute = name.partition(":")
    (info,) = described(name)
    assert "error" not in info, info
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("line", ["prime.app", "prime.app:app", "prime.app:fast_app", "./prime/app.py"])
def test_each_entry_of_an_app_is_a_flow_however_a_scope_names_it(line: str):
    pytest.importorskip("ray")
    first, second = described(line)
    assert [(info["path"], info["name"]) for info in (first, second)] == [
        ("prime.app.enter", "Prime gaps"),
        ("prime.app.enter_async", "Prime gaps (async)"),
    ]
    assert first["author"] == "ana@example.com"
    assert (first["organization"], first["release"], first["tags"]) == ("Example", "0.1.0", ["Test", "Ray"])
    assert first["description"] == "Counts the gaps between primes."
    assert first["source"].startswith("prime/app.py:")
    assert first["schema"]["description"] == "# Gaps between primes\n\nHow often each gap comes in a range."
    assert first["example"] == {"start": "0", "end": "1000", "tasks": "2"}


def test_an_app_that_imports_ray_needs_it():
    pytest.importorskip("ray")
    assert all(info["needs_ray"] for info in described("prime.app"))
    assert not any(info.get("needs_ray") for info in described("hitl"))


def test_what_an_entry_launches_runs_with_defaults_of_the_form():
    made = run(entry("throughput:enter"))
    assert made.told("result") == [{"text": "result **0**"}, {"text": "result **1**"}]
    assert made.result == "# Final Result\n2 results"


def test_what_an_entry_finds_wrong_refuses_the_launch_by_field():
    above = "Must be a number above zero"
    assert [info["has_check"] for info in described("throughput")] == [True]
    loaded = load_entry("throughput:enter")
    check = InputCheck(loaded, loaded.inputs_schema())
    wrong = {"results": "none", "stdios": "-1"}
    assert check.faults(wrong) == [{"at": "/results", "message": above}, {"at": "/stdios", "message": above}]
    assert check.faults({}) == []
    with pytest.raises(InputsError, match=f"/results: {above}; /stdios: {above}"):
        run(entry("throughput:enter"), wrong)


def made_entry(function: Any, *fields: Any) -> Any:
    app = ServeAPI()
    return app.enter("/", model=forms.Model(*fields))(function)


def whole(request: Any, inputs: Any) -> None:
    raise KodosumiInputsError("Not today.")


def fails(request: Any, inputs: Any) -> None:
    raise RuntimeError("no database")


def test_what_an_entry_says_of_the_whole_form_is_told_and_other_failures_are_left_to_the_run():
    text = forms.InputText(label="Name", name="name")
    assert faults(made_entry(whole, text), {"name": "x"}) == {"": ["Not today."]}
    assert faults(made_entry(fails, text), {"name": "x"}) == {}


def test_an_entry_that_takes_files_is_asked_in_its_run_alone():
    file = forms.InputFiles(label="Files", name="files")
    assert getattr(made_entry(whole, file), FLOW_ATTRIBUTE).check is None


def test_an_app_whose_forms_are_pages_of_its_own_is_refused_with_what_to_write(tmp_path: Path):
    lines = ["from kodosumi.core import ServeAPI", "app = ServeAPI()", "@app.get('/', entry=True)", "def f(): ..."]
    (tmp_path / "paged.py").write_text("\n".join(lines))
    request = {"roots": [str(tmp_path)], "flows": ["paged:app"]}
    (info,) = describe(request)["flows"]
    assert "write it as @app.enter(…, model=…)" in info["error"]


def test_a_lock_has_the_form_of_the_app_and_its_lease_judges_the_answers():
    answers = {
        "How shall plan.md be read?": {"way": "slow"},
        "Approve plan.md?": tries({"approve": False}, {"approve": True, "comment": "fine"}),
    }
    made = run(entry("hitl:start"), document="plan.md", answers=answers)
    choice, approval = made.locks
    assert choice.schema["properties"]["way"]["enum"] == ["fast", "slow"]
    assert choice.schema["required"] == ["way"]
    assert "slow: Word for word" in choice.schema["properties"]["way"]["description"]
    assert "description" not in choice.schema  # it is the title
    assert approval.schema["description"].startswith("It was read slow.")
    (denied,) = made.told("unlock-deny")
    assert denied["reasons"] == ["approve: Approve it, or leave it open"]
    assert made.result == {
        "choice": {"way": "slow"},
        "approval": {"by": "a person", "way": "slow", "comment": "fine"},
    }
    assert made.told("config") == [{"summary": "Review of plan.md"}]
    assert [log["level"] for log in made.told("log")] == ["DEBUG"]


GIVEN = {"count": 3, "moment": "2026-01-31T12:30"}


def test_an_app_gets_of_each_field_what_a_browser_would_send():
    empty = {"password": "", "area": "", "date": "", "time": "", "way": None}
    expected = {"text": "a", "number": "2.5", "checked": True, "choice": "a", **empty, **GIVEN, "count": "3"}
    assert run(entry("form:enter"), GIVEN).result == expected
    more = {"number": 4.0, "checked": False, "choice": "b", "area": "two\nlines", "time": "08:15", "way": "other"}
    assert run(entry("form:enter"), {**GIVEN, **more}).result == {**expected, **more, "number": "4"}


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"text": "A"}, "text"),
        ({"number": 0}, "number"),
        ({"number": "2"}, "number"),
        ({"count": 1.5}, "count"),
        ({"area": "a" * 101}, "area"),
        ({"date": "31.1.2026"}, "date"),
        ({"time": "noon"}, "time"),
        ({"moment": ""}, "moment"),
        ({"choice": "c"}, "choice"),
        ({"other": 1}, "other"),
    ],
)
def test_a_form_refuses_what_a_browser_would(wrong: dict[str, Any], name: str):
    (info,) = described("form")
    validator = jsonschema.Draft202012Validator(info["schema"])
    assert not list(validator.iter_errors({**GIVEN, "text": "", "date": ""}))
    error = next(validator.iter_errors({**GIVEN, **wrong}))
    assert name in (*error.path, *error.message.split("'"))


def test_a_password_is_a_secret_without_default():
    (info,) = described("form")
    password = info["schema"]["properties"]["password"]
    assert password["writeOnly"] is True
    assert "default" not in password


def test_entries_whose_functions_have_one_name_are_flows_each():
    infos = described("simple")
    assert {info["entry"]: info["name"] for info in infos} == {
        "simple:app.flows.enter": "Simple",
        "simple:enter": "Again",
        "simple:nothing": "Nothing",
        "simple:missing": "Missing",
    }
    assert described("simple:app.flows.enter")[0]["description"] == "Greet somebody."


def test_a_tracer_of_sync_code_tells_the_same():
    described("simple")
    made = run(importlib.import_module("simple").app.flows.enter)
    assert made.told("result") == [{"text": "about to greet"}, {"html": "<b>soon</b>"}, {"name": "Ada"}]
    assert made.told("action") == [{"does": "greet"}]
    (warning,) = made.told("log")
    assert warning["level"] == "WARNING"
    assert "RuntimeError: no voice" in warning["text"]
    assert made.result == {"output": "final.html"}
    assert made.outputs["final.html"].text == "<h1>Hello Ada</h1>"


def test_an_entry_that_launches_nothing_ends_with_words():
    with pytest.raises(UsageError, match="nothing gave no Launch"):
        run(entry("simple:nothing"))


def test_a_launch_of_what_is_not_there_names_it():
    with pytest.raises(NotFoundError, match=r"names 'nowhere.app:run', and there is no module nowhere"):
        run(entry("simple:missing"))


def test_files_come_in_and_go_out(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_text("content")
    made = run(entry("upload:enter"), files=[str(file)])
    assert made.result == {
        "sizes": {"in/a.txt": 7},
        "texts": {"a.txt": "content"},
        "out": ["out/upper/a.txt"],
        "gone": True,
    }
    assert made.outputs["upper/a.txt"].text == "CONTENT"


def test_an_app_without_entries_is_refused_with_words(tmp_path: Path):
    (tmp_path / "empty_app.py").write_text("from kodosumi.core import ServeAPI\napp = ServeAPI()\n")
    (info,) = describe({"roots": [str(tmp_path)], "flows": ["empty_app:app"]})["flows"]
    assert "there is no @app.enter" in info["error"]
    sys.modules.pop("empty_app", None)


def test_what_kodo_does_not_stand_in_for_is_named(tmp_path: Path):
    (tmp_path / "wants_more.py").write_text("import kodosumi.service.proxy\n")
    (info,) = describe({"roots": [str(tmp_path)], "flows": ["wants_more"]})["flows"]
    assert "kodo has no kodosumi.service.proxy" in info["error"]


def test_a_python_of_ones_own_is_left_alone():
    asks = "import importlib.util, kodo.flow; print(importlib.util.find_spec('kodosumi'))"
    done = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "None\n"
