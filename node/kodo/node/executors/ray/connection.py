"""One connection of this process to Ray. It may break at any time; then everybody who waits on it is told at once.

Ray's own calls wait for minutes, or for ever, once the head is gone, and none of them can be called back. So nothing
here is awaited on Ray's terms: an answer arrives, or its deadline passes, or `lose` was called. Calls that block have
a thread each that nobody has to wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from kodo.node.clock import awake_timeout
from kodo.node.executors.checks import MisconductError
from kodo.node.executors.executor import RunnerDiedError
from kodo.node.executors.ray.guard import ForbiddenError, guard
from kodo.node.executors.ray.machines import explain
from kodo.p2p.distribution import how_to_install
from kodo.p2p.errors import DeadlineError, KodoError, UnreachableError, UsageError

__all__ = ["RayLink", "prepare"]

T = TypeVar("T")


class RayLink:
    """An open connection. There is one at a time: Ray keeps it for the whole process.

    Attributes:
        ray: the library.
        totals: what the cluster could hand out when the connection was made, by Ray's names.
    """

    def __init__(self, ray: Any):
        self.ray = ray
        self.totals: dict[str, float] = dict(ray.cluster_resources())
        self._waiting: dict[asyncio.Future[Any], str] = {}
        self._gone: dict[str, str] = {}
        self._classes: dict[type, Any] = {}
        self._making = threading.Lock()
        self._lost: str | None = None

    @property
    def lost(self) -> bool:
        """Whether `lose` was called."""
        return self._lost is not None

    def check(self) -> None:
        """Raise `RunnerDiedError` when the connection is lost."""
        if self._lost is not None:
            raise RunnerDiedError(self._lost)

    def lose(self, why: str) -> None:
        """Note that Ray is gone: all that waits raises `RunnerDiedError(why)`, all that comes does so too."""
        self._lost = self._lost or why
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(RunnerDiedError(why))

    def lose_one(self, owner: str, why: str) -> None:
        """Note that one runner is gone: what waits for it, or comes, raises `RunnerDiedError(why)`."""
        self._gone[owner] = why
        for waiting, whose in self._waiting.items():
            if whose == owner and not waiting.done():
                waiting.set_exception(RunnerDiedError(why))

    async def ask(
        self, call: Callable[[], Any] | Future[Any], seconds: float | None, what: str, owner: str = ""
    ) -> Any:
        """Make a call that gives a reference, and give its value. Cancelling is safe.

        Args:
            call: returns at once; or the future of a reference.
            seconds: the deadline; None: none.
            what: what did not happen when it has passed.
            owner: the name of the runner that is asked.

        Raises:
            RunnerDiedError: Ray, or the runner, is gone.
            DeadlineError: it took too long.
            MisconductError: the runner answered with something else than data, or an error of ours.
            KodoError: what the runner raised.
        """
        from ray.exceptions import (
            RayActorError,
            RayError,
            RaySystemError,
            RayTaskError,
            RuntimeEnvSetupError,
            UnserializableException,
        )

        self.check()
        if owner in self._gone:
            raise RunnerDiedError(self._gone[owner])
        try:
            answer: Future[Any] = call if isinstance(call, Future) else call().future()
            return await self._wait(answer, seconds, what, owner)
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, KodoError) else None
            raise cause or KodoError(f"the call to the runner failed: {type(error.cause).__name__}") from error
        except RayActorError as error:
            raise RunnerDiedError(_cause_of_death(str(error))) from error
        except RuntimeEnvSetupError as error:
            why = _last_line(str(error))
            raise RunnerDiedError(f"the flow's runtime_env could not be made: {why}") from error
        except (RaySystemError, UnserializableException) as error:
            if isinstance(error, UnserializableException) or isinstance(error.client_exc, ForbiddenError):
                raise MisconductError(
                    f"the runner sent something that is not plain data: {ForbiddenError()}"
                ) from None
            raise RunnerDiedError(f"the runner could not be reached: {_last_line(str(error))}") from error
        except RayError as error:
            raise RunnerDiedError(f"the runner could not be started: {_last_line(str(error))}") from error

    async def block(self, call: Callable[[], T], seconds: float | None, what: str) -> T:
        """Make a call that blocks, in a thread of its own; given up, the thread ends whenever Ray lets it.

        Raises:
            RunnerDiedError: Ray is gone.
            DeadlineError: it took too long.
            ValueError, RayError, …: what the call raised.
        """
        self.check()
        answer: Future[T] = Future()

        def carry() -> None:
            try:
                answer.set_result(call())
            except BaseException as error:  # told to whoever waits
                answer.set_exception(error)

        threading.Thread(target=carry, name="kodo-ray-call", daemon=True).start()
        result: T = await self._wait(answer, seconds, what)
        return result

    async def _wait(self, answer: Future[Any], seconds: float | None, what: str, owner: str = "") -> Any:
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Any] = loop.create_future()
        self._waiting[waiting] = owner

        # Neither holds `answer`, which holds both: megabytes would lie in a circle until somebody looks for garbage.
        def settle(done: Future[Any]) -> None:
            if not waiting.done():
                error = done.exception()
                if error is None:
                    waiting.set_result(done.result())
                else:
                    waiting.set_exception(error)

        def arrived(done: Future[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # a loop that has been closed waits for nothing
                loop.call_soon_threadsafe(settle, done)

        answer.add_done_callback(arrived)
        try:
            async with awake_timeout(seconds):
                return await waiting
        except TimeoutError:
            raise DeadlineError(f"{what} within {seconds:g} s") from None
        finally:
            self._waiting.pop(waiting, None)

    def actor_class(self, plain: type) -> Any:
        """Return a class of actors, made once: Ray keeps each one that is made, here and at its head, for good."""
        with self._making:
            if plain not in self._classes:
                self._classes[plain] = self.ray.remote(plain)
            return self._classes[plain]

    def kill(self, handle: Any) -> None:
        """End an actor's process; returns at once, and never raises."""
        if not self.lost:
            with contextlib.suppress(Exception):  # it is gone
                self.ray.kill(handle, no_restart=True)

    def disconnect(self) -> None:
        """Leave Ray; blocks, for about 5 s when its head is gone."""
        with contextlib.suppress(Exception):  # Ray may be gone
            self.ray.shutdown()

    @classmethod
    def embed(cls, home: Path, namespace: str, num_cpus: int | None, object_store_bytes: int | None) -> RayLink:
        """Find or start the home's own Ray and connect to it; blocks.

        Raises:
            KodoError: it cannot be started.
        """
        from kodo.node.executors.ray.cluster import driver_environment, start_cluster

        os.environ.update(driver_environment(home))
        _settle_environment()
        # Importing Ray takes this process about as long as starting it takes the others.
        importing = threading.Thread(target=_import_ray, daemon=True)
        importing.start()
        cluster = start_cluster(home, num_cpus=num_cpus, object_store_bytes=object_store_bytes)
        importing.join()
        return _connect(cluster.address, namespace, loopback=True, runtime_env={})

    @classmethod
    def join(cls, address: str, namespace: str, places: Sequence[Path]) -> RayLink:
        """Connect to a cluster that is there, and have the folders `places` travel to its workers; blocks.

        Raises:
            UnreachableError: it does not answer.
        """
        prepare(address)
        runtime_env: dict[str, Any] = {"py_modules": [str(place) for place in places]} if places else {}
        return _connect(address, namespace, loopback=_is_loopback(address), runtime_env=runtime_env)


