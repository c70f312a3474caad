"""Other implementations of WebRTC, unmodified, in both roles, over good and bad networks: bytes come back whole."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.lossy_relay import lossy_relay
from tests.support.partners import partner
from tests.support.raw_peer import Ping, answer_to_offer, echo_server, raw_dialler

PARTNERS = ["aiortc", "wrtc", "node-datachannel"]
NETWORKS = {
    "clean": {"loss": 0.0},
    "2 % lost": {"loss": 0.02, "duplicate": 0.02, "jitter_s": 0.003},
    "10 % lost": {"loss": 0.1, "duplicate": 0.05, "jitter_s": 0.003},
}
PIECES = {"clean": 256, "2 % lost": 64, "10 % lost": 8}
"""Messages of 16 KiB on the largest channel: the partners, not we, are slow where packets are lost."""


@pytest.mark.parametrize("kind", PARTNERS)
async def test_it_dials_us_and_gets_back_what_it_sent(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        asyncio.timeout(90),
        partner(kind) as theirs,
        echo_server(monkeypatch) as (_, listener, certificate),
        asyncio.TaskGroup() as tasks,
    ):

        async def case(network: str) -> None:
            async with lossy_relay(listener.address, seed=5, **NETWORKS[network]) as relay:
                await theirs.ask("offer", name=network)
                await theirs.ask("answer", name=network, sdp=answer_to_offer(relay.port, certificate, client=False))
                phases = [
                    [(PIECES[network], 16_384, True), (40, 100, True), (20, 3000, False), *[(3, 1000, True)] * 5],
                    # A closed channel's id rests until both sides know of it; these wear the rest out.
                    *[[(2, 10, True)] * 3] * (6 if network == "clean" else 1),
                ]
                found = (await theirs.ask("echo", name=network, phases=phases))["report"]
                await theirs.ask("close", name=network)
            for phase, reports in zip(phases, found, strict=True):
                for (count, size, _), report in zip(phase, reports, strict=True):
                    assert (report["bytes"], report["sent"]) == (count * size, report["back"])
            if network == "clean":
                later = {report["id"] for reports in found[1:] for report in reports}
                assert {report["id"] for report in found[0]} & later, "no id was used again"

        for network in NETWORKS:
            tasks.create_task(case(network))


@pytest.mark.parametrize("kind", PARTNERS)
async def test_we_dial_it_and_get_back_what_we_sent(kind: str) -> None:
    async with asyncio.timeout(90), partner(kind) as theirs, asyncio.TaskGroup() as tasks:

        async def case(network: str) -> None:
            async with (
                raw_dialler() as (dialler, certificate),
                lossy_relay(("127.0.0.1", dialler.port), seed=6, **NETWORKS[network]) as relay,
            ):
                await theirs.ask("offer", name=network)
                await theirs.ask("answer", name=network, sdp=answer_to_offer(relay.port, certificate, client=True))
                link = await dialler.link
                plan = [(PIECES[network], 16_384), (40, 100), *[(3, 1000)] * 5]
                first = await asyncio.gather(*[Ping(link, seed).run(*each) for seed, each in enumerate(plan)])
                # A closed channel's id rests for a while; this many wear the rest out.
                more = 8 if network == "clean" else 1
                again = [
                    found
                    for _ in range(more)
                    for found in await asyncio.gather(*[Ping(link, seed).run(2, 10) for seed in range(10)])
                ]
                await theirs.ask("close", name=network)
            for (count, size), (_, came, sent, back) in zip(plan + [(2, 10)] * 10 * more, first + again, strict=True):
                assert (came, sent) == (count * size, back)
            if network == "clean":
                assert {number for number, *_ in first} & {number for number, *_ in again}, "no id was used again"

        for network in NETWORKS:
            tasks.create_task(case(network))
