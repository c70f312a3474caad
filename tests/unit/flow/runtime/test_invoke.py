"""Calling a flow, whatever it is."""

import pytest

from kodo.flow import fid
from kodo.flow._runtime.context import DONE, Context
from kodo.flow._runtime.current import install
from kodo.flow._runtime.form import InputsError
from kodo.flow._runtime.invoke import invoke
from kodo.flow._runtime.load import LoadedFlow
from kodo.flow.decorator import FlowDefinition
from kodo.p2p.errors import UsageError


class Recorder(Context):
    fid = "run"

    def __init__(self):
        self.events = []

    def emit(self, event, data):
        self.events.append((event, data))
        return DONE

    def lock(self, demand):
        raise NotImplementedError

    def write_output(self, name, source, media_type):
        raise NotImplementedError


@pytest.fixture
def context():
    made = Recorder()
    install(made)
    yield made
    install(None)


def call(target, **inputs):
    return invoke(LoadedFlow("p", "m:a", target, FlowDefinition(), ""), inputs)


class Typed:
    def kickoff(self, topic: str, n: int = 2):
        return topic * n


class Crew:
    async def kickoff(self, inputs):
        return inputs


class Static:
    @staticmethod
    def invoke(topic: str):
        return topic


class Callable:
    def __init__(self, factor: int = 2):
        self.factor = factor

    def __call__(self, n: int):
        return n * self.factor


async def coroutine(n: int) -> tuple[int, str | None]:
    return n, fid()


def generator(n: int):
    yield from range(n)
    return "end"


async def async_generator(n: int):
    for number in range(n):
        yield number


@pytest.mark.parametrize(
    ("target", "inputs", "value"),
    [
        (lambda a=1: a, {}, 1),
        (coroutine, {"n": "3"}, (3, "run")),
        (Typed, {"topic": "a"}, "aa"),
        (Typed(), {"topic": "a", "n": 3}, "aaa"),
        (Crew, {"anything": [1]}, {"anything": [1]}),
        (Crew(), {"anything": [1]}, {"anything": [1]}),
        (Static, {"topic": "s"}, "s"),
        (Callable, {"n": 2}, 4),
        (Callable(3), {"n": 2}, 6),
    ],
)
def test_functions_coroutines_classes_and_objects_give_their_result(context, target, inputs, value):
    assert call(target, **inputs) == value
    assert context.events == []


def test_yields_are_results_and_a_generators_return_is_its_result(context):
    assert call(generator, n=2) == "end"
    assert call(async_generator, n=1) is None
    assert context.events == [("result", {"value": 0}), ("result", {"value": 1}), ("result", {"value": 0})]


def test_inputs_are_validated_before_anything_of_the_flow_runs(context):
    with pytest.raises(InputsError, match="topic"):
        call(Typed, topic=5)


class Needy:
    def __init__(self, model, *, key, size=1):
        raise AssertionError

    def __call__(self, n: int):
        raise AssertionError


def test_a_class_that_needs_arguments_to_be_made_is_refused_with_words():
    with pytest.raises(UsageError, match=r"Needy\(\) needs model, key, and a flow's class is made without arguments"):
        LoadedFlow("p", "m:a", Needy, FlowDefinition(), "").form()
