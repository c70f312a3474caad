"""What the node asks of whatever runs flows. `ray_executor` is the real one; tests have one in process.

The executor knows nothing of the event log, of callers or of access: it starts runners and carries what they say.
A **runner** serves one run. It numbers its own events (`rseq` 1, 2, 3 …), keeps them until told that they are
committed, and lives on when the node dies.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from kodo.p2p.errors import KodoError
from kodo.protocol.event_budget import MAX_RUN_EVENT_BYTES, MAX_RUN_EVENTS
from kodo.protocol.secrets import Secrets

__all__ = ["Executor", "ExecutorLoad", "InputFile", "RunSpec", "Runner", "RunnerDiedError", "RunnerEvent"]


@dataclass(frozen=True, slots=True)
class InputFile:
    """An upload that a run's inputs name by `id`: verified, at `path` on the node; `sha256` hex.

    `read`: gives a part of it, from an offset on, to whoever may not open `path`.
    """

    id: str
    name: str
    path: Path
    size: int
    sha256: str
    read: Callable[[int, int], Awaitable[bytes]] | None = None


@dataclass(frozen=True, slots=True)
class RunSpec:
    """All that a runner needs to run one flow once.

    Attributes:
        fid: the run.
        path: the flow's path on this node.
        entry: `module:attribute` of the callable, importable from the scope's sources.
        inputs: validated against the flow's schema by the node; validated again, into types, by the runner.
        resources: what the flow asks of Ray (`num_cpus`, `num_gpus`, `memory_mb`, `runtime_env`); empty: a warm
            runner will do.
        secrets: what has to be put back into the inputs, which have `MASK` there; never stored on its way.
        max_events, max_event_bytes: how much it may say; see `EventBudget`.
        files: the uploads among the inputs; the flow gets a path on its own machine in the place of each id.
        node: the node's name.
        code: the file with the sources as they were when the flow was described; empty: as they are.
    """

    fid: str
    path: str
    entry: str
    inputs: dict[str, Any]
    resources: dict[str, Any] = field(default_factory=dict)
    files: tuple[InputFile, ...] = ()
    secrets: Secrets = field(default_factory=list)
    max_events: int = MAX_RUN_EVENTS
    max_event_bytes: int = MAX_RUN_EVENT_BYTES
    node: str = ""
    code: str = ""

    def message(self) -> dict[str, Any]:
        """Return what `RunnerService.start` takes, but for the version of kodo."""
        names = ("fid", "path", "entry", "inputs", "max_events", "max_event_bytes", "node", "code")
        return {name: getattr(self, name) for name in names}


class RunnerEvent(NamedTuple):
    """One event as the runner made it; the node gives it `seq` and `at`.

    `packed`: the data as msgpack, if it came so.
    """

    rseq: int
    event: str
    data: dict[str, Any]
    packed: bytes | None = None


class RunnerDiedError(KodoError):
    """The runner is gone: killed, out of memory, its machine lost. `str()` is fit for a `fatal` event.

    Attributes:
        signal: what ended its process, as `SIGSEGV`, when that is known.
        stack: where its Python was then, when that is known.
        said: what it had said that no poll had given, by its numbers; not checked. Iterating makes the values.
    """

    signal: str | None = None
    stack: str = ""
    said: Iterable[RunnerEvent] = ()


@dataclass(frozen=True, slots=True)
class ExecutorLoad:
    """Counts: runners that are warm and ready (`free`) or `busy`, and runs whose process waits to be started.

    `up`: whether a run can be started now; while Ray is started anew it waits.
    """

    free: int
    busy: int
    queued: int
    up: bool = True


class Runner(Protocol):
    """One run's process, wherever it is. Every method raises `RunnerDiedError` once it is gone.

    Each wait has one owner of its deadline. Of `poll`, `answer`, `expire` and `read_output` that is the caller, who
    alone knows what their delay means; all others raise `DeadlineError` by themselves.
    """

    fid: str
    started: bool
    """Whether it may have begun. One that `adopt` gave and that has not never will: end it."""
    asking: bool
    """Whether its run has had a question for the node; known after a `poll`."""

    async def poll(self, after: int, timeout: float) -> list[RunnerEvent]:
        """Wait until there are events with `rseq` > `after`, at most `timeout` seconds; `[]` if there were none.

        Calling it says that all events up to `after` are committed: the runner forgets them.
        Cancelling is safe, and the caller's to do when a runner that hangs gives no answer.
        """
        ...

    async def asked(self, after: int, timeout: float) -> tuple[int, list[tuple[int, str, Any]]]:
        """Wait until there are unanswered questions of the flow with a number > `after`, at most `timeout` seconds.

        Gives the lowest number that is unanswered, and each question: number, op, args. Cancelling is safe.
        """
        ...

    async def reply(self, aid: int, answer: dict[str, Any]) -> None:
        """Answer a question: `{done}` or `{error}`. A second answer changes nothing."""
        ...

    async def answer(self, lid: str, cid: str, candidate: Any, secrets: Secrets | None = None) -> None:
        """Hand a candidate to the flow; the verdict comes as an `unlock` or `unlock-deny` event with this `cid`.

        `secrets` belong into the candidate, which has `MASK` there. Handing the same `cid` over again changes
        nothing. Cancelling is safe.
        """
        ...

    async def expire(self, lid: str) -> None:
        """Note that the lock timed out: the flow goes on with the lock's default, or ends with `fatal`."""
        ...

    async def read_output(self, name: str, offset: int, length: int) -> bytes:
        """Read up to `length` bytes of a file that an `output` event named; `b""` at its end.

        The deadline is the caller's, as for `poll`.
        """
        ...

    def open_output(self, name: str) -> int | None:
        """Open the file of an output on this machine, for whoever closes the descriptor; blocks.

        None: it is not in reach, so `read_output` must do. What it holds may change as long as the flow runs.
        """
        ...

    async def kill(self) -> None:
        """End the runner's process and the Ray tasks it started; never raises for one that is gone."""
        ...

    async def release(self) -> None:
        """Note that the run is over and all it made is safe: the process ends and its files go."""
        ...