def _is_loopback(address: str) -> bool:
    """Return whether `host:port` is this machine alone."""
    return address.rpartition(":")[0] in ("127.0.0.1", "localhost", "[::1]")


def _settle_environment() -> None:
    """Set what Ray reads when it is imported."""
    # Ray's own handler would take SIGTERM from the node, print a stack and abort on the way out.
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A driver whose head has been gone for 60 s would end its process, this one; we notice earlier and leave.
    os.environ.update({"RAY_gcs_rpc_server_reconnect_timeout_s": "1000000"})
    # A call that comes between two Rays must fail, not start a third.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"


def prepare(address: str) -> None:
    """Make this process fit to ask the head at `address` something."""
    _settle_environment()
    _read_settings_again(_is_loopback(address))


def _read_settings_again(loopback: bool) -> None:
    """Make Ray read its variables, which it does when it is imported: somebody else may have done that before us."""
    from ray._private import ray_constants

    raylet: Any = importlib.import_module("ray._raylet")
    hook: Any = importlib.import_module("ray._private.auto_init_hook")
    hook.enable_auto_connect = False  # a Ray of its own would write into the user's home
    ray_constants.ENABLE_RAY_CLUSTER = not loopback and not ray_constants.IS_WINDOWS_OR_OSX
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _connect(address: str, namespace: str, *, loopback: bool, runtime_env: Mapping[str, Any]) -> RayLink:
    try:
        import ray
        from ray._private import worker as ray_worker
    except ImportError as error:
        raise UsageError(f"a node needs Ray, which is not installed; {how_to_install('node')}") from error
    if ray.is_initialized():
        raise UsageError("this process is connected to Ray already; one process has one executor")
    # Ray reports on workers, a flow's errors among them, in this process's output, `log_to_driver` or not.
    ray_worker.print_to_stdstream = _print_nothing
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    _read_settings_again(loopback)
    guard()
    settings: dict[str, Any] = {"_node_ip_address": "127.0.0.1"} if loopback else {}
    try:
        ray.init(
            address=address,
            namespace=namespace,
            runtime_env={"worker_process_setup_hook": "kodo.node.executors.ray.actor.prepare_worker", **runtime_env},
            log_to_driver=False,
            configure_logging=False,
            **settings,
        )
        return RayLink(ray)
    except Exception as error:  # a foreign library's whole range
        with contextlib.suppress(Exception):
            ray.shutdown()
        raise UnreachableError(f"Ray at {address} cannot be joined: {explain(error)}") from error


def _import_ray() -> None:
    with contextlib.suppress(ImportError):  # it is told where it is needed
        importlib.import_module("ray")


def _print_nothing(data: Any, ignore_prefix: bool) -> None:
    """Stand in for Ray's printing."""


def _cause_of_death(text: str) -> str:
    """Return in short, for people, what Ray says at length."""
    if "OutOfMemory" in text or "memory on the node" in text or "memory pressure" in text:
        return "the flow's process was ended because its machine ran out of memory"
    if "ray.kill" in text:
        return "the flow's process was killed"
    if "creation task" in text or "__init__" in text:
        return f"the flow's process did not start: {_last_line(text)}"
    if "node was terminated" in text or "node died" in text or "node has died" in text:
        return "the machine that ran the flow has left the Ray cluster"
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
