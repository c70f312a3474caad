"""`koco up --runner-user`: flows under an account that reads nothing of the node's, through `koco`, with real Ray.

It needs root, an account `nobody`, and, where this Python or this repository lies where that account may not go,
`unshare` and `mount` (`tests/support/open_way.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from kodo.client import Client as AsyncClient
from kodo.client.sync import Client
from kodo.flow._runtime.kept_code import kept_sources
from tests.support import open_way
from tests.support.koco import KOCO, NodeProcess, end_all, environment, eventually, koco_json, processes_of

ACCOUNT = "nobody"
SECRET = "Fatal Python error: of the node, which nobody else may read\n"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may run flows as somebody else")


class GuestNode(NodeProcess):
    """A node with the flows of this folder."""

    scope: Path

    def __init__(self, place: Place, *words: str):
        self.scope = place.scope
        super().__init__(place.home, *words, program=(*place.way, KOCO))


class Place:
    """A home and a scope that others may enter, and what opens the way to this Python."""

    def __init__(self, folder: Path):
        folder.chmod(0o755)
        self.home = folder / "home"
        self.scope = folder / "scope" / "scope.yaml"
        self.scope.parent.mkdir()
        shutil.copy(Path(__file__).with_name("guest_flows.py"), self.scope.parent)
        self.scope.write_text("name: guests.local\nflows: ['guest_flows.*']\n")
        self.secret = folder / "secret"
        self.secret.write_text(SECRET)
        self.secret.chmod(0o600)
        hidden = folder / "hidden"
        hidden.mkdir(mode=0o700)
        self.way = open_way.way(hidden)

    def refusal(self, *words: str, way: list[str] | None = None, code: int = 2) -> str:
        """What `koco up` says when it does not start."""
        command = [*(self.way if way is None else way), KOCO, "up", str(self.scope), "--no-lan", *words]
        done = subprocess.run(
            command,
            env=environment(self.home),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr


@pytest.fixture
def place() -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="kodo-guests-"))
    made = Place(folder)
    yield made
    end_all(made.home)
    for process in psutil.process_iter():  # what an account of its own has, by the folder of its Ray
        try:
            if str(folder) in process.environ().get("KODO_RAY", ""):
                process.kill()
        except psutil.Error:
            continue
    shutil.rmtree(folder)


def run(place: Place, flow: str, *words: str) -> str:
    [launched] = koco_json(place.home, "run", f"guests.local/{flow}", *words, "--detach", "--no-lan")
    return str(launched["fid"])


def state(place: Place, fid: str) -> dict[str, Any]:
    [found] = koco_json(place.home, "state", fid, "--node", "guests.local", "--no-lan")
    return found


def until(place: Place, fid: str, event: str) -> dict[str, Any]:
    """Follow a run until it tells an event of this name; gives its data."""

    async def follow() -> dict[str, Any]:
        async with asyncio.timeout(90), AsyncClient(place.home, lan=False) as client:
            run = await client.run(f"guests.local/{fid}")
            async with contextlib.aclosing(run.follow()) as events:
                async for each in events:
                    if each.event == event:
                        return each.data
        raise AssertionError(f"the run ended without {event}")

    return asyncio.run(follow())


def as_account(name: str) -> list[str]:
    """What has a command run as an account."""
    account = pwd.getpwnam(name)
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]


def owners(folder: Path) -> set[int]:
    return {path.lstat().st_uid for path in folder.rglob("*")}


@pytest.mark.parametrize("executor", ["ray", "process"])
def test_a_flow_of_another_account_has_all_that_a_node_offers_over_a_crash_of_the_node(
    place: Place, executor: str
) -> None:
    uid = pwd.getpwnam(ACCOUNT).pw_uid
    doc = place.scope.parent / "doc.txt"
    doc.write_text("report " * 1000)
    words = ("--runner-user", ACCOUNT, "--executor", executor)
    node = GuestNode(place, *words)
    fid = run(place, "Everything", f"doc=@{doc}")
    until(place, fid, "lock")
    # The folder of the runners is the account's, and nothing else is.
    assert owners(place.home / "apart") == {uid}
    others = [path for path in place.home.iterdir() if path.name not in ("apart", "code")]
    assert {path.lstat().st_uid for path in others} == {os.getuid()}
    assert [path for path in others if stat.S_IMODE(path.lstat().st_mode) & 0o077] == []
    assert stat.S_IMODE((place.home / "apart").stat().st_mode) == 0o700
    assert not place.home.stat().st_mode & 0o046
    node.kill()
    node = GuestNode(place, *words)
    koco_json(place.home, "answer", f"guests.local/{fid}", "true", "--no-lan")
    until(place, fid, "final")
    found = state(place, fid)
    assert found["state"] == "done"
    assert {**found["final"]["result"], "home": None} == {"uid": uid, "agreed": True, "seen": 1, "home": None}
    assert os.path.isdir(found["final"]["result"]["home"])
    out = place.scope.parent / "out"
    koco_json(place.home, "download", f"guests.local/{fid}", "--out", str(out), "--no-lan")
    assert (out / "answer.txt").read_text() == doc.read_text().upper()
    assert node.stop() == 0
    assert processes_of(place.home) == []
    assert [p for p in psutil.process_iter() if is_of(p, uid, place)] == []


@pytest.mark.parametrize("reload", [False, True])
def test_what_is_edited_is_kept_from_runs_or_offered_with_its_form_under_another_account(
    place: Place, reload: bool
) -> None:
    (place.scope.parent / "link.yaml").symlink_to(place.secret)
    node = GuestNode(place, "--runner-user", ACCOUNT, "--executor", "process", *(["--reload"] if reload else []))
    source = place.scope.parent / "guest_flows.py"
    [kept] = (place.home / "code").iterdir()
    gid = pwd.getpwnam(ACCOUNT).pw_gid
    rights = [
        (path.stat().st_uid, path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) for path in (kept.parent, kept)
    ]
    assert rights == [(os.getuid(), gid, 0o710), (os.getuid(), gid, 0o640)]
    # The account reads what is kept for it: a link leads the node nowhere.
    assert {Path(path).name for path in kept_sources(str(kept))} == {"guest_flows.py", "scope.yaml"}
    with Client(place.home, lan=False) as client:

        def results(**inputs: str) -> list[Any]:  # in processes that were ready, and in one that was not
            runs = [client.launch(f"{node.address}/Moment", inputs=inputs) for _ in range(3)]
            for each in runs:
                each.wait()
            return [each.state()["final"]["result"] for each in runs]

        assert results(word="x") == [1] * 3
        source.write_text(
            source.read_text().replace("VERSION = 1", "VERSION = 2").replace("word: str", "phrase: str")
        )
        eventually(lambda: any("guest_flows.py changed: " in line for line in node.stderr))
        assert results(**{"phrase" if reload else "word": "x"}) == [2 if reload else 1] * 3
    assert node.stop() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody is given what a process has left")
@pytest.mark.parametrize("how", ["kill", "stop", "final"])
def test_without_ray_a_run_of_another_account_leaves_nothing_running_however_it_ends(place: Place, how: str) -> None:
    node = GuestNode(place, "--runner-user", ACCOUNT, "--executor", "process")
    fid = run(place, "Leaver", f"ends={str(how == 'final').lower()}")
    processes = [psutil.Process(int(pid)) for pid in until(place, fid, "progress")["text"].split()]
    assert len(processes) == 3  # the runner, a child in a session of its own, and a daemon
    assert {process.uids().real for process in processes} == {pwd.getpwnam(ACCOUNT).pw_uid}
    if how == "final":
        (place.scope.parent / "go").touch()
        until(place, fid, "final")
    elif how == "kill":
        koco_json(place.home, "kill", f"guests.local/{fid}", "--no-lan")
    else:
        assert node.stop() == 0
    eventually(lambda: not any(map(is_running, processes)), 60)
    if how != "stop":
        assert node.stop() == 0
    assert processes_of(place.home) == []


def is_of(process: psutil.Process, uid: int, place: Place) -> bool:
    """Whether a process of that account was started for this home."""
    try:
        return process.uids().real == uid and str(place.home) in str(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_links_that_a_flow_plants_lead_the_node_nowhere(place: Place) -> None:
    node = GuestNode(place, "--runner-user", ACCOUNT, "--keep-runs")
    for outputs, why in (("false", "RunnerDied"), ("true", "OutputError")):
        fid = run(place, "Planter", f"target={place.secret}", f"outputs={outputs}")
        eventually(lambda fid=fid: state(place, fid)["state"] == "error", 90)
        told = koco_json(place.home, "follow", fid, "--node", "guests.local", "--no-lan", exit_code=1)
        assert [event["data"]["text"] for event in told if event.get("event") == "progress"] == ["planted"]
        assert told[-1]["fatal"]["type"] == why
        assert SECRET.strip() not in str(told) + str(node.stderr)
        assert not (place.home / "outputs" / fid / "second.txt").exists()
    assert koco_json(place.home, "cleanup", "--no-lan", "--node", "guests.local")
    assert node.stop() == 0
    # What it finds at its next start is no better.
    ray = place.home / "apart" / "ray"
    plant = f"""
