"""The flows that a node offers: described by a process of their own, looked up, searched, and held to their forms.

Code of flows is never imported here. A flow that cannot be imported is listed as broken, with its error.
"""

from __future__ import annotations

import asyncio
import difflib
import shlex
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from kodo.flow._runtime.sources import module_of
from kodo.node.catalog.author_check import AuthorChecks
from kodo.node.catalog.import_watch import IMPORT_SECONDS, ImportWatch
from kodo.node.catalog.scope import FlowLimits, Scope
from kodo.node.catalog.scope_code import ScopeCode, Seen
from kodo.node.catalog.user_code import ask_process
from kodo.node.runs.live import LiveRun
from kodo.node.schemas.forms import missing, places
from kodo.node.schemas.judge import Judge
from kodo.node.store.store import Store
from kodo.p2p.errors import CallError, CapacityError, KodoError, UsageError
from kodo.protocol.flow_info import FlowInfo
from kodo.protocol.secrets import MASK, Secrets, asks_secrets, hide
from kodo.registry.query.glob import fold, parse_glob
from kodo.registry.query.query import QueryError, parse_query
from kodo.registry.query.rows import fits
from kodo.registry.query.tree import FLOW_FIELDS

if TYPE_CHECKING:
    from kodo.node.executors.apart.account import Account

__all__ = ["Catalog", "Describe", "Flow", "describe_flows"]

NO_RAY = "it imports ray or asks for resources, and this node runs flows without Ray (koco up --executor ray)"
"""Why a flow that needs Ray is broken on a node without."""

_MAX_BROKEN = 16
"""Units that may end or hold up the process that describes flows before each line of the scope gets its own."""

_MAX_APART = 16
"""Flows and modules that fail among others and are tried again in a process of their own, within a minute."""

_MAX_NAMED = 3
"""Broken flows that are named when flows were described anew."""

_MAX_ANSWER = 64 << 20
_SORTABLE = ("path", "name", "author", "organization", "release", "published", "description")

Describe = Callable[[Mapping[str, Any]], Awaitable[list[dict[str, Any]]]]


@dataclass(frozen=True, slots=True)
class Flow(FlowInfo):
    """One flow that this node offers.

    Attributes:
        limits: the operator's bounds of it.
        code: the file with the sources that it was described from; empty where none is kept.
    """

    limits: FlowLimits = field(default_factory=FlowLimits)
    code: str = ""

    async def check(self, inputs: dict[str, Any], judge: Judge, payer: str) -> None:
        """Check the inputs of a launch, for which `payer` pays.

        Raises:
            CallError: 409 `flow-broken`; 400 `bad-inputs` with `places`, and `missing` names; as `Judge.do`.
        """
        if self.error is not None:
            raise CallError(409, "flow-broken", f"{self.path} cannot be run: {self.error[:500]}")
        faults = await judge.do(partial(places, self.schema, inputs), payer)
        if faults:
            raise bad_inputs(self.path, faults, missing(self.schema, inputs))

    async def demand(
        self, inputs: dict[str, Any], judge: Judge, payer: str, again: Sequence[str] = (), *, strict: bool = False
    ) -> dict[str, Any] | None:
        """Check the inputs of a launch; return the JSON Schema of those to ask for, None when there are none.

        Args:
            again: fields to ask for besides required ones that are missing.
            strict: whether required inputs that are missing are refused.

        Raises:
            CallError: 409 `flow-broken`; 400 `bad-inputs` when those that are there do not fit; as `Judge.do`.
        """
        absent = [] if strict or self.error is not None else missing(self.schema, inputs)
        absent += [name for name in again if name not in absent and name not in inputs and self.error is None]
        whole = strict or not absent
        await (self if whole else replace(self, schema={**self.schema, "required": []})).check(inputs, judge, payer)
        if not absent:
            return None
        fields = self.schema.get("properties", {})
        # What the fields refer to comes along.
        around = {key: value for key, value in self.schema.items() if key in ("$defs", "definitions", "$schema")}
        wanted = {name: fields.get(name, {}) for name in absent}
        return {**around, "type": "object", "properties": wanted, "required": absent, "additionalProperties": False}


