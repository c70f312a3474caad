import re
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, Field

from kodo.flow import File
from kodo.flow._runtime.form import Form, InputsError, example_of
from kodo.p2p.errors import UsageError


class Level(Enum):
    LOW = "low"
    HIGH = "high"


class Option(BaseModel):
    kind: str
    deep: bool = False


def market(
    topic: str,
    day: date,
    level: Level,
    option: Option,
    depth: Annotated[int, Field(ge=1)] = 3,
    mode: Literal["a", "b"] = "a",
    schema: str = "s",
    _hidden: int = 0,
    anything=None,
):
    """Look.

    Args:
        topic: what to look at,
            in detail.
        depth (int): how deep.

    Returns:
        nothing
    """


INPUTS = {"topic": "x", "day": "2026-01-31", "level": "low", "option": {"kind": "k"}}


def test_hints_defaults_and_docstring_make_the_form():
    schema = Form(market).schema()
    assert schema["required"] == ["topic", "day", "level", "option"]
    assert schema["additionalProperties"] is False
    properties = schema["properties"]
    assert list(properties) == [
        "topic", "day", "level", "option", "depth", "mode", "schema", "_hidden", "anything",
    ]  # fmt: skip
    assert properties["topic"] == {"type": "string", "title": "Topic", "description": "what to look at, in detail."}
    assert properties["depth"]["default"] == 3
    assert properties["depth"]["minimum"] == 1
    assert properties["depth"]["description"] == "how deep."


def test_inputs_become_typed_arguments_and_defaults_stay_the_callables():
    assert Form(market).arguments(INPUTS) == {
        "topic": "x",
        "day": date(2026, 1, 31),
        "level": Level.LOW,
        "option": Option(kind="k"),
    }


@pytest.mark.parametrize(
    "change", [{"day": "soon"}, {"level": "medium"}, {"depth": 0}, {"extra": 1}, {"option": {}}, {"topic": None}]
)
def test_inputs_that_do_not_fit_are_refused_by_field(change):
    with pytest.raises(InputsError, match=next(iter(change))):
        Form(market).arguments({**INPUTS, **change})


def test_the_example_fits_the_form():
    schema = Form(market).schema()
    example = example_of(schema)
    jsonschema.validate(example, schema)
    assert example["depth"] == 3
    assert Form(market).arguments(example)


@pytest.mark.parametrize(
    "function",
    [lambda *args: None, lambda **kwargs: None, eval("lambda a, /: None"), lambda a: None],
    ids=["args", "kwargs", "positional", "plain"],
)
def test_only_parameters_with_a_name_can_be_filled_in(function, request):
    if request.node.callspec.id == "plain":
        assert Form(function).schema()["properties"]["a"] == {"title": "A"}
    else:
        with pytest.raises(UsageError, match="by name"):
            Form(function)


def test_a_type_that_has_no_json_schema_is_refused():
    class Opaque:
        pass

    def function(value: Opaque):
        pass

    function.__annotations__ = {"value": Opaque}
    with pytest.raises(UsageError, match="no form"):
        Form(function).schema()


def test_a_hint_that_cannot_be_resolved_is_refused():
    def function(value: Any):
        pass

    function.__annotations__ = {"value": "Missing"}
    with pytest.raises(UsageError, match="Missing"):
        Form(function)


def test_a_file_is_an_upload_for_those_who_launch_and_a_path_for_the_flow(tmp_path):
    def flow(doc: File, more: list[File] = [], maybe: File | None = None): ...  # noqa: B006

    form = Form(flow)
    there = tmp_path / "doc.pdf"
    there.write_text("x")
    field = form.schema()["properties"]["doc"]
    assert (field["type"], field["format"]) == ("string", "file")
    assert not re.search(field["pattern"], str(there))
    assert re.search(field["pattern"], example_of(form.schema())["doc"])
    assert form.arguments({"doc": str(there), "more": [str(there)]}) == {"doc": there, "more": [there]}
    with pytest.raises(InputsError, match="upload it again"):
        form.arguments({"doc": "upload-" + "0" * 26})
