from concurrent.futures import Future
from datetime import timedelta

import pytest
from pydantic import BaseModel, Field

from kodo.flow import lock
from kodo.flow._runtime.context import DONE, Context
from kodo.flow._runtime.current import install
from kodo.flow.locks import DeniedError, seconds
from kodo.p2p.errors import UsageError


class Recorder(Context):
    def emit(self, event, data):
        return DONE

    def lock(self, demand):
        self.demand = demand
        future: Future = Future()
        future.set_result("answer")
        return future

    def write_output(self, name, source, media_type):
        return {}


@pytest.fixture
def context():
    made = Recorder()
    install(made)
    yield made
    install(None)


class Plan(BaseModel):
    steps: int = Field(ge=1)


@pytest.mark.parametrize(
    ("duration", "expected"),
    [("90s", 90), ("5m", 300), ("18h", 64800), ("7d", 604800), ("2", 2), (1.5, 1.5), (timedelta(minutes=1), 60)],
)
def test_durations(duration, expected):
    assert seconds(duration) == expected


@pytest.mark.parametrize("duration", ["", "soon", "-1s", 0, -5, "1w", float("nan"), float("inf"), None])
def test_what_is_no_duration_is_refused(duration):
    with pytest.raises(UsageError):
        seconds(duration)


def test_a_model_makes_the_form_and_the_answer_is_typed(context):
    assert lock("Plan?", Plan, roles=["boss"]) == "answer"
    demand = context.demand
    assert demand.schema["properties"]["steps"]["minimum"] == 1
    assert demand.accept({"steps": 2}) == (Plan(steps=2), {"steps": 2})
    assert (demand.has_default, demand.expires_s, demand.verdict_s, demand.roles) == (False, 64800, 60, ("boss",))
    with pytest.raises(ValueError, match="steps"):
        demand.accept({"steps": 0})


def test_a_json_schema_is_the_form_itself(context):
    lock("Colour?", {"type": "string", "enum": ["red"]}, default=None)
    assert context.demand.has_default
    assert context.demand.accept("red") == ("red", "red")
    with pytest.raises(DeniedError):
        context.demand.accept("blue")


def test_a_schema_that_is_none_is_refused(context):
    with pytest.raises(UsageError):
        lock("Colour?", {"type": "colour"})


@pytest.mark.parametrize(("verdict", "accepted"), [(None, True), (True, True), ([], True), ("", True)])
def test_a_check_that_names_no_reason_accepts(context, verdict, accepted):
    lock("Number?", int, check=lambda value: verdict)
    assert context.demand.accept(1) == (1, 1)


@pytest.mark.parametrize(
    ("verdict", "reasons"), [("too small", ["too small"]), (["a", "b"], ["a", "b"]), (False, ["not accepted"])]
)
def test_a_check_denies_with_its_reasons(context, verdict, reasons):
    lock("Number?", int, check=lambda value: verdict)
    with pytest.raises(DeniedError) as caught:
        context.demand.accept(1)
    assert caught.value.reasons == reasons