def bad_inputs(path: str, faults: Sequence[Mapping[str, str]], absent: Sequence[str] = ()) -> CallError:
    """Return the refusal of inputs: `faults` are what is wrong with them, `absent` what is missing."""
    first = ": ".join(part for part in (faults[0]["at"], faults[0]["message"]) if part)
    what = f"missing: {', '.join(absent)[:300]}" if absent else first
    return CallError(
        400,
        "bad-inputs",
        f"the inputs do not fit {path}; {what}",
        {"places": list(faults), "missing": list(absent)},
    )


def keep_good(
    flows: dict[str, Flow], before: Mapping[str, Flow], module_of: Callable[[str], str]
) -> tuple[set[str], list[str]]:
    """Put flows of before in the place of those that are broken now, in `flows`.

    Args:
        module_of: the module's name of a file that a line of the scope names.

    Returns the paths of flows that were kept, and for people what is wrong with those of now.
    """
    kept: set[str] = set()
    faults: list[str] = []
    for broken in [flow for flow in flows.values() if flow.error is not None]:
        good = [flow for flow in before.values() if flow.error is None and _is_of(flow, broken, module_of)]
        if not good:
            continue
        del flows[broken.path]
        flows.update({flow.path: flow for flow in good})
        kept |= {flow.path for flow in good}
        names = ", ".join(flow.name for flow in good[:5])
        faults.append(f"{broken.error}; the last good version of {names} stays offered")
    return kept, faults


def _is_of(flow: Flow, broken: Flow, module_of: Callable[[str], str]) -> bool:
    """Return whether a flow was described by the line of the scope, or in the module, that is broken now."""
    if flow.path == broken.path:
        return True
    module, spec = flow.entry.partition(":")[0], broken.entry
    if spec.endswith(".*"):
        return f"{module}.".startswith(spec[:-1])
    name, colon, _ = spec.partition(":")
    if name.endswith(".py"):
        name = module_of(name)
    return module == name and (not colon or flow.entry.partition(":")[2] == spec.partition(":")[2])


async def describe_flows(request: Mapping[str, Any], *, account: Account | None = None) -> list[dict[str, Any]]:
    """Describe flows by `python -m kodo.flow._runtime.describe`; return a map of each `FlowInfo`.

    One process imports them all. What fails there is tried in a process of its own, since a module can break Python
    for those that come after it.

    Args:
        account: under which the flows' code is imported; None: this process's.

    Raises:
        KodoError: the process failed, did not end in time, or told more than `_MAX_ANSWER` bytes.
    """
    broken: dict[str, str] = {}
    infos = await _described_together(request, account, broken)
    # Those that were read and only lack something have a source.
    failed = [each for each in infos if each.get("error") and not each.get("source") and each["entry"] not in broken]
    until = asyncio.get_running_loop().time() + IMPORT_SECONDS
    found: dict[str, dict[str, Any]] = {}
    for info in infos:
        again = info in failed[:_MAX_APART] and len(infos) > 1 and asyncio.get_running_loop().time() < until
        for each in await _described_apart(request, account, info) if again else [info]:
            found.setdefault(str(each["path"]), each)
    return list(found.values())


async def _described_apart(
    request: Mapping[str, Any], account: Account | None, failed: dict[str, Any]
) -> list[dict[str, Any]]:
    """Describe what failed among others in a process of its own; what fails there as well is given as it was."""
    try:
        infos = await _described_together({**request, "flows": [failed["entry"]]}, account, {})
    except KodoError:
        return [failed]
    return [failed] if any(info.get("error") for info in infos) else infos


async def _described_together(
    request: Mapping[str, Any], account: Account | None, broken: dict[str, str]
) -> list[dict[str, Any]]:
    """Describe flows in one process; `broken` gets the units that end it or hold it up, which are left out then.

    Raises:
        KodoError: as `describe_flows`.
    """
    while True:
        try:
            with ImportWatch() as watch:
                return await _described({**request, "broken": broken}, account, watch)
        except KodoError as error:
            # What ends or holds up the process is left out, and the others are described anew.
            if watch.unit is None or watch.unit in broken or len(broken) == _MAX_BROKEN:
                raise
            broken[watch.unit] = str(error)


