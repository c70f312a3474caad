"""Runs flows on Ray: warm runners, queueing, adoption of what an earlier process of this node left running.

The scope's sources: an embedded Ray runs on this machine, where runners get the scope's folders on their import path;
copying would take along whatever else lies in them. A cluster that was joined may be on other machines: there
they travel by Ray's `py_modules`, and are what they were when the node started.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import os
import secrets
import shutil
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgpack

from kodo.flow.inlet import EVENTS_VARIABLE, fits
from kodo.node.crash import CRASH_FILE, add_crash
from kodo.node.executor import ExecutorLoad, Runner, RunnerDiedError, RunnerEvent, RunSpec
from kodo.p2p.errors import CapacityError, DeadlineError, KodoError, UnreachableError, UsageError

__all__ = ["RayExecutor", "RayRunner"]

logger = logging.getLogger(__name__)

READY_TIMEOUT = 60.0
"""Seconds in which a fresh runner must be ready when nothing has to be installed for it."""

CALL_TIMEOUT = 20.0
"""Seconds for a call that a runner answers at once."""

CLOSE_TIMEOUT = 3.0
"""Seconds for each step of letting a runner go."""

UNAVAILABLE_TIMEOUT = 10.0
"""Seconds for which a runner that cannot be reached may still come back."""

NAME_PREFIX = "runner-"

TELEMETRY_OFF = {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_TRACKING": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGCHAIN_TRACING": "false",
    "OTEL_SDK_DISABLED": "true",
    "ANONYMIZED_TELEMETRY": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""What agent frameworks read; a node that has one of these set keeps its own value."""

_RESOURCES = frozenset(["num_cpus", "num_gpus", "memory_mb", "resources", "runtime_env"])
T = TypeVar("T")


@dataclass(slots=True)
class _Warm:
    """A runner without a run, and what awaits its imports."""

    name: str
    handle: Any
    ready: Any


