import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.p2p.errors import UnreachableError
from kodo.registry.health import PROBES, Due, Prober, Tally
from tests.support.records import address, identity

NODE = Due(str(identity().peer_id), (address(identity()),))


def tally(*results):
    made = Tally()
    for result in results:
        made = made.add(result)
    return made


def test_without_probes_nothing_is_known():
    assert (Tally().availability, Tally().performance) == (None, None)


def test_availability_is_the_share_that_answered_and_performance_their_median():
    made = tally(10.0, None, 30.0, 20.0)
    assert (made.availability, made.performance) == (0.75, 20.0)


def test_a_node_that_never_answered_has_no_performance():
    made = tally(None, None)
    assert (made.availability, made.performance) == (0.0, None)


def test_the_latest_hundred_count():
    made = tally(*[None] * 50, *[5.0] * PROBES)
    assert (made.availability, len(made.results)) == (1.0, PROBES)


@given(st.lists(st.none() | st.floats(0, 1e4, width=32), max_size=150))
def test_a_tally_comes_back_as_it_was_written(results):
    made = tally(*results)
    assert Tally.from_bytes(made.to_bytes()) == made


@pytest.mark.parametrize(
    "failure", [None, UnreachableError("nobody answers"), TimeoutError(), ValueError("the unforeseen")]
)
async def test_each_probe_is_noted_once_and_the_next_ones_follow(failure):
    noted = asyncio.Queue()
    dues = iter([(NODE,), (NODE,)])

    async def due(most):
        return next(dues, ())

    async def measured(peer_id, took):
        await noted.put((peer_id, took))

    async def dial(node):
        if failure is not None:
            raise failure
        return 12.5

    async with Prober(due, measured, identity(9), 0.0, dial=dial):
        found = [await noted.get() for _ in range(2)]
    assert found == [(NODE.peer_id, None if failure else 12.5)] * 2


async def test_a_prober_that_is_closed_while_it_probes_leaves_nothing_behind():
    begun = asyncio.Event()

    async def due(most):
        return (NODE,)

    async def dial(node):
        begun.set()
        await asyncio.Event().wait()

    async def measured(peer_id, took):
        raise AssertionError("nothing was measured")

    async with Prober(due, measured, identity(9), 1.0, dial=dial) as prober:
        await begun.wait()
        await prober.aclose()
        await prober.aclose()
