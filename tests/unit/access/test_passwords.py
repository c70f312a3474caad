"""Who checks a password next, and how many at once."""

from __future__ import annotations

import asyncio
import threading

import argon2
import pytest

from kodo.access import passwords as module
from kodo.access.passwords import Passwords
from kodo.p2p.errors import CallError


class Checks(argon2.PasswordHasher):
    """Checks that wait until they are let on, by the guess that they check."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.begun: list[str] = []
        self.started = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def verify(self, hash: str | bytes, password: str | bytes) -> bool:  # type: ignore[override]
        self.begun.append(str(password))
        self.started.release()
        self.gate.acquire()
        return False


@pytest.fixture
async def checks(monkeypatch: pytest.MonkeyPatch) -> Checks:
    monkeypatch.setattr(module, "_AT_ONCE", 1)
    return Checks()


async def asked(passwords: Passwords, *guesses: tuple[str, str | None]) -> list[asyncio.Task[bool]]:
    """Begin checks, one after the other."""
    tasks = []
    for guess, source in guesses:
        tasks.append(asyncio.create_task(passwords.fits(None, guess, source=source)))
        await asyncio.sleep(0)
    return tasks


async def test_sources_take_turns_and_known_devices_come_first(checks: Checks) -> None:
    passwords = Passwords(checks)
    await passwords.open()
    guesses = [("a1", "a"), ("a2", "a"), ("a3", "a"), ("a4", "a"), ("b1", "b"), ("c1", "c"), ("mine", None)]
    tasks = await asked(passwords, *guesses)
    for _ in guesses:
        checks.gate.release()
    assert await asyncio.gather(*tasks) == [False] * len(guesses)
    assert checks.begun == ["a1", "mine", "a2", "b1", "c1", "a3", "a4"]


async def test_who_gives_up_in_line_keeps_no_turn(checks: Checks) -> None:
    passwords = Passwords(checks)
    await passwords.open()
    first, second, third = await asked(passwords, ("1", "a"), ("2", "b"), ("3", "c"))
    second.cancel()
    for _ in range(3):
        checks.gate.release()
    assert await first is await third is False
    assert checks.begun == ["1", "3"]
    assert await passwords.fits(None, "4", source="d") is False


async def test_who_gives_up_while_its_password_is_checked_has_its_turn_until_the_end(checks: Checks) -> None:
    passwords = Passwords(checks)
    await passwords.open()
    given_up, *others = await asked(passwords, ("a" * 8, "mallory"), ("b" * 8, "mallory"), ("c" * 8, "ana"))
    await asyncio.to_thread(checks.started.acquire)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    # A thread for the next would have begun by now.
    await asyncio.to_thread(lambda: None)
    begun = list(checks.begun)
    checks.gate.release(3)
    assert begun == ["a" * 8]
    assert await asyncio.gather(*others) == [False, False]


async def test_a_line_that_is_full_takes_known_devices_only(checks: Checks) -> None:
    passwords = Passwords(checks)
    await passwords.open()
    tasks = await asked(passwords, *[(str(number), str(number)) for number in range(32)])
    with pytest.raises(CallError, match="429 busy"):
        await passwords.fits(None, "one more", source="x")
    [mine] = await asked(passwords, ("mine", None))
    for _ in range(40):
        checks.gate.release()
    await asyncio.gather(*tasks, mine)
    assert checks.begun[:2] == ["0", "mine"]


def test_a_check_takes_one_thread_so_that_the_node_has_a_cpu_beside_it() -> None:
    made = Passwords()._hasher.hash("a password")
    assert argon2.extract_parameters(made).parallelism == 1
    assert argon2.extract_parameters(made).memory_cost == 65536
