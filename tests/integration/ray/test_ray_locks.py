"""Locks of runs on a real Ray."""

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_lock_is_denied_then_answered(run):
    made = await run("asks")
    lock = (await made.until("lock")).data
    assert lock["title"] == "Approve?"
    assert lock["schema"]["required"] == ["approved"]
    assert (lock["expires_s"], lock["verdict_s"], lock["roles"]) == (60.0, 60.0, ["boss"])
    await made.runner.answer(lock["lid"], "c1", {"approved": False})
    denied = (await made.until("unlock-deny")).data
    assert denied == {"lid": lock["lid"], "cid": "c1", "reasons": ["approve it"]}
    await made.runner.answer(lock["lid"], "c2", {"approved": True, "comment": "go"})
    unlocked = (await made.until("unlock")).data
    assert unlocked == {"lid": lock["lid"], "cid": "c2", "answer": {"approved": True, "comment": "go"}}
    assert (await made.end())["result"] == {"comment": "go", "fid": made.runner.fid}


async def test_a_candidate_of_a_wrong_type_is_denied_with_its_field(run):
    made = await run("asks")
    lock = (await made.until("lock")).data
    await made.runner.answer(lock["lid"], "c1", {"approved": "perhaps"})
    reasons = (await made.until("unlock-deny")).data["reasons"]
    assert len(reasons) == 1
    assert reasons[0].startswith("approved: ")
    await made.runner.kill()


async def test_a_candidate_handed_over_twice_has_one_verdict(run):
    made = await run("asks")
    lock = (await made.until("lock")).data
    for _ in range(2):
        await made.runner.answer(lock["lid"], "c1", {"approved": True})
    await made.end()
    assert [event.event for event in made.events] == ["lock", "unlock", "final"]


async def test_a_lock_that_expired_goes_on_with_its_default(run):
    made = await run("asks_with_default")
    lock = (await made.until("lock")).data
    assert lock["default"] == 7
    await made.runner.expire(lock["lid"])
    assert (await made.end())["result"] == 7


async def test_a_lock_that_expired_without_default_is_fatal(run):
    made = await run("asks")
    await made.runner.expire((await made.until("lock")).data["lid"])
    assert (await made.end())["type"] == "LockExpiredError"


async def test_an_answer_to_a_lock_that_is_not_open_is_denied(run):
    made = await run("asks")
    await made.until("lock")
    await made.runner.answer("0" * 26, "c1", True)
    assert (await made.until("unlock-deny")).data["cid"] == "c1"
    await made.runner.kill()