async def _described(request: Mapping[str, Any], account: Account | None, watch: ImportWatch) -> list[dict[str, Any]]:
    try:
        answer = await ask_process(
            "kodo.flow._runtime.describe",
            request,
            seconds=IMPORT_SECONDS,
            most_bytes=_MAX_ANSWER,
            account=account,
            listen=watch.hear,
        )
        return list(answer["flows"])
    except CapacityError:
        raise KodoError(
            f"its flows take more than {_MAX_ANSWER >> 20} MiB to describe; make schemas and examples smaller"
        ) from None
    except KodoError as error:
        raise KodoError(f"{error} when it was imported") from None
    except (KeyError, TypeError):
        raise KodoError("its description was no list of flows when it was imported") from None


class Catalog:
    """The flows of a scope.

    Args:
        specs: what is offered, as in `Scope.flows`.
        scope: the overrides come from here.
        roots: folders from which flows are imported.
        base: where relative file paths start.
        has_ray: whether the node has Ray; without, flows that need it are broken.
        account: under which the flows' code is run; None: this process's.
        checks: asks what flows' authors have inputs judged by; by default processes of the account.
        code: keeps the sources that flows are described from; None: they are read whenever they are imported.

    Attributes:
        seen: those sources.
    """

    def __init__(
        self,
        specs: Sequence[str],
        *,
        scope: Scope | None = None,
        roots: Sequence[Path] = (),
        base: Path | None = None,
        has_ray: bool = True,
        describe: Describe = describe_flows,
        account: Account | None = None,
        checks: AuthorChecks | None = None,
        code: ScopeCode | None = None,
    ):
        self._specs = list(specs)
        self._scope = scope or Scope()
        self._roots = [str(root) for root in roots]
        self._base = base
        self._has_ray = has_ray
        self._describe = partial(describe_flows, account=account) if describe is describe_flows else describe
        self._checks = checks or AuthorChecks(self._roots, account=account)
        self._code = code
        self._flows: dict[str, Flow] = {}
        self.seen: Seen = {}
        self.judge = Judge()
        """Holds what comes from outside against the forms; whoever makes a catalogue closes it."""

    @property
    def flows(self) -> list[Flow]:
        """All flows, broken ones too, by path."""
        return list(self._flows.values())

    def warmed(self) -> list[str]:
        """Return the entries, with their code, of the flows for which runners may be made ready."""
        ready = [flow for flow in self._flows.values() if flow.error is None and not flow.resources]
        return [f"{flow.entry}@{flow.code}" if flow.code else flow.entry for flow in ready]

    async def load(self, store: Store) -> None:
        """Describe the flows.

        Raises:
            UsageError: an override is for no flow.
        """
        await self._load(store, self._specs, self._scope, self._roots, {})

    async def reload(
        self, store: Store, specs: Sequence[str], scope: Scope, roots: Sequence[Path] | None = None
    ) -> list[str]:
        """Describe the flows anew; what is broken now and was not stays offered as it was.

        Args:
            roots: the folders that flows are imported from by now; None: as before.

        Returns:
            What is wrong with those, and with flows that were broken before, for people.

        Raises:
            UsageError: an override is for no flow; then nothing has changed.
        """
        folders = self._roots if roots is None else [str(root) for root in roots]
        faults = await self._load(store, specs, scope, folders, self._flows)
        broken = [flow for flow in self._flows.values() if flow.error is not None]
        more = f", and {len(broken) - _MAX_NAMED} more are" if len(broken) > _MAX_NAMED else ""
        named = "; ".join(f"{flow.path} is broken: {flow.error}" for flow in broken[:_MAX_NAMED])
        return [*faults, *([f"what works is offered; {named}{more}"] if broken else [])]

    async def _load(
        self, store: Store, specs: Sequence[str], scope: Scope, roots: list[str], before: Mapping[str, Flow]
    ) -> list[str]:
        seen: Seen = {}
        code = ""
        if self._code is not None:
            seen = await asyncio.to_thread(self._code.look)
            code = await self._code.keep(seen, roots)
        infos = await self._infos(specs, roots, code)
        flows = {flow.path: replace(flow, code=code) for flow in map(Flow.from_map, infos)}
        kept, faults = keep_good(flows, before, partial(self._module_of, roots))
        if not code:  # by which processes learn of them
            new = [root for root in roots if root not in self._roots]
            faults += [f"flows are imported from {root} when the node is started again" for root in new]
        for path, override in scope.overrides.items():
            if path in kept:
                continue
            if path not in flows:
                near = difflib.get_close_matches(path, flows, 1)
                hint = f"; did you mean {shlex.quote(near[0])}?" if near else ""
                raise UsageError(
                    f"`overrides` in the scope file names a flow that the scope does not have: {path!r}{hint}"
                )
            flow = flows[path]
            flows[path] = replace(
                flow,
                tags=flow.tags if override.tags is None else tuple(override.tags),
                resources={**flow.resources, **override.resources.model_dump(exclude_none=True)},
                limits=override.limits,
            )
        for path, flow in flows.items():
            if path in kept:
                continue
            asks = any(value is not None for value in flow.resources.values())
            error = NO_RAY if (flow.needs_ray or asks) and not self._has_ray else None
            flows[path] = replace(flow, needs_ray=flow.needs_ray or asks, error=flow.error or error)
        unsaid = [flow for flow in flows.values() if not flow.published and flow.error is None]
        times = await store.published([(flow.path, flow.release) for flow in unsaid]) if unsaid else []
        for flow, time in zip(unsaid, times, strict=True):
            flows[flow.path] = replace(flow, published=time)
        self._flows = dict(sorted(flows.items()))
        self._specs, self._scope, self._roots, self.seen = list(specs), scope, roots, seen
        return faults

    def _module_of(self, roots: list[str], file: str) -> str:
        base = self._base or Path(roots[0] if roots else ".")
        try:
            return module_of(base / file, roots)
        except KodoError:  # it is gone, say
            return ".".join(part for part in Path(file).with_suffix("").parts if part != "..")

    async def _infos(self, specs: Sequence[str], roots: list[str], code: str) -> list[dict[str, Any]]:
        """Describe what lines of the scope name: in one process or, when one of them ends that, each in its own."""
        if not specs:
            return []
        request: dict[str, Any] = {"roots": roots, "flows": list(specs)}
        if self._base is not None:
            request["base"] = str(self._base)
        if code:
            request["code"] = code
        try:
            return await self._describe(request)
        except KodoError as error:
            if len(specs) == 1:
                return [{"path": specs[0].replace(":", "."), "entry": specs[0], "error": str(error)}]
        return [info for spec in specs for info in await self._infos([spec], roots, code)]

    def find(
        self, *, path: str | None = None, name: str | None = None, granted: Callable[[str], bool] = lambda path: True
    ) -> Flow:
        """Return a flow by its path, or by a name that is unique among those granted.

        Raises:
            CallError: 404 `no-such-flow`; 409 `ambiguous` with `paths`.
        """
        flow = self._flows.get(path) if path is not None else None
        if flow is not None and granted(flow.path):
            return flow
        wanted = name if name is not None else path
        same = [flow for flow in self._flows.values() if flow.name == wanted and granted(flow.path)]
        if len(same) == 1:
            return same[0]
        if same:
            paths = [flow.path for flow in same]
            raise CallError(
                409,
                "ambiguous",
                f"{len(same)} flows are named {str(wanted)[:128]!r}; use a path",
                {"paths": paths[:50]},
            )
        raise CallError(404, "no-such-flow", f"this node offers no flow {str(wanted)[:128]!r} to you")

    async def faults(self, live: LiveRun, inputs: dict[str, Any]) -> list[str]:
        """Return what is wrong with the inputs of a run that waited for some of them.

        Raises:
            CallError: 429 `busy`: nobody has looked at them; ask again.
        """
        flow = self._flows.get(live.row.path)
        if flow is None:
            return ["this node does not offer the flow any more"]
        try:
            await flow.check(inputs, self.judge, live.payer)
            await self.check_by_author(flow, inputs, live.payer)
            live.code = flow.code  # its flow has not begun: it takes the code of the form that judged its inputs
        except CallError as error:
            if error.code == 429:
                raise
            places = error.data.get("places", [])
            told = [": ".join(part for part in (place["at"], place["message"]) if part) for place in places]
            return told or [error.message]
        return []

    async def check_by_author(self, flow: Flow, inputs: Mapping[str, Any], payer: str) -> None:
        """Judge inputs that fit the form by the check of the flow's author, if it has one.

        Raises:
            CallError: 400 `bad-inputs` with `places`; 409 `check-failed`; 429 `busy`.
        """
        if not flow.has_check:
            return
        faults = await self._checks.faults(flow.path, flow.entry, inputs, payer, flow.code)
        if faults and asks_secrets(flow.schema):
            # What a lock is refused for is stored, and an author may have repeated a value.
            _, secrets = await self.judge.do(partial(hide, flow.schema, inputs), payer)
            faults = [{**place, "message": _without(place["message"], secrets)} for place in faults]
        if faults:
            raise bad_inputs(flow.path, faults)

    def search(
        self,
        search: str | None,
        by: str | None,
        granted: Callable[[str], bool],
        *,
        query: str | None = None,
        about: Mapping[str, Any] = MappingProxyType({}),
    ) -> tuple[int, list[Flow]]:
        """Return the count of flows granted, and those that match `search` and `query`, in the order `by`.

        Args:
            search: a glob, as registries take it.
            by: `field asc|desc`, comma separated.
            granted: says of a path whether the caller may see it.
            query: a filter, as registries take it.
            about: what a registry's rows say of the node, for queries that name it.

        Raises:
            CallError: 400 `bad-args`.
        """
        visible = [flow for flow in self._flows.values() if granted(flow.path)]
        found = visible
        if search:
            try:
                pattern = parse_glob(search).sqlite
            except UsageError as error:
                raise CallError(400, "bad-args", f"search: {error}", {"arg": "search"}) from None
            globber = _Globber(pattern)
            found = [flow for flow in visible if any(globber(text) for text in _texts(flow))]
        if query:
            try:
                condition = parse_query(query, FLOW_FIELDS)
            except QueryError as error:
                raise CallError(400, "bad-args", f"query: {error}", {"arg": "query", "at": error.at}) from None
            found = [flow for flow in found if fits(condition, {**about, **flow.row(), "source": flow.source})]
        for key, descending in reversed(_order(by)):
            found.sort(key=lambda flow: _sort_key(getattr(flow, key)), reverse=descending)
        return len(visible), found


