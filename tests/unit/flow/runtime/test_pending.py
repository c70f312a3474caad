import asyncio
import gc
import json
import math
from pathlib import Path

import pytest

from kodo.flow import delegate, lock, memory, output, result
from kodo.flow._runtime.context import DONE, Context
from kodo.flow._runtime.current import install
from kodo.flow._runtime.not_awaited import NotAwaitedError
from kodo.flow._runtime.pending import tell_forgotten


class Recorder(Context):
    def __init__(self):
        self.events = []

    def emit(self, event, data):
        self.events.append((event, data))
        return DONE

    def lock(self, demand):
        raise AssertionError("nobody awaited it")

    def write_output(self, name, source, media_type):
        return {"name": name}


@pytest.fixture(autouse=True)
def context():
    made = Recorder()
    install(made)
    yield made
    install(None)


CALLS = {
    "lock('Delete everything?')": lambda: lock("Delete everything?", bool, default=False),
    "output.write('a.md', …)": lambda: output.write("a.md", "text"),
    "memory.short.get('k')": lambda: memory.short.get("k"),
    "memory.long.set('k', …)": lambda: memory.long.set("k", 1),
    "memory.long.keys('')": memory.long.keys,
    "memory.shared('kb').update('k', …)": lambda: memory.shared("kb").update("k", lambda value: value),
    "memory.long.files.read('a')": lambda: memory.long.files.read("a"),
    "memory.long.files.write('a', …)": lambda: memory.long.files.write("a", b""),
    "memory.long.files.fetch('a')": lambda: memory.long.files.fetch("a"),
    "memory.long.files.list('')": memory.long.files.list,
    "memory.short.delete('k')": lambda: memory.short.delete("k"),
    "delegation.fetch('a')": lambda: delegate("node/flow").fetch("a", to="a"),
}

USES = {
    "bool": bool,
    "not": lambda it: not it,
    "iterating": list,
    "in": lambda it: 1 in it,
    "index": lambda it: it["city"],
    "attribute": lambda it: it.city,
    "text": str,
    "format": lambda it: f"{it}",
    "equals": lambda it: it == "yes",
    "differs": lambda it: it != "yes",
    "more": lambda it: it > 1,
    "plus": lambda it: it + 1,
    "plus from the left": lambda it: "a" + it,
    "len": len,
    "int": int,
    "call": lambda it: it(),
    "float": math.floor,
    "path": Path,
    "event": lambda it: result(answer=it),
    "nested event": lambda it: result({"deep": [it]}),
}


@pytest.mark.parametrize("what", CALLS)
@pytest.mark.parametrize("use", USES)
async def test_what_was_not_awaited_refuses_every_use(what, use):
    pending = CALLS[what]()
    with pytest.raises((NotAwaitedError, TypeError)) as raised:
        USES[use](pending)
    if isinstance(raised.value, NotAwaitedError):
        assert f"await {what}" in str(raised.value)
    else:  # Python's own words name it
        assert use == "float"
    assert pending == pending
    pending.close()


@pytest.mark.parametrize("what", CALLS)
async def test_a_call_that_was_dropped_unawaited_is_told(context, what):
    CALLS[what]()
    gc.collect()
    await asyncio.sleep(0)
    told = [data["text"] for event, data in context.events if event == "log"]
    assert len([text for text in told if text.startswith(f"{what} was not awaited, so nothing was done")]) == 1


async def test_asyncio_takes_it_as_a_coroutine(context):
    first = asyncio.create_task(output.write("1", ""))
    others = await asyncio.gather(first, asyncio.wait_for(output.write("2", ""), 5), output.write("3", ""))
    async with asyncio.TaskGroup() as group:
        last = group.create_task(output.write("4", ""))
    assert [each["name"] for each in others] + [last.result()["name"]] == ["1", "2", "3", "4"]
    assert tell_forgotten() == []
    assert not hasattr(output.write("5", ""), "name")
    with pytest.raises(TypeError):
        json.dumps(output.write("6", ""))


DELEGATION_USES = {"bool": bool, "text": str, "format": lambda it: f"{it}", "result": lambda it: it.result}


@pytest.mark.parametrize("use", DELEGATION_USES)
def test_a_delegation_that_was_not_begun_refuses(use):
    with pytest.raises(NotAwaitedError, match=r"await delegate\('node/flow'"):
        DELEGATION_USES[use](delegate("node/flow"))
    with pytest.raises(AttributeError, match="iterate it or await it"):
        delegate("node/flow").city  # noqa: B018


def test_a_delegation_that_was_dropped_is_told(context):
    delegate("node/flow", number=1)
    gc.collect()
    tell_forgotten()
    assert (
        "delegate('node/flow') was neither iterated nor awaited, so nothing was launched"
        in context.events[-1][1]["text"]
    )
