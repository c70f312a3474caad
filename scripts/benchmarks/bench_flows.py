"""The flows that the bench runs."""

from __future__ import annotations

from kodo.flow import emit, flow


@flow(name="No-op", author="bench@example.com", organization="kodo", release="1")
def noop() -> str:
    """Do nothing."""
    return "done"


@flow(name="Events", author="bench@example.com", organization="kodo", release="1")
async def events(count: int) -> int:
    """Emit numbered events as fast as they are taken."""
    for number in range(count):
        await emit("result", {"number": number})
    return count
