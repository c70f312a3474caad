"""A local HTTP server that speaks the OpenAI chat API from a script."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

__all__ = ["ChatServer", "call_tool", "fail", "say"]

_numbers = itertools.count(1)


def say(text: str) -> dict[str, Any]:
    """An answer in text."""
    return {"role": "assistant", "content": text}


def call_tool(name: str, **arguments: Any) -> dict[str, Any]:
    """An answer that calls a tool."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"id": f"call-{next(_numbers)}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def fail(status: int, message: str) -> dict[str, Any]:
    """An answer that refuses."""
    return {"status": status, "error": {"message": message, "type": "invalid_request_error", "code": None}}


class ChatServer:
    """Gives the answers of `script` in order, the last one again and again; keeps what it was asked.

    All texts have the same vector.
    """

    def __init__(self, script: Sequence[dict[str, Any]]):
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        outer, lines = self, list(script)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.keys.append(self.headers.get("Authorization", ""))
                if self.path.endswith("/embeddings"):
                    self._embed(request)
                    return
                message = lines[min(len(outer.asked), len(lines) - 1)]
                outer.asked.append(request)
                if "status" in message:
                    self._answer(message["status"], {"error": message["error"]})
                    return
                reason = "tool_calls" if message.get("tool_calls") else "stop"
                choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
                usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
                kind = {"id": "chat-1", "object": "chat.completion", "created": 1, "model": request["model"]}
                if request.get("stream"):
                    delta = {"index": 0, "delta": message, "finish_reason": None}
                    last = {"index": 0, "delta": {}, "finish_reason": reason}
                    self._stream({**kind, "object": "chat.completion.chunk"}, [delta, last])
                    return
                self._answer(200, {**kind, "choices": [choice], "usage": usage})

            def _embed(self, request: dict[str, Any]) -> None:
                texts = request["input"] if isinstance(request["input"], list) else [request["input"]]
                size = request.get("dimensions") or 8
                found = [{"object": "embedding", "index": n, "embedding": [1.0] * size} for n in range(len(texts))]
                usage = {"prompt_tokens": 1, "total_tokens": 1}
                self._answer(200, {"object": "list", "data": found, "model": request["model"], "usage": usage})

            def _stream(self, kind: dict[str, Any], choices: list[dict[str, Any]]) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                for choice in choices:
                    self.wfile.write(f"data: {json.dumps({**kind, 'choices': [choice]})}\n\n".encode())
                self.wfile.write(b"data: [DONE]\n\n")

            def _answer(self, status: int, value: dict[str, Any]) -> None:
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """The API's base URL."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
