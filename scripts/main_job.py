"""The main job on one machine, as a user and an operator would do it by hand: every step is a `koco` command.

    scripts/run [--once] [NAME=VALUE …]        inputs of Code Atlas, as root=~/src

Starts a registry and a node with a Ray of its own, finds the node by zeroconf, launches Code Atlas over an encrypted
session, shows its events as they come, answers its question (asks; takes the default where there is no terminal),
downloads what it made and checks it once more. Stays until Ctrl-C; with `--once` it stops what it started and exits.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent
KOCO = Path(sys.executable).with_name("koco")
FLOW = "Code Atlas"

READY_SECONDS = 120
FIND_SECONDS = 30
COMMAND_SECONDS = 60
STOP_SECONDS = 60


class FailedError(Exception):
    """A step did not do what it should; `str()` says which, and what is known about it."""


class Terminal:
    """Tells what is done, on stdout, with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._bold = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def step(self, text: str) -> None:
        """Begin a step."""
        line = f"[{time.monotonic() - self._started:5.1f} s] {text}"
        print(f"\n\033[1m{line}\033[0m" if self._bold else f"\n{line}", flush=True)

    def say(self, text: str) -> None:
        """Tell one thing within a step."""
        print(f"          {text}", flush=True)

    def command(self, words: Sequence[str]) -> None:
        """Show a command as one would type it."""
        self.say(f"$ {shlex.join(['koco', *words])}")