class Executor(Protocol):
    """Starts runners."""

    async def start(self) -> None:
        """Make ready: start or join Ray, start the warm runners.

        Raises:
            KodoError: when Ray cannot be started; says what to do.
        """
        ...

    async def adopt(self) -> list[Runner]:
        """Find the runners that an earlier process of this node left running; call once after `start`."""
        ...

    async def launch(self, spec: RunSpec, about_to_start: Callable[[], Awaitable[None]] | None = None) -> Runner:
        """Hand a run to a warm runner, or to a fresh one; no run waits for another one's end. Cancelling is safe.

        Args:
            about_to_start: awaited once, when nothing is left but to let the flow begin. Before it is called, and
                when it raises, the flow surely has not; afterwards it may have, whatever happens.
        """
        ...

    def scale(self, runners: int) -> None:
        """Keep so many warm runners from now on: more are started, those that are too many end. Returns at once."""
        ...

    def refresh(self) -> None:
        """Note that other flows, or other code of theirs, are offered from now on. Returns at once."""
        ...

    async def spare(self, warm_s: float) -> list[str]:
        """Return the names of runners that need not be kept.

        Those that serve no run and never will, as when one could not be ended in time; and warm ones that died, or
        have been warm for `warm_s` seconds.
        """
        ...

    async def dismiss(self, name: str) -> None:
        """End a runner that `spare` named; a warm one is replaced. One that is gone, or has a run, is let be."""
        ...

    def load(self) -> ExecutorLoad:
        """Count runners."""
        ...

    async def aclose(self) -> None:
        """Stop warm runners, and Ray when it was started here; idempotent, bounded to 15 s."""
        ...
