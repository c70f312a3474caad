"""The library without `async` has the calls of the one with it."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from kodo.client import client, invitations, run, schedules, sync

PAIRS = {
    "Client": (client.Client, sync.Client),
    "Run": (run.Run, sync.Run),
    "Schedules": (schedules.Schedules, sync.Schedules),
    "Invitations": (invitations.Invitations, sync.Invitations),
    "OpenInvitation": (invitations.OpenInvitation, sync.OpenInvitation),
}

ASYNC_ONLY = {
    "Client.desk": "what `login` and the operators' commands speak to",
    "Client.find_flow": "gives a flow whose calls are async; `show` and `launch` find it too",
    "Client.node": "gives a node whose calls are async",
    "Client.prove": "asked by `launch`",
    "OpenInvitation.flow": "gives a flow whose calls are async; `about` has what it says",
    "Run.flow": "gives a flow whose calls are async",
    "Run.made": "a part of `download`",
    "Run.prove": "asked by what sends something",
    "Run.settle": "a part of `download`",
}
"""Public names that are not for code without a loop, and why."""

SYNC_ONLY = {
    "Client.memories": "of `kodo.client.memory`, which takes a node",
    "Client.put_memory": "likewise",
}

RETURNS = {"AsyncGenerator": "Iterator", ", None]": "]"}


def calls_of(kind: type[Any]) -> dict[str, Any]:
    """Return what a user of a class calls, by name; a property by its getter."""
    members = {name: each for name, each in vars(kind).items() if not name.startswith("_") or name == "__init__"}
    return {name: each.fget if isinstance(each, property) else each for name, each in members.items()}


def without_async(function: Any) -> inspect.Signature:
    """Return a signature as it is for callers without a loop."""
    signature = inspect.signature(function)
    returned = str(signature.return_annotation)
    for word, other in RETURNS.items():
        returned = returned.replace(word, other)
    parameters = [
        each.replace(annotation=str(each.annotation).replace(" | RemoteNode", ""))  # its calls are async
        for each in signature.parameters.values()
    ]
    return signature.replace(parameters=parameters, return_annotation=returned)


@pytest.mark.parametrize("pair", PAIRS)
def test_both_have_the_same_names(pair: str) -> None:
    with_async, without = (set(calls_of(kind)) for kind in PAIRS[pair])
    assert {f"{pair}.{name}" for name in with_async - without} == {
        name for name in ASYNC_ONLY if name.startswith(f"{pair}.")
    }
    assert {f"{pair}.{name}" for name in without - with_async} - {"Run.fid", "Run.view"} == {
        name for name in SYNC_ONLY if name.startswith(f"{pair}.")
    }


@pytest.mark.parametrize(
    ("pair", "name"),
    [
        (pair, name)
        for pair, (with_async, without) in PAIRS.items()
        for name in sorted(calls_of(with_async).keys() & calls_of(without).keys())
        if name != "__init__" or pair == "Client"  # the others are made by clients
    ],
)
def test_both_take_and_return_the_same(pair: str, name: str) -> None:
    with_async, without = PAIRS[pair]
    assert without_async(calls_of(without)[name]) == without_async(calls_of(with_async)[name])
    properties = [isinstance(vars(kind)[name], property) for kind in PAIRS[pair]]
    assert properties[0] == properties[1]