def _without(text: str, secrets: Secrets) -> str:
    """Return a text in which no secret stands."""
    for _, secret in secrets:
        if str(secret):
            text = text.replace(str(secret), MASK)
    return text


class _Globber:
    """Holds texts against a pattern with SQLite's own `GLOB`, as a registry does: one meaning everywhere."""

    def __init__(self, pattern: str):
        self._pattern = pattern
        self._connection = sqlite3.connect(":memory:")

    def __call__(self, text: str) -> bool:
        return bool(self._connection.execute("SELECT ? GLOB ?", (fold(text), self._pattern)).fetchone()[0])

    def __del__(self) -> None:
        self._connection.close()


def _texts(flow: Flow) -> list[str]:
    return [flow.path, flow.name, flow.description, flow.author, flow.organization, *flow.tags]


def _sort_key(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value


def _order(by: str | None) -> list[tuple[str, bool]]:
    order: list[tuple[str, bool]] = []
    for part in (by or "").split(","):
        words = part.split()
        if not words:
            continue
        if words[0] not in _SORTABLE or len(words) > 2 or words[1:] not in ([], ["asc"], ["desc"]):
            raise CallError(
                400,
                "bad-args",
                f"by: {part.strip()[:64]!r} is not one of {', '.join(_SORTABLE)}, asc or desc",
                {"arg": "by"},
            )
        order.append((words[0], words[1:] == ["desc"]))
    return order
