"""Secrets of runs: encrypted, over restarts, erased; found nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

from kodo.node.executors.in_process import InProcessExecutor, InProcessRunner, LockDeniedError
from kodo.node.runs.launch import RunSettings
from kodo.node.runs.vault import INPUTS, Vault
from kodo.node.store.rows import Created, KeyReusedError, RunOverError
from kodo.p2p.errors import CallError, CapacityError, IntegrityError, KodoError, UsageError
from kodo.protocol.events import RunState
from kodo.protocol.secrets import MASK
from tests.unit.node.conftest import StillClock, fid_of, settled
from tests.unit.node.rig import ANA, rig
from tests.unit.node.service_rig import LID, Node, node_of

CANARY = "canary-that-nobody-may-see"
FORM: dict[str, Any] = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "token": {"type": "string", "format": "password", "minLength": 5}},
    "required": ["n", "token"],
    "additionalProperties": False,
}


def vault_at(home: Path) -> Vault:
    made = Vault(home / "secrets", home / "secrets.key")
    made.open()
    return made


def found_in(home: Path, word: str = CANARY) -> list[str]:
    return [str(path) for path in home.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]


async def test_secrets_are_kept_encrypted_over_a_restart_and_erased(tmp_path: Path) -> None:
    fid = fid_of(1)
    await vault_at(tmp_path).put(fid, INPUTS, [[["token"], CANARY]])
    vault = vault_at(tmp_path)
    await vault.put(fid, "cid", [[[], CANARY + "2"]])
    assert await vault.get(fid, INPUTS) == [[["token"], CANARY]]
    assert found_in(tmp_path) == []
    assert {os.stat(path).st_mode & 0o777 for path in (tmp_path / "secrets.key", tmp_path / "secrets" / fid)} == {
        0o600
    }
    await vault.drop(fid, "cid")
    assert (await vault.get(fid, "cid"), vault.has(fid)) == ([], True)
    await vault.erase(fid)
    await vault.erase(fid)
    assert (await vault.get(fid, INPUTS), vault.has(fid)) == ([], False)


async def test_only_the_secrets_of_live_runs_are_kept(tmp_path: Path) -> None:
    vault = vault_at(tmp_path)
    for number in range(3):
        await vault.put(fid_of(number), INPUTS, [[[], "s"]])
    (tmp_path / "secrets" / "left.new").write_bytes(b"x")
    await vault.keep([fid_of(1)])
    assert os.listdir(tmp_path / "secrets") == [fid_of(1)]


async def test_what_was_changed_or_moved_is_not_decrypted(tmp_path: Path) -> None:
    vault = vault_at(tmp_path)
    path = tmp_path / "secrets" / fid_of(1)
    for spoil in (lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: data[:5], lambda data: b""):
        await vault.put(fid_of(2), INPUTS, [[[], "s"]])
        path.write_bytes(spoil((tmp_path / "secrets" / fid_of(2)).read_bytes()))
        with pytest.raises(IntegrityError):
            await vault.get(fid_of(1), INPUTS)
    path.write_bytes((tmp_path / "secrets" / fid_of(2)).read_bytes())
    with pytest.raises(IntegrityError):  # another run's
        await vault.get(fid_of(1), INPUTS)


async def test_a_bad_key_is_refused(tmp_path: Path) -> None:
    vault_at(tmp_path)
    os.chmod(tmp_path / "secrets.key", 0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        vault_at(tmp_path)
    os.chmod(tmp_path / "secrets.key", 0o600)
    (tmp_path / "secrets.key").write_text("no key")
    with pytest.raises(UsageError, match="is not a key"):
        vault_at(tmp_path)


async def test_bounds_and_names(tmp_path: Path) -> None:
    vault = vault_at(tmp_path)
    with pytest.raises(CapacityError):
        await vault.put(fid_of(1), INPUTS, [[[], "x" * (64 << 10)]])
    with pytest.raises(UsageError):
        await vault.put("../secrets.key", INPUTS, [])


def test_a_digest_tells_nothing_without_the_key(tmp_path: Path) -> None:
    one, two = vault_at(tmp_path / "a"), vault_at(tmp_path / "b")
    assert one.digest(["x"]) == one.digest(["x"]) != one.digest(["y"])
    assert one.digest(["x"]) != two.digest(["x"])


def flow_info(path: str, entry: str) -> dict[str, Any]:
    return {"path": path, "name": path, "entry": entry, "schema": FORM}


async def events_of(node: Node, fid: str) -> str:
    return repr(await node.rig.store.every(fid, ["inputs", "candidate", "unlock", "unlock-deny", "lock"]))


SECRET = [flow_info("flows.secret", "work"), flow_info("flows.secretly", "ask")]


async def test_a_secret_input_reaches_the_flow_and_nothing_else(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, more=SECRET) as node:
        inputs = {"n": 1, "token": CANARY}
        told = await node.call("run.launch", path="flows.secretly", inputs=inputs, key="k")
        fid = told["fid"]
        assert (await node.call("run.launch", path="flows.secretly", inputs=inputs, key="k"))["fid"] == fid
        other = await node.refused("run.launch", path="flows.secretly", inputs={**inputs, "token": "other"}, key="k")
        assert other.reason == "key-reused"
        await node.rig.until(fid, "lock")
        spec = node.rig.executor.launched[-1]
        assert (spec.inputs, spec.secrets) == ({"n": 1, "token": MASK}, [[["token"], CANARY]])
        assert (await node.call("run.state", fid=fid))["inputs"] == {"n": 1, "token": MASK}
        assert os.listdir(tmp_path / "secrets") == [fid]
        assert found_in(tmp_path) == []
        await node.call("lock.answer", fid=fid, lid=LID, candidate=True)
        await node.rig.all_events(fid)
        await settled(lambda: os.listdir(tmp_path / "secrets") == [])
        assert found_in(tmp_path) == []


async def test_a_restart_asks_for_the_secrets_again(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, more=SECRET) as node:
        first = (await node.call("run.launch", path="flows.secret", inputs={"n": 1, "token": CANARY}))["fid"]
        await node.rig.all_events(first)
        again = (await node.call("run.restart", fid=first))["fid"]
        [lock] = (await node.call("run.state", fid=again))["locks"]
        demanded = await node.call("lock.get", fid=again, lid=lock["lid"])
        assert demanded["schema"]["required"] == ["token"]
        with pytest.raises(CallError) as caught:
            await node.call("lock.answer", fid=again, lid=lock["lid"], candidate={"token": "shrt"})
        assert (caught.value.reason, "shrt" in repr(caught.value.data)) == ("bad-candidate", False)
        unlock = await node.call("lock.answer", fid=again, lid=lock["lid"], candidate={"token": CANARY}, key="a")
        assert unlock["unlock"]["answer"] == {"token": MASK}
        assert (await node.rig.all_events(again))[-1].data["result"] == 1
        assert node.rig.executor.launched[-1].secrets == [[["token"], CANARY]]
        assert CANARY not in await events_of(node, again)
        assert found_in(tmp_path) == []


async def test_refused_inputs_do_not_repeat_a_secret(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, more=SECRET) as node:
        for inputs in (
            {"n": 1, "token": "shrt"},
            {"n": 1, "token": ["shrt"]},
            {"n": 1, "token": "long enough", "shrt": 1},
        ):
            error = await node.refused("run.launch", path="flows.secret", inputs=inputs)
            assert (error.reason, "shrt" in f"{error} {error.data['places'][0]['message']}") == ("bad-inputs", False)
        large = {"n": 1, "token": "x" * (64 << 10)}
        assert (await node.refused("run.launch", path="flows.secret", inputs=large)).code == 413


async def test_a_secret_answer_is_handed_over_again_after_a_crash(tmp_path: Path, clock: StillClock) -> None:
    schema = {"type": "string", "writeOnly": True}
    judged: list[Any] = []

    async def asks(run: InProcessRunner) -> Any:
        def judge(candidate: Any) -> Any:
            judged.append(candidate)
            if len(judged) == 1:
                raise LockDeniedError("not that one")
            return MASK

        await run.lock(LID, schema, judge=judge)
        return "done"

    async with InProcessExecutor({"flow": asks}) as executor:
        async with rig(tmp_path, executor, clock, RunSettings(keep_runs=True)) as made:
            fid = await made.launch()
            await made.until(fid, "lock")
            with pytest.raises(CallError, match="not that one"):
                await made.locks.answer(fid, LID, CANARY + "1", ANA)
            runner = made.runner(fid)
            handed, seen = runner.answer, []

            async def lost(*args: Any) -> None:
                seen.append(args)

            runner.answer = lost  # type: ignore[method-assign]
            made.runs.spawn(lambda: made.locks.answer(fid, LID, CANARY + "2", ANA))  # type: ignore[arg-type]
            await settled(lambda: seen)
        runner.answer = handed  # type: ignore[method-assign]
        assert found_in(tmp_path) == []
        async with rig(tmp_path, executor, clock) as made:
            assert (await made.all_events(fid))[-1].data["result"] == "done"
            await made.gone(fid)
            assert judged == [CANARY + "1", CANARY + "2"]
            await settled(lambda: os.listdir(tmp_path / "secrets") == [])
            assert found_in(tmp_path) == []
        assert os.listdir(tmp_path / "secrets") == []


async def test_a_run_whose_secrets_are_gone_does_not_start(tmp_path: Path, clock: StillClock) -> None:
    async with InProcessExecutor({}) as executor, rig(tmp_path, executor, clock) as made:
        fid = await made.launch(inputs={"token": MASK})
        last = (await made.all_events(fid))[-1]
        assert (last.event, "start it again" in last.data["message"]) == ("fatal", True)
        assert executor.launched == []


def _failing(error: Exception, *, after: bool = False) -> Any:
    """Makes what fails in the place of a call of the store's, before or after it was done."""

    def make(call: Any) -> Any:
        async def fails(*args: Any, **named: Any) -> Any:
            if after:
                await call(*args, **named)
            raise error

        return fails

    return make


