"""What to paste into the settings of a host, so that it starts the bridge. Pure but for where `koco` is."""

from __future__ import annotations

import glob
import json
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kodo.client.config import Loaded
from kodo.mcp.options import WAIT_SECONDS, BridgeOptions
from kodo.p2p.errors import UsageError

__all__ = ["HOSTS", "config_for", "configs_of_flow"]

HOSTS: Mapping[str, str] = {
    "claude": "mcpServers",
    "vscode": "servers",
    "cursor": "mcpServers",
    "codex": "mcp_servers",
}
"""The hosts that are known, and where in their settings servers are listed."""

_NAME = "kodo"


def config_for(host: str, options: BridgeOptions, loaded: Loaded, program: str | None = None) -> str:
    """Return the text for a host's settings: JSON, for codex TOML.

    Args:
        loaded: what of it came from flags or the environment is repeated: a host starts the bridge with neither.
        program: what starts `koco`; by default where that is.

    Raises:
        UsageError: the host is not known.
    """
    if host not in HOSTS:
        raise UsageError(f"--print-config knows {', '.join(HOSTS)}, not {host!r}")
    command = program or _program()
    words = ["mcp", *_words(options)]
    environment = _environment(loaded)
    if host == "codex":
        args = ", ".join(map(_toml, words))
        lines = [f"[{HOSTS[host]}.{_NAME}]", f"command = {_toml(command)}", f"args = [{args}]"]
        pairs = ", ".join(f"{name} = {_toml(value)}" for name, value in environment.items())
        return "\n".join([*lines, *([f"env = {{ {pairs} }}"] if pairs else [])]) + "\n"
    server: dict[str, Any] = {"type": "stdio"} if host == "vscode" else {}
    server |= {"command": command, "args": words}
    if environment:
        server["env"] = environment
    return json.dumps({HOSTS[host]: {_NAME: server}}, indent=2) + "\n"


def configs_of_flow(peer_id: str, path: str, loaded: Loaded) -> dict[str, str]:
    """Return by host the texts that make a tool of one flow alone: what the page shows beside it."""
    options = BridgeOptions(node=peer_id, flows=(glob.escape(path),))
    return {host: config_for(host, options, loaded) for host in HOSTS}


def _toml(text: str) -> str:
    """Return a string of TOML: as JSON has it where that is ASCII; JSON's pairs of surrogates are none of TOML's."""
    return re.sub(r"[^ -~]", lambda found: f"\\U{ord(found[0]):08x}", json.dumps(text, ensure_ascii=False))


def _program() -> str:
    """Return where `koco` is: hosts that a desktop started have another search path."""
    beside = Path(sys.executable).with_name("koco")
    return str(beside) if beside.exists() else shutil.which("koco") or "koco"


def _words(options: BridgeOptions) -> list[str]:
    words = ["--node", options.node] if options.node else []
    words += [word for glob in options.flows for word in ("--flow", glob)]
    words += [word for glob in options.allow for word in ("--allow", glob)]
    words += ["--read-only"] if options.read_only else []
    words += ["--level", str(options.level)] if options.level != 1 else []
    words += ["--wait", f"{options.wait_s:g}"] if options.wait_s != WAIT_SECONDS else []
    return words + [word for folder in options.files for word in ("--files", str(folder.expanduser().absolute()))]


def _environment(loaded: Loaded) -> dict[str, str]:
    given = {name: source for name, source in loaded.sources.items() if source == "flag" or source.startswith("env ")}
    found = {"KODO_HOME": str(loaded.home)} if "home" in given else {}
    for name, value in (("registry", loaded.settings.registry), ("lan", loaded.settings.lan)):
        if name in given:
            found[f"KODO_{name.upper()}"] = ",".join(value) if not isinstance(value, bool) else str(value).lower()
    return found
