"""The code blocks of a page of the documentation, and how they are run; `docs/README.md` says what a page may ask."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"(?P<above>(?:^<!-- .*? -->\n)*)^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_GENERATED = re.compile(r"<!-- generated: .*?<!-- end of generated -->", re.DOTALL)
_NAME = re.compile(r"# ((?!/)[\w./-]+\.\w+)\n")
_PLACEHOLDERS = {
    "FID": ("koco run", re.compile(r"\b[0-9a-hjkmnp-tv-z]{26}\b")),
    "PEER_ID": ("koco id", re.compile(r"\b12D3KooW\w{44}\b")),
    "CODE": ("koco user enrol", re.compile(r"\b[0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4}\b")),
}
"""What a page leaves to the reader to fill in: which command prints it, and how it looks."""
SECONDS = 120


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, and what the comments above it ask for."""

    kind: str
    text: str
    above: str

    @property
    def file(self) -> str:
        """The name of the file that it is; empty when it is none."""
        found = _NAME.match(self.text)
        return found[1] if found else ""

    def asked(self, what: str) -> list[str]:
        """Return what follows `what` in the comments above."""
        return re.findall(rf"<!-- {what} ?(.*?) -->", self.above)


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, in their order, but for those that are generated: they are the code's own."""
    text = _GENERATED.sub("", page.read_text("utf-8"))
    return [Block(each["kind"], each["text"], each["above"]) for each in _FENCE.finditer(text)]


@dataclass
class Reader:
    """Somebody who does what a page says, in a folder of their own."""

    folder: Path
    environment: dict[str, str]
    known: dict[str, str] = field(default_factory=dict)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)

    def follow(self, page: Path) -> None:
        """Run a page's blocks; a command that fails is an `AssertionError` with what it printed."""
        try:
            for block in blocks(page):
                if not block.asked("not run:"):
                    self._do(block)
        finally:
            self._stop()

    def _do(self, block: Block) -> None:
        if block.file:
            path = self.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.kind == "python":
            self._run(f"{sys.executable} -", block, given=block.text)
        elif block.kind == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                if line.strip():
                    self._run(self._filled_in(line), block)

    def _filled_in(self, line: str) -> str:
        for name, value in self.known.items():
            line = re.sub(rf"\b{name}\b", value, line)
        return line

    def _run(self, line: str, block: Block, given: str = "") -> None:
        if ready := block.asked("keeps running:"):
            self._start(line, ready[0])
        elif typed := block.asked("typed after"):
            self._type(line, [re.match(r'"(.*)": (.*)', each).groups() for each in typed])  # type: ignore[union-attr]
        else:
            wanted = block.asked("again until:") or [""]
            deadline = time.monotonic() + SECONDS
            while True:
                done = subprocess.run(
                    ["bash", "-c", line],
                    cwd=self.folder,
                    env=self.environment,
                    input=given,
                    capture_output=True,
                    text=True,
                    timeout=SECONDS,
                    check=False,
                )
                printed = done.stdout + done.stderr
                if wanted[0] in printed:
                    break
                assert time.monotonic() < deadline, f"{line} does not print {wanted[0]!r}, but:\n{printed[-4000:]}"
            self._note(line, done.returncode, printed)

    def _note(self, line: str, code: int | None, printed: str) -> None:
        assert code == 0, f"{line} ended with {code}:\n{printed[-4000:]}"
        self.printed.append(printed)
        for name, (command, pattern) in _PLACEHOLDERS.items():
            if line.startswith(command) and (found := pattern.search(printed)):
                self.known[name] = found[0]

    def _start(self, line: str, ready: str) -> None:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line}"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.running.append(process)
        assert process.stdout is not None
        self._read_until(process.stdout.fileno(), ready, line)

    def _type(self, line: str, answers: list[tuple[str, ...]]) -> None:
        """Run a command at a terminal, and type each answer once its question is there."""
        master, slave = pty.openpty()
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line}"],
            cwd=self.folder,
            env=self.environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.running.append(process)
        printed = ""
        for question, answer in answers:
            # What is typed before the terminal is read belongs to nobody: wait for the prompt.
            printed += self._read_until(master, question, line, end=": ")
            os.write(master, f"{answer}\n".encode())
        printed += self._read_until(master, "", line)
        self._note(line, process.wait(SECONDS), printed)
        os.close(master)

    def _read_until(self, descriptor: int, text: str, line: str, end: str = "") -> str:
        """Read what a command prints until it has printed `text`, and `end` last; without a text, to its end."""
        read, deadline = "", time.monotonic() + SECONDS
        while not text or text not in read or not read.endswith(end):
            assert time.monotonic() < deadline, f"{line} did not print {text!r}:\n{read[-4000:]}"
            if not select.select([descriptor], [], [], 1)[0]:
                continue
            try:
                piece = os.read(descriptor, 65_536)
            except OSError:  # of a terminal, its end
                piece = b""
            if not piece:
                assert not text, f"{line} ended and did not print {text!r}:\n{read[-4000:]}"
                break
            read += piece.decode(errors="replace")
        return read

    def _stop(self) -> None:
        for process in reversed(self.running):
            if process.poll() is None:
                process.terminate()
        for process in self.running:
            try:
                process.wait(SECONDS)
            finally:
                process.kill()
            if process.stdout is not None:
                process.stdout.close()
