"""An operator's side of a registry: signed calls, each good once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any, Self

from kodo.p2p.errors import PeerError
from kodo.registry.client.client import RegistryClient
from kodo.registry.client.signed_requests import Claimant, check_private_url
from kodo.registry.records.claims import Enrolment, enrol_proof
from kodo.registry.records.signed import sign

__all__ = ["OperatorClient"]


class OperatorClient:
    """Calls of an operator at one registry; `async with`. Errors are those of `RegistryClient`.

    Args:
        url: of the registry, `https://…`, or `http://` on this machine.
        claimant: signs as the operator.
        timeout: seconds for one call.
    """

    def __init__(self, url: str, claimant: Claimant, *, timeout: float = 10.0) -> None:
        self._client = RegistryClient(url, timeout=timeout, claimant=claimant)
        self._identity = claimant.identity
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._client)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def register(self, name: str, peer_id: str | None = None) -> dict[str, Any]:
        """Put a name on the registry's list; with `peer_id` for that peer alone."""
        return await self._call("POST", "/register", {"name": name, "peer_id": peer_id})

    async def unregister(self, name: str) -> dict[str, Any]:
        """Unregister a name and remove its node of the registry."""
        return await self._call("DELETE", "/register", {"name": name})

    async def registered(self, p: int = 1) -> dict[str, Any]:
        """Return a page of the list."""
        return await self._call("GET", f"/register?p={p}")

    async def annotate(
        self, node: str, words: Mapping[str, Any], *, path: str | None = None, replace: bool = False
    ) -> dict[str, Any]:
        """Annotate a node, by name or peer id, or of its flow `path`; a word that is None is taken back."""
        named = {"peer_id": node} if node.startswith("12D3Koo") else {"name": node}
        body = {**named, "words": dict(words), **({} if path is None else {"path": path})}
        return await self._call("POST" if replace else "PUT", "/nodes" if path is None else "/flows", body)

    async def stale(self) -> list[dict[str, Any]]:
        """Return the nodes that `clean` would remove."""
        found: list[dict[str, Any]] = (await self._call("GET", "/cleanup"))["result"]
        return found

    async def clean(self) -> list[dict[str, Any]]:
        """Remove the nodes that have been silent for longer than the registry's retention; give them."""
        gone: list[dict[str, Any]] = (await self._call("POST", "/cleanup", {}))["result"]
        return gone

    async def audit(self, p: int = 1) -> dict[str, Any]:
        """Return a page of what operators changed, latest first."""
        return await self._call("GET", f"/audit?p={p}")

    async def operators(self) -> dict[str, Any]:
        """Return who the operators are."""
        return await self._call("GET", "/operators")

    async def code(self) -> str:
        """Make a code by which one more operator enrols."""
        code: str = (await self._call("POST", "/operators/code", {}))["code"]
        return code

    async def dismiss(self, peer_id: str) -> dict[str, Any]:
        """Take an operator off."""
        return await self._call("DELETE", "/operators", {"peer_id": peer_id})

    async def mesh(self) -> dict[str, Any]:
        """Return which registries are read and fed, which may tell this one, and how those behaved."""
        return await self._call("GET", "/mesh")

    async def add_to_mesh(self, url: str, *, feed: bool = False) -> dict[str, Any]:
        """List the nodes of another registry, too; with `feed`, tell it about this one's own."""
        return await self._call("PUT", "/mesh", {"url": url, "feed": feed})

    async def remove_from_mesh(self, url: str) -> dict[str, Any]:
        """Make it ignore another registry from now on."""
        return await self._call("DELETE", "/mesh", {"url": url})

    async def enrol(self, code: str) -> dict[str, Any]:
        """Become an operator by a code; it proves itself to this registry alone, and is never sent."""
        check_private_url(self._client.url)
        own = str(self._identity.peer_id)
        registry = (await self._client.registry_state()).peer_id
        if registry is None:
            raise PeerError("this registry does not name its peer id: it runs an earlier release")
        enrolment = sign(Enrolment(peer_id=own, proof=enrol_proof(code, registry, own)), self._identity)
        return _read(await self._client.call("POST", "/operators", data=enrolment))

    async def shutdown(self) -> dict[str, Any]:
        """End the registry in order."""
        return await self._call("POST", "/shutdown", {})

    async def _call(self, method: str, target: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        return _read(await self._client.call(method, target, data=data, content_type="application/json", claim=True))


def _read(answer: bytes) -> dict[str, Any]:
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise PeerError("the answer is not one of a registry")
    return value
