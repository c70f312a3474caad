"""A real OpenID Connect issuer in a process of its own: tests/interop/issuer.mjs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kodo.access import http
from kodo.client.device_flow import Prompt

INTEROP = Path(__file__).resolve().parents[1] / "interop"
CLIENT = "kodo-cli"
START_SECONDS = 60.0


class Issuer:
    """The issuer at `url`; every account name is somebody, `olga` has the role operator."""

    def __init__(self, process: subprocess.Popen[str]):
        self._process = process
        assert process.stdout is not None
        line = ""
        late = threading.Timer(START_SECONDS, process.kill)
        late.start()
        for line in process.stdout:
            if line.startswith("{"):
                break
        late.cancel()
        self.url: str = json.loads(line)["issuer"]

    def stop(self) -> None:
        """Be away from here on."""
        self._process.terminate()
        self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def post(self, path: str, **query: str) -> None:
        """Ask the issuer's test doors."""
        request = urllib.request.Request(f"{self.url}{path}?{urllib.parse.urlencode(query)}", method="POST")
        with urllib.request.urlopen(request, timeout=20) as response:
            assert response.status == 200, response.read()

    def approve(self, code: str, account: str) -> None:
        """Do what a user does in a browser: enter the code, log in, consent."""
        self.post("/approve", user_code=code, account=account)

    def approver(self, account: str) -> Callable[[Prompt], None]:
        """Give a `show` that has the user approve at once."""

        def show(prompt: Prompt) -> None:
            threading.Thread(target=self.approve, args=(prompt.code, account), daemon=True).start()

        return show

    async def token(self, account: str, audience: str) -> dict[str, Any]:
        """Give what the issuer gives a client that binds its tokens to no key."""
        asked = {"client_id": CLIENT, "resource": audience, "scope": "openid offline_access"}
        begun = await http.post_form(f"{self.url}/device/auth", asked)
        await asyncio.to_thread(self.approve, begun.body["user_code"], account)
        form = {
            "client_id": CLIENT,
            "resource": audience,
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            "device_code": begun.body["device_code"],
        }
        answer = await http.post_form(f"{self.url}/token", form)
        assert answer.status == 200, answer.body
        return answer.body


@contextlib.contextmanager
def running_issuer() -> Iterator[Issuer]:
    """Run the issuer; skip the test where there is no Node.js."""
    node = shutil.which("node")
    if node is None or not (INTEROP / "node_modules" / "oidc-provider").is_dir():
        pytest.skip("Node.js with the packages of tests/interop is needed: scripts/test gets both")
    process = subprocess.Popen(
        [node, "issuer.mjs"],
        cwd=INTEROP,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    issuer = Issuer(process)
    try:
        yield issuer
    finally:
        if process.poll() is None:
            issuer.stop()
