"""Flows that the tests of processes without Ray run; imported by runners only."""

import asyncio
import getpass
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from kodo.flow import flow, memory, output, result
from kodo.p2p.errors import UsageError


@flow
async def sleeps_with(word: str):
    result(pid=os.getpid(), length=len(word))
    await asyncio.sleep(600)


@flow
def forks_and_dies():
    child = os.fork()
    if not child:
        time.sleep(600)
    result(pid=child)
    os.kill(os.getpid(), signal.SIGKILL)


@flow
def answers(said: str):
    """Speak to the node in the runner's place."""
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as end:
                if str(end.getsockname()).endswith("/socket") and end.getpeername() is not None:
                    end.sendall(bytes.fromhex(said))
        except OSError:
            continue
    time.sleep(600)


@flow
async def survives():
    more = 0
    for number in range(100):
        await result(n=number)
        await asyncio.sleep(0.02)
        if number == 10:
            more = await memory.short.get("more")
    return 1000 + more


@flow
def hangs(busy: bool):
    """Wait, or keep the interpreter to itself, so that nothing else of this process has a turn."""
    result(pid=os.getpid())
    time.sleep(0.5)  # the event is fetched meanwhile
    while True:
        re.match(r"(a+)+$", "a" * 64 + "b") if busy else time.sleep(600)


@flow
def complains_and_waits():
    print(os.getpid(), file=sys.stderr)
    time.sleep(600)


@flow
def dies_before_its_child():
    result(pid=subprocess.Popen(["env", "-i", "sleep", "1000"]).pid)
    os._exit(3)


def leave_files(fail=False):
    """Write as sloppy scripts do: into the working folder, and one of the files as an output besides."""
    Path("left.txt").write_text("left")
    Path("sub").mkdir()
    Path("sub/also.csv").write_text("1")
    Path("told.md").write_text("# told")
    output.write("told.md", Path("told.md"))
    if fail:
        raise ValueError("on purpose")


@flow
def leaves(fail: bool = False):
    leave_files(fail)


@flow(outputs="folder")
def keeps(fail: bool = False):
    leave_files(fail)


@flow
def asks():
    """Ask as scripts for a terminal do."""
    name = input("Your name? ")
    print("Which colour? ", end="")
    colour = input()
    secret = getpass.getpass()
    return [name, colour, len(secret)]


@flow
async def asks_in_a_loop():
    return [input("Your name? ")]  # noqa: ASYNC250 (as people write it)


@flow
def spawns(method: str):
    """Say something in processes of a pool, which may be others than forked ones."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        return list(pool.map(in_a_child, [1, 2]))


def in_a_child(number):
    result(number=number)
    print("printed", number)
    try:
        output.write("made-in-a-child", "")
    except UsageError as error:
        return str(error)


@flow
def goes_on():
    """Return while a thread still works."""

    def later():
        time.sleep(0.2)
        output.write("later.txt", "later")

    threading.Thread(target=later).start()


@flow
def exits(code: int | None = None):
    sys.exit(code)
