"""See whether agent frameworks keep silent: silence.py [FRAMEWORK …] [--talking] [--folder DIR]

Each has a virtual environment of its own, made once, and a small flow in `tests/support/frameworks`, whose model is
on this machine. It runs with the variables that a node's runners have, in a network of its own (that takes root;
without it only what Python itself asks for is seen), and fails when it looks a name up or sends anything out. What it
left in the home of its user is told too: nothing of a run should be there.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from kodo.node.executors.runner.storage import own_storage
from kodo.node.executors.runner.telemetry import TELEMETRY_OFF

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.watched_place import watched_place

ROOT = Path(__file__).resolve().parent.parent
FLOWS = ROOT / "tests" / "support" / "frameworks"
INSTALL_SECONDS = 1800
RUN_SECONDS = 300


@dataclass(frozen=True)
class Heard:
    """What a framework did.

    Attributes:
        answer: what its flow gave; empty when it failed.
        calls: where it wanted to, hosts and addresses, each once.
        left: what it left in its user's home, relative to that.
        said: the end of what it printed.
    """

    answer: str
    calls: list[str]
    left: list[str]
    said: str


def frameworks() -> list[str]:
    """Return the names of those that have a flow."""
    return sorted(path.stem for path in FLOWS.glob("*.py") if path.stem != "run")


def requirements(name: str) -> list[str]:
    """Return what has to be installed for a framework's flow: its `REQUIRES`."""
    found = _said(name, "REQUIRES")
    if not found:
        raise ValueError(f"the flow of {name} says not what it REQUIRES")
    return found


def heeded(name: str) -> list[str]:
    """Return the switches without which a framework talks: its `HEEDS`."""
    return _said(name, "HEEDS")


def _said(name: str, what: str) -> list[str]:
    for node in ast.parse((FLOWS / f"{name}.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == what:
            return list(map(str, ast.literal_eval(node.value)))
    return []


def python_of(name: str, folder: Path) -> Path:
    """Return the Python of a framework's environment, made when it is not there."""
    place, wanted = folder / name, "\n".join(requirements(name))
    stamp = place / "installed.txt"
    if not stamp.is_file() or stamp.read_text() != wanted:
        venv.create(place, with_pip=True, clear=True)
        install = [str(place / "bin" / "pip"), "install", "--quiet", *requirements(name)]
        subprocess.run(install, check=True, timeout=INSTALL_SECONDS)
        stamp.write_text(wanted)
    return place / "bin" / "python"


def listen_to(name: str, python: Path, *, talking: bool = False) -> Heard:
    """Run a framework's flow and see what leaves.

    Args:
        talking: leave the switches out: to see that a framework would talk, and is heard.
    """
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="silence-")))
        run = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="silence-run-")))
        kept = ("PATH", "LANG", "LC_ALL", "SSL_CERT_FILE")
        environment = {key: os.environ[key] for key in kept if key in os.environ}
        environment |= {"HOME": str(home), "OPENAI_API_KEY": "sk-of-nobody", **({} if talking else TELEMETRY_OFF)}
        own_storage(environment, str(run))
        work = run / "work"
        work.mkdir()
        place = stack.enter_context(watched_place())
        done = subprocess.run(
            [*(place.prefix if place else []), str(python), str(FLOWS / "run.py"), name],
            env=environment,
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=RUN_SECONDS,
            check=False,
        )
        lines = done.stdout.splitlines()
        told = [line.removeprefix("answer: ") for line in lines if line.startswith("answer: ")]
        calls = [line.removeprefix("calls ") for line in lines if line.startswith("calls ")]
        left = sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())
        answer = told[-1] if told and done.returncode == 0 else ""
        return Heard(answer, [*dict.fromkeys([*calls, *(place.left if place else [])])], left, done.stdout[-3000:])


def main(arguments: Sequence[str]) -> int:
    """Listen to all that were named; give how many did not keep silent, or failed."""
    parser = argparse.ArgumentParser(description="See whether agent frameworks keep silent.")
    parser.add_argument("names", nargs="*", choices=[[], *frameworks()], metavar="FRAMEWORK")
    parser.add_argument("--talking", action="store_true", help="leave the switches out, to hear what they prevent")
    parser.add_argument("--folder", type=Path, default=ROOT / ".run" / "silence", help="of the environments")
    options = parser.parse_args(arguments)
    wrong = 0
    for name in options.names or frameworks():
        try:
            heard = listen_to(name, python_of(name, options.folder.resolve()), talking=options.talking)
        except (subprocess.SubprocessError, OSError) as error:
            print(f"{name}: could not be tried: {error}", flush=True)
            wrong += 1
            continue
        verdict = "failed" if not heard.answer else "talks" if heard.calls else "silent"
        print(f"{name}: {verdict}" + "".join(f"\n    to {host}" for host in heard.calls))
        print("".join(f"    left in its home: {path}\n" for path in heard.left[:10]), end="")
        if not heard.answer:
            print(heard.said)
        sys.stdout.flush()
        wrong += verdict != "silent"
    return min(wrong, 100)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
