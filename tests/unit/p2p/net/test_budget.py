"""Over a budget those are cut that keep most."""

import asyncio

from kodo.p2p.net.budget import Account, Budget, shared_budget


class Links:
    """Links by name, and which of them were cut."""

    def __init__(self, most: int, most_of_source: int) -> None:
        self.budget = Budget(most, most_of_source)
        self.accounts: dict[str, Account] = {}
        self.cut: list[str] = []

    def keep(self, source: str, name: str, count: int) -> None:
        if name not in self.accounts:
            self.accounts[name] = self.budget.open(source, lambda: self.cut.append(name))
        self.accounts[name].keeps(count)


def test_within_the_budgets_nobody_is_cut() -> None:
    links = Links(100, 50)
    for source, name in (("a", "1"), ("a", "2"), ("b", "3"), ("c", "4")):
        links.keep(source, name, 25)
    assert links.cut == []
    assert links.budget.total == 100


def test_over_the_budget_of_a_source_the_biggest_of_that_source_is_cut_and_nobody_else() -> None:
    links = Links(1000, 50)
    links.keep("b", "beside", 49)
    links.keep("a", "big", 40)
    links.keep("a", "small", 11)
    assert links.cut == ["big"]
    assert links.budget.total == 60


def test_over_the_budget_of_all_the_biggest_of_the_biggest_source_is_cut() -> None:
    links = Links(100, 90)
    links.keep("alone", "honest", 35)
    for number in range(4):
        links.keep("many", str(number), 15 + number)
    assert links.cut == ["3"]
    links.keep("many", "2", 48)
    assert links.cut == ["3", "2"]


def test_as_many_are_cut_as_it_takes() -> None:
    links = Links(1000, 50)
    for number in range(5):
        links.keep("a", str(number), 10)
    links.keep("a", "new", 45)
    assert links.cut[0] == "new"
    links.keep("a", "0", 51)
    assert links.cut == ["new", "0"]


def test_what_is_let_go_of_counts_no_longer() -> None:
    links = Links(100, 50)
    for _ in range(10):
        links.keep("a", "1", 50)
        links.keep("a", "1", 0)
    links.accounts["1"].close()
    links.accounts["1"].close()
    links.accounts["1"].keeps(70)
    assert (links.cut, links.budget.total) == ([], 0)
    assert not links.budget._accounts


async def test_hosts_of_one_process_share_one_budget() -> None:
    cut: list[str] = []
    listens = shared_budget(100, 100).open("198.51.100.1", lambda: cut.append("a session that was accepted"))
    dials = shared_budget(100, 100).open("192.0.2.1", lambda: cut.append("a session that was dialled"))
    listens.keeps(60)
    dials.keeps(39)
    assert not cut
    dials.keeps(41)
    assert cut == ["a session that was accepted"]


def test_each_event_loop_has_its_own_for_sessions_are_cut_in_it() -> None:
    async def budget() -> Budget:
        return shared_budget(100, 100)

    with asyncio.Runner() as one, asyncio.Runner() as other:
        assert one.run(budget()) is not other.run(budget())
