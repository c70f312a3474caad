"""What a shell offers for a value when Tab is pressed: from files of the home alone, so that it takes no time.

`completion.json` has what commands have listed: flows and runs. Names of nodes are those that are known.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["MAX_KEPT", "complete_flow", "complete_node", "complete_run", "complete_state", "keep"]

MAX_KEPT = 200
"""Flows and runs, of each, that are kept: those that were listed last."""

MAX_FILE_BYTES = 1 << 20


def complete_state(incomplete: str) -> list[str]:
    """Return the states that begin so."""
    from kodo.protocol.run_state import SHOWN_STATES

    return [state for state in SHOWN_STATES if state.startswith(incomplete)]


def complete_node(incomplete: str) -> list[str]:
    """Return the names of known nodes that begin so."""
    try:
        with (_home() / "known_nodes").open("rb") as file:
            lines = file.read(MAX_FILE_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return _fitting((line.split()[0] for line in lines if line.strip()), incomplete)


def complete_flow(incomplete: str) -> list[str]:
    """Return the flows that were listed last and begin so: `NODE/PATH`."""
    return _fitting(_read(_home()).get("flows", ()), incomplete)


def complete_run(incomplete: str) -> list[str]:
    """Return the runs that were listed last and begin so: `NODE/FID`, or a FID that begins so."""
    runs = _read(_home()).get("runs", ())
    whole = _fitting(runs, incomplete)
    return whole or _fitting((run.rpartition("/")[2] for run in runs), incomplete)


def keep(home: Path, kind: str, words: Iterable[str]) -> None:
    """Keep what was listed, for the next Tab; where that cannot be written, nothing is kept.

    Args:
        kind: `flows` or `runs`.
        words: the first ones are offered first.
    """
    from kodo.p2p.net.keystore import write_private

    kept = _read(home)
    merged = [*dict.fromkeys([*words, *kept.get(kind, ())])][:MAX_KEPT]
    if merged == kept.get(kind) or not home.is_dir():
        return
    try:
        write_private(home / "completion.json", json.dumps({**kept, kind: merged}).encode())
    except OSError:
        return


def _fitting(words: Iterable[str], incomplete: str) -> list[str]:
    # A shell reads what is printed: a word of somebody else's must be a word to it, and harmless on a terminal.
    return [word for word in words if word.startswith(incomplete) and word.isprintable() and len(word) <= 512]


def _home() -> Path:
    if home := os.environ.get("KODO_HOME"):
        return Path(home).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("kodo"))


def _read(home: Path) -> dict[str, list[str]]:
    try:
        with (home / "completion.json").open("rb") as file:
            read = json.loads(file.read(MAX_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(read, Mapping):
        return {}
    return {
        kind: [word for word in words if isinstance(word, str)]
        for kind, words in read.items()
        if kind in ("flows", "runs") and isinstance(words, list)
    }
