"""What a peer may send before it has shown any business here, and that it learns why it may not send more."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from kodo.p2p.core.callframe import EARLY_BYTES, EARLY_VALUES, MAX_FRAME_BYTES, MAX_REQUEST_VALUES
from kodo.p2p.errors import CallError, KodoError
from kodo.p2p.net.calls import Call, request
from kodo.p2p.net.session import Session
from kodo.p2p.net.transport import Limits
from tests.support.peers import make_pair

LIMITS = Limits(streams=12, early_streams=3)


class Door:
    """Lets in whoever comes once it is open."""

    def __init__(self) -> None:
        self.open = False
        self.asked = 0

    async def admit(self, session: Session) -> None:
        self.asked += 1
        if not self.open:
            raise CallError(401, "login-needed", "log in first")
        session.admitted = True


LARGE: dict[str, dict[str, Any]] = {
    "bytes": {"text": "x" * (EARLY_BYTES + 1)},
    "most bytes": {"text": b"x" * (MAX_FRAME_BYTES - 100)},
    "values": {"list": [1] * EARLY_VALUES},
    "maps": {"list": [{}] * EARLY_VALUES},
}


@pytest.mark.parametrize("args", LARGE.values(), ids=LARGE)
async def test_a_large_call_of_a_stranger_gets_the_reason_and_of_a_guest_its_answer(args: dict[str, Any]) -> None:
    door = Door()
    async with make_pair("memory", admit=door.admit) as pair:
        session = await pair.client.connect(pair.addresses)
        with pytest.raises(CallError) as caught:
            await request(session, "echo", args)
        assert (caught.value.code, caught.value.reason) == (401, "login-needed")
        door.open = True
        assert await request(session, "echo", args) == args


async def test_a_small_call_of_a_stranger_is_answered_without_asking_who_it_is() -> None:
    door = Door()
    async with make_pair("memory", admit=door.admit) as pair:
        session = await pair.client.connect(pair.addresses)
        assert await request(session, "echo", {"token": "x" * 900}) == {"token": "x" * 900}
        assert door.asked == 1  # when it came
        assert await request(session, "echo", {"token": "x" * 16_000}) == {"token": "x" * 16_000}


@pytest.mark.parametrize(("open_", "most"), [(False, LIMITS.early_streams), (True, LIMITS.streams)])
async def test_a_stranger_opens_few_streams_and_a_guest_as_many_as_there_are(open_: bool, most: int) -> None:
    door = Door()
    door.open = open_
    async with make_pair("memory", limits=Limits(), server_limits=LIMITS, admit=door.admit) as pair:
        session = await pair.client.connect(pair.addresses)
        async with contextlib.AsyncExitStack() as calls:
            for _ in range(most):
                pair.started.clear()
                await calls.enter_async_context(Call(session, "hang", timeout=None))
                await pair.started.wait()
            with pytest.raises(KodoError):
                await request(session, "echo")


async def test_more_values_than_a_call_may_have_get_a_reason() -> None:
    async with make_pair("memory") as pair:
        session = await pair.client.connect(pair.addresses)
        with pytest.raises(CallError, match="as a file") as caught:
            await request(session, "echo", {"list": [1] * MAX_REQUEST_VALUES})
        assert (caught.value.code, caught.value.reason) == (400, "too-complex")
        assert await request(session, "echo", {"list": [1] * 60_000}) == {"list": [1] * 60_000}
