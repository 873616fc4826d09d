"""Bodies that are no events: bounded wherever they are read."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request

from ldinstrument.devserver.request_body import MOST_BYTES, read_body
from ldinstrument.devserver.responses import RefusedRequest


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v2/flags/default"),
        ("PATCH", "/api/v2/metrics/default/m"),
        ("PUT", "/dev/flags/f"),
        ("POST", "/dev/forms/flag"),
        ("POST", "/ldinstrument/program"),
        ("REPORT", "/sdk/evalx/env/context"),
    ],
)
def test_a_body_beyond_the_bound_is_refused_while_it_comes(http, method, path):
    """In chunks without a length: 413, and the server answers on."""

    chunks = iter([b"x" * MOST_BYTES, b"x"])
    assert http(method, path, data=chunks).status_code == 413
    assert http("GET", "/dev/flags").status_code == 200


def test_a_body_of_just_the_bound_is_read_whole():
    """However it was cut on its way; one byte more is refused."""

    def read(*chunks: bytes) -> bytes:
        parts = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
        messages = iter([*parts, {"type": "http.request", "body": b""}])

        async def receive() -> dict:
            return next(messages)

        return asyncio.run(read_body(Request({"type": "http"}, receive), 10))

    assert read() == b""
    assert read(b"1234567890") == read(b"1234", b"", b"567890") == b"1234567890"
    with pytest.raises(RefusedRequest) as refused:
        read(b"1234", b"5678901")
    assert refused.value.status == 413
