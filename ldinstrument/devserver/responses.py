"""Error documents, the clock and strict JSON of the local LaunchDarkly."""

from __future__ import annotations

import json
import math
import time
import uuid
from typing import Any


class RefusedRequest(Exception):  # noqa: N818 - an answer, not a failure
    """A request that LaunchDarkly would refuse, as the answer it would give.

    Args:
        status: the HTTP status.
        code: LaunchDarkly's error code, such as `invalid_request`.
        message: what is wrong, for a person.
        headers: further response headers.
    """

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}

    def body(self) -> dict[str, str]:
        """Return the error document: code, message and a support id."""
        return {"code": self.code, "message": self.message, "id": str(uuid.uuid4())}


def invalid(message: str) -> RefusedRequest:
    """400 invalid_request."""
    return RefusedRequest(400, "invalid_request", message)


def not_found(message: str = "Invalid resource identifier") -> RefusedRequest:
    """404 not_found."""
    return RefusedRequest(404, "not_found", message)


def too_large() -> RefusedRequest:
    """413 payload_too_large."""
    return RefusedRequest(413, "payload_too_large", "Request body is too large")


def now_ms() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


STRICT = json.JSONDecoder(parse_constant=_refuse_constant)


def _finite(text: str) -> float:
    found = float(text)
    if math.isinf(found):
        raise ValueError(f"{text} is out of range")
    return found


STRICTER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def decode(body: bytes) -> Any:
    """Strict JSON that can be written again: UTF-8, no NaN, no infinity (1e999 neither), no half
    surrogate pair.

    Raises:
        ValueError: it is not that, or nested too deeply to be read.
    """
    try:
        found = STRICTER.decode(body.decode("utf-8"))
        if b"\\u" in body:
            json.dumps(found, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return found
