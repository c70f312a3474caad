"""The flow as plain Python: what it tells, asks and writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from concurrent.futures import Future
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from kodo.flow._runtime.context import DONE, Context, Demand, Emitted
from kodo.flow._runtime.current import install
from kodo.p2p.errors import UsageError
from kodo.samples.atlas import atlas
from kodo.samples.atlas.chart import chart
from kodo.samples.atlas.survey import PackageReport

TREE = {
    "setup.py": "import one\n",
    "one/__init__.py": "from one import a\n",
    "one/a.py": "import one\n\n\ndef f(x):\n    if x:\n        return 1\n    return 2\n",
    "two/b.py": "def g():\n    pass\n",
    "two/c.py": "class C:\n    def h(self):\n        for _ in self:\n            pass\n",
    "two/broken.py": "def (\n",
}


class Recorder(Context):
    """Keeps what a flow does; answers locks as told, or by their default."""

    def __init__(self, answer: Any = None):
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.outputs: dict[str, bytes] = {}
        self.demands: list[Demand] = []
        self._answer = answer

    def emit(self, event: str, data: dict[str, Any]) -> Emitted:
        self.events.append((event, data))
        return DONE

    def lock(self, demand: Demand) -> Future[Any]:
        self.demands.append(demand)
        future: Future[Any] = Future()
        future.set_result(demand.default if self._answer is None else demand.accept(self._answer)[0])
        return future

    def write_output(self, name: str, source: Any, media_type: str | None) -> dict[str, Any]:
        self.outputs[name] = source.encode() if isinstance(source, str) else source
        return {"name": name, "media_type": media_type}

    def of(self, event: str) -> list[dict[str, Any]]:
        return [data for name, data in self.events if name == event]


@pytest.fixture
def tree(tmp_path: Path) -> str:
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return str(tmp_path)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    install(recorder)
    yield recorder
    install(None)


async def test_each_package_is_a_result_and_the_sums_are_right(tree: str, recorder: Recorder) -> None:
    final = await atlas(root=tree)
    packages = {item["package"]: item for item in recorder.of("result") if "package" in item}
    columns = ["files", "lines", "functions", "classes", "branches", "errors"]
    assert {name: [item[column] for column in columns] for name, item in packages.items()} == {
        "(top level)": [1, 1, 0, 0, 0, 0],
        "one": [2, 8, 1, 0, 1, 0],
        "two": [3, 7, 2, 1, 1, 1],
    }
    assert "**6** files, **16** lines, **3** functions, **1** classes, **2** branches in 3 packages" in final


async def test_cycles_are_told(tree: str, recorder: Recorder) -> None:
    await atlas(root=tree)
    told = next(item for item in recorder.of("result") if "import_cycles" in item)
    assert told == {"import_cycles": 1, "examples": [["one", "one.a"]]}


async def test_progress_rises_to_a_hundred(tree: str, recorder: Recorder) -> None:
    await atlas(root=tree)
    percents = [item["percent"] for item in recorder.of("progress")]
    assert percents == sorted(percents)
    assert percents[-1] == 100


async def test_metrics_have_a_row_for_each_file(tree: str, recorder: Recorder) -> None:
    await atlas(root=tree)
    rows = list(csv.DictReader(io.StringIO(recorder.outputs["metrics.csv"].decode())))
    assert sorted(row["path"] for row in rows) == sorted(TREE)
    row = next(row for row in rows if row["path"] == "two/c.py")
    assert row == {
        "path": "two/c.py",
        "module": "two.c",
        "package": "two",
        "lines": "4",
        "functions": "1",
        "classes": "1",
        "branches": "1",
        "imports": "0",
        "longest_function": "C.h",
        "longest_function_lines": "3",
        "error": "",
    }


async def test_the_lock_offers_the_packages_and_takes_the_largest_by_default(tree: str, recorder: Recorder) -> None:
    await atlas(root=tree, deep=2)
    [demand] = recorder.demands
    assert demand.default.model_dump() == {"packages": ["one", "two"]}
    assert demand.schema["properties"]["packages"]["items"]["enum"] == ["one", "two", "(top level)"]
    report = recorder.outputs["report.md"].decode()
    assert [line for line in report.splitlines() if line.startswith("## In depth")] == [
        "## In depth: `one`",
        "## In depth: `two`",
    ]


async def test_the_answer_decides_what_is_looked_into(tree: str) -> None:
    recorder = Recorder({"packages": ["(top level)"]})
    install(recorder)
    try:
        await atlas(root=tree)
    finally:
        install(None)
    assert "## In depth: `(top level)`" in recorder.outputs["report.md"].decode()
    assert "## In depth: `one`" not in recorder.outputs["report.md"].decode()


@pytest.mark.parametrize("answer", [{"packages": ["three"]}, {"packages": "one"}])
async def test_an_answer_that_was_not_offered_is_denied(tree: str, recorder: Recorder, answer: object) -> None:
    await atlas(root=tree)
    with pytest.raises(ValueError, match="packages"):
        recorder.demands[0].accept(answer)


async def test_with_a_depth_of_zero_nothing_is_asked(tree: str, recorder: Recorder) -> None:
    await atlas(root=tree, deep=0)
    assert recorder.demands == []
    assert set(recorder.outputs) == {"report.md", "metrics.csv", "chart.svg"}


async def test_the_report_names_functions_cycles_and_what_was_left_out(tree: str, recorder: Recorder) -> None:
    await atlas(root=tree)
    report = recorder.outputs["report.md"].decode()
    assert "| `f` | `one/a.py:4` | 4 | 1 |" in report
    assert "- 2 modules, as `one` → `one.a` → `one`" in report
    assert "| two/broken.py | SyntaxError in line 1 |" in report


async def test_the_chart_is_well_formed_and_follows_the_pages_colours(tree: str, recorder: Recorder) -> None:
    await atlas(root=tree)
    svg = recorder.outputs["chart.svg"].decode()
    bars = ElementTree.fromstring(svg).findall(".//{*}rect[@class='bar']")
    assert len(bars) == 3
    assert float(bars[0].attrib["width"]) > float(bars[1].attrib["width"]) > 0
    assert "prefers-color-scheme: dark" in svg


def test_names_in_a_chart_are_escaped() -> None:
    ElementTree.fromstring(chart('<a & "b">', [PackageReport("<&>", lines=0)]))


async def test_a_root_that_is_not_there_ends_the_run(tmp_path: Path, recorder: Recorder) -> None:
    with pytest.raises(UsageError, match="gone"):
        await atlas(root=str(tmp_path / "gone"))
    assert recorder.outputs == {}


def test_the_scope_that_is_shipped_offers_it() -> None:
    scope = yaml.safe_load((files("kodo.samples") / "scope.yaml").read_text())
    assert scope == {"name": "samples.local", "flows": ["kodo.samples.atlas:atlas"]}
