"""A module that changes whatever a module can when it is imported."""

import locale
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from contract_seen import seen as look

from kodo.flow import flow

with open("contract_prompts.txt") as file:  # in the scope's folder
    prompt = file.read()
print("noise by print")
subprocess.run(["sh", "-c", "echo noise by a child >&2"], check=True)
logging.getLogger("contract").warning("noise by a logger")
os.environ["CONTRACT_NOISE"] = "1"
sys.path.append("/contract/noise")
warnings.simplefilter("error", BytesWarning)
logging.getLogger("contract").setLevel(logging.ERROR)
logging.getLogger().addHandler(logging.NullHandler())
locale.setlocale(locale.LC_NUMERIC, "C.UTF-8")
os.chdir("/")


@flow
def seen() -> dict[str, Any]:
    Path("own.txt").write_text("mine")
    return {**look(), "prompt": prompt}