class Koco:
    """Runs `koco` with a home of its own, so that nothing of this user's own kodo is read or written."""

    def __init__(self, home: Path, terminal: Terminal):
        self.home = home
        self._terminal = terminal

    def environment(self) -> dict[str, str]:
        """This process's environment without settings of kodo, but for the home."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KODO_")}
        return {**kept, "KODO_HOME": str(self.home), "PYTHONUNBUFFERED": "1"}

    def rows(self, *words: str) -> list[dict[str, Any]]:
        """What a command answers as JSON, one object per line.

        Raises:
            FailedError: it failed.
        """
        command = [str(KOCO), *words, "--json"]
        try:
            done = subprocess.run(
                command,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise FailedError(f"koco {words[0]} gave no answer within {COMMAND_SECONDS} s") from error
        if done.returncode:
            raise FailedError(f"koco {shlex.join(words)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def show(self, *words: str) -> None:
        """Run a command on this terminal: it shows what it does, and may ask.

        Raises:
            FailedError: it failed.
        """
        self._terminal.command(words)
        code = subprocess.run([str(KOCO), *words], env=self.environment(), check=False).returncode
        if code:
            raise FailedError(f"koco {shlex.join(words)} ended with {code}")


@contextlib.contextmanager
def node(koco: Koco, scope: Path, log: Path) -> Iterator[dict[str, Any]]:
    """A node with a registry and a Ray of its own, for as long as the block lasts; gives what `up --json` prints.

    Raises:
        FailedError: it was not ready in time, or did not stop in time.
    """
    with log.open("wb") as stderr:
        # A session of its own: Ctrl-C is for this script, which then stops the node in order.
        process = subprocess.Popen(
            [str(KOCO), "up", str(scope), "--with-registry", "--registry-port", "0", "--json"],
            env=koco.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        yield first_line(process, log)
    finally:
        process.terminate()
        try:
            code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise FailedError(f"the node did not stop within {STOP_SECONDS} s and was killed; see {log}") from None
    if code not in (0, 130):
        raise FailedError(f"the node ended with {code}\n{log.read_text(errors='replace')}")


@contextlib.contextmanager
def page(koco: Koco, registries: Sequence[str], log: Path) -> Iterator[str | None]:
    """`koco web`, for as long as the block lasts; gives the page's address, None where the page is not built."""
    words = [word for url in registries for word in ("--registry", url)]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [str(KOCO), "web", "--json", "--port", "0", *words],
            env=koco.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        try:
            url: str | None = first_line(process, log)["url"]
        except FailedError:
            url = None
        yield url
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def first_line(process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    """The first line that a process prints, as JSON."""
    lines: queue.Queue[bytes] = queue.Queue()
    stdout = process.stdout
    assert stdout is not None
    threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
    try:
        line = lines.get(timeout=READY_SECONDS)
    except queue.Empty:
        line = b""
    if not line:
        what = "ended" if process.poll() is not None else f"was not ready within {READY_SECONDS} s"
        raise FailedError(f"the node {what}\n{log.read_text(errors='replace')}")
    ready: dict[str, Any] = json.loads(line)
    if not ready.get("ready"):
        raise FailedError(f"the node did not start: {ready.get('error', {}).get('message', ready)}")
    return ready


def found(koco: Koco, peer_id: str) -> dict[str, Any]:
    """The node as it is seen on the local network.

    Raises:
        FailedError: zeroconf did not show it in time.
    """
    deadline = time.monotonic() + FIND_SECONDS
    while time.monotonic() < deadline:
        for row in koco.rows("nodes"):
            if row["peer_id"] == peer_id and row["source"] == "lan":
                return row
    raise FailedError(
        f"zeroconf did not show the node within {FIND_SECONDS} s; "
        "is multicast (UDP port 5353) allowed on this machine? `koco doctor` and a look at the firewall may tell"
    )


def verified(folder: Path, outputs: Sequence[dict[str, Any]]) -> list[Path]:
    """The downloaded files, each checked once more against what the node says of it.

    Raises:
        FailedError: one is missing, or differs.
    """
    paths = []
    for output in outputs:
        path = folder / output["name"]
        if not path.is_file():
            raise FailedError(f"{path} is missing")
        if hashlib.sha256(path.read_bytes()).hexdigest() != output["sha256"]:
            raise FailedError(f"{path} is not what the node made")
        paths.append(path)
    return paths


def main_job(homes: Path, terminal: Terminal, inputs: Sequence[str], *, once: bool) -> None:
    """Do it.

    Raises:
        FailedError: a step failed.
    """
    operator, user = Koco(homes / "node", terminal), Koco(homes / "user", terminal)
    folder = ROOT / ".run" / f"atlas-{time.strftime('%Y%m%d-%H%M%S')}"
    folder.mkdir(parents=True)
    scope = Path(str(files("kodo.samples") / "scope.yaml"))

    terminal.step("Start a registry, a node, and Ray")
    terminal.command(["up", str(scope), "--with-registry"])
    with node(operator, scope, folder / "node.log") as ready:
        peer_id = ready["peer_id"]
        terminal.say(f"node {ready['name']}, {peer_id}")
        for url in ready.get("registries", []):
            terminal.say(f"registry {url}")

        terminal.step("Find the node by zeroconf, as another user, who knows nothing of it")
        terminal.command(["nodes"])
        row = found(user, peer_id)
        address = row["addrs"][0]
        terminal.say(f"found {row['name']} at {address}")

        terminal.step(f"Open an encrypted session, launch {FLOW}, follow and answer it, download what it makes")
        # Whether there is somebody to ask is for the terminal to say; without one the default is taken.
        asked = [] if sys.stdin.isatty() and sys.stdout.isatty() else ["--yes"]
        user.show("run", f"{address}/{FLOW}", *inputs, "--out", str(folder), *asked)

        terminal.step("Check what was downloaded")
        [run] = user.rows("ps", "--node", address)[0]["result"]
        if run["state"] != "done":
            raise FailedError(f"the run is {run['state']}")
        for path in verified(folder, user.rows("outputs", run["fid"], "--node", address)[0]["result"]):
            terminal.say(f"{path}  {path.stat().st_size:,} bytes, its SHA-256 is the node's")

        if once:
            terminal.step("Stop the node, Ray and the registry")
        else:
            path = next(row["path"] for row in user.rows("flows", "--node", address) if row["name"] == FLOW)
            stay(user, terminal, folder, ready, address, run["fid"], path)
    terminal.say("stopped")


def at_flow(url: str, peer_id: str, path: str) -> str:
    """The page's address, at a flow: what is left to do there is one click on *Launch*."""
    return f"{url}&/flow/{quote(peer_id, safe='')}/{quote(path, safe='')}"


def stay(
    user: Koco, terminal: Terminal, folder: Path, ready: dict[str, Any], address: str, fid: str, path: str
) -> NoReturn:
    """Serve the page and say what may be done by hand, until somebody interrupts."""
    with page(user, ready.get("registries", []), folder / "web.log") as url:
        if url is not None:
            terminal.step(
                "The same in your browser, for you alone: Launch starts it. The node stays up until Ctrl-C:"
            )
            terminal.say(at_flow(url, ready["peer_id"], path))
        terminal.step("Or in another terminal:")
        for line in [
            f"export PATH={shlex.quote(str(KOCO.parent))}:$PATH KODO_HOME={shlex.quote(str(user.home))}",
            f"export KODO_NODE={address}",
            "koco ps",
            f"koco follow {fid}",
            f"koco share {fid} --expires 2h    # a link for a colleague, who types: koco get -",
            f"koco run {shlex.quote(FLOW)} root={shlex.quote(str(ROOT))} --out .run/own",
        ]:
            terminal.say(line)
        while True:
            time.sleep(3600)


def interrupted(number: int, frame: object) -> NoReturn:
    """A polite end is one whatever the signal."""
    raise KeyboardInterrupt


def main() -> int:
    """Do the main job; the answer is the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--once", action="store_true", help="stop what was started, and exit")
    parser.add_argument("inputs", nargs="*", metavar="NAME=VALUE", help="inputs of Code Atlas, as root=~/src")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    terminal = Terminal()
    # Short, for Ray puts Unix sockets below it, whose paths may have 107 characters.
    homes = Path(tempfile.mkdtemp(prefix="kodo-"))
    try:
        main_job(homes, terminal, options.inputs, once=options.once)
    except FailedError as error:
        print(f"\nscripts/run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        terminal.say("stopped")
        return 130 if options.once else 0
    finally:
        shutil.rmtree(homes, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
