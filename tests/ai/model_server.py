"""A loopback server that speaks as OpenAI, Anthropic, Google and Bedrock do: plain, streamed, refused, cut off, slow.

The figures are told in each provider's own way and mean the same call everywhere: 20 tokens read, 8 of them from a
cache, 6 written, 2 of them reasoning where the provider tells that apart.
"""

from __future__ import annotations

import binascii
import itertools
import json
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = ["Tents ", "keep ", "you ", "dry."]
INPUT, CACHED, OUTPUT, REASONING = 20, 8, 6, 2
Frames = Iterator[bytes]


@dataclass
class Behaviour:
    """What the server does with the next requests.

    Args:
        refuse: answer so many requests with 429 first.
        cut_after: break the connection after so many frames of a stream.
        pause: seconds between the frames of a stream, or before a plain answer.
        goes_on: frame *waits_at* of a stream waits for this, and then as long as two pauses.
        waits_at: the number of that frame; by default the last one.
        tool_call: the model asks for a tool first; once it has the tool's result, it answers.
        usage: tell the figures; OpenAI's streams tell them only when asked.
    """

    refuse: int = 0
    cut_after: int | None = None
    pause: float = 0.0
    goes_on: threading.Event | None = None
    waits_at: int = -1
    tool_call: bool = False
    usage: bool = True


