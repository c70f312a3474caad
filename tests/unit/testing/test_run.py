"""What `kodo.testing.run` gives to the tests of an author."""

import asyncio
import builtins
import getpass
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr

from kodo.flow import File, LockExpiredError, delegate, fid, flow, lock, memory, output, progress
from kodo.flow._runtime.current import installed
from kodo.flow._runtime.form import InputsError
from kodo.flow._runtime.not_awaited import NotAwaitedError
from kodo.p2p.errors import DeadlineError, UsageError
from kodo.testing import EXPIRE, Event, Output, UnansweredError, run, tries


class Choice(BaseModel):
    city: str
    nights: int = 2


@flow
def plan(budget: int):
    choice = lock("Where to?", Choice, check=lambda it: None if it.nights * 100 <= budget else "too expensive")
    visited = memory.long.get("visited", [])
    memory.long.set("visited", [*visited, choice.city])
    progress(100, f"booked {choice.city}")
    output.write("trip.md", f"# {choice.city}\n")
    return choice


async def plan_async(budget: int):
    choice = await lock("Where to?", Choice)
    await memory.short.set("city", choice.city)
    await output.write("trip.md", f"# {choice.city}\n")
    return {"budget": budget, "city": choice.city}


ULM = {"city": "Ulm", "nights": 3}


def test_a_flow_runs_with_answers_and_all_that_it_did_is_there():
    done = run(plan, budget=500, answers={"Where to?": ULM})
    assert done.result == ULM
    assert done.outputs == {"trip.md": Output(b"# Ulm\n", "text/markdown")}
    assert done.outputs["trip.md"].text == "# Ulm\n"
    assert done.told("progress") == [{"percent": 100, "text": "booked Ulm"}]
    assert [event.event for event in done.events] == ["lock", "unlock", "progress", "output"]
    assert done.long == {"visited": ["Ulm"]}
    (asked,) = done.locks
    assert (asked.title, asked.answer, asked.denied) == ("Where to?", ULM, [])
    assert asked.schema["properties"]["city"] == {"title": "City", "type": "string"}


def test_an_async_flow_runs_too():
    done = run(plan_async, {"budget": "5"}, answers=[Choice(city="Ulm")])
    assert done.result == {"budget": 5, "city": "Ulm"}
    assert (done.short, done.long) == ({"city": "Ulm"}, {})


async def test_in_an_event_loop_it_runs_beside():
    assert (await asyncio.to_thread(run, plan_async, budget=1, answers=[ULM])).result["city"] == "Ulm"


def test_a_denied_answer_is_followed_by_the_next():
    done = run(plan, budget=100, answers={"Where to?": tries(ULM, {"city": "Bonn", "nights": 1})})
    assert done.result["city"] == "Bonn"
    assert done.locks[0].denied == [["too expensive"]]


@pytest.mark.parametrize("answers", [{"Where to?": ULM}, [ULM], lambda lock: ULM if not lock.tried else no_more()])
def test_without_another_answer_the_flow_ends_with_the_reason(answers):
    with pytest.raises(UsageError, match=r"'nights': 3.* was denied: too expensive|no more"):
        run(plan, budget=100, answers=answers)


def no_more():
    raise UsageError("no more")


def test_a_map_answers_each_lock_of_its_title():
    assert run(lambda: [lock("Go on?"), lock("Go on?"), lock("Which?", list[str])], answers={
        "Go on?": True, "Which?": ["a", "b"]
    }).result == [True, True, ["a", "b"]]  # fmt: skip


def test_a_lock_goes_on_with_its_default_or_says_what_is_missing():
    assert run(lambda: lock("Colour?", str, default="red")).result == "red"
    with pytest.raises(UnansweredError, match=r"no answer to the lock 'Colour\?'"):
        run(lambda: lock("Colour?", str), answers={"Other?": 1})


def test_a_lock_can_be_let_expire():
    with pytest.raises(LockExpiredError):
        run(lambda: lock("Colour?", str), answers=[EXPIRE])


def test_memory_begins_empty_or_as_the_test_says():
    first = run(plan, budget=500, answers=[ULM])
    assert run(plan, budget=500, answers=[{"city": "Bonn"}], long=first.long).long == {"visited": ["Ulm", "Bonn"]}
    assert run(plan, budget=500, answers=[{"city": "Bonn"}]).long == {"visited": ["Bonn"]}


