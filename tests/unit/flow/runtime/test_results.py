"""The forms of docs/reference/results.md, one test a row."""

import array
import asyncio
import collections
import dataclasses
import enum
import fractions
import importlib.util
import re
import types
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from kodo.flow._runtime.context import DONE, Context
from kodo.flow._runtime.current import install
from kodo.flow._runtime.invoke import invoke
from kodo.flow._runtime.load import LoadedFlow
from kodo.flow._runtime.plain import plain
from kodo.flow._runtime.results import ResultError, result_of
from kodo.flow.decorator import FlowDefinition
from kodo.p2p.errors import UsageError

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "results.md"
ELSEWHERE = {
    "a result of more than 256 KiB": "tests/integration/ray/test_ray_runs.py",
    "what a run of crewAI, Pydantic AI, OpenAI Agents or a LlamaIndex agent gave": (
        "tests/integration/answers_of_agents.py and crews_that_are_told.py"
    ),
    "crew, graph, chain, workflow": "tests/integration/ray/test_ray_langgraph.py and ../crews_that_are_told.py",
}


class Example:
    """As DSPy's: no map, and its text is for programmers."""

    __module__ = "dspy.primitives.example"

    def items(self):
        return [("answer", "all is well")]

    def __str__(self):
        return "Prediction(answer='all is well')"


class Prediction(Example):
    """As DSPy's."""


class RunResultStreaming:
    """As OpenAI Agents' while nobody has read its events."""

    __module__ = "agents.result"
    final_output = None
    is_complete = False


class AgentRunResult:
    """As Pydantic AI's before there was `output`."""

    __module__ = "pydantic_ai.agent"

    def model_dump(self, mode=""):
        return {"data": "all is well"}


class AgentOutput:
    """As LlamaIndex's before there was `structured_response`."""

    __module__ = "llama_index.core.agent.workflow"

    def __str__(self):
        return "all is well"


RunResultBase = type("RunResultBase", (), {"__module__": "agents.result"})


class Recorder(Context):
    def __init__(self, folder):
        self.folder = folder
        self.events = []
        self.outputs = {}

    def emit(self, event, data):
        self.events.append((event, data))
        return DONE

    def lock(self, demand):
        raise NotImplementedError

    def write_output(self, name, source, media_type):
        if name in self.outputs:
            raise UsageError(name)
        self.outputs[name] = source.read_bytes() if isinstance(source, Path) else source
        return {"name": name}


@pytest.fixture(autouse=True)
def context(tmp_path):
    made = Recorder(tmp_path)
    install(made)
    yield made
    install(None)


def run(make):
    def target():
        return make()

    return result_of(invoke(LoadedFlow("p", "m:a", target, FlowDefinition(), ""), {}))


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    at: object = None


def attrs_point():
    import attrs

    return attrs.make_class("Point", ["x"])(x=Decimal(1))