class ModelServer(ThreadingHTTPServer):
    """Serves in a thread while a `with` block runs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = Behaviour()
        self.requests: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def behave(self, **how: Any) -> None:
        """Behave so from now on."""
        self.behaviour = Behaviour(**how)

    def __enter__(self) -> ModelServer:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: ModelServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Refuse, answer or stream."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}")
        behaviour = self.server.behaviour
        self.server.requests.append(
            {"path": self.path, "body": body, "headers": dict(self.headers)}
        )
        if behaviour.refuse > 0:
            behaviour.refuse -= 1
            self._send(
                429,
                {"error": {"message": "slow down", "type": "rate_limit", "code": 429}},
                {"retry-after-ms": "1"},
            )
            return
        answer = answer_to(self.path.partition("?")[0], body, behaviour)
        if isinstance(answer, dict):
            time.sleep(behaviour.pause)
            self._send(200, answer)
        else:
            self._stream(answer, behaviour)

    def _send(
        self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        encoded = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def _stream(self, frames: Frames, behaviour: Behaviour) -> None:
        binary = "converse-stream" in self.path
        self.send_response(200)
        self.send_header(
            "Content-Type", "application/vnd.amazon.eventstream" if binary else "text/event-stream"
        )
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for number, frame in enumerate(frames := list(frames)):
                if behaviour.cut_after is not None and number >= behaviour.cut_after:
                    self.close_connection = True
                    return
                if behaviour.goes_on is not None and number == behaviour.waits_at % len(frames):
                    behaviour.goes_on.wait(60)
                    time.sleep(2 * behaviour.pause)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(frame), frame))
                self.wfile.flush()
                time.sleep(behaviour.pause)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:  # the reader had enough
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


_numbers = itertools.count(1)


def answer_to(path: str, body: dict[str, Any], behaviour: Behaviour) -> dict[str, Any] | Frames:
    """The answer in the language of *path*: whole, or as frames."""
    stream = bool(body.get("stream")) or "stream" in path.lower()
    for part, whole, frames in _LANGUAGES:
        if part in path:
            return frames(body, behaviour) if stream else whole(body, behaviour)
    return {"error": {"message": f"no such path: {path}"}}


def _sse(event: dict[str, Any], name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(event)}\n\n".encode()


def _wants_tool(behaviour: Behaviour, body: dict[str, Any]) -> bool:
    """Whether a tool is asked for: not when its result is there already."""
    asked = json.dumps(body.get("messages") or body.get("input") or body.get("contents") or "")
    return behaviour.tool_call and not any(
        mark in asked
        for mark in (
            '"tool"',
            "function_call_output",
            "tool_result",
            "functionResponse",
            "toolResult",
        )
    )


# -- OpenAI chat completions ---------------------------------------------------------------------


def _chat_usage() -> dict[str, Any]:
    return {
        "prompt_tokens": INPUT,
        "completion_tokens": OUTPUT,
        "total_tokens": INPUT + OUTPUT,
        "prompt_tokens_details": {"cached_tokens": CACHED},
        "completion_tokens_details": {"reasoning_tokens": REASONING},
    }


def _chat_envelope(body: dict[str, Any], kind: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{next(_numbers)}",
        "object": kind,
        "created": 1,
        "model": body["model"],
        **fields,
    }


def _chat_tool() -> dict[str, Any]:
    call = {"id": f"call_{next(_numbers)}", "type": "function"}
    return {**call, "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


def chat(body: dict[str, Any], behaviour: Behaviour) -> dict[str, Any]:
    """A chat completion."""
    tool = _wants_tool(behaviour, body)
    message: dict[str, Any] = {"role": "assistant", "content": None if tool else "".join(WORDS)}
    if tool:
        message["tool_calls"] = [_chat_tool()]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if tool else "stop"}
    usage = {"usage": _chat_usage()} if behaviour.usage else {}
    return _chat_envelope(body, "chat.completion", choices=[choice], **usage)


def chat_frames(body: dict[str, Any], behaviour: Behaviour) -> Frames:
    """A chat completion, streamed."""
    same = _chat_envelope(body, "chat.completion.chunk")
    tool = _wants_tool(behaviour, body)
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += (
        [{"tool_calls": [{"index": 0, **_chat_tool()}]}]
        if tool
        else [{"content": word} for word in WORDS]
    )
    for delta in deltas:
        yield _sse({**same, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    end = {"index": 0, "delta": {}, "finish_reason": "tool_calls" if tool else "stop"}
    yield _sse({**same, "choices": [end]})
    if (body.get("stream_options") or {}).get("include_usage"):
        yield _sse({**same, "choices": [], "usage": _chat_usage()})
    yield b"data: [DONE]\n\n"


# -- OpenAI responses ----------------------------------------------------------------------------


def response(body: dict[str, Any], behaviour: Behaviour) -> dict[str, Any]:
    """A response."""
    if _wants_tool(behaviour, body):
        call = {
            "type": "function_call",
            "id": f"fc_{next(_numbers)}",
            "call_id": f"call_{next(_numbers)}",
        }
        output = {**call, "name": "weather", "arguments": '{"city": "Oslo"}', "status": "completed"}
    else:
        content = [{"type": "output_text", "text": "".join(WORDS), "annotations": []}]
        output = {
            "type": "message",
            "id": f"msg_{next(_numbers)}",
            "role": "assistant",
            "status": "completed",
            "content": content,
        }
    usage = {
        "input_tokens": INPUT,
        "output_tokens": OUTPUT,
        "total_tokens": INPUT + OUTPUT,
        "input_tokens_details": {"cached_tokens": CACHED, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": REASONING},
    }
    same = {
        "id": f"resp_{next(_numbers)}",
        "object": "response",
        "created_at": 1,
        "model": body["model"],
    }
    more = {
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "error": None,
        "incomplete_details": None,
    }
    return {
        **same,
        **more,
        "status": "completed",
        "output": [output],
        "usage": usage if behaviour.usage else None,
    }


def response_frames(body: dict[str, Any], behaviour: Behaviour) -> Frames:
    """A response, streamed."""
    whole = response(body, behaviour)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    item = whole["output"][0]
    events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    events.append(
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}}
    )
    if item["type"] == "message":
        part = {"type": "output_text", "text": "", "annotations": []}
        where = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        events.append({"type": "response.content_part.added", **where, "part": part})
        events += [
            {"type": "response.output_text.delta", **where, "delta": word, "logprobs": []}
            for word in WORDS
        ]
    events.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    events.append({"type": "response.completed", "response": whole})
    for number, event in enumerate(events):
        yield _sse({**event, "sequence_number": number}, event["type"])


# -- Anthropic -----------------------------------------------------------------------------------

_EXCLUSIVE = {
    "input_tokens": INPUT - CACHED - 3,
    "cache_read_input_tokens": CACHED,
    "cache_creation_input_tokens": 3,
}


def message(body: dict[str, Any], behaviour: Behaviour) -> dict[str, Any]:
    """A message."""
    tool = _wants_tool(behaviour, body)
    content = {"type": "text", "text": "".join(WORDS)}
    if tool:
        content = {
            "type": "tool_use",
            "id": f"toolu_{next(_numbers)}",
            "name": "weather",
            "input": {"city": "Oslo"},
        }
    return {
        "id": f"msg_{next(_numbers)}", "type": "message", "role": "assistant", "model": body["model"],
        "content": [content], "stop_reason": "tool_use" if tool else "end_turn", "stop_sequence": None,
        "usage": {**_EXCLUSIVE, "output_tokens": OUTPUT},
    }  # fmt: skip


def message_frames(body: dict[str, Any], behaviour: Behaviour) -> Frames:
    """A message, streamed; the output of its start is a placeholder."""
    whole = message(body, behaviour)
    begun = {
        **whole,
        "content": [],
        "stop_reason": None,
        "usage": {**_EXCLUSIVE, "output_tokens": 1},
    }
    block = whole["content"][0]
    empty = {"type": "text", "text": ""} if block["type"] == "text" else {**block, "input": {}}
    deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": word} for word in WORDS]
    if block["type"] == "tool_use":
        deltas = [{"type": "input_json_delta", "partial_json": '{"city": "Oslo"}'}]
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}]
    events.append({"type": "content_block_start", "index": 0, "content_block": empty})
    events += [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]
    events.append({"type": "content_block_stop", "index": 0})
    end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    events.append({"type": "message_delta", "delta": end, "usage": {"output_tokens": OUTPUT}})
    events.append({"type": "message_stop"})
    for event in events:
        yield _sse(event, event["type"])


# -- Google --------------------------------------------------------------------------------------


def _google_chunk(
    parts: list[dict[str, Any]], usage: dict[str, int], end: str | None, answer: int
) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if end:
        candidate["finishReason"] = end
    return {
        "candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-2.5-flash",
        "responseId": f"answer-{answer}",
    }  # fmt: skip


_GOOGLE_PROMPT = {"promptTokenCount": INPUT, "cachedContentTokenCount": CACHED}
_GOOGLE_WHOLE = {
    **_GOOGLE_PROMPT, "candidatesTokenCount": OUTPUT - REASONING, "thoughtsTokenCount": REASONING,
    "totalTokenCount": INPUT + OUTPUT,
}  # fmt: skip


def google(body: dict[str, Any], behaviour: Behaviour) -> dict[str, Any]:
    """An answer of `generateContent`."""
    part: dict[str, Any] = {"text": "".join(WORDS)}
    if _wants_tool(behaviour, body):
        part = {"functionCall": {"name": "weather", "args": {"city": "Oslo"}}}
    return _google_chunk([part], _GOOGLE_WHOLE, "STOP", next(_numbers))


def google_frames(body: dict[str, Any], behaviour: Behaviour) -> Frames:
    """The same, streamed: each chunk tells the figures so far."""
    answer = next(_numbers)
    for number, word in enumerate(WORDS):
        last = number == len(WORDS) - 1
        usage = _GOOGLE_WHOLE if last else {**_GOOGLE_PROMPT, "totalTokenCount": INPUT}
        yield _sse(_google_chunk([{"text": word}], usage, "STOP" if last else None, answer))


# -- Bedrock -------------------------------------------------------------------------------------

_CONVERSE_USAGE = {
    "inputTokens": INPUT - CACHED, "outputTokens": OUTPUT, "totalTokens": INPUT + OUTPUT,
    "cacheReadInputTokens": CACHED, "cacheWriteInputTokens": 0,
}  # fmt: skip


def converse(body: dict[str, Any], behaviour: Behaviour) -> dict[str, Any]:
    """An answer of `converse`."""
    block: dict[str, Any] = {"text": "".join(WORDS)}
    tool = _wants_tool(behaviour, body)
    if tool:
        block = {
            "toolUse": {
                "toolUseId": f"tool-{next(_numbers)}",
                "name": "weather",
                "input": {"city": "Oslo"},
            }
        }
    return {
        "output": {"message": {"role": "assistant", "content": [block]}},
        "stopReason": "tool_use" if tool else "end_turn",
        "usage": _CONVERSE_USAGE,
        "metrics": {"latencyMs": 5},
    }


def converse_frames(body: dict[str, Any], behaviour: Behaviour) -> Frames:
    """The same as AWS's binary event stream."""
    yield _event("messageStart", {"role": "assistant"})
    for word in WORDS:
        yield _event("contentBlockDelta", {"delta": {"text": word}, "contentBlockIndex": 0})
    yield _event("contentBlockStop", {"contentBlockIndex": 0})
    yield _event("messageStop", {"stopReason": "end_turn"})
    yield _event("metadata", {"usage": _CONVERSE_USAGE, "metrics": {"latencyMs": 5}})


def _event(name: str, payload: dict[str, Any]) -> bytes:
    """One message of `application/vnd.amazon.eventstream`: prelude, headers, payload, both checksums."""
    headers = b"".join(
        struct.pack("!B", len(key))
        + key.encode()
        + b"\x07"
        + struct.pack("!H", len(value))
        + value.encode()
        for key, value in (
            (":event-type", name),
            (":content-type", "application/json"),
            (":message-type", "event"),
        )
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack("!I", binascii.crc32(prelude)) + headers + body
    return message + struct.pack("!I", binascii.crc32(message))


_LANGUAGES: tuple[tuple[str, Any, Any], ...] = (
    ("/chat/completions", chat, chat_frames),
    ("/responses", response, response_frames),
    ("/messages", message, message_frames),
    ("enerateContent", google, google_frames),
    ("/converse", converse, converse_frames),
)
