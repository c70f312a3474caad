"""Announcing: each registry is told that the node is there, whatever the others do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from kodo.node.catalog.announce import Announcer, Goodbyes, Said
from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import CallError, KodoError, UnreachableError
from kodo.registry.client.client import StateAnswer, UpAnswer
from kodo.registry.records.record import (
    FlowRecord,
    Goodbye,
    Heartbeat,
    NodeRecord,
    Ping,
    verify_goodbye,
    verify_heartbeat,
    verify_record,
)
from tests.unit.node.conftest import StillClock, settled

IDENTITY = Identity.from_seed(bytes(range(32)))
FLOW = FlowRecord(path="a.A", name="A")


@dataclass
class FakeRegistry:
    """A registry that keeps what it is told, and fails when told to."""

    ups: list[NodeRecord] = field(default_factory=list)
    beats: list[Heartbeat] = field(default_factory=list)
    downs: list[Goodbye] = field(default_factory=list)
    failing: KodoError | None = None
    fail_beat_once: KodoError | None = None
    silent: bool = False
    tries: int = 0

    async def __aenter__(self) -> FakeRegistry:
        return self

    async def __aexit__(self, *exc: object) -> None: ...

    async def _maybe_fail(self) -> None:
        self.tries += 1
        if self.failing is not None:
            raise self.failing
        if self.silent:
            await asyncio.Event().wait()

    async def up(self, signed: bytes) -> UpAnswer:
        await self._maybe_fail()
        self.ups.append(verify_record(signed))
        return UpAnswer(interval_s=60, accepted=["a.A"], refused=[])

    async def state(self, signed: bytes) -> StateAnswer:
        await self._maybe_fail()
        error, self.fail_beat_once = self.fail_beat_once, None
        if error is not None:
            raise error
        self.beats.append(verify_heartbeat(signed))
        return StateAnswer(name="r", python="3", version="1", registry=0, interval_s=30)

    async def down(self, signed: bytes) -> None:
        await self._maybe_fail()
        self.downs.append(verify_goodbye(signed))


class Stage:
    def __init__(self, clock: StillClock, *urls: str):
        self.clock = clock
        self.registries = {url: FakeRegistry() for url in urls}
        self.said = Said("flows.example.com", (), (FLOW,))
        self.seq = 0

    async def next_seq(self) -> int:
        self.seq += 1
        return self.seq

    @contextlib.asynccontextmanager
    async def announcer(self) -> AsyncIterator[Announcer]:
        async with Goodbyes() as goodbyes, self._announcer(goodbyes) as announcer:
            yield announcer

    def _announcer(self, goodbyes: Goodbyes) -> Announcer:
        return Announcer(
            IDENTITY,
            list(self.registries),
            said=lambda: self.said,
            ping=lambda: Ping(cpu=5.0),
            next_seq=self.next_seq,
            clock=self.clock,
            chance=lambda: 1.0,
            goodbyes=goodbyes,
            connect=self.registries.__getitem__,
        )

    async def until(self, condition: Any, step: float = 1.0) -> None:
        """Let time pass until `condition` holds."""
        for _ in range(2000):
            for _ in range(20):
                if condition():
                    return
                await asyncio.sleep(0)
            self.clock.advance(step)
        raise AssertionError("it did not come")


async def test_a_node_announces_itself_beats_and_says_goodbye(clock: StillClock) -> None:
    stage = Stage(clock, "http://one")
    one = stage.registries["http://one"]
    async with stage.announcer() as announcer:
        await settled(lambda: one.ups)
        assert announcer.state() == [{"url": "http://one", "online": True}]
        await stage.until(lambda: len(one.beats) == 3)
    record = one.ups[0]
    assert (record.name, record.seq, record.flows[0].path) == ("flows.example.com", 1, "a.A")
    assert [beat.seq for beat in one.beats] == [1, 1, 1]
    assert one.beats[0].at < one.beats[1].at < one.beats[2].at
    assert [goodbye.seq for goodbye in one.downs] == [1]


async def test_other_addresses_are_told_at_once_when_the_networks_change(clock: StillClock) -> None:
    stage = Stage(clock, "http://one")
    one = stage.registries["http://one"]
    async with stage.announcer() as announcer:
        await settled(lambda: one.ups)
        address = Multiaddr.webrtc_direct("192.0.2.7", 1, bytes(32), IDENTITY.peer_id)
        stage.said = Said("flows.example.com", (str(address),), (FLOW,))
        announcer.look_again()
        announcer.look_again()
        await stage.until(lambda: len(one.ups) == 2, step=0.1)
        assert one.beats == []  # long before the next heartbeat
        announcer.look_again()
        await stage.until(lambda: len(one.beats) == 1, step=0.1)
    assert len(one.ups) == 2


async def test_heartbeats_keep_the_interval_that_was_answered(clock: StillClock) -> None:
    stage = Stage(clock, "http://one")
    one = stage.registries["http://one"]
    async with stage.announcer():
        await settled(lambda: one.ups)
        begun = clock.ms
        await stage.until(lambda: len(one.beats) == 2)
        assert [round((beat.at - begun) / 1000) for beat in one.beats] == [60, 90]


async def test_a_registry_that_is_away_is_tried_again_and_holds_up_no_other(clock: StillClock) -> None:
    stage = Stage(clock, "http://away", "http://there")
    away, there = stage.registries.values()
    away.failing = UnreachableError("nobody there")
    async with stage.announcer() as announcer:
        await settled(lambda: there.ups)
        await stage.until(lambda: away.tries >= 4)
        assert [registry["online"] for registry in announcer.state()] == [False, True]
        away.failing = None
        await stage.until(lambda: away.ups)


async def test_pauses_grow_and_are_capped(clock: StillClock) -> None:
    stage = Stage(clock, "http://away")
    away = stage.registries["http://away"]
    away.failing = UnreachableError("nobody there")
    async with stage.announcer():
        times: list[int] = []
        for tries in range(1, 11):
            await stage.until(lambda tries=tries: away.tries == tries)
            times.append(clock.ms)
    pauses = [round((later - earlier) / 1000) for earlier, later in itertools.pairwise(times)]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 120, 120]


async def test_a_registry_that_lost_the_record_gets_it_again(clock: StillClock) -> None:
    for code in (404, 406):
        stage = Stage(clock, "http://one")
        one = stage.registries["http://one"]
        async with stage.announcer():
            await settled(lambda one=one: one.ups)
            one.fail_beat_once = CallError(code, "gone")
            begun = clock.ms
            await stage.until(lambda one=one: len(one.ups) == 2)
            assert clock.ms - begun <= 62_000


async def test_what_has_changed_is_announced_under_a_higher_number(clock: StillClock) -> None:
    stage = Stage(clock, "http://one")
    one = stage.registries["http://one"]
    async with stage.announcer():
        await settled(lambda: one.ups)
        stage.said = Said("flows.example.com", (), ())
        await stage.until(lambda: len(one.ups) == 2)
    assert [(record.seq, len(record.flows)) for record in one.ups] == [(1, 1), (2, 0)]


async def test_a_record_is_renewed_long_before_it_ends(clock: StillClock) -> None:
    stage = Stage(clock, "http://one")
    one = stage.registries["http://one"]
    async with stage.announcer():
        await settled(lambda: one.ups)
        await stage.until(lambda: len(one.ups) == 2)
        assert one.ups[1].seq > one.ups[0].seq
        assert one.ups[1].issued_at < one.ups[0].expires_at - 1000 * 1000


async def test_a_goodbye_to_a_registry_that_is_away_ends_nothing(clock: StillClock) -> None:
    stage = Stage(clock, "http://one", "http://two")
    one, two = stage.registries.values()
    async with stage.announcer():
        await settled(lambda: one.ups and two.ups)
        one.failing = UnreachableError("nobody there")
    assert (one.downs, len(two.downs)) == ([], 1)


async def test_what_a_url_hides_is_not_shown(clock: StillClock) -> None:
    stage = Stage(clock, "https://user:secret@registry.example.com:8443/x")
    async with stage.announcer() as announcer:
        assert announcer.state()[0]["url"] == "https://registry.example.com:8443/x"


async def test_a_registry_that_says_nothing_is_told_soon_and_when_it_answers(
    clock: StillClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    stage = Stage(clock, "http://silent", "http://there")
    silent, there = stage.registries.values()
    silent.silent = True
    async with stage.announcer():
        await settled(lambda: there.ups)
        begun = clock.ms
        await stage.until(lambda: caplog.messages, step=0.5)
        assert clock.ms - begun <= 2500  # long before its answer is given up
    [told] = caplog.messages
    assert told.startswith("the registry http://silent does not answer within 2 s; the node goes on without it")
    caplog.clear()

    silent.silent, silent.failing = False, UnreachableError("nobody there")
    async with stage.announcer():
        await stage.until(lambda: silent.tries >= 4)
        assert len(caplog.messages) == 1  # once, however often it is asked again
        silent.failing = None
        await stage.until(lambda: silent.ups)
        assert caplog.messages[1:] == ["the registry http://silent answers now"]


async def test_the_end_of_a_node_goes_on_while_goodbyes_are_said_and_waits_for_none_that_is_not_answered(
    clock: StillClock,
) -> None:
    stage = Stage(clock, "http://silent", "http://there")
    silent, there = stage.registries.values()
    async with Goodbyes() as goodbyes:
        async with stage._announcer(goodbyes):
            await settled(lambda: silent.ups and there.ups)
            silent.silent = True
        assert there.downs == []  # the end of the announcer has waited for no answer
        await settled(lambda: there.downs and silent.tries == 2)
    # This would hang here if anybody waited for the answer.
    assert silent.downs == []


async def test_no_goodbye_is_said_to_a_registry_that_is_known_to_be_silent(clock: StillClock) -> None:
    stage = Stage(clock, "http://silent")
    silent = stage.registries["http://silent"]
    async with stage.announcer():
        await settled(lambda: silent.ups)
        silent.silent = True
        await stage.until(lambda: silent.tries == 2)
        for _ in range(4):
            clock.advance(1)
            await asyncio.sleep(0)
        tries = silent.tries
    assert silent.tries == tries
