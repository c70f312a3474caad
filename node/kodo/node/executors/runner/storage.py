"""Where the libraries that a flow uses keep what they are told: in a folder of the run, which goes with it.

Left alone, they write into the home of the node's user, and what one user's run has remembered is there for the next
one's: crewAI's memory, DSPy's answers of models, Mem0's histories.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection, MutableMapping

__all__ = ["FOLDER", "GIVEN", "OWN", "SHARED", "own_storage", "place_of_runner"]

FOLDER = "KODO_FOLDER"
"""The variable that tells a worker where its runner's files are, when they are on this machine."""

GIVEN = "KODO_GIVEN"
"""The variable with the names, as a JSON list, of the variables that the flow's own `runtime_env` sets."""

OWN = {
    "XDG_DATA_HOME": "data",
    "XDG_STATE_HOME": "state",
    "XDG_CACHE_HOME": "cache",
    "CREWAI_STORAGE_DIR": "crewai",
    "DSPY_CACHEDIR": "dspy",
    "DSP_CACHEDIR": "dsp",
    "MEM0_DIR": "mem0",
    "EMBEDCHAIN_CONFIG_DIR": "embedchain",
    "BROWSER_USE_CONFIG_DIR": "browser-use",
    "PHOENIX_WORKING_DIR": "phoenix",
    "LETTA_DIR": "letta",
}
"""Variables by which libraries find the folder for what they keep, and the folder's name in that of the run."""

SHARED = {
    "HF_HOME": "huggingface",
    "TORCH_HOME": "torch",
    "PLAYWRIGHT_BROWSERS_PATH": "ms-playwright",
    "MPLCONFIGDIR": "matplotlib",
    "LLAMA_INDEX_CACHE_DIR": "llama_index",
    "UV_CACHE_DIR": "uv",
    "PIP_CACHE_DIR": "pip",
}
"""Variables for what is large, public, and the same for every run (models, browsers, fonts, packages), and its name
in the cache folder of the machine: it is not loaded again for each run."""


def place_of_runner(name: str) -> str:
    """Return the folder of a runner whose node is on another machine; its name is random, so that nobody knows it."""
    return os.path.join(tempfile.gettempdir(), f"kodo-run-{name}")


def own_storage(environment: MutableMapping[str, str], folder: str) -> None:
    """Set in `environment` where libraries keep things, below the run's `folder`.

    What the flow's own `runtime_env` sets stays; what the node's user has set does not, or it would be shared.
    """
    given: Collection[str] = json.loads(environment.get(GIVEN, "[]"))
    caches = environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    for name, place in SHARED.items():
        environment.setdefault(name, os.path.join(caches, place))
    for name, place in OWN.items():
        if name not in given:
            environment[name] = os.path.join(folder, "storage", place)
