"""Token buckets by key: who may do something how often. Pure; time comes in as ms."""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["Throttle"]


class Throttle:
    """Each key may act `burst` times at once, and once every `every_ms` in the long run.

    At most `keys` are remembered; the one that acted longest ago is forgotten first.
    """

    def __init__(self, *, burst: int, every_ms: int, keys: int = 10_000) -> None:
        self._burst = burst
        self._every_ms = every_ms
        self._keys = keys
        # When the bucket will be full again: one number says all (the generic cell rate algorithm).
        self._full_at: OrderedDict[str, int] = OrderedDict()

    def wait_ms(self, key: str, now: int, *, count: bool = True) -> int:
        """Count an act of `key` at `now` (ms) and give 0, or give the ms to wait and count nothing.

        Without `count` an act is judged and never counted: for those that cost only when they fail.
        """
        most = self._burst * self._every_ms
        # A clock that was set back starts the key anew.
        full_at = self._full_at.get(key, 0)
        full_at = now if not now <= full_at <= now + most else full_at
        wait = full_at + self._every_ms - (now + most)
        if wait > 0:
            return wait
        if not count:
            return 0
        self._full_at[key] = full_at + self._every_ms
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._keys:
            self._full_at.popitem(last=False)
        return 0
