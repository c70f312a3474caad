"""Flows that the Ray tests run; imported by runners only."""

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from pydantic import BaseModel

from kodo.flow import action, fid, flow, lock, memory, output, progress, result


class Approval(BaseModel):
    approved: bool
    comment: str = ""


@flow
async def hello(topic: str, depth: int = 3) -> str:
    """Say hello."""
    await progress(10, "reading")
    assert isinstance(depth, int)
    return f"# {topic} {depth}"


@flow
def count(n: int):
    yield from range(n)
    return {"n": n}


@flow
async def many(n: int = 10_000):
    for number in range(n):
        await action(n=number)


@flow
def many_sync(n: int = 10_000):
    for number in range(n):
        action(n=number)
    return time.time()


@flow
def fails(secret: str):
    raise ValueError(f"no {secret}")


@flow
def leaves():
    sys.exit(3)


@flow
async def sleeps(seconds: float = 600):
    result(pid=os.getpid())
    await asyncio.sleep(seconds)


@flow
def starts_child():
    child = subprocess.Popen(["sleep", "600"])
    result(pid=child.pid)
    time.sleep(600)


@flow
def dies():
    os._exit(7)


@flow
async def prints(secret: str):
    import ray

    @ray.remote(num_cpus=1)
    def task():
        print(f"task print {secret}")
        os.write(2, f"task write {secret}\n".encode())
        subprocess.run(["sh", "-c", f"echo task child {secret}"], check=True)
        progress(50, f"task progress {secret}")
        time.sleep(0.2)
        return os.getpid()

    @ray.remote(num_cpus=1)
    def broken():
        raise ValueError(f"task error {secret}")

    print(f"flow print {secret}")
    os.write(2, f"flow write {secret}\n".encode())
    await asyncio.to_thread(subprocess.run, ["sh", "-c", f"echo flow child {secret}"], check=True)
    logging.getLogger("my.logger").info("flow log %s", secret)
    sys.stdout.write(f"tail {secret}")
    assert await task.remote() != os.getpid()
    try:
        await broken.remote()
    except ValueError as error:
        result(error=type(error).__name__)
    return secret


@flow
async def asks(wait: float = 60):
    answer = await lock(
        "Approve?",
        Approval,
        expires=wait,
        check=lambda value: None if value.approved else "approve it",
        roles=["boss"],
    )
    assert isinstance(answer, Approval)
    return {"comment": answer.comment, "fid": fid()}


@flow
def asks_with_default():
    return lock("Number?", int, default=7)


