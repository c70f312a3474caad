"""Locks: runs wait for answers, people give them, each lock is answered once.

    open ─► candidate committed ─► handed to the runner ─► `unlock`       closed: answered
     ▲ │                                               ├─► `unlock-deny`  open again
     │ │                                               └─► no verdict in time: `unlock-timeout`, open again
     └─┼──────────────────────────────────────────────────────┘
       └─► not answered in time, no candidate under way: `lock-timeout`, closed; the flow takes its default or fails

A lock is *claimed* while a candidate or a timeout for it is on its way into the log: so there is one winner. The
times are kept by one task for all runs; they follow from the log, so a restarted node takes them up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any

from kodo.node.clock import awake_timeout, wait_or_sleep
from kodo.node.runs.launch import disk_full
from kodo.node.runs.live import LiveRun
from kodo.node.runs.runs import Runs
from kodo.node.runs.vault import INPUTS
from kodo.node.schemas.forms import places
from kodo.node.schemas.judge import Judge
from kodo.node.store.rows import KeyReusedError, NewEvent, OnceKey, RunOverError, check_packed, digest_of
from kodo.node.store.store import Store
from kodo.p2p.errors import CallError, CapacityError, IntegrityError, KodoError
from kodo.protocol.access import Principal, account_of
from kodo.protocol.events import Event, OpenLock
from kodo.protocol.run_state import ends
from kodo.protocol.secrets import Secrets, hide, masked, reveal

__all__ = ["Locks"]

_HAND_S = 10.0
"""Seconds that a runner has to take a candidate or a timeout; its verdict has a time of its own."""

_IDLE_S = 60.0

_BUSY_S = 1.0
"""Seconds until inputs are checked again that the node was too busy to check."""

Verdict = dict[str, Any] | CallError
Faults = Callable[[LiveRun, dict[str, Any]], Awaitable[list[str]]]


class Locks:
    """All open locks of a node's live runs. Make it before `runs` is entered, `start` it afterwards.

    Args:
        judge: holds candidates against their locks' schemas.
        faults: says what is wrong with a run's inputs, once those that were missing are there; a 429 of it is waited
            out.
    """

    def __init__(self, store: Store, runs: Runs, judge: Judge, faults: Faults):
        self._judge = judge
        self._faults = faults
        self._store = store
        self._runs = runs
        self._changed = asyncio.Event()
        self._awaited: dict[tuple[str, str], dict[str, asyncio.Future[Verdict]]] = {}
        runs.listen(self._heard)

    def start(self) -> None:
        """Hand over what an earlier process left undecided, and keep the locks' times from now on."""
        for live in list(self._runs.live.values()):
            if live.lids:
                now = self._runs.clock.steady_ms()
                live.handed_at.update({lid: now for lid, lock in live.view.locks.items() if lock.candidate})
                self._runs.spawn(partial(self._resume, live))
        self._runs.spawn(self._keep_time)

    # --- asked from outside ---

    def open_locks(self, principal: Principal, shared: Collection[str] = ()) -> list[tuple[LiveRun, OpenLock]]:
        """Return the locks that `principal` may answer, oldest first: of its runs, and of the fids in `shared`."""
        found = [
            (live, lock)
            for live in self._runs.live.values()
            if (live.row.principal == principal.id or live.fid in shared) and not live.view.state.over
            for lock in live.view.locks.values()
            if may_answer(principal, lock)
        ]
        return sorted(found, key=lambda pair: (pair[1].opened_at, pair[1].lid))

    async def get(self, fid: str, lid: str, principal: Principal) -> OpenLock:
        """Return an open lock of a run that `principal` may see.

        Raises:
            CallError: 404 `no-such-lock`, 410 `answered` or `expired`, 403 `not-yours`.
        """
        while True:
            live = self._runs.live.get(fid)
            lock = live.view.locks.get(lid) if live is not None and not live.view.state.over else None
            if lock is not None:
                break
            events = await self._events_of(fid, lid)
            if live is None or live.view.state.over or live.view.last_seq >= max((e.seq for e in events), default=0):
                raise _gone(events)
            # It is in the log, and the run's view takes note of it in a moment.
            live.moved.clear()
            await live.moved.wait()
        if not may_answer(principal, lock):
            raise CallError(403, "not-yours", "this lock asks for somebody else's answer")
        return lock

    async def answer(
        self, fid: str, lid: str, candidate: Any, principal: Principal, key: str | None = None, *, payer: str = ""
    ) -> dict[str, Any]:
        """Answer a lock and wait for the flow's verdict: the data of its `unlock`.

        With a `key` that was used before, the verdict on the candidate that it came with. Cancelling does not take
        the candidate back.

        Args:
            payer: against whose bounds its check counts; empty: the account of `principal`.

        Raises:
            CallError: as `get`; 400 `bad-candidate` with `places`, 400 `too-complex`, 409 `denied` with `reasons`,
                409 or 429 `busy`, 409 `key-reused`, 413 `too-large`, 504 `no-verdict`, 507 `disk-full`.
        """
        try:
            check_packed(candidate)
        except ValueError as error:
            raise CallError(413, "too-large", f"the answer does not fit an event: {error}") from None
        cid = self._runs.new_id()
        once = None
        if key is not None:
            try:
                # The lock may be closed by now, and with it what of its answer was secret.
                vault = self._runs.secrets.vault
                digest = digest_of(candidate) if vault is None else vault.digest(candidate)
            except (TypeError, ValueError, OverflowError):
                raise CallError(400, "bad-candidate", "the answer is not plain data") from None
            once = OnceKey(principal.id, f"answer/{fid}/{lid}/{key}", cid, digest)
            if (earlier := await self._earlier(once)) is not None:
                return await self._verdict(fid, lid, earlier)
        try:
            cid = await self._offer(fid, lid, candidate, principal, cid, once, payer or account_of(principal.id))
        except CallError:
            # The first call with this key may have been heard while this one was judged.
            if once is None or (earlier := await self._earlier(once)) is None:
                raise
            cid = earlier
        return await self._verdict(fid, lid, cid)

    # --- inside ---

    async def _earlier(self, once: OnceKey) -> str | None:
        known = await self._store.once(once.principal, once.key)
        if known is None:
            return None
        if known.digest != once.digest:
            raise CallError(409, "key-reused", "this key was used with another answer; use another key")
        return known.value

    async def _offer(
        self, fid: str, lid: str, candidate: Any, principal: Principal, cid: str, once: OnceKey | None, payer: str
    ) -> str:
        """Judge a candidate by its lock's form and claim the lock with it; return its cid, or the earlier one's."""
        lock = await self.get(fid, lid, principal)
        faults = await self._judge.do(partial(places, lock.schema, candidate), payer)
        if faults:
            first = ": ".join(part for part in (faults[0]["at"], faults[0]["message"]) if part)
            raise CallError(
                400, "bad-candidate", f"the answer is not what the lock demands; {first}", {"places": faults}
            )
        shown, secrets = await self._judge.do(partial(hide, lock.schema, candidate), payer)
        # Others may have answered meanwhile. From here to the claim nothing is waited for.
        lock = await self.get(fid, lid, principal)
        live = self._runs.live[fid]
        if lock.candidate is not None or lid in live.claimed:
            raise CallError(409, "busy", "another answer to this lock awaits its verdict", {"retry_after_ms": 1000})
        try:
            new = NewEvent.make("candidate", {"lid": lid, "cid": cid, "by": principal.id, "answer": shown})
        except ValueError as error:
            raise CallError(413, "too-large", str(error)) from None
        live.claimed.add(lid)
        return await self._runs.undisturbed(lambda: self._submit(live, new, once, secrets))

    async def _submit(self, live: LiveRun, new: NewEvent, once: OnceKey | None, secrets: Secrets) -> str:
        """Commit a candidate of a claimed lock and hand it over; give its cid, or the earlier one of its key."""
        lid, cid = str(new.data["lid"]), str(new.data["cid"])
        self._await(live.fid, lid, cid)
        earlier: str | None = cid
        try:
            if secrets and self._runs.secrets.vault is not None:
                await self._runs.secrets.vault.put(live.fid, cid, secrets)
            if once is None:
                await self._store.append(live.fid, [new])
                earlier = None
            else:
                earlier = await self._store.append_once(live.fid, [new], once)
        except RunOverError:
            # They may have come after those of the run were erased.
            await self._runs.secrets.forget(live.fid)
            raise CallError(410, "expired", "the run is over") from None
        except KeyReusedError as error:
            await self._runs.secrets.forget(live.fid, cid)
            raise CallError(409, "key-reused", str(error)) from None
        except CapacityError as error:
            if secrets:
                self._runs.spawn(partial(self._forget_unless_stored, live, cid))
            raise disk_full(error) from None
        finally:
            live.claimed.discard(lid)
            if earlier is not None:
                self._awaited.get((live.fid, lid), {}).pop(cid, None)
        if earlier is not None:
            await self._runs.secrets.forget(live.fid, cid)
            return earlier
        live.handed_at[lid] = self._runs.clock.steady_ms()
        self._changed.set()
        self._runs.spawn(partial(self._hand, live, lid, cid, new.data["answer"]))
        return cid

    async def _forget_unless_stored(self, live: LiveRun, cid: str) -> None:
        """Erase the secrets of an answer whose commit failed, unless it is stored nevertheless."""
        await self._runs.patiently(self._store.settle)
        stored = await self._store.every(live.fid, ["candidate"])
        if live.fid not in self._runs.live:
            await self._runs.secrets.forget(live.fid)
        elif all(event.data["cid"] != cid for event in stored):
            await self._runs.secrets.forget(live.fid, cid)

    async def _hand(self, live: LiveRun, lid: str, cid: str, answer: Any) -> None:
        runner, vault = live.runner, self._runs.secrets.vault
        secrets = await vault.get(live.fid, cid) if vault is not None and masked(answer) else []
        if runner is not None:
            await _bounded(lambda: runner.answer(lid, cid, answer, secrets))
        elif isinstance(answer, dict):
            # No runner yet: the node itself asked, for inputs that were missing.
            await self._take_inputs(live, lid, cid, answer, secrets)

    async def _take_inputs(self, live: LiveRun, lid: str, cid: str, answer: dict[str, Any], secrets: Secrets) -> None:
        inputs = {**live.view.inputs, **answer}
        try:
            known = await self._runs.secrets.of(live)
            verdict = [
                NewEvent.make("unlock", {"lid": lid, "cid": cid, "answer": answer}),
                NewEvent.make("inputs", inputs),
            ]
            found = await self._faults_in_turn(live, lid, cid, reveal(inputs, [*known, *secrets]))
            if found is None:
                return
            reasons = found
            if secrets and not reasons and self._runs.secrets.vault is not None:
                await self._runs.secrets.vault.put(live.fid, INPUTS, [*known, *secrets])
        except (ValueError, CapacityError, IntegrityError) as error:
            reasons = [str(error)]
        if reasons:
            verdict = [NewEvent.make("unlock-deny", {"lid": lid, "cid": cid, "reasons": reasons})]
        try:
            await self._runs.append(live, verdict)
        except RunOverError:
            await self._runs.secrets.forget(live.fid)

    async def _faults_in_turn(self, live: LiveRun, lid: str, cid: str, inputs: dict[str, Any]) -> list[str] | None:
        """Return what is wrong with inputs, however busy the node is; None: the time for a verdict was over first."""
        while True:
            try:
                return await self._faults(live, inputs)
            except CallError as error:
                # That others are before it says nothing about a value.
                if error.code != 429:
                    raise
            await self._runs.clock.sleep(_BUSY_S)
            lock = live.view.locks.get(lid)
            if lock is None or lock.candidate != cid or live.view.state.over:
                return None

    async def _verdict(self, fid: str, lid: str, cid: str) -> dict[str, Any]:
        """Wait for the verdict on a candidate, or find it in the log. It comes: the lock's times see to that."""
        future = self._awaited.get((fid, lid), {}).get(cid)
        if future is None:
            live = self._runs.live.get(fid)
            lock = live.view.locks.get(lid) if live is not None else None
            if lock is not None and lock.candidate == cid:
                future = self._await(fid, lid, cid)
        if future is not None:
            verdict: Verdict = await asyncio.shield(future)
        else:
            verdict = await self._past_verdict(fid, lid, cid)
        if isinstance(verdict, CallError):
            # A fresh one for everybody who waits: an exception keeps the trace of where it was raised.
            raise CallError(verdict.code, verdict.reason, verdict.message, verdict.data)
        return verdict

    async def _past_verdict(self, fid: str, lid: str, cid: str) -> Verdict:
        names = ["unlock", "unlock-deny", "unlock-timeout", "lock-timeout"]
        for event in await self._store.every(fid, names):
            if event.data.get("lid") == lid:
                verdict = _judge(event, cid)
                if verdict is not None:
                    return verdict
        return CallError(410, "expired", "the run ended before it judged the answer")

    async def _events_of(self, fid: str, lid: str) -> list[Event]:
        names = ["lock", "unlock", "lock-timeout"]
        return [event for event in await self._store.every(fid, names) if event.data.get("lid") == lid]

    def _await(self, fid: str, lid: str, cid: str) -> asyncio.Future[Verdict]:
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        return self._awaited.setdefault((fid, lid), {}).setdefault(cid, future)

    def _heard(self, live: LiveRun, events: list[Event]) -> None:
        """Take note of what was committed: verdicts for those who wait, new times to keep."""
        for event in events:
            if event.event in ("unlock", "unlock-deny", "unlock-timeout", "lock-timeout"):
                lid = str(event.data.get("lid"))
                self._settle((live.fid, lid), partial(_judge, event))
                if event.event in ("unlock", "lock-timeout"):
                    live.handed_at.pop(lid, None)
                self._changed.set()
            elif event.event == "lock":
                self._changed.set()
            elif ends(event.event):
                for place in [place for place in self._awaited if place[0] == live.fid]:
                    self._settle(place, lambda _: CallError(410, "expired", "the run ended before a verdict"))

    def _settle(self, place: tuple[str, str], judge: Callable[[str], Verdict | None]) -> None:
        waiting = self._awaited.get(place, {})
        for cid, future in list(waiting.items()):
            verdict = judge(cid)
            if verdict is not None:
                del waiting[cid]
                if not future.done():
                    future.set_result(verdict)
        if not waiting:
            self._awaited.pop(place, None)

    # --- times ---

    def _left(self, live: LiveRun, lock: OpenLock) -> float:
        """Return the ms that its candidate, or else the lock itself, still has."""
        clock = self._runs.clock
        if lock.candidate is None:
            return lock.expires_at - clock.now_ms()
        # A verdict is due soon: a clock that is set meanwhile must neither cut nor stretch its time.
        return live.handed_at.setdefault(lock.lid, clock.steady_ms()) + lock.verdict_s * 1000 - clock.steady_ms()

    async def _keep_time(self) -> None:
        clock = self._runs.clock
        while True:
            self._changed.clear()
            following = _IDLE_S * 1000
            for live in self._runs.live.values():
                if live.view.state.over:
                    continue
                for lid, lock in live.view.locks.items():
                    left = self._left(live, lock)
                    if lid in live.claimed:
                        continue
                    if left <= 0:
                        live.claimed.add(lid)
                        self._runs.spawn(partial(self._lapse, live, lock))
                    else:
                        following = min(following, left)
            await wait_or_sleep(clock, self._changed, following / 1000)

    async def _lapse(self, live: LiveRun, lock: OpenLock) -> None:
        """The time of a claimed lock is up: that of its candidate, or its own."""
        lid, cid = lock.lid, lock.candidate
        try:
            if cid is not None:
                await self._runs.append(live, [NewEvent.make("unlock-timeout", {"lid": lid, "cid": cid})])
                return
            data = {"lid": lid, "default": lock.default} if lock.has_default else {"lid": lid}
            await self._runs.append(live, [NewEvent.make("lock-timeout", data)])
        except RunOverError:
            return
        finally:
            live.claimed.discard(lid)
            self._changed.set()
        await self._expire(live, lid)

    async def _expire(self, live: LiveRun, lid: str) -> None:
        runner = live.runner
        if runner is not None:
            await _bounded(lambda: runner.expire(lid))

    async def _resume(self, live: LiveRun) -> None:
        """Hand to an adopted runner again what it may not have got: undecided candidates, and timeouts."""
        events = await self._store.every(live.fid, ["candidate", "lock-timeout"])
        for event in events:
            lid = str(event.data.get("lid"))
            if event.event == "lock-timeout":
                await self._expire(live, lid)
                continue
            lock = live.view.locks.get(lid)
            if lock is not None and lock.candidate == event.data.get("cid"):
                await self._hand(live, lid, str(lock.candidate), event.data.get("answer"))


