"""Invitations: made, and opened by whoever has the link, without an account at the node."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kodo.client.flow import FlowFinder, FlowOnNode
from kodo.client.inputs import to_inputs
from kodo.client.links import LinkedNode, page_url
from kodo.client.resolve import safe_text
from kodo.client.run import Run
from kodo.client.upload import upload_inputs
from kodo.p2p.errors import PeerError, UsageError
from kodo.protocol.bounds import MAX_SHARE_SECONDS
from kodo.protocol.link import write_link
from kodo.protocol.run_state import launched_state
from kodo.protocol.texts import several
from kodo.settings.units import parse_seconds

__all__ = ["Invitation", "Invitations", "InvitedNode", "OpenInvitation", "expiry_seconds"]


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation that was made; as text its link, by which whoever has it launches the flow.

    Attributes:
        told: the answer of `invitation.add`.
    """

    sid: str
    link: str = field(repr=False)
    told: Mapping[str, Any] = field(repr=False)

    def __str__(self) -> str:
        return self.link

    def at(self, host: str) -> str:
        """Return the link that opens in kodo's page at `host`, a URL such as `https://flows.example.com`.

        Raises:
            UsageError: `host` is no URL of a page.
        """
        return write_link(str(self.told.get("token")), page_url(host), invites=True)


def expiry_seconds(text: str | float) -> float:
    """Return after how many seconds an invitation expires.

    Raises:
        UsageError: it is no duration, or longer than ten years.
    """
    seconds = parse_seconds(text)
    if not isinstance(seconds, (int, float)) or not 1 <= seconds <= MAX_SHARE_SECONDS:
        said = safe_text(text, 40)
        raise UsageError(f"an invitation expires after a duration such as 12h or 7d, at most 10 years, not {said!r}")
    return float(seconds)


class Invitations:
    """Invitations that a client's user makes; from `Client.invitations`. `Client.unshare` ends one."""

    def __init__(
        self,
        finder: FlowFinder,
        rows: Callable[[str, str | None, Mapping[str, Any]], Awaitable[list[dict[str, Any]]]],
    ):
        self._finder = finder
        self._rows = rows

    async def add(
        self,
        flow: str | FlowOnNode,
        *,
        launches: int = 5,
        expires: str | float = "7d",
        level: int | None = None,
        note: str = "",
        see: bool = False,
        inputs: Mapping[str, Any] | None = None,
        node: str | None = None,
        **kwargs: Any,
    ) -> Invitation:
        """Make a link by which whoever has it launches a flow, without an account, and sees those runs only.

        Args:
            flow: as for `Client.launch`, and so is `node`.
            launches: how many runs it may launch.
            expires: `7d`, `12h`, or seconds.
            level: what its holder sees of those runs: 0 state and result, 1 also files, 2 everything; 1 by default.
            note: what its holder is told first.
            see: whether this user sees its runs, which its holder is told.
            inputs: what the form begins with; further keyword arguments are such too. Secrets and files are refused.

        Raises:
            UsageError: `expires` is no duration.
            CallError: 400 `bad-inputs`, `secret-inputs`; 403 `not-granted`; 429 `busy`.
        """
        seconds = expiry_seconds(expires)
        found = flow if isinstance(flow, FlowOnNode) else await self._finder.find_flow(flow, node=node)
        given = to_inputs({**(inputs or {}), **kwargs}, found.inputs_schema)
        await self._finder.prove(found, given)
        args = {"path": found.path, "inputs": given, "launches": launches, "note": note, "see": see}
        args |= {"expires_s": seconds} | ({} if level is None else {"level": level})
        # Not made again when the answer was lost: that would make a second one.
        answer = await found.remote.request("invitation.add", args, repeat=False)
        if not isinstance(answer, Mapping) or not isinstance(answer.get("link"), str):
            raise PeerError("the answer to invitation.add is malformed")
        told = {str(key): value for key, value in answer.items()}
        about = {"node": str(found.remote), "peer_id": str(found.remote.peer_id)}
        return Invitation(str(told.get("sid")), told["link"], {**told, **about})

    async def list(self, node: str | None = None) -> list[dict[str, Any]]:
        """Return the invitations that this user has made, ended ones too, with `node` and `peer_id`."""
        return await self._rows("invitation.list", node, {})


class InvitedNode(LinkedNode):
    """A node that is reached by an invitation, which each of its calls is made by."""

    def about(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Return the args of a call, with the invitation by which it is made."""
        return {**args, "invitation": self.opens}


class OpenInvitation:
    """An invitation that was opened; from `Client.open`. Whoever has the link sees all runs that were launched by it.

    Attributes:
        sid: its id.
        about: what its maker says: `path, name, description, schema, inputs, note, launches, launched, see, by`.
    """

    def __init__(self, node: InvitedNode, patience: float):
        about = node.told.get("invitation")
        if not isinstance(about, Mapping):
            raise UsageError("this link shows a run; open it with get")
        self.sid = str(node.told.get("sid"))
        self.about: dict[str, Any] = {str(key): value for key, value in about.items()}
        self.expires_at = node.told.get("expires_at")
        self._node = node
        self._patience = patience

    @property
    def flow(self) -> FlowOnNode:
        """The flow and its form."""
        return FlowOnNode(self._node, self.about)

    @property
    def node(self) -> str:
        """The node's name, or its peer id."""
        return str(self._node)

    async def launch(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        tags: str | Sequence[str] | None = None,
        strict: bool = False,
    ) -> Run:
        """Launch the flow; the invitation's own inputs count where nothing else is given.

        Args:
            inputs, key, tags, strict: as for `Client.launch`.

        Raises:
            CallError: 410 `used-up`, `expired`, `revoked`; as `Client.launch`.
        """
        prefilled = self.about.get("inputs")
        given = to_inputs(inputs or {}, self.flow.inputs_schema)
        given = {**(prefilled if isinstance(prefilled, Mapping) else {}), **given}
        args: dict[str, Any] = {
            "path": self.about.get("path"),
            "inputs": await upload_inputs(self._node, given, patience=self._patience),
            "key": key or secrets.token_hex(16),
            "tags": list(several(tags or ())),
        }
        if strict:
            args["strict"] = True
        answer = await self._node.request("run.launch", args)
        fid = answer.get("fid") if isinstance(answer, Mapping) else None
        if not isinstance(fid, str):
            raise PeerError(f"{self._node} launched the run but did not return its fid")
        return Run(fid, self._node, patience=self._patience, launched_state=launched_state(answer))

    async def runs(self) -> list[dict[str, Any]]:
        """Return the runs that were launched by this invitation: the rows of `run.list`."""
        return [row async for row in self._node.pages("run.list")]

    async def locks(self) -> list[dict[str, Any]]:
        """Return the questions of its runs: the rows of `lock.list`."""
        return [row async for row in self._node.pages("lock.list")]

    def run(self, fid: str) -> Run:
        """Return a run that was launched by this invitation."""
        return Run(fid, self._node, patience=self._patience)