@flow
async def writes(size: int):
    info = await output.write("data/blob.bin", (bytes([number % 256]) * 65536 for number in range(size // 65536)))
    await output.write("data/BLOB.bin", b"another")
    try:
        await output.write("data/blob.bin", b"again")
    except Exception as error:
        result(type=type(error).__name__)
    return info


@flow
def replaces_output(by: str):
    """Put something else in the place of an output, or of the folder where it lies."""
    output.write("data/report.md", "# Report")
    place = Path("../files/data/report.md")
    place.unlink()
    if by == "pipe":
        os.mkfifo(place)
    elif by == "folder":
        place.mkdir()
    elif by == "link":
        place.symlink_to("/etc/passwd")
    elif by == "folder that is a link":
        place.parent.rmdir()
        place.parent.symlink_to("/etc")


@flow
def closes_streams(first: int, last: int):
    print("before")
    for descriptor in range(first, last + 1):
        os.close(descriptor)
    print("after")
    return "done"


@flow
def large_result(size: int):
    return "x" * size


class Untellable(Exception):
    @property
    def cause(self):
        raise KeyError("runtime_s")

    def __str__(self):
        raise self


Untellable.__name__ = "RayTaskErrorOfSorts"


class Undescribed:
    def __str__(self):
        return sys.exit(3)


@flow
def ends_badly(how: str):
    if how == "surrogates":
        raise ValueError(os.fsdecode(b"\xff" * 35_000))
    if how == "untellable":
        raise Untellable
    if how == "undescribed":
        return Undescribed()
    if how == "unstorable":  # as on a disk that takes nothing
        files = os.path.join(os.path.dirname(os.getcwd()), "files")
        with open(files, "w"):
            return "x" * 300_000
    if how == "long":
        raise type("N" * 300_000, (Exception,), {})
    raise SystemExit(Undescribed())


@flow
def aborts(how: str):
    for number in range(5000):
        logging.getLogger("my").info("%d", number)
    os.write(2, b"about to end\n")
    if how == "abort":
        os.abort()
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), 9)


@flow
def large_event(size: int):
    result("x" * size)


@flow(resources={"num_cpus": 1})
def with_cpu():
    import ray

    return ray.get_runtime_context().get_assigned_resources()


@flow
async def survives():
    import ray

    @ray.remote(num_cpus=1)
    def task(number):
        return number * 2

    asked = asyncio.ensure_future(memory.long.get("more"))  # the node dies before it answers
    total = 0
    for number in range(100):
        await result(n=number)
        await asyncio.sleep(0.1)
        if number % 25 == 24:
            total += await task.remote(number)
    return total + await asked


@flow
def clings():
    """Ignore being cancelled, in the flow, a task, an actor, and children in sessions of their own."""
    import ray

    def cling(seconds=600):
        while True:
            with contextlib.suppress(BaseException):
                time.sleep(seconds)

    @ray.remote(num_cpus=0)
    def task():
        progress(text=f"{os.getpid()} {subprocess.Popen(['sleep', '600'], start_new_session=True).pid}")
        cling()

    @ray.remote(num_cpus=0, max_restarts=-1)
    class Actor:
        def pid(self):
            return os.getpid()

        def hold(self):
            cling()

    task.remote()
    actor = Actor.remote()
    pid = ray.get(actor.pid.remote())
    actor.hold.remote()
    result(pids=[os.getpid(), pid, subprocess.Popen(["sleep", "600"], start_new_session=True).pid])
    cling()


HIDES = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
with open(sys.argv[1] + ".part", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600)
"""


@flow
def leaves_daemon(end: str):
    """Start a daemon as they are in books: forked twice, in a session of its own, with an environment of its own."""
    place = Path("daemon").absolute()
    subprocess.run([sys.executable, "-c", HIDES, str(place)], env={}, cwd="/", check=True)
    while not place.exists():
        time.sleep(0.01)
    result(pid=int(place.read_text()))
    if end == "exit":
        os._exit(3)
    if end == "waits":
        time.sleep(600)


@flow
def ends_daemon():
    """Start a daemon, end it, and wait until it is gone: somebody else has to collect it."""
    place = Path("daemon").absolute()
    subprocess.run([sys.executable, "-c", HIDES, str(place)], env={}, cwd="/", check=True)
    while not place.exists():
        time.sleep(0.01)
    pid = int(place.read_text())
    os.kill(pid, 9)
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.01)
    return subprocess.run(["sh", "-c", "exit 7"], check=False).returncode


@flow
def leaves_child():
    result(pid=subprocess.Popen(["sleep", "600"], start_new_session=True).pid)


@flow
def needs() -> str:
    import needed

    return str(needed.WORD)


@flow
def remember(word: str) -> dict[str, list[str]]:
    """Give what is kept at each place where libraries keep things, and keep a word there."""
    from kodo.node.executors.runner.storage import OWN

    found = {}
    for name in OWN:
        place = Path(os.environ[name])
        found[name] = [file.read_text() for file in place.glob("*")]
        place.mkdir(parents=True, exist_ok=True)
        (place / word).write_text(word)
    return found


@flow
def where_things_are_kept() -> dict[str, dict[str, str]]:
    """Give where things are kept in the flow, and in a Ray task of it."""
    import ray

    from kodo.node.executors.runner.storage import OWN, SHARED

    def look() -> dict[str, str]:
        return {name: os.environ.get(name, "") for name in (*OWN, *SHARED)}

    return {"flow": look(), "task": ray.get(ray.remote(look).remote())}


class Bomb:
    """Makes a folder in whatever process reads it."""

    def __init__(self, place: str):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (self.place,)


class BombError(Exception):
    """Likewise, as an error."""

    def __reduce__(self):
        return os.mkdir, self.args


@flow
def bomb(place: str, raised: bool = False, op: str = "poll") -> None:
    """Have the runner answer the node with an object that does something when it is read."""
    from kodo.flow._runtime.current import current

    async def answer(*args):
        if raised:
            raise BombError(place)
        return Bomb(place)

    context = current()
    if op == "read_output":
        context.read_output = lambda *args: Bomb(place)
        output.write("a.txt", "text")
    else:
        (context.buffer if op == "poll" else context.asks).poll = answer
    if op == "asked":
        memory.short.set("k", 1)
    time.sleep(30)


@flow
def look_around(home: str) -> dict[str, bool]:
    """Try what the account that runs the node may do."""
    import signal
    import socket

    def works(what) -> bool:
        try:
            what()
        except OSError:
            return False
        return True

    def connect(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))

    base, node = Path(home), int((Path(home) / "node.pid").read_text())
    rays = [base / "ray", base / "apart" / "ray"]
    sockets = [path for ray in rays for path in ray.rglob("*") if works(path.is_socket) and path.is_socket()]
    return {
        "reads a key of the node": works((base / "node.key").read_text),
        "lists the node's files": works(lambda: os.listdir(base)),
        "writes among the node's files": works((base / "planted").touch),
        "reads what another run made": works((base / "outputs" / "secret.txt").read_text),
        "reads the variables of the node's process": works(Path(f"/proc/{node}/environ").read_text),
        "signals the node's process": works(lambda: os.kill(node, signal.SIGCONT)),
        "becomes root": works(lambda: os.setuid(0)) and os.getuid() == 0,
        "reads the token of Ray": any(works((ray / "token").read_text) for ray in rays),
        "opens a socket of Ray": any(works(lambda path=path: connect(path)) for path in sockets),
        "sees the node's settings": any(name in os.environ for name in ("KODO_HOME", "KODO_REGISTRY", "KODO_AUTH")),
        "may ask the node's SSH agent": "SSH_AUTH_SOCK" in os.environ,
    }
