"""Import graphs, and the circles in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.samples.atlas.analyse import analyse
from kodo.samples.atlas.graph import Graph, cycles, import_graph, shortest_cycle

graphs = st.dictionaries(st.sampled_from("abcdefgh"), st.sets(st.sampled_from("abcdefgh")), max_size=8).map(
    lambda found: {name: (targets & found.keys()) - {name} for name, targets in found.items()}
)


def reached(graph: Graph, start: str) -> set[str]:
    """Every module that one gets to from `start` in one step or more."""
    found: set[str] = set()
    while (step := {target for name in {start, *found} for target in graph[name]} | found) != found:
        found = step
    return found


@given(graphs)
def test_two_modules_are_in_one_cycle_exactly_if_each_reaches_the_other(graph: Graph) -> None:
    ways = {name: reached(graph, name) for name in graph}
    expected = {frozenset({a} | {b for b in ways[a] if a in ways[b]}) for a in graph if a in ways[a]}
    assert {frozenset(component) for component in cycles(graph)} == expected


@given(graphs)
def test_the_way_shown_is_a_cycle_and_none_through_its_first_module_is_shorter(graph: Graph) -> None:
    for component in cycles(graph):
        way = shortest_cycle(graph, component)
        assert way[0] == component[0]
        assert len(set(way)) == len(way)
        assert all(b in graph[a] for a, b in zip(way, [*way[1:], way[0]], strict=True))
        near = {way[0]}
        for _ in range(len(way) - 1):
            near = {target for name in near for target in graph[name]}
            assert way[0] not in near


def test_a_long_chain_is_no_recursion() -> None:
    names = [f"m{number:05}" for number in range(20_000)]
    graph = {a: {b} for a, b in zip(names, [*names[1:], names[0]], strict=True)}
    assert cycles(graph) == [names]
    assert len(shortest_cycle(graph, names)) == len(names)


def graph_of(**texts: str) -> Graph:
    """Modules by name with `__` for the dot; a name that others begin with is a package."""
    names = {name.replace("__", "."): text for name, text in texts.items()}
    packages = {name for name in names if any(other.startswith(f"{name}.") for other in names)}
    return import_graph(
        {name: (name in packages, analyse(name, text.encode()).imported) for name, text in names.items()}
    )


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("import p.b", {"p.b"}),
        ("import p.b.nothing", {"p.b"}),
        ("import p", {"p"}),
        ("from p import b", {"p.b"}),
        ("from p import nothing", {"p"}),
        ("from p import *", {"p"}),
        ("from . import b", {"p.b"}),
        ("from .b import x", {"p.b"}),
        ("from .. import q", {"q"}),
        ("from ... import q", set()),
        ("from .s import c", {"p.s.c"}),
        ("import elsewhere", set()),
        ("from . import a", set()),
        ("def f():\n    import q", set()),
    ],
)
def test_an_import_leads_to_the_longest_known_name(text: str, targets: set[str]) -> None:
    assert graph_of(p="", p__a=text, p__b="", p__s="", p__s__c="", q="")["p.a"] == targets


def test_a_package_resolves_relative_imports_from_itself() -> None:
    assert graph_of(p="from . import a\nfrom .a import x", p__a="from . import y")["p"] == {"p.a"}
    assert graph_of(p="from . import a", p__a="from . import y")["p.a"] == {"p"}