class RayExecutor:
    """Implements `kodo.node.executor.Executor`. One per process: Ray has one connection per process."""

    def __init__(
        self,
        home: Path,
        namespace: str,
        roots: Sequence[Path] = (),
        preload: Sequence[str] = (),
        num_cpus: int | None = None,
        object_store_bytes: int | None = None,
        ray_address: str | None = None,
        runners: int = 2,
        max_runs: int = 16,
    ):
        """Keep the settings; nothing is started.

        Args:
            home: the node's home; an embedded Ray and the files of its runs lie in `home/ray`.
            namespace: `kodo-<peer id>`: runners are found again in it.
            roots: folders of the scope's sources.
            preload: entries whose modules a warm runner imports ahead of time.
            num_cpus: CPUs of an embedded Ray; None: all.
            object_store_bytes: shared memory of an embedded Ray; None: Ray's choice.
            ray_address: an existing cluster to join, `host:port` of its head; None: embed one.
            runners: warm runners to keep.
            max_runs: runs at a time; further ones wait in order.
        """
        self._home = home
        self._namespace = namespace
        self._roots = [Path(root).resolve() for root in roots]
        self._preload = list(preload)
        self._num_cpus = num_cpus
        self._object_store_bytes = object_store_bytes
        self._address = ray_address
        self._runners = runners
        self._max_runs = max_runs
        self._ray: Any = None
        self._warm: deque[_Warm] = deque()
        self._live: dict[str, RayRunner] = {}
        self._starting = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False

    async def start(self) -> None:
        """Start or join Ray, then start the warm runners without waiting for them.

        Raises:
            KodoError: Ray cannot be started or reached.
        """
        if self._ray is None:
            self._ray = await asyncio.to_thread(self._connect)
        self._refill()

    async def adopt(self) -> list[Runner]:
        """Find this node's runners that have a run; end those that have none, or do not answer."""
        mine = {warm.name for warm in self._warm} | {runner.name for runner in self._live.values()}
        names = await asyncio.to_thread(self._ray.util.list_named_actors)
        names = [name for name in names if name.startswith(NAME_PREFIX) and name not in mine]
        adopted = await asyncio.gather(*(self._adopt(name) for name in names))
        runners: list[Runner] = [runner for runner in adopted if runner is not None]
        if self._address is None:
            await asyncio.to_thread(self._sweep)
        return runners

    async def launch(self, spec: RunSpec) -> Runner:
        """Start a run; waits its turn while `max_runs` are live. Cancelling is safe.

        Raises:
            UsageError: the resources are not of those that Ray knows.
            CapacityError: no machine has the resources that the flow asks for.
            RunnerDiedError: no runner could be started.
        """
        if self._ray is None or self._closed:
            raise KodoError("the executor is not running")
        options = self._options(spec.resources)
        await self._turn()
        try:
            runner = await self._start(spec, options)
            self._live[runner.name] = runner
        finally:
            self._starting -= 1
            self._next()
        return runner

    def load(self) -> ExecutorLoad:
        """Count runners."""
        queued = sum(1 for waiting in self._waiting if not waiting.done())
        return ExecutorLoad(free=len(self._warm), busy=len(self._live) + self._starting, queued=queued)

    async def aclose(self) -> None:
        """Stop the warm runners, and an embedded Ray unless runs go on in it; idempotent, bounded to 15 s.

        Runs that are live keep Ray alive: the next process of this node adopts them.
        """
        if self._closed:
            return
        self._closed = True
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(KodoError("the node is closing: the run was not started"))
        if self._ray is None:
            return
        for warm in self._warm:
            self._kill(warm.handle)
        self._warm.clear()
        if self._address is None:
            await asyncio.to_thread(self._sweep)
        going_on = len(self._live)
        if going_on:
            logger.warning("%d runs go on; Ray stays until they are over and the node was started again", going_on)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(14.0):
                await asyncio.to_thread(self._disconnect, going_on == 0)

    # Ray, in threads: its own calls block.

    def _connect(self) -> Any:
        local = self._address is None
        # Ray's own handler would take SIGTERM from the node, print a stack and abort on the way out. Read at import.
        os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
        if local:
            from kodo.node.ray_cluster import driver_environment, start_cluster

            os.environ.update(driver_environment(self._home))
            # Importing Ray takes this process about as long as starting it takes the others.
            importing = threading.Thread(target=_import_ray, daemon=True)
            importing.start()
            cluster = start_cluster(self._home, num_cpus=self._num_cpus, object_store_bytes=self._object_store_bytes)
            importing.join()
            address = cluster.address
        else:
            address = str(self._address)
            _knock(address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
            from ray._private import ray_constants
            from ray._private import worker as ray_worker

            raylet: Any = importlib.import_module("ray._raylet")
        except ImportError as error:
            raise UsageError("a node needs Ray: pip install 'kodo[node]'") from error
        if ray.is_initialized():
            raise UsageError("this process is connected to Ray already; one process has one executor")
        # Ray reports on workers, a flow's errors among them, in this process's output, `log_to_driver` or not.
        ray_worker.print_to_stdstream = _print_nothing
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        # Ray reads these variables when it is imported, which somebody else may have done before us.
        loopback = local or address.rpartition(":")[0] in ("127.0.0.1", "localhost", "[::1]")
        ray_constants.ENABLE_RAY_CLUSTER = not loopback and not ray_constants.IS_WINDOWS_OR_OSX
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
        runtime_env: dict[str, Any] = {"worker_process_setup_hook": "kodo.node.runner.prepare_worker"}
        if not local and self._roots:
            runtime_env["py_modules"] = [str(root) for root in self._roots]
            runtime_env["excludes"] = [".git", "__pycache__", ".venv", "node_modules", "outputs"]
        settings: dict[str, Any] = {"_node_ip_address": "127.0.0.1"} if loopback else {}
        try:
            ray.init(
                address=address,
                namespace=self._namespace,
                runtime_env=runtime_env,
                log_to_driver=False,
                configure_logging=False,
                **settings,
            )
        except Exception as error:  # a foreign library's whole range
            raise UnreachableError(f"Ray at {address} cannot be joined: {error}") from error
        return ray

    def _disconnect(self, stop: bool) -> None:
        with contextlib.suppress(Exception):  # Ray may be gone
            self._ray.shutdown()
        if self._address is None and stop:
            from kodo.node.ray_cluster import stop_cluster

            stop_cluster(self._home)

    def _sweep(self) -> None:
        """Remove the files of runners that are gone."""
        alive = {warm.name for warm in self._warm} | set(self._live)
        for folder in (self._home / "ray" / "runs").glob(NAME_PREFIX + "*"):
            if folder.name not in alive:
                shutil.rmtree(folder, ignore_errors=True)

    def _kill(self, handle: Any) -> None:
        with contextlib.suppress(Exception):  # it is gone
            self._ray.kill(handle, no_restart=True)

    # Runners.

    def _spawn(self, options: Mapping[str, Any]) -> _Warm:
        """Ask Ray for a runner; returns at once."""
        from kodo.node.runner import RunnerActor

        name = NAME_PREFIX + secrets.token_hex(8)
        local = self._address is None
        given: Mapping[str, Any] = options.get("runtime_env") or {}
        variables = {
            **{key: value for key, value in TELEMETRY_OFF.items() if key not in os.environ},
            **(given.get("env_vars") or {}),
            # Unlike for every runner: so the workers of its Ray tasks, which inherit it, are never shared.
            "KODO_RUNNER": name,
            "KODO_NAMESPACE": self._namespace,
            "KODO_ROOTS": json.dumps([str(root) for root in self._roots] if local else []),
            "KODO_PACKAGES": json.dumps([] if local else [root.name for root in self._roots]),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        folder = self._home / "ray" / "runs" / name if local else None
        if folder is not None and fits(folder / "events"):
            variables[EVENTS_VARIABLE] = str(folder / "events")  # for Ray tasks; the flow has it from its runner
        handle = (
            self._ray.remote(RunnerActor)
            .options(
                **{"num_cpus": 0, **options, "runtime_env": {**given, "env_vars": variables}},
                name=name,
                lifetime="detached",
                max_restarts=0,
                max_task_retries=0,
                max_concurrency=64,
            )
            .remote(self._preload, str(folder) if folder else None)
        )
        return _Warm(name, handle, handle.ready.remote())

    def _refill(self) -> None:
        while not self._closed and len(self._warm) < self._runners:
            self._warm.append(self._spawn({}))

    def _take(self) -> _Warm:
        """Take a warm runner, one that is ready if possible, and have it replaced."""
        if not self._warm:
            return self._spawn({})
        ready, _ = self._ray.wait([warm.ready for warm in self._warm], num_returns=1, timeout=0)
        taken = next((warm for warm in self._warm if warm.ready in ready), self._warm[0])
        self._warm.remove(taken)
        return taken

    async def _start(self, spec: RunSpec, options: dict[str, Any]) -> RayRunner:
        from kodo.node.runner import kodo_version

        warm = await self._ready_runner(options)
        runner = RayRunner(self, warm.name, warm.handle, spec.fid)
        message = {
            "fid": spec.fid,
            "path": spec.path,
            "entry": spec.entry,
            "inputs": spec.inputs,
            "kodo": kodo_version(),
        }
        try:
            # From here on nothing is tried again: a flow that ends its process at once has run, and its end is told
            # by the first poll.
            with contextlib.suppress(RunnerDiedError):
                await _within(_died(warm.handle.start.remote(message)), CALL_TIMEOUT, "a runner did not take its run")
        except BaseException:
            self._kill(warm.handle)
            raise
        # The replacement's imports take CPU: they start once this run is on its way.
        self._refill()
        return runner

    async def _ready_runner(self, options: dict[str, Any]) -> _Warm:
        """Give a runner that has no run yet and answers."""
        for attempt in (1, 2, 3):
            warm = self._spawn(options) if options else self._take()
            try:
                # Waiting for CPUs that others use is a queue; everything else must be quick.
                await _within(_died(warm.ready), None if options else READY_TIMEOUT, "a runner did not become ready")
            except RunnerDiedError:
                # A warm runner may have died while it was idle; a flow's own resources fail the same way again.
                if attempt == 3 or options:
                    raise
            except BaseException:
                self._kill(warm.handle)
                raise
            else:
                return warm
        raise AssertionError("unreachable")

    async def _adopt(self, name: str) -> RayRunner | None:
        try:
            handle = await asyncio.to_thread(self._ray.get_actor, name)
        except ValueError:
            return None
        try:
            told = await _within(_died(handle.describe.remote()), 5.0, "a runner does not answer")
        except (RunnerDiedError, DeadlineError):
            told = {"fid": None}
        if not told["fid"]:
            self._kill(handle)
            return None
        runner = RayRunner(self, name, handle, told["fid"])
        self._live[name] = runner
        return runner

    def _options(self, resources: Mapping[str, Any]) -> dict[str, Any]:
        """Turn what a flow asks for into an actor's options; checks an embedded Ray's size.

        Raises:
            UsageError: it asks for something unknown, or in a wrong form.
            CapacityError: it asks for more than there is.
        """
        unknown = set(resources) - _RESOURCES
        if unknown:
            raise UsageError(
                f"Ray does not know {', '.join(sorted(unknown))}; known are {', '.join(sorted(_RESOURCES))}"
            )
        options = {name: value for name, value in resources.items() if value is not None}
        for name in ("num_cpus", "num_gpus", "memory_mb"):
            value = options.get(name, 0)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                raise UsageError(f"{name} is a number of at least 0, not {value!r}")
        for name in ("runtime_env", "resources"):
            if not isinstance(options.get(name, {}), dict):
                raise UsageError(f"{name} is a map")
        if "memory_mb" in options:
            options["memory"] = int(options.pop("memory_mb") * 1024 * 1024)
        if self._address is None:
            total = self._ray.cluster_resources()
            asked = {"CPU": options.get("num_cpus", 0), "GPU": options.get("num_gpus", 0)}
            asked |= {"memory": options.get("memory", 0), **(options.get("resources") or {})}
            for name, amount in asked.items():
                if amount > total.get(name, 0):
                    raise CapacityError(f"the flow asks for {amount:g} {name}; this node has {total.get(name, 0):g}")
        return options

    # The queue.

    async def _turn(self) -> None:
        """Wait, in order, until fewer than `max_runs` are live; the caller lowers `_starting` afterwards."""
        if self._waiting or len(self._live) + self._starting >= self._max_runs:
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            try:
                await waiting
            except BaseException:
                if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                    self._starting -= 1
                    self._next()
                else:
                    with contextlib.suppress(ValueError):
                        self._waiting.remove(waiting)
                raise
        else:
            self._starting += 1

    def _next(self) -> None:
        while self._waiting and len(self._live) + self._starting < self._max_runs:
            waiting = self._waiting.popleft()
            if not waiting.done():
                self._starting += 1  # its place, from now on
                waiting.set_result(None)

    def ended(self, runner: RayRunner) -> None:
        """Forget a runner that is over; called by the runner itself."""
        if self._live.pop(runner.name, None) is not None:
            self._next()

    def end(self, runner: RayRunner) -> None:
        """End a runner's process, and so its Ray tasks; returns at once."""
        self._kill(runner.handle)

    def autopsy(self, runner: RayRunner, error: RunnerDiedError) -> None:
        """Let an error say what the dying process left behind on this machine."""
        if self._address is None:
            add_crash(error, self._home / "ray" / "runs" / runner.name / CRASH_FILE)

    def remove_files(self, runner: RayRunner) -> None:
        """Remove an ended runner's files from this machine."""
        if self._address is None:
            shutil.rmtree(self._home / "ray" / "runs" / runner.name, ignore_errors=True)


class RayRunner:
    """One run's process; implements `kodo.node.executor.Runner`."""

    def __init__(self, executor: RayExecutor, name: str, handle: Any, fid: str):
        self.fid = fid
        self.name = name
        self.handle = handle
        self._executor = executor

    async def poll(self, after: int, timeout: float) -> list[RunnerEvent]:
        """See `Runner.poll`."""
        packed = await self._call("poll", after, timeout, deadline=timeout + CALL_TIMEOUT)
        first, events = msgpack.unpackb(packed)
        return [RunnerEvent(rseq, event, data) for rseq, (event, data) in enumerate(events, first)]

    async def answer(self, lid: str, cid: str, candidate: Any) -> None:
        """See `Runner.answer`."""
        await self._call("answer", lid, cid, candidate)

    async def expire(self, lid: str) -> None:
        """See `Runner.expire`."""
        await self._call("expire", lid)

    async def read_output(self, name: str, offset: int, length: int) -> bytes:
        """See `Runner.read_output`; gives at most 4 MiB.

        Raises:
            KodoError: there is no such output, or it cannot be read.
        """
        data: bytes = await self._call("read_output", name, offset, length)
        return data

    async def kill(self) -> None:
        """See `Runner.kill`."""
        if self._executor._address is not None:
            # Where the files lie, only the runner knows.
            with contextlib.suppress(KodoError):
                await _within(_died(self.handle.clean.remote()), CLOSE_TIMEOUT, "")
        await self._end()

    async def release(self) -> None:
        """See `Runner.release`."""
        with contextlib.suppress(KodoError):
            await _within(_died(self.handle.clean.remote()), CLOSE_TIMEOUT, "")
        await self._end()

    async def _end(self) -> None:
        self._executor.end(self)
        with contextlib.suppress(KodoError):
            # Ray's kill does not wait; whoever asked for it may expect that the process is gone.
            await _within(_died(self.handle.describe.remote()), CLOSE_TIMEOUT, "")
        self._executor.ended(self)
        await asyncio.to_thread(self._executor.remove_files, self)

    async def _call(self, method: str, *args: Any, deadline: float = CALL_TIMEOUT) -> Any:
        from ray.exceptions import ActorUnavailableError

        loop = asyncio.get_running_loop()
        give_up = loop.time() + UNAVAILABLE_TIMEOUT
        while True:
            try:
                reference = getattr(self.handle, method).remote(*args)
                return await _within(_died(reference), deadline, f"the runner of {self.fid} does not answer {method}")
            except RunnerDiedError as error:
                # The way to it broke, perhaps not the runner: every call may be made again.
                if isinstance(error.__cause__, ActorUnavailableError) and loop.time() < give_up:
                    await asyncio.sleep(0.5)
                    continue
                self._executor.ended(self)
                await asyncio.to_thread(self._executor.autopsy, self, error)
                await asyncio.to_thread(self._executor.remove_files, self)
                raise


def _knock(address: str) -> None:
    """Make sure that something listens there: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
    except (OSError, ValueError) as error:
        raise UnreachableError(f"no Ray listens at {address!r}; give the head's host:port: {error}") from error


def _import_ray() -> None:
    with contextlib.suppress(ImportError):  # it is told where it is needed
        importlib.import_module("ray")


def _print_nothing(data: Any, ignore_prefix: bool) -> None:
    """Stand in for Ray's printing."""


async def _within(awaitable: Awaitable[T], seconds: float | None, what: str) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await awaitable
    except TimeoutError:
        raise DeadlineError(f"{what} within {seconds:g} s") from None


async def _died(reference: Any) -> Any:
    """Await an actor's answer; Ray's errors become ours."""
    from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError

    try:
        return await reference
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, KodoError) else None
        raise cause or KodoError(f"the runner could not do it: {type(error.cause).__name__}") from error
    except ActorDiedError as error:
        raise RunnerDiedError(_cause_of_death(str(error))) from error
    except RayActorError as error:
        raise RunnerDiedError(_cause_of_death(str(error))) from error
    except RayError as error:
        raise RunnerDiedError(f"the runner could not be started: {_last_line(str(error))}") from error


def _cause_of_death(text: str) -> str:
    """Say for people what Ray says at length."""
    if "OutOfMemory" in text or "memory on the node" in text or "memory pressure" in text:
        return "the flow's process was ended because its machine ran out of memory"
    if "ray.kill" in text:
        return "the flow's process was killed"
    if "creation task" in text or "__init__" in text:
        return f"the flow's process did not start: {_last_line(text)}"
    if "node was terminated" in text or "node died" in text or "node has died" in text:
        return "the machine that ran the flow left the Ray cluster"
    if "runtime_env" in text or "runtime environment" in text.lower():
        return f"the flow's runtime_env could not be made: {_last_line(text)}"
    code = text.partition("exit code ")[2].split(".")[0].split()[:1]
    return (
        "the flow's process ended without a word"
        + (f" (exit code {code[0]})" if code and code[0].isdigit() else "")
        + ": it was killed, crashed, or called os._exit"
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "no reason given"