def may_answer(principal: Principal, lock: OpenLock) -> bool:
    """Return whether a lock of a run that `principal` may see asks for this principal's answer."""
    if not lock.roles and not lock.users:
        return True
    return principal.id in lock.users or not principal.roles.isdisjoint(lock.roles)


def _judge(event: Event, cid: str) -> Verdict | None:
    """Return what `event` means for the candidate `cid` of its lock; None: nothing yet."""
    own = event.data.get("cid") in (None, cid)
    match event.event:
        case "unlock":
            return event.data if own else CallError(410, "answered", "another answer was accepted")
        case "unlock-deny" if own:
            reasons = list(event.data.get("reasons") or [])
            return CallError(409, "denied", "; ".join(reasons)[:1000] or "denied", {"reasons": reasons})
        case "unlock-timeout" if own:
            return CallError(504, "no-verdict", "the flow gave no verdict in time; the lock is still open")
        case "lock-timeout":
            return CallError(410, "expired", "nobody answered this lock in time")
    return None


async def _bounded(work: Callable[[], Any]) -> None:
    """Send a runner something; if that fails, its driver learns it too and ends the run."""
    try:
        async with awake_timeout(_HAND_S):
            await work()
    except (TimeoutError, KodoError):
        return


def _gone(events: Sequence[Event]) -> CallError:
    """Return the refusal for a lock that is not open: what the log has of it says why."""
    if not events:
        return CallError(404, "no-such-lock", "this run has no such lock")
    if any(event.event == "unlock" for event in events):
        return CallError(410, "answered", "this lock has been answered")
    return CallError(410, "expired", "nobody answered this lock in time, or its run is over")
