import inspect
import re
import subprocess
import sys

import pytest

from kodo.flow import aio, locks, memory, output

PROGRAM = """
from kodo.flow.aio import lock, memory, output
from pydantic import BaseModel

class Plan(BaseModel):
    steps: int

async def sloppy() -> None:
    if lock("Really?", bool, default=False):  # error: truthy-bool
        print("gone")
    output.write("a.md", "text")  # error: unused-coroutine
    memory.long.set("k", 1)  # error: unused-coroutine
    for key in memory.long.keys():  # error: attr-defined
        print(key)
    print(lock("Plan?", Plan).steps)  # error: attr-defined

async def careful() -> int:
    if await lock("Really?"):
        await output.write("a.md", "text")
    await memory.long.set("k", 1)
    await memory.shared("kb").files.write("a", b"")
    for key in await memory.long.keys():
        print(key.upper())
    await lock("Colour?", {"type": "string"}, expires="5m", check=lambda it: None)
    plan = await lock("Plan?", Plan, roles=["boss"])
    return plan.steps
"""


def test_mypy_finds_each_forgotten_await_and_nothing_else(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    words = ["--strict", "--enable-error-code", "truthy-bool", "--no-incremental", "--config-file=", str(program)]
    done = subprocess.run([sys.executable, "-m", "mypy", *words], capture_output=True, text=True, check=False)
    found = {(int(line), code) for line, code in re.findall(r":(\d+): error: .*\[([\w-]+)\]", done.stdout)}
    wanted = {
        (number, match[1])
        for number, line in enumerate(PROGRAM.splitlines(), 1)
        if (match := re.search(r"# error: ([\w-]+)", line))
    }
    assert found == wanted, done.stdout + done.stderr


def names_of(function):
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.mark.parametrize(
    ("declared", "real"),
    [(aio._Output.write, output.write)]
    + [
        (getattr(aio._Memory, name), getattr(memory.Memory, name))
        for name in ("get", "set", "delete", "keys", "update")
    ]
    + [
        (getattr(aio._Files, name), getattr(memory.Files, name))
        for name in ("write", "read", "fetch", "delete", "list")
    ]
    + [(aio._Memories.shared, memory.shared)],
)
def test_the_declarations_are_those_of_the_functions(declared, real):
    assert names_of(declared) == names_of(real)


def test_the_options_of_a_lock_are_declared():
    assert {"title", "answer", *aio._LockOptions.__annotations__} == set(names_of(locks.lock))
    assert aio.lock is locks.lock
    assert (aio.memory, aio.output) == (memory, output)