import os, shutil, sys
for name in ("cluster.json", "token", "sessions", "runs", "lock"):
    path = os.path.join({str(ray)!r}, name)
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
    os.symlink({str(place.secret)!r}, path)
"""
    subprocess.run([*place.way, *as_account(ACCOUNT), sys.executable, "-c", plant], check=True)
    assert SECRET.strip() not in place.refusal("--runner-user", ACCOUNT, code=8)
    assert place.secret.read_text() == SECRET
    # Without the account its folder goes, and what its links lead to stays.
    node = GuestNode(place)
    assert not (place.home / "apart").exists()
    assert node.stop() == 0
    assert (place.secret.read_text(), place.secret.stat().st_uid) == (SECRET, os.getuid())


def test_what_cannot_work_is_refused_with_what_helps(place: Place) -> None:
    assert "useradd --system --create-home nosuchaccount" in place.refusal("--runner-user", "nosuchaccount")
    assert "root is the node's own account" in place.refusal("--runner-user", "root")
    joined = place.refusal("--runner-user", ACCOUNT, "--ray-address", "127.0.0.1:1")
    assert "leave one out" in joined
    # What it may not enter.
    place.scope.parent.chmod(0o700)
    assert f"chmod o+rx {place.scope.parent}" in place.refusal("--runner-user", ACCOUNT)
    place.scope.parent.chmod(0o755)
    place.scope.parent.parent.chmod(0o700)
    assert f"chmod o+x {place.scope.parent.parent}" in place.refusal("--runner-user", ACCOUNT)
    place.scope.parent.parent.chmod(0o755)
    # What it could replace.
    os.chown(place.home, pwd.getpwnam(ACCOUNT).pw_uid, -1)
    assert f"it could replace {place.home}" in place.refusal("--runner-user", ACCOUNT)
    os.chown(place.home, os.getuid(), -1)


@pytest.mark.skipif(not open_way.way(Path("/")), reason="this account may go to this Python")
def test_a_python_that_the_account_may_not_run_is_refused(place: Place) -> None:
    assert "allow it with: chmod o+x /" in place.refusal("--runner-user", ACCOUNT, way=[])


def test_nobody_but_root_may_switch(place: Place) -> None:
    account = pwd.getpwnam("daemon")
    place.home.mkdir()
    os.chown(place.home, account.pw_uid, account.pw_gid)
    way = [*place.way, *as_account("daemon")]
    assert "only root may run flows as" in place.refusal("--runner-user", ACCOUNT, way=way)


INSIDE = {
    "hostile": [],
    "locks": [],
    "runs": [
        "test_another_version_of_kodo_on_the_worker_is_fatal",
        "test_files_of_a_released_run_are_gone",
        "test_runs_beyond_the_bound_wait_in_order",
    ],
}
"""Modules of tests on Ray, and those of their tests that look into the process that has it."""


def test_runs_on_ray_are_under_another_account_what_they_are_under_the_nodes(place: Place) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    modules = {name: f"tests/integration/ray/test_ray_{name}.py" for name in INSIDE}
    without = [f"--deselect={modules[name]}::{test}" for name, tests in INSIDE.items() for test in tests]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *modules.values(), *without]
    done = subprocess.run(
        [*place.way, *command],
        cwd=open_way.ROOT,
        env={**kept, "KODO_TEST_RUNNER_USER": ACCOUNT},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10_000:]
