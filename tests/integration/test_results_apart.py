"""What becomes of results of pandas with Parquet, polars, Arrow, matplotlib, plotly and PIL."""

import importlib.util

import pytest

from kodo.flow._runtime.context import DONE, Context
from kodo.flow._runtime.current import install
from kodo.flow._runtime.invoke import invoke
from kodo.flow._runtime.load import LoadedFlow
from kodo.flow._runtime.results import result_of
from kodo.flow.decorator import FlowDefinition
from tests.integration.results_of_libraries import ROWS

MAGIC = {".parquet": b"PAR1", ".png": b"\x89PNG", ".html": b"<!doctype html>"}
THERE = all(importlib.util.find_spec(name) for name in ("PIL", "matplotlib", "plotly", "polars", "pyarrow"))


class Recorder(Context):
    def __init__(self):
        self.outputs = {}

    def emit(self, event, data):
        return DONE

    def lock(self, demand):
        raise NotImplementedError

    def write_output(self, name, source, media_type):
        self.outputs[name] = source.read_bytes()
        return {"name": name}


@pytest.mark.skipif(not THERE, reason="they run in an environment of their own")
@pytest.mark.parametrize(("row", "number"), [(row, number) for row in ROWS for number in range(len(ROWS[row]))])
def test_a_result_of_a_library_has_the_form_that_the_page_says(row, number, monkeypatch, tmp_path):
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    context = Recorder()
    install(context)
    make, form = ROWS[row][number]

    def target():
        return make()

    try:
        found = result_of(invoke(LoadedFlow("p", "m:a", target, FlowDefinition(), ""), {}))
    finally:
        install(None)
    assert found == form
    for name, data in context.outputs.items():
        assert data.startswith(MAGIC[name[name.index(".") :]])
        assert b'src="http' not in data
    assert list(context.outputs) == ([form["output"]] if isinstance(form, dict) else [])


@pytest.mark.skipif(THERE, reason="they run in this environment")
def test_results_of_libraries_have_their_forms_in_an_environment_that_has_them():
    from tests.support.apart import do, environment

    told = do(environment("results"), "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, seconds=300)
    assert " passed" in told
