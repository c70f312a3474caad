"""coturn as an operator runs it beside a registry: over TCP, with a shared secret, and towards the relay alone."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["PORT", "SECRET", "turn_server"]

PORT = 3478
SECRET = "a-secret-of-coturn-and-the-registry"
READY_SECONDS = 60.0


@contextlib.contextmanager
def turn_server(
    folder: Path, host: str, peer: str, *, secret: str = SECRET, port: int = PORT, before: Sequence[str] = ()
) -> Iterator[None]:
    """Run one at an address; it ends with the block.

    Args:
        peer: the address of the relay.
        before: words that run a command elsewhere.
    """
    program = shutil.which("turnserver")
    if program is None:
        raise RuntimeError("coturn is missing; scripts/test installs it")
    config, log = folder / f"turn-{port}.conf", folder / f"turn-{port}.log"
    config.write_text(
        f"listening-ip={host}\nrelay-ip={host}\nlistening-port={port}\nrealm=example.com\nuse-auth-secret\n"
        f"static-auth-secret={secret}\nno-udp\nno-tls\nno-dtls\nno-cli\nallow-loopback-peers\n"
        f"denied-peer-ip=0.0.0.0-255.255.255.255\nallowed-peer-ip={peer}\n"
        f"userdb={folder}/turn.db\npidfile={folder}/turn-{port}.pid\nlog-file=stdout\nsimple-log\n"
    )
    with log.open("w") as said:
        process = subprocess.Popen([*before, program, "-c", str(config)], stdout=said, stderr=said)
    try:
        until = time.monotonic() + READY_SECONDS
        while "DB connection success" not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(log.read_text(errors="replace")[-2000:])
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()
