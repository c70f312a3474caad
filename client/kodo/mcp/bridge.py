"""The bridge: what each tool does, whichever revision of MCP its host speaks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from kodo.client.client import Client
from kodo.client.run import Run
from kodo.mcp.asking import Asking
from kodo.mcp.catalog import Catalog, Offer
from kodo.mcp.files import Folders
from kodo.mcp.forms import flat_form, missing_inputs, secret_inputs
from kodo.mcp.host import AskAgain, Host, MadeTask, Question, Round
from kodo.mcp.launches import Launches
from kodo.mcp.options import BridgeOptions
from kodo.mcp.page import page_of
from kodo.mcp.resources import read_text, save
from kodo.mcp.results import Result, failed, of_run, plain
from kodo.mcp.returned import returned_schema
from kodo.mcp.runs import Runs, Standing, run_ref
from kodo.mcp.texts import as_json, bounded, lines, one_line, quoted, said
from kodo.mcp.tools import WRITERS, flow_tool, own_tools
from kodo.p2p.errors import CallError, KodoError, UsageError
from kodo.protocol.events import visible

__all__ = ["Answer", "Bridge"]

Answer = Result | AskAgain | MadeTask

_PAGE_ROWS = 20
_INPUTS = "inputs"
_ANSWER_FLOOR_S = 5.0


class Bridge:
    """Tools and resources for one user.

    Args:
        client: open for as long as the bridge is used.
        secret: bytes[32] of this home.
    """

    def __init__(self, client: Client, options: BridgeOptions, secret: bytes):
        self.client = client
        self.options = options
        self.folders = Folders(options.files)
        self.catalog = Catalog(client, options)
        self.runs = Runs(client, options, self.catalog, self.folders)
        self._launches = Launches(client.home / "mcp_launches.json", secret)
        self._tools: dict[str, Callable[[Mapping[str, Any], Host, Round], Awaitable[Answer]]] = {
            "find_flows": self._find_flows,
            "show_flow": self._show_flow,
            "run_flow": self._run_flow,
            "run_wait": self._run_wait,
            "runs": self._runs,
            "run_events": self._run_events,
            "read_output": self._read_output,
            "save_output": self._save_output,
            "share_run": self._share_run,
            "run_cancel": self._run_cancel,
        }

    async def tools(self) -> list[dict[str, Any]]:
        """Return the tools: one for each flow while there are few, and those for runs."""
        named = None if self.options.read_only else await self.catalog.tools()
        made = own_tools(self.options, self.folders, many=named is None)
        if named is None:
            return made
        shown = {
            name: offer
            for name, offer in named.items()
            if self.options.launches(offer.node, offer.peer_id, offer.path)
        }
        flows = await self.catalog.forms(shown.values())
        wait_s = self.options.wait_s
        tools = []
        for name, offer in shown.items():
            flow = flows.get(offer.ref)
            tools.append(flow_tool(name, offer, flow, self.folders, wait_s))
            self.catalog.tell(offer.ref, flow)
        return [*tools, *made]

    async def call(self, name: str, arguments: Mapping[str, Any], host: Host, again: Round) -> Answer:
        """Call a tool. What goes wrong is its result; cancelling is safe.

        Raises:
            LookupError: there is no such tool.
        """
        own = self._tools.get(name)
        if own is None:
            offer = None if self.options.read_only else await self.catalog.tool(name)
            if offer is None:
                raise LookupError(name)
            return await self._guarded(self._launch(offer, arguments, host, again))
        if self.options.read_only and name in WRITERS:
            return failed(f"{name} is not there: the user started koco mcp with --read-only")
        return await self._guarded(own(arguments, host, again))

    async def _guarded(self, work: Awaitable[Answer]) -> Answer:
        try:
            return await work
        except CallError as error:
            return failed(quoted(f"{lines(error.message, 2000)} ({error.code} {error.reason})", "the node"))
        except (KodoError, TimeoutError) as error:
            return failed(lines(error, 2000) or "it took too long")

    # flows

    async def _find_flows(self, arguments: Mapping[str, Any], host: Host, again: Round) -> Answer:
        words = str(arguments.get("search") or "").casefold().split()[:16]
        offset = _number(arguments.get("offset"), 0, 0, 1_000_000)
        fitting = await self.catalog.search(words)
        rows = [
            {"flow": offer.ref, "name": one_line(offer.name, 80), "node": one_line(offer.node, 80)}
            | {"says": one_line(offer.description, 200)}
            for offer in fitting[offset : offset + _PAGE_ROWS]
        ]
        more = len(fitting) - offset - len(rows)
        tail = f"\n\n{more} more: offset={offset + len(rows)}." if more > 0 else ""
        cut = (
            " There are more than are listed: search for a word of the flow's name or description."
            if self.catalog.cut
            else ""
        )
        text = f"{len(fitting)} flows.{cut}\n\n{quoted(as_json(rows), 'the nodes')}{tail}"
        return plain(text, {"flows": rows, "total": len(fitting)})

    async def _show_flow(self, arguments: Mapping[str, Any], host: Host, again: Round) -> Answer:
        offer = await self.catalog.offer(_text(arguments, "flow"))
        flow = await self.catalog.flow(offer)
        shown = flow_tool("", offer, flow, self.folders, self.options.wait_s)
        example = flow.schema.get("example")
        facts = {"flow": offer.ref, "inputs": shown["inputSchema"], "example": bounded(example, 2000)}
        if (returns := returned_schema(flow.returns)) is not None:
            facts["returns"] = returns
        text = f"{said(lines(offer.description, 4000), offer.label)}\n\n{quoted(as_json(facts), offer.label)}"
        return plain(text, facts)

    async def _run_flow(self, arguments: Mapping[str, Any], host: Host, again: Round) -> Answer:
        offer = await self.catalog.offer(_text(arguments, "flow"))
        inputs = arguments.get("inputs") or {}
        if not isinstance(inputs, Mapping):
            raise UsageError("inputs is an object of names and values")
        return await self._launch(offer, inputs, host, again)

    async def _launch(self, offer: Offer, inputs: Mapping[str, Any], host: Host, again: Round) -> Answer:
        """Launch a flow once, and wait for the run for a while; in a later round, go on with that run."""
        ref = again.state.get("run")
        if isinstance(ref, str):
            return await self._go_on(await self.runs.open(ref), host, again)
        self.runs.check_launch(offer)
        schema = (await self.catalog.flow(offer)).inputs_schema
        given = {name: value for name, value in inputs.items() if name not in secret_inputs(schema)}
        key = again.state.get("key")
        key = key if isinstance(key, str) else self._launches.begin(offer.ref, inputs)
        try:
            missing = missing_inputs(schema, given)
            if missing:
                asked = await self._ask_inputs(offer, schema, missing, host, again, key)
                if not isinstance(asked, _Inputs):
                    self._launches.end(key)
                    return asked
                given = {**given, **asked}
            run = await self.runs.launch(offer, given, key)
            if host.tasks:
                answer: Answer = MadeTask(await self.runs.standing(run))
            else:
                answer = await self._wait(run, host, Asking(self.runs, run, host, self.page))
        except asyncio.CancelledError:
            self._launches.cut(key)
            raise
        except BaseException:
            self._launches.end(key)
            raise
        self._launches.end(key)
        return answer

    async def _ask_inputs(
        self, offer: Offer, schema: Mapping[str, Any], missing: list[str], host: Host, again: Round, key: str
    ) -> _Inputs | Answer:
        """Return the missing inputs by name, or the answer of the call: ask the person, or tell the model."""
        form = flat_form(schema, only=frozenset(missing))
        if form is None or not host.forms:
            names = ", ".join(one_line(name) for name in missing)
            return failed(f"Nothing was launched: these inputs are missing: {names}. Call again with them.")
        question = Question(_INPUTS, f"{offer.label} needs more to begin with.", form.schema)
        reply = again.replies.get(_INPUTS)
        if reply is None:
            if host.rounds:
                return AskAgain((question,), {"key": key})
            reply = await host.ask(question)
        if reply.action != "accept":
            return failed("Nothing was launched: the user did not give the missing inputs.")
        return _Inputs(form.answer(reply.content))

    # runs

    async def _run_wait(self, arguments: Mapping[str, Any], host: Host, again: Round) -> Answer:
        return await self._go_on(await self.runs.open(_text(arguments, "run")), host, again)

    async def _go_on(self, standing: Standing, host: Host, again: Round) -> Answer:
        run = standing.run
        asking = Asking(self.runs, run, host, self.page)
        left = again.state.get("left")
        asking.left.update(str(lid) for lid in left or ())
        if standing.over:
            return await self.result_of(standing)
        now = await self.runs.standing(run)
        if again.replies and not self.options.read_only:
            known = again.state.get("asked")
            asked = {str(key) for key in known} if isinstance(known, (list, tuple)) else set[str]()
            await asking.take(now, {key: reply for key, reply in again.replies.items() if key in asked})
        else:
            # Whoever waits for a run was told already of the questions that nobody can be asked here.
            askable = {} if self.options.read_only else await asking.questions(now)
            asking.waiting.update(each.lock.lid for each in now.locks if each.lock.lid not in askable)
        return await self._wait(run, host, asking)

    async def _wait(self, run: Run, host: Host, asking: Asking) -> Answer:
        """Wait until the run is over or the time is up; have its questions asked meanwhile."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.options.wait_s

        def stop(now: Standing) -> bool:
            return any(each.lock.lid not in asking.waiting and each.lock.candidate is None for each in now.locks)

        while True:
            standing = await self.runs.watch(run, max(until - loop.time(), 0.1), host.progress, stop=stop)
            questions = {} if self.options.read_only else await asking.questions(standing)
            if standing.over or standing.lost or not questions:
                break
            if host.rounds:
                state = {"run": run_ref(run), "asked": [question.key for question in questions.values()]}
                return AskAgain(tuple(questions.values()), {**state, "left": sorted(asking.left)})
            began = loop.time()
            await asking.ask(standing, questions)
            until = max(until + loop.time() - began, loop.time() + _ANSWER_FLOOR_S)
        page = await self.page(run) if standing.locks else None
        return await self.result_of(standing, page=page, notes=asking.notes[:5])

    async def result_of(self, standing: Standing, *, page: str | None = None, notes: Sequence[str] = ()) -> Result:
        """Return the result of a tool about a run, as `of_run`; its flow's result by what the host was told of it."""
        returns = None
        path = standing.state.get("path")
        if standing.state.get("state") == "done" and isinstance(path, str):
            returns = await self.catalog.returns(Offer(standing.run.node, str(standing.run.peer_id), path, path, ""))
        return of_run(standing, returns=returns, page=page, notes=notes)

    async def page(self, run: Run) -> str | None:
        return await page_of(self.client, self.client.home, run, self.options.node)

    async def _runs(self, arguments: Mapping[str, Any], host: Host, again: Round) -> Answer:
        state = arguments.get("state")
        limit = _number(arguments.get("limit"), _PAGE_ROWS, 1, 50)
        rows = await self.runs.rows(state if isinstance(state, str) else None)
        shown = [
            {
                "run": f"{row.get('peer_id')}/{row.get('fid')}",
                "flow": one_line(row.get("name") or row.get("path"), 80),
                "node": one_line(row.get("node"), 80),
                "state": one_line(row.get("state"), 20),
                "created": row.get("created") if isinstance(row.get("created"), int) else None,
                "error": one_line(row.get("error") or "", 80),
            }
            for row in rows[:limit]
        ]
        text = f"{len(rows)} runs, the latest first; times are ms UTC.\n\n{quoted(as_json(shown), 'the nodes')}"
        return plain(text, {"runs": shown, "total": len(rows)})

    async def _run_events(self, arguments: Mapping[str, Any], host: Host, again: Round) -> Answer:
        standing = await self.runs.open(_text(arguments, "run"))
        after = _number(arguments.get("after"), 0, 0, 1 << 62)
        limit = _number(arguments.get("limit"), 50, 1, 200)
        shown: list[dict[str, Any]] = []
        size = 0
        async with (
            asyncio.timeout(self.options.wait_s),
            aclosing(standing.run.follow(after, live=False)) as events,
        ):
            async for event in events:
                after = event.seq
                seen = visible(event, self.options.level)
                if seen is not None:
                    row = {"seq": seen.seq, "at": seen.at, "event": one_line(seen.event, 40)}
                    shown.append({**row, "data": bounded(seen.data, 4000)})
                    size += len(str(shown[-1]))
                if len(shown) >= limit or size > 20_000:
                    break
        last = standing.state.get("last_seq")
        more = isinstance(last, int) and after < last
        tail = f"There is more: after={after}." if more else "That is all until now."
        source = f"the run {run_ref(standing.run)}"
        return plain(f"{quoted(as_json(shown), source)}\n\n{tail}", {"events": shown, "after": after, "more": more})

    async def _read_output(self, arguments: Mapping[str, Any], host: Host, again: Round) -> Answer:
        ref, name = _text(arguments, "run"), _text(arguments, "name")
        async with asyncio.timeout(self.options.wait_s):
            text, _ = await read_text(self.runs, ref, name)
        return plain(quoted(text, f"the output {one_line(name)} of the run {one_line(ref)}"))

    async def _save_output(self, arguments: Mapping[str, Any], host: Host, again: Round) -> Answer:
        folder = arguments.get("folder")
        saved = await save(
            self.runs,
            self.folders,
            _text(arguments, "run"),
            _text(arguments, "name"),
            folder if isinstance(folder, str) else None,
        )
        return plain(f"Saved and verified: {saved['path']} ({saved['size']} bytes)", saved)

    async def _share_run(self, arguments: Mapping[str, Any], host: Host, again: Round) -> Answer:
        run = (await self.runs.open(_text(arguments, "run"))).run
        expires = arguments.get("expires")
        downloads = arguments.get("downloads")
        share = await run.share(
            expires=expires if isinstance(expires, str) else "1d",
            downloads=downloads if isinstance(downloads, int) else None,
            level=min(self.options.level, 1),
        )
        facts = {"link": str(share), "sid": share.sid, "level": share.level, "expires_at": share.expires_at}
        text = f"{share}\n\nWhoever has this link sees the run until it expires; `koco unshare` ends it."
        return plain(text, facts)

    async def _run_cancel(self, arguments: Mapping[str, Any], host: Host, again: Round) -> Answer:
        standing = await self.runs.open(_text(arguments, "run"))
        if not standing.over:
            try:
                await standing.run.kill()
            except CallError as error:
                if error.code != 400:
                    raise  # else it was over before the call arrived
            standing = await self.runs.standing(standing.run)
        made = await self.result_of(standing)
        made.pop("isError", None)  # that it ended so is what was asked for
        return made


class _Inputs(dict[str, Any]):
    """Inputs that a person gave."""


def _text(arguments: Mapping[str, Any], name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not value:
        raise UsageError(f"{name} is missing: it is a text")
    return value


def _number(value: Any, default: int, low: int, high: int) -> int:
    number = value if isinstance(value, int) and not isinstance(value, bool) else default
    return min(max(number, low), high)
