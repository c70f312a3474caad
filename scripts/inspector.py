"""Let the inspector of MCP use `koco mcp`: inspector.py

An unmodified host from npm (`@modelcontextprotocol/inspector`, 110 MB, which is why it is no part of the tests; made
once below `.run/inspector`) lists the flows of a node that this starts, launches one, and reads what it made; in each
era of the protocol. In that with sessions it also launches one that asks, and waits for it once a terminal has
answered; in the newer one this host's command line waits for a form that it cannot show. Prints what was asked and
answered.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["main"]

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".run" / "inspector"
PACKAGE = "@modelcontextprotocol/inspector@2.12.0"
SCOPE = ROOT / "tests" / "integration" / "mcp" / "scope" / "scope.yaml"
KOCO = str(Path(sys.executable).with_name("koco"))
SECONDS = 120


def run(words: Sequence[str], environment: dict[str, str], seconds: float = SECONDS) -> str:
    """Run a command to its end; end with its output when it fails."""
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        sys.exit(f"inspector.py: {' '.join(words)} failed\n{done.stdout}{done.stderr}")
    return done.stdout


def install() -> str:
    """Install the inspector where it is not; give its command."""
    program = FOLDER / "node_modules" / ".bin" / "mcp-inspector"
    if not program.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        npm = shutil.which("npm") or "npm"
        words = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(FOLDER), PACKAGE]
        run(words, dict(os.environ), 600)
    return str(program)


@contextlib.contextmanager
def node(environment: dict[str, str]) -> Iterator[None]:
    """Run a node with a few flows."""
    words = [KOCO, "up", str(SCOPE), "--executor", "process", "--no-lan", "--host", "127.0.0.1", "--json"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                sys.exit("inspector.py: the node did not start")
            yield
        finally:
            process.terminate()


class Host:
    """The inspector, in an era of the protocol."""

    def __init__(self, program: str, era: str, environment: dict[str, str]) -> None:
        self._words = [program, "--cli", KOCO, "mcp", "--no-lan", "--protocol-era", era]
        self._words += ["-e", f"KODO_HOME={environment['KODO_HOME']}"]
        self._environment = environment

    def ask(self, method: str, *words: str) -> dict[str, Any]:
        """Make a request; print it and the answer."""
        print(f"\n→ {method} {' '.join(words)}", flush=True)
        text = run([*self._words, "--method", method, *words], self._environment)
        answer: dict[str, Any] = json.loads(text)
        if method == "tools/list":
            print("←", *(tool["name"] for tool in answer["tools"]))
        else:
            print("←", text.strip())
        return answer

    def call(self, tool: str, **arguments: str) -> dict[str, Any]:
        """Call a tool."""
        return self.ask("tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments))


def follow(host: Host, environment: dict[str, str], *, asks: bool) -> None:
    """List, launch and read; with `asks` answer too."""
    names = [tool["name"] for tool in host.ask("tools/list")["tools"]]
    greet, approve = (next(name for name in names if name.endswith(end)) for end in ("_greet", "_approve"))
    made = host.call(greet, name="Ada")
    assert made["structuredContent"]["result"] == "# Hello Ada", made
    uri = next(part["uri"] for part in made["content"] if part["type"] == "resource_link")
    assert host.ask("resources/read", "--uri", uri)["contents"][0]["text"] == "Hello Ada!\n"
    if not asks:
        return
    asked = host.call(approve, topic="bikes")["structuredContent"]
    assert asked["state"] == "locked", asked
    words = ["answer", asked["run"], asked["locks"][0]["lid"], "approved=yes", "why=inspected", "--no-lan"]
    print(f"\n$ koco {' '.join(words)}\n{run([KOCO, *words], environment).strip()}")
    done = host.call("run_wait", run=asked["run"])["structuredContent"]
    assert done["result"] == {"topic": "bikes", "approved": True, "why": "inspected"}, done


def main(arguments: Sequence[str]) -> int:
    """Install the inspector, start a node, and let the one use the other."""
    argparse.ArgumentParser(prog="scripts/inspector", description=(__doc__ or "").split("\n\n")[1]).parse_args(
        arguments
    )
    program = install()
    with tempfile.TemporaryDirectory(prefix="kodo-inspector-") as folder:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KODO_")}
        environment = {**kept, "KODO_HOME": str(Path(folder) / "home"), "NO_COLOR": "1"}
        with node(environment):
            for era in ("legacy", "modern"):
                print(f"\n## {era}", flush=True)
                follow(Host(program, era, environment), environment, asks=era == "legacy")
    print("\nall is well")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