def model(value):
    from pydantic import BaseModel, ConfigDict

    class Model(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        value: object

    return Model(value=value)


def numpy():
    return pytest.importorskip("numpy")


def pandas():
    return pytest.importorskip("pandas")


async def coroutine():
    return Decimal(1)


async def items():
    yield 1
    yield 2


def deep(levels):
    value = "bottom"
    for _ in range(levels):
        value = [value]
    return value


class Text:
    def __str__(self):
        return "its own text"


FRAME = {"rows": 2, "columns": ["a", "b"], "first": [{"a": 1, "b": "x"}, {"a": 2, "b": None}]}

ROWS = {
    "`None`, `bool`, `str`, `int`, `float`": [(lambda: [None, True, "a", 1, 0.5], [None, True, "a", 1, 0.5])],
    "an integer beyond 64 bits": [(lambda: 1 << 63, "9223372036854775808"), (lambda: -(1 << 63), -(1 << 63))],
    "NaN and infinity": [(lambda: [float("nan"), float("inf"), -float("inf")], ["nan", "inf", "-inf"])],
    "`Decimal`": [(lambda: Decimal("0.10000000000000000000001"), "0.10000000000000000000001")],
    "`complex`, `Fraction` and other objects with a text of their own (`__str__`)": [
        (lambda: [1j, fractions.Fraction(1, 3), Text(), ValueError("why")], ["1j", "1/3", "its own text", "why"])
    ],
    "`datetime`, `date`, `time`": [
        (
            lambda: [datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 2), time(12, 30)],
            ["2026-01-02T00:00:00+00:00", "2026-01-02", "12:30:00"],
        )
    ],
    "`timedelta`": [
        (lambda: timedelta(minutes=90), "PT1H30M"),
        (lambda: [timedelta(0), timedelta(days=2), timedelta(seconds=-0.5)], ["PT0S", "P2D", "-PT0.5S"]),
    ],
    "`Path`, `UUID`": [(lambda: [Path("a/b"), uuid.UUID(int=1)], ["a/b", "00000000-0000-0000-0000-000000000001"])],
    "`bytes`, `bytearray`, `memoryview`": [(lambda: [b"\0", bytearray(b"\0"), memoryview(b"\0")], ["AA=="] * 3)],
    "`Enum`": [(lambda: {Colour.RED: Colour.RED}, {"red": "red"})],
    "list, tuple, set, `deque`, `array`, `UserList` and other sequences": [
        (lambda: [(1,), {2}, collections.deque([3])], [[1], [2], [3]]),
        (lambda: [array.array("d", [0.5]), collections.UserList(["a", Decimal(1)])], [[0.5], ["a", "1"]]),
    ],
    "a map, `SimpleNamespace`": [
        (lambda: {1: 2, None: 3}, {"1": 2, "None": 3}),
        (lambda: types.SimpleNamespace(a=Decimal(1)), {"a": "1"}),
    ],
    "a map with keys that are the same as text": [(lambda: {1: "a", "1": "b"}, [[1, "a"], ["1", "b"]])],
    "`range`, views of maps, iterators, generators inside of a value": [
        (lambda: [range(2), {1: 2}.values(), map(str, [1]), (n for n in (1, 2))], [[0, 1], [2], ["1"], [1, 2]]),
        (
            lambda: [len(plain(range(1_000_001))), plain(range(1_000_001))[-1]],
            [1_000_001, "… (more than 1000000 items)"],
        ),
    ],
    "dataclass, attrs class": [(lambda: [Point(1, Decimal(2)), attrs_point()], [{"x": 1, "at": "2"}, {"x": "1"}])],
    "pydantic model": [(lambda: model(date(2026, 1, 2)), {"value": "2026-01-02"})],
    "coroutine, asynchronous generator inside of a value": [
        (lambda: {"a": coroutine(), "b": [items()]}, {"a": "1", "b": [[1, 2]]})
    ],
    "numpy scalar": [
        (
            lambda: [numpy().int64(1), numpy().float32(0.5), numpy().bool_(True), numpy().str_("a")],
            [1, 0.5, True, "a"],
        ),
        (
            lambda: [numpy().longdouble(0.5), numpy().float64("nan"), numpy().datetime64("NaT", "s")],
            [0.5, "nan", None],
        ),
        (
            lambda: [numpy().datetime64("2026-01-02T03:04:05", "ns"), numpy().timedelta64(90, "s")],
            ["2026-01-02T03:04:05", "PT1M30S"],
        ),
    ],
    "numpy array, torch tensor": [
        (lambda: numpy().array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (lambda: numpy().array(["2026-01-02"], dtype="datetime64[ns]"), ["2026-01-02T00:00:00"]),
        (lambda: numpy().array([None, Decimal(1)]), [None, "1"]),
    ],
    "numpy array of more than 1,000,000 items": [
        (lambda: numpy().zeros((1001, 1000)), {"output": "final.npy", "shape": [1001, 1000]})
    ],
    "pandas `Timestamp`, `Timedelta`": [
        (lambda: [pandas().Timestamp("2026-01-02"), pandas().Timedelta("90s")], ["2026-01-02T00:00:00", "PT1M30S"])
    ],
    "pandas `NA`, `NaT`": [(lambda: [pandas().NA, pandas().NaT], [None, None])],
    "pandas `Series`": [
        (lambda: pandas().Series([1, None]), [1.0, None]),
        (lambda: pandas().Series([1, None], dtype="Int64"), [1, None]),
        (lambda: pandas().Series([1, 2], index=["a", "b"]), {"a": 1, "b": 2}),
        (lambda: pandas().Series([1, 2], index=["a", "a"]), [["a", 1], ["a", 2]]),
    ],
    "pandas `Index`, `Categorical`": [(lambda: [pandas().Index([1]), pandas().Categorical(["a"])], [[1], ["a"]])],
    "pandas `DataFrame`": [
        (
            lambda: pandas().DataFrame({"a": [1, 2], "b": ["x", None]}),
            {**FRAME, "output": f"final.{'parquet' if importlib.util.find_spec('pyarrow') else 'csv'}"},
        )
    ],
    "DSPy `Prediction`, `Example`": [(lambda: [Prediction()], [{"answer": "all is well"}])],
    "another object, inside of a value": [
        (lambda: {"a": [1, object()]}, {"a": [1, "<builtins.object, left out>"]}),
    ],
    "nested more than 40 deep": [(lambda: str(result_of(deep(50))).count("a list that lies more than 40 deep"), 1)],
}
FAILING = {"another object, as the result": [object, lambda: object, lambda: print, asyncio.Lock]}


def rows_of_the_page():
    return [row for row in re.findall(r"^\| (.+?) \| .+ \|$", PAGE.read_text(), re.MULTILINE) if row != "value"]


@pytest.mark.parametrize(("row", "number"), [(row, number) for row in ROWS for number in range(len(ROWS[row]))])
def test_a_value_has_the_form_that_the_page_says(row, number):
    make, form = ROWS[row][number]
    assert run(make) == form
    assert row in rows_of_the_page()


@pytest.mark.parametrize("make", FAILING["another object, as the result"])
def test_an_object_without_a_form_is_no_result(make):
    with pytest.raises(ResultError, match="has no form as data"):
        run(make)


def test_each_row_of_the_page_has_a_test():
    from tests.integration import results_of_libraries

    assert set(rows_of_the_page()) == {*ROWS, *FAILING, *ELSEWHERE, *results_of_libraries.ROWS}


def test_what_was_left_out_is_named_with_its_place(context):
    run(lambda: {"a": [1, object()]})
    assert context.events == [
        (
            "log",
            {
                "level": "WARNING",
                "logger": "kodo.flow",
                "text": "the result's a.1, a builtins.object, was left out: it has no form as data",
            },
        )
    ]


def test_tables_inside_of_a_value_are_outputs_named_by_their_place(context):
    table = pandas().DataFrame({"a": [1]})
    found = run(lambda: [{"my sales": table, "model": model(table)}, table])
    names = [found[0]["my sales"]["output"], found[0]["model"]["value"]["output"], found[1]["output"]]
    assert [name.rpartition(".")[0] for name in names] == ["final-0-my-sales", "final-0-model-value", "final-1"]
    assert set(context.outputs) == set(names)


def test_a_name_that_the_run_has_used_gets_a_number(context):
    table = pandas().DataFrame({"a": [1]})
    assert run(lambda: table)["output"].startswith("final.")
    assert run(lambda: table)["output"].startswith("final-2.")


class Broken:
    def model_dump(self, mode=""):
        raise RuntimeError("no dump today")


def test_a_result_whose_own_code_fails_is_an_error_and_not_a_text():
    with pytest.raises(ResultError, match="RuntimeError: no dump today"):
        run(Broken)


def test_agents_that_nobody_has_let_run_gave_no_result():
    unread = type("RunResultStreaming", (RunResultStreaming, RunResultBase), {"__module__": "agents.result"})
    with pytest.raises(ResultError, match="have not run to their end"):
        run(unread)


@pytest.mark.parametrize(("made", "form"), [(AgentRunResult, {"data": "all is well"}), (AgentOutput, "all is well")])
def test_what_other_versions_of_a_framework_gave_is_a_result_too(made, form):
    assert run(made) == form


class Runs:
    """As Burr's application: kodo does not know what to call it with."""

    def run(self, halt_after):
        raise AssertionError


def test_what_could_be_run_is_named_with_what_to_call():
    with pytest.raises(ResultError, match=r"Runs, which has no form as data: call its `run` in the flow"):
        run(Runs)


async def asynchronous():
    async def inner():
        return {"deep": coroutine()}

    return inner()


def test_a_coroutine_that_a_coroutine_gives_is_awaited():
    assert run(asynchronous) == {"deep": "1"}


def test_an_asynchronous_iterator_that_a_function_returns_is_run(context):
    assert run(items) is None
    assert context.events == [("result", {"value": 1}), ("result", {"value": 2})]