def _earlier(value: Any) -> Any:
    def make(call: Any) -> Any:
        async def known(*args: Any, **named: Any) -> Any:
            return value

        return known

    return make


REFUSED_LAUNCHES = {
    "the key was used meanwhile": ("create", _failing(KeyReusedError("used"))),
    "the key's run was made meanwhile": ("create", _earlier(Created(fid_of(9), fresh=False))),
    "the disk is full": ("create", _failing(CapacityError("full"))),
    "the disk says so, and stored the run": ("create", _failing(CapacityError("full"), after=True)),
    "something else": ("create", _failing(KodoError("else"))),
    "a fault of ours": ("create", _failing(ZeroDivisionError())),
}


@pytest.mark.parametrize("how", REFUSED_LAUNCHES)
async def test_the_secrets_of_a_launch_that_was_refused_are_erased(
    how: str, tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, make = REFUSED_LAUNCHES[how]
    async with node_of(tmp_path, clock, more=SECRET) as node:
        with monkeypatch.context() as patch:
            patch.setattr(node.rig.store, name, make(getattr(node.rig.store, name)))
            with contextlib.suppress(KodoError, ZeroDivisionError):
                await node.call("run.launch", path="flows.secret", inputs={"n": 1, "token": CANARY}, key=None)
        await settled(lambda: os.listdir(tmp_path / "secrets") == [])


REFUSED_ANSWERS = {
    "the run is over": ("append", None, _failing(RunOverError(fid_of(9), RunState.DONE))),
    "the disk is full": ("append", None, _failing(CapacityError("full"))),
    "the key was used meanwhile": ("append_once", "k", _failing(KeyReusedError("used"))),
    "the key's answer came meanwhile": ("append_once", "k", _earlier("earlier")),
    "the disk is full, with a key": ("append_once", "k", _failing(CapacityError("full"))),
}


@pytest.mark.parametrize("how", REFUSED_ANSWERS)
async def test_the_secrets_of_an_answer_that_was_refused_are_erased(
    how: str, tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asks(run: InProcessRunner) -> Any:
        return await run.lock(LID, {"type": "string", "writeOnly": True})

    name, key, make = REFUSED_ANSWERS[how]
    async with InProcessExecutor({"flow": asks}) as executor, rig(tmp_path, executor, clock) as made:
        fid = await made.launch()
        await made.until(fid, "lock")
        with monkeypatch.context() as patch:
            patch.setattr(made.store, name, make(getattr(made.store, name)))
            answering = asyncio.ensure_future(made.locks.answer(fid, LID, CANARY, ANA, key))
            await settled(lambda: os.listdir(tmp_path / "secrets") == [] and not made.runs.live[fid].claimed)
        answering.cancel()
        await asyncio.wait([answering])
        await settled(lambda: os.listdir(tmp_path / "secrets") == [])


async def test_the_secrets_of_an_answer_that_is_stored_although_the_disk_failed_are_kept(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asks(run: InProcessRunner) -> Any:
        return await run.lock(LID, {"type": "string", "writeOnly": True})

    async with InProcessExecutor({"flow": asks}) as executor, rig(tmp_path, executor, clock) as made:
        fid = await made.launch()
        await made.until(fid, "lock")
        with monkeypatch.context() as patch:
            patch.setattr(made.store, "append", _failing(CapacityError("full"), after=True)(made.store.append))
            with pytest.raises(CallError, match="disk-full"):
                await made.locks.answer(fid, LID, CANARY, ANA)
        await made.store.settle()
        await settled(lambda: not made.runs._tasks._group or len(os.listdir(tmp_path / "secrets")) == 1)
        [candidate] = await made.store.every(fid, ["candidate"])
        assert await made.runs.secrets.vault.get(fid, candidate.data["cid"]) == [[[], CANARY]]  # type: ignore[union-attr]
