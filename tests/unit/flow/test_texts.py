"""One text is one text, and not a list of its characters, wherever several may be given."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import kodo.client
import kodo.flow
from kodo.client.links import share_with
from kodo.flow import FlowDefinition, flow, lock
from kodo.flow._runtime import current as context
from kodo.flow._runtime.console import ConsoleContext
from kodo.flow._runtime.context import Demand
from kodo.flow.decorator import FLOW_ATTRIBUTE
from kodo.flow.locks import DeniedError

WORD = "operator"

SEVERAL = re.compile(r"(Iterable|Iterator|Sequence|Collection|Set|list|tuple|set)\[(str|Any|object)\b")
"""Annotations by which a parameter takes several texts."""

BLIND = re.compile(r"(Iterable|Sequence|Collection)\[(str|Any|object)\b")
"""Those that a text fits, as a type checker sees it."""


APART = {
    f"kodo.flow.adapters.{name}"
    for name in ("crewai", "crewai_memory", "llama_index", "openai_agents", "pydantic_ai")
}
"""They import what only environments of their own have."""


def modules(package: ModuleType) -> Iterator[ModuleType]:
    yield package
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if info.name not in APART:
            yield importlib.import_module(info.name)


def parameters(owner: Any, name: str) -> Iterator[tuple[str, str, str]]:
    """Where a callable is, its parameters, and their annotations."""
    if inspect.isclass(owner):
        for key, member in vars(owner).items():
            if key == "__init__" or not key.startswith("_"):
                yield from parameters(getattr(member, "__func__", member), f"{name}.{key}")
    elif inspect.isfunction(owner):
        for each in inspect.signature(owner).parameters.values():
            yield name, each.name, str(each.annotation)


def taking_several(pattern: re.Pattern[str], *packages: ModuleType) -> dict[tuple[str, str], str]:
    return {
        (where, parameter): annotation
        for module in packages
        for name in getattr(module, "__all__", ())
        if getattr(owner := getattr(module, name), "__module__", "").startswith("kodo.")
        for where, parameter, annotation in parameters(owner, f"{owner.__module__}.{name}")
        if pattern.search(annotation) and not annotation.startswith("Callable[")
    }


class Asked(ConsoleContext):
    """Keeps what is demanded."""

    def __init__(self) -> None:
        super().__init__()
        self.demands: list[Demand] = []

    def lock(self, demand: Demand) -> Future[Any]:
        self.demands.append(demand)
        return super().lock(demand)


def demanded(**options: Any) -> Demand:
    asked = Asked()
    context.install(asked)
    try:
        lock("Approve?", bool, default=True, **options)
    finally:
        context.install(None)
    return asked.demands[0]


def tags_of_a_flow(given: Any) -> Any:
    @flow(tags=given)
    def made() -> None:
        """Do nothing."""

    return getattr(made, FLOW_ATTRIBUTE).tags


TAKEN: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("kodo.flow.decorator.FlowDefinition.__init__", "tags"): lambda given: FlowDefinition(tags=given).tags,
    ("kodo.flow.decorator.flow", "tags"): tags_of_a_flow,
    ("kodo.flow.locks.lock", "roles"): lambda given: demanded(roles=given).roles,
    ("kodo.flow.locks.lock", "users"): lambda given: demanded(users=given).users,
    ("kodo.flow.locks.DeniedError.__init__", "reasons"): lambda given: tuple(DeniedError(given).reasons),
    ("kodo.client.links.share_with", "to"): lambda given: tuple(share_with(given)["roles"]),
}
"""What is made of an argument, where no node is needed to see it."""

SENT = {
    ("kodo.client.client.Client.__init__", "registries"),
    ("kodo.client.client.Client.launch", "tags"),
    ("kodo.client.run.Run.download", "names"),
    ("kodo.client.run.Run.restart", "tags"),
    ("kodo.client.run.Run.share", "to"),
}
"""What the library sends is tried with it; the one without async hands its arguments on."""


def test_every_argument_of_several_texts_is_tried_here() -> None:
    public = [kodo.flow, importlib.import_module("kodo.flow.locks"), kodo.client]
    found = set(taking_several(SEVERAL, *public, importlib.import_module("kodo.client.links")))
    assert found == set(TAKEN) | SENT


def test_where_a_type_checker_lets_a_text_pass_for_several_one_text_is_taken_for_one() -> None:
    found = taking_several(BLIND, *modules(kodo.flow), *modules(kodo.client))
    assert len(found) >= len(TAKEN)
    assert [where for where, annotation in found.items() if not annotation.startswith("str | ")] == []


@pytest.mark.parametrize("where", sorted(TAKEN), ids=".".join)
def test_a_text_is_taken_for_one(where: tuple[str, str]) -> None:
    take = TAKEN[where]
    assert take(WORD) == take([WORD]) == take((WORD,)) == (WORD,)


def test_one_registry_is_one(tmp_path: Path) -> None:
    one, two = "https://one.example", "https://two.example"
    assert kodo.client.Client(tmp_path, registries=one).settings.registry == (one,)
    assert kodo.client.Client(tmp_path, registries=f"{one} {two}").settings.registry == (one, two)
    assert kodo.client.Client(tmp_path, registries=[one, two]).settings.registry == (one, two)


def test_a_definition_stays_one_that_can_be_replaced() -> None:
    assert dataclasses.replace(FlowDefinition(tags=("a", "b")), name="n").tags == ("a", "b")
