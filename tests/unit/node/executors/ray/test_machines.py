"""Which machines of a cluster there are, which is lost, and what none of them has."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kodo.node.executors.ray.machines import LOST_AFTER_S, Machine, Machines, check_token, explain, knock, knock_at
from kodo.p2p.errors import UnreachableError, UsageError
from tests.unit.node.conftest import settled


def machine(key: str = "a", **has: float) -> Machine:
    return Machine(key, f"name-{key}", "192.0.2.1", 1, has)


def test_who_comes_and_who_leaves_is_told_once() -> None:
    machines = Machines()
    assert machines.update([machine("a"), machine("b")]) == ([machine("a"), machine("b")], [])
    assert machines.update([machine("a"), machine("b")]) == ([], [])
    assert machines.update([machine("b"), machine("c")]) == ([machine("c")], [machine("a")])


def test_a_machine_is_lost_after_silence_and_not_before() -> None:
    machines = Machines()
    machines.update([machine("a")])
    assert machines.heard({"a": True}, 0) == []
    assert machines.heard({"a": False}, 1) == []
    assert machines.heard({"a": False}, LOST_AFTER_S) == []
    assert machines.heard({"a": False}, 1 + LOST_AFTER_S) == [machine("a")]


def test_one_answer_ends_a_silence() -> None:
    machines = Machines()
    machines.update([machine("a")])
    machines.heard({"a": True}, 0)
    machines.heard({"a": False}, 1)
    machines.heard({"a": True}, 2)
    assert machines.heard({"a": False}, 100) == []


def test_nothing_follows_from_a_machine_that_never_answered_or_is_not_known() -> None:
    machines = Machines()
    machines.update([machine("a")])
    for now in (0, 100, 200):
        assert machines.heard({"a": False, "z": False}, now) == []


def test_one_that_comes_back_is_new_and_has_to_answer_first() -> None:
    machines = Machines()
    machines.update([machine("a")])
    machines.heard({"a": True}, 0)
    machines.update([])
    assert machines.update([machine("a")])[0] == [machine("a")]
    machines.heard({"a": False}, 1)
    assert machines.heard({"a": False}, 100) == []


@pytest.mark.parametrize(
    ("asked", "lacking"),
    [
        ({}, ""),
        ({"CPU": 2, "GPU": 0}, ""),
        ({"GPU": 1}, ""),
        ({"GPU": 2}, "2 GPU (the most that one has is 1)"),
        ({"far": 1}, "1 far (the most that one has is 0)"),
        ({"CPU": 4, "GPU": 1}, "4 CPU and 1 GPU together"),
    ],
)
def test_what_no_machine_has_is_named(asked: dict[str, float], lacking: str) -> None:
    machines = Machines()
    machines.update([machine("a", CPU=8), machine("b", CPU=2, GPU=1)])
    assert machines.lacking(asked) == lacking


def test_where_there_is_no_machine_nothing_is_there() -> None:
    assert Machines().lacking({"CPU": 1}) == "1 CPU (the most that one has is 0)"


@pytest.mark.parametrize("where", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "HOME"])
def test_a_token_is_found_where_ray_finds_it(tmp_path: Path, where: str) -> None:
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    environment = {"RAY_AUTH_MODE": "token", "HOME": str(tmp_path / "another")}
    given = {"RAY_AUTH_TOKEN": "secret", "RAY_AUTH_TOKEN_PATH": str(file), "HOME": str(tmp_path)}
    with pytest.raises(UsageError, match="no token"):
        check_token(environment)
    file.write_text("\n")
    if where != "RAY_AUTH_TOKEN":
        with pytest.raises(UsageError, match="no token"):
            check_token({**environment, where: given[where]})
    file.write_text("secret\n")
    check_token({**environment, where: given[where]})
    check_token({"HOME": str(tmp_path / "another")})


def test_a_wrong_token_is_told_as_that() -> None:
    told = explain(RuntimeError("Unauthenticated: RPC error: InvalidAuthToken: Authentication token is missing"))
    assert "another token" in told
    assert explain(RuntimeError("first\nsecond")) == "first"


async def test_knocking_tells_who_answers(unused_tcp_port: int) -> None:
    closed = []

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()
        closed.append(writer)

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        there = Machine("a", "a", "127.0.0.1", port, {})
        away = Machine("b", "b", "127.0.0.1", unused_tcp_port, {})
        assert await knock_at([there, away]) == {"a": True, "b": False}
        await asyncio.to_thread(knock, f"127.0.0.1:{port}")
        await settled(lambda: len(closed) == 2)
    with pytest.raises(UnreachableError):
        await asyncio.to_thread(knock, f"127.0.0.1:{unused_tcp_port}")
