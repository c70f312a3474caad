"""Which processes are kept ready for which modules."""

from __future__ import annotations

from collections import Counter

import pytest

from kodo.node.executors.warm_plan import BLANK, MAX_GROUPS, WarmPlan


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], {BLANK: 2}),
        (["a:one"], {"a": 2}),
        (["a:one", "a:two"], {"a": 2}),
        (["a:one", "b:two"], {"a": 2, "b": 1}),
        (["crew.yaml"], {BLANK: 2}),
        (["a:one", "crew.yaml"], {"a": 2, BLANK: 1}),
    ],
)
def test_each_module_has_a_process_of_its_own(entries: list[str], expected: dict[str, int]) -> None:
    assert WarmPlan(2, lambda: entries).targets() == expected


def test_none_is_kept_where_none_is_wanted() -> None:
    assert WarmPlan(0, lambda: ["a:one"]).targets() == {}


def test_the_module_that_was_asked_for_last_has_most() -> None:
    plan = WarmPlan(3, lambda: ["a:one", "b:one", "c:one"])
    plan.use("c")
    plan.use("b")
    assert list(plan.targets().items()) == [("b", 3), ("c", 1), ("a", 1)]


def test_many_modules_are_bounded_and_a_process_for_any_flow_is_kept_besides() -> None:
    plan = WarmPlan(2, lambda: [f"m{number}:flow" for number in range(100)])
    for number in range(90, 100):
        plan.use(f"m{number}")
    targets = plan.targets()
    assert set(targets) == {BLANK, *(f"m{number}" for number in range(92, 100))}
    assert targets.total() == 2 + MAX_GROUPS - 1 + 1


def test_a_module_that_cannot_be_imported_ahead_gets_a_process_for_any_flow() -> None:
    plan = WarmPlan(1, lambda: ["a:one", "b:one"])
    plan.give_up("a")
    assert plan.targets() == {"b": 1, BLANK: 1}


def test_modules_that_are_offered_no_more_are_forgotten() -> None:
    offered = ["a:one", "b:one"]
    plan = WarmPlan(1, lambda: offered)
    plan.use("b")
    offered.remove("b:one")
    assert plan.targets() == {"a": 1}


def test_missing_and_surplus_are_the_difference_to_what_is_there() -> None:
    plan = WarmPlan(2, lambda: ["a:one", "b:one"])
    there = ["a", "c", "c"]
    assert Counter(plan.missing(there)) == {"a": 1, "b": 1}
    assert Counter(plan.surplus(there)) == {"c": 2}
