"""What the doctor finds wrong, and what not."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from kodo.cli import doctor
from kodo.client.last_sessions import LastSession, LastSessions
from kodo.p2p.distribution import how_to_install


def test_a_client_without_ray_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    [finding] = doctor._ray(tmp_path)
    assert (finding.check, finding.todo) == ("ray", "")
    assert how_to_install("node") in finding.found


def test_a_loopback_address_is_one_however_it_is_written() -> None:
    sockets = [(1, "gcs", ip, 6379) for ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "127.0.0.9")]
    assert doctor.beyond_loopback(sockets) == []
    assert doctor.beyond_loopback([*sockets, (1, "gcs", "::", 1), (1, "gcs", "::ffff:192.0.2.7", 2)]) == [
        "gcs :::1",
        "gcs ::ffff:192.0.2.7:2",
    ]


@pytest.mark.parametrize(
    ("state", "found", "needs_care"),
    [
        ({}, "notices arrive", False),
        ({"why": "it answers with 503", "queued": 1}, "is being tried again: it answers with 503", False),
        (
            {"why": "it answers with 503", "queued": 7, "failing_since": 1_796_000_000_000},
            "it answers with 503; notices that wait: 7",
            True,
        ),
    ],
)
def test_a_target_needs_care_only_once_it_keeps_failing(state: dict[str, Any], found: str, needs_care: bool) -> None:
    [finding] = doctor._webhooks([{"target": "https://hooks.example.com", "queued": 0, **state}])
    assert finding.found.startswith("https://hooks.example.com")
    assert finding.found.endswith(found)
    assert bool(finding.todo) is needs_care


def test_the_ways_of_the_latest_sessions_are_told_and_why_they_were_no_better(tmp_path: Path) -> None:
    routes = ["lan", "relay", "direct", "punched", "lan", "relay"]
    LastSessions(tmp_path / "last_sessions").remember(
        LastSession(f"p{number}", f"n{number}.example", route, 1_796_000_000_000 + number, number)
        for number, route in enumerate(routes)
    )
    findings = list(doctor._sessions(tmp_path))
    assert [finding.found.split()[:2] for finding in findings] == [
        [f"n{number}.example:", routes[number]] for number in (5, 4, 3, 2, 1)
    ]
    assert "no address of the node answers from here but the one at a registry's relay" in findings[0].found
    assert "(known: 5)" in findings[0].found
    assert "koco doctor --to n5.example" in findings[0].found
    assert ";" not in findings[1].found
    assert not any(finding.todo for finding in findings)
