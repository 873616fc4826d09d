"""A local stand-in for an OpenAI-compatible server: `POST /v1/chat/completions`, streaming and not,
with token usage.

It knows one thing: which of the shop's products a question is about. A system prompt with the word
"friendly" makes it talk more. Nothing leaves this machine.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS_PER_SECOND = 120.0
ADVICE = {
    "rain": "For rain take the tent: its seams are taped.",
    "cold": "In the cold the sleeping bag is what counts: comfort limit minus five.",
    "dark": "After dark the headlamp does it: 400 lumen, 40 hours.",
    "eat": "To eat well take the stove: it boils a litre in three minutes.",
}
UNKNOWN = "I know tents, sleeping bags, headlamps and stoves. What is the trip like?"


def answer_to(messages: list[dict[str, Any]]) -> str:
    """The answer to a conversation in OpenAI's form."""
    question = str(messages[-1]["content"]).lower()
    system = " ".join(
        str(message["content"]) for message in messages if message["role"] == "system"
    )
    advice = next((text for word, text in ADVICE.items() if word in question), UNKNOWN)
    return (
        f"What a lovely trip that will be! {advice} Shall I put one into your cart?"
        if "friendly" in system
        else advice
    )


def usage_of(messages: list[dict[str, Any]], answer: str) -> dict[str, int]:
    """Tokens, counted as words."""
    prompt, completion = (
        sum(len(str(message["content"]).split()) for message in messages),
        len(answer.split()),
    )
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


class FakeOpenAI(ThreadingHTTPServer):
    """Serves in a thread while a `with` block runs; `url` is the `base_url` for the client."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.served: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> FakeOpenAI:
        threading.Thread(target=self.serve_forever, name="fake-openai", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: FakeOpenAI
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self._send_json(
                404, {"error": {"message": "no such path", "type": "invalid_request_error"}}
            )
            return
        answer = answer_to(request["messages"])
        usage = usage_of(request["messages"], answer)
        self.server.served.append(usage)
        if request.get("stream"):
            self._send_stream(request, answer, usage)
        else:
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": answer},
                "finish_reason": "stop",
            }
            self._send_json(
                200, envelope(request, "chat.completion", choices=[choice], usage=usage)
            )

    def _send_json(self, status: int, body: dict[str, Any]) -> None:
        encoded = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def _send_stream(self, request: dict[str, Any], answer: str, usage: dict[str, int]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for chunk in chunks(request, answer, usage):
                data = f"data: {json.dumps(chunk)}\n\n".encode()
                self._send_chunk(data)
                time.sleep(1 / WORDS_PER_SECOND)
            self._send_chunk(b"data: [DONE]\n\n")
            self._send_chunk(b"")
        except OSError:  # the reader had enough
            self.close_connection = True

    def _send_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def envelope(request: dict[str, Any], kind: str, **body: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-local",
        "object": kind,
        "created": int(time.time()),
        "model": request["model"],
        **body,
    }


def chunks(request: dict[str, Any], answer: str, usage: dict[str, int]) -> Iterator[dict[str, Any]]:
    """One chunk per word, one with the reason for the end, and the usage where it was asked for."""
    for word in re.findall(r"\S+\s*", answer):
        yield envelope(
            request, "chat.completion.chunk", choices=[{"index": 0, "delta": {"content": word}}]
        )
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    yield envelope(request, "chat.completion.chunk", choices=[end])
    if (request.get("stream_options") or {}).get("include_usage"):
        yield envelope(request, "chat.completion.chunk", choices=[], usage=usage)
