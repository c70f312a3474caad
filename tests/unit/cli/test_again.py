"""Inputs of an earlier run, some of them changed."""

from __future__ import annotations

from typing import Any

import pytest

from kodo.cli.again import changed
from kodo.p2p.errors import UsageError
from kodo.protocol.secrets import MASK

BEFORE = {"n": 1, "place": {"city": "Bonn", "at": {"x": 1, "y": 2}}, "key": {"id": "a", "token": MASK}}


@pytest.mark.parametrize(
    ("given", "words", "sent"),
    [
        ({"n": 2}, ["n=2"], {"n": 2}),
        ({}, [], {}),
        ({"place": {"city": "Ulm"}}, ["place.city=Ulm"], {"place": {"city": "Ulm", "at": {"x": 1, "y": 2}}}),
        ({"place": {"at": {"x": 5}}}, ["place.at.x=5"], {"place": {"city": "Bonn", "at": {"x": 5, "y": 2}}}),
        ({"place": {"city": "Ulm"}}, ['place={"city": "Ulm"}'], {"place": {"city": "Ulm"}}),
        ({"place": {"city": "Ulm"}}, [], {"place": {"city": "Ulm"}}),  # from a file
        ({"new": {"a": 1}}, ["new.a=1"], {"new": {"a": 1}}),
        ({"a.b": 1}, ["a.b=1"], {"a.b": 1}),
        ({"key": {"id": "b", "token": "t"}}, ["key=…"], {"key": {"id": "b", "token": "t"}}),
    ],
)
def test_a_part_that_is_named_is_changed_and_the_rest_of_it_stays(given: Any, words: list[str], sent: Any) -> None:
    assert changed(given, BEFORE, words) == sent


def test_a_part_beside_a_secret_is_not_changed_alone() -> None:
    with pytest.raises(UsageError, match="give key whole"):
        changed({"key": {"id": "b"}}, BEFORE, ["key.id=b"])


@pytest.mark.parametrize("earlier", [None, [], "text"])
def test_a_node_that_shows_no_inputs_changes_nothing(earlier: Any) -> None:
    assert changed({"place": {"city": "Ulm"}}, earlier, ["place.city=Ulm"]) == {"place": {"city": "Ulm"}}
