"""What a client says of a schedule, and which one it changes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kodo.client.schedules import local_zone
from kodo.p2p.errors import NotFoundError, PeerError, UsageError
from tests.support.world import FID, World


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize(
    ("times", "sent"),
    [
        ({"cron": "0 7 * * *"}, {"cron": "0 7 * * *", "tz": "Europe/Berlin"}),
        ({"cron": "0 7 * * *", "tz": "UTC"}, {"cron": "0 7 * * *", "tz": "UTC"}),
        ({"every": "12h"}, {"every_s": 43_200}),
        ({"every": 90}, {"every_s": 90}),
        ({"at": "2026-12-01 07:00"}, {"at": 1_796_104_800_000, "tz": "Europe/Berlin"}),
        ({"at": "2026-12-01T07:00+00:00"}, {"at": 1_796_108_400_000, "tz": "Europe/Berlin"}),
        ({"at": datetime(2026, 12, 1, 7, tzinfo=UTC)}, {"at": 1_796_108_400_000, "tz": "Europe/Berlin"}),
    ],
)
async def test_what_is_said_of_times_is_sent(
    world: World, tmp_path: Path, times: dict[str, Any], sent: dict[str, Any]
) -> None:
    world.service.answers["schedule.add"] = {"sid": FID, "next": [1]}
    async with world.client(tmp_path) as client:
        made = await client.schedules.add("n.example/flows.b", **times, tags="t", overlap="queue", n=1)
    assert (made["sid"], made["node"], made["peer_id"]) == (FID, "n.example", str(world.host.peer_id))
    whole = {"path": "flows.b", "inputs": {"n": 1}, "missed": "once", "overlap": "queue", "tags": ["t"], **sent}
    assert world.service.calls[-1] == ("schedule.add", whole)


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize(
    ("times", "why"),
    [
        ({}, "exactly one"),
        ({"cron": "* * * * *", "every": "1h"}, "exactly one"),
        ({"every": "30s"}, "at least one minute"),
        ({"every": "90.5s"}, "at least one minute"),
        ({"every": "often"}, "at least one minute"),
        ({"at": "tomorrow"}, "at is a time such as"),
        ({"at": "2026-03-29 02:30"}, "does not exist in Europe/Berlin"),
        ({"at": "2026-12-01 07:00", "tz": "Europe/Bonn"}, "no time zone 'Europe/Bonn'"),
    ],
)
async def test_what_is_no_schedule_is_refused_before_anything_is_sent(
    world: World, tmp_path: Path, times: dict[str, Any], why: str
) -> None:
    async with world.client(tmp_path) as client:
        with pytest.raises(UsageError, match=why):
            await client.schedules.add("n.example/flows.b", **times)
    assert world.service.calls == []


@pytest.mark.parametrize(("named", "found"), [("Europe/Berlin", "Europe/Berlin"), (":UTC", "UTC")])
def test_the_zone_of_this_machine_is_what_its_user_set(
    monkeypatch: pytest.MonkeyPatch, named: str, found: str
) -> None:
    monkeypatch.setenv("TZ", named)
    assert local_zone() == found


@pytest.mark.parametrize("named", ["", "nowhere", "CET-1CEST", "../etc"])
def test_a_zone_without_a_name_is_that_of_the_machine(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.delenv("TZ", raising=False)
    usual = local_zone()
    monkeypatch.setenv("TZ", named)
    assert local_zone() == usual


async def test_a_schedule_is_changed_where_it_is(world: World, tmp_path: Path) -> None:
    world.service.answers |= {
        "schedule.remove": {"sid": FID, "removed": True},
        "schedule.pause": {"sid": FID, "paused": False},
        "schedule.list": {"result": [{"sid": FID}], "total_pages": 1},
    }
    async with world.client(tmp_path) as client:
        assert (await client.schedules.remove(FID))["removed"] is True
        assert (await client.schedules.pause(f"n.example/{FID}", paused=False))["paused"] is False
        [row] = await client.schedules.list(others=True)
        with pytest.raises(UsageError, match="koco schedules"):
            await client.schedules.remove("none")
        world.service.answers["schedule.remove"] = {"sid": "another"}
        with pytest.raises(PeerError):
            await client.schedules.remove(FID, node="n.example")
        del world.service.answers["schedule.remove"]
        with pytest.raises(NotFoundError, match="no schedule"):
            await client.schedules.remove(FID, node="n.example")
    assert (row["sid"], row["node"]) == (FID, "n.example")
    sent = [(op, args) for op, args in world.service.calls if op.startswith("schedule.")]
    assert ("schedule.pause", {"sid": FID, "paused": False}) in sent
    assert any(op == "schedule.list" and args["others"] is True for op, args in sent)