def test_inputs_are_taken_by_the_form():
    with pytest.raises(InputsError, match="budget"):
        run(plan, budget="much")


def test_files_and_secrets_are_inputs(tmp_path):
    (tmp_path / "a.txt").write_text("text")

    def reads(doc: File, key: SecretStr):
        return doc.read_text() + key.get_secret_value()

    assert run(reads, doc=tmp_path / "a.txt", key="secret").result == "textsecret"


def fails():
    progress(1)
    raise ValueError("on purpose")


def test_what_a_flow_raises_is_raised_or_kept():
    with pytest.raises(ValueError, match="on purpose"):
        run(fails)
    done = run(fails, check=False)
    assert (type(done.error), done.events) == (ValueError, [Event("progress", {"percent": 1})])


def test_a_forgotten_await_fails():
    async def forgets():
        output.write("a", "")

    with pytest.raises(NotAwaitedError, match=r"await output.write\('a'"):
        run(forgets)


def test_what_was_forgotten_elsewhere_fails_no_run():
    forgotten = delegate("node/flow")
    del forgotten
    assert run(lambda: 1).events == []


def hanging(flow, **more):
    """Run a flow that hangs; gives its threads, and what the test saw of the process."""
    before, others = (Path.cwd(), installed()), threading.enumerate()
    with pytest.raises(DeadlineError, match="timeout=…"):
        run(flow, timeout=0.2, **more)
    threads = {each for each in threading.enumerate() if each.name == "kodo-flow"}.difference(others)
    return threads, before, (Path.cwd(), installed())


def test_a_flow_that_does_not_end_fails_and_its_question_with_it():
    threads, before, after = hanging(lambda: lock("?", str), answers=lambda lock: threading.Event().wait())
    assert after == before
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize(
    "late",
    [
        lambda: progress(1),
        lambda: lock("?", str, default=""),
        lambda: output.write("a", ""),
        lambda: memory.long.set("a", 1),
        lambda: None,
    ],
    ids=["event", "lock", "output", "memory", "nothing"],
)
def test_what_a_flow_does_after_its_test_has_given_it_up_reaches_no_other(late, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").touch()
    go, raised = threading.Event(), []

    @flow(outputs="folder")
    def hangs():
        go.wait()
        try:
            late()
        except Exception as error:
            raised.append(type(error))
            raise

    (thread,), before, after = hanging(hangs)

    def next_one():
        go.set()
        thread.join(60)
        return memory.long.keys()

    made = run(next_one)
    assert after == before
    assert (made.result, made.told("progress"), made.locks, made.outputs, made.long) == ([], [], [], {}, {})
    assert os.listdir() == ["mine.txt"]
    assert set(raised) <= {DeadlineError}


def test_the_working_folder_is_empty_and_its_own_and_what_is_left_is_told():
    def leaves():
        assert os.listdir() == []
        Path("left.txt").touch()
        return fid()

    before = (Path.cwd(), installed())
    done = run(leaves)
    assert "left.txt" in done.told("log")[0]["text"]
    assert len(done.result) == 26
    assert (Path.cwd(), installed()) == before
    assert list(run(flow(outputs="folder")(leaves)).outputs) == ["left.txt"]


def test_a_flow_of_another_node_that_the_test_does_not_give_is_named():
    with pytest.raises(UsageError, match=r"delegates=\{'node/flow': function\}"):
        run(lambda: list(delegate("node/flow")))


def test_no_ray_is_imported():
    program = (
        "import sys; from kodo.testing import run; assert run(lambda: 1).result == 1; print('ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_input_and_getpass_are_locks_in_a_test_too(monkeypatch):
    def flow():
        return [input("Your name? "), len(getpass.getpass("The word: "))]

    before = (builtins.input, getpass.getpass)
    made = run(flow, answers={"Your name?": "Ada", "The word:": "sesame"})
    assert made.result == ["Ada", 6]
    assert made.locks[1].schema["writeOnly"] is True
    assert (builtins.input, getpass.getpass) == before
    monkeypatch.setattr("builtins.input", lambda prompt: "of the test")
    assert run(lambda: input("Your name? ")).result == "of the test"
