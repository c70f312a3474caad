import re
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import jsonschema
import pytest
from pydantic import BaseModel, Field
from typing_extensions import Doc

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


class Kept(TypedDict):
    city: str
    nights: NotRequired[int]


def annotated(x: Annotated[str, Field(title="The X", description="said", max_length=5, examples=["a"])] = "b"):
    """Do.

    Args:
        x: the docstring's.
    """


def as_in_a_model(x: str = Field("a", title="The X", max_length=5)): ...


def required_as_in_a_model(x: str = Field(title="The X", max_length=5)): ...


def documented(x: Annotated[str, Doc("said by Doc")]): ...


def extra(x: Annotated[str, Field(json_schema_extra={"placeholder": "here", "order": 2})]): ...


def aliased(x: Annotated[str, Field(alias="y")]): ...


def sphinx(x: str, *, many: list[str]):
    """Do.

    :param x: what to look at,
        in detail
    :param list many: many of them
    :returns: nothing
    """


def numpy_style(x: str, many: int = 1):
    """Do.

    Parameters
    ----------
    x : str
        what to look at,
        in detail
    many
        how many

    Returns
    -------
    int
        nothing
    """


SAID = {"title": "The X", "description": "said", "maxLength": 5, "default": "b", "examples": ["a"]}


@pytest.mark.parametrize(
    ("function", "facts"),
    [
        (annotated, {"x": SAID}),
        (as_in_a_model, {"x": {"title": "The X", "maxLength": 5, "default": "a"}}),
        (required_as_in_a_model, {"x": {"title": "The X", "maxLength": 5}}),
        (documented, {"x": {"title": "X", "description": "said by Doc"}}),
        (extra, {"x": {"placeholder": "here", "order": 2}}),
        (aliased, {"x": {"title": "X"}}),
        (sphinx, {"x": {"description": "what to look at, in detail"}, "many": {"description": "many of them"}}),
        (numpy_style, {"x": {"description": "what to look at, in detail"}, "many": {"description": "how many"}}),
    ],
)
def test_what_is_said_of_a_parameter_is_in_the_form_however_it_is_said(function, facts):
    properties = Form(function).schema()["properties"]
    assert list(properties) == list(facts)
    for name, wanted in facts.items():
        assert {key: properties[name].get(key) for key in wanted} == wanted


def test_a_default_as_models_have_it_is_the_value_and_not_the_field():
    assert Form(as_in_a_model).arguments({}) == {"x": "a"}
    assert Form(annotated).arguments({}) == {}
    for function in (as_in_a_model, annotated):
        with pytest.raises(InputsError, match="at most 5"):
            Form(function).arguments({"x": "too long"})
    with pytest.raises(InputsError, match="x: Field required"):
        Form(required_as_in_a_model).arguments({})


ULM = {"city": "Ulm"}


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Kept, ULM),
        (list[Kept], [ULM]),
        (Kept | None, ULM),
        (dict[str, list[Kept]], {"a": [ULM]}),
        (Annotated[Kept, Field()], ULM),
    ],
)
def test_the_typed_dicts_of_each_python_make_forms(hint, value):
    def function(x): ...

    function.__annotations__["x"] = hint
    assert Form(function).schema()["$defs"]["Kept"]["required"] == ["city"]
    assert Form(function).arguments({"x": value}) == {"x": value}
