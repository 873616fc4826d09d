"""The demo's visitors: real requests, and an account of their own of what they got."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

import pytest

from ldinstrument.demo.traffic import QUESTIONS, Account, drive, served


def desk(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer by the visitor's number: every second one gets the long voice, every third nothing."""
    visitor = parse_qs(environ["QUERY_STRING"])["visitor"][0]
    number = int(visitor.removeprefix("visitor-"))
    body: dict[str, Any] = {"voice": "long" if number % 2 else "short"}
    if number % 3:
        body |= {"helpful": True, "sale": 2.5}
    start_response("200 OK" if number % 3 else "503 Service Unavailable", [])
    return [json.dumps(body).encode()]


def test_what_the_visitors_got_is_counted_by_voice() -> None:
    """Every visitor asks every question once; a failed answer is no help and no sale."""
    steps: list[None] = []
    with served(desk) as address:
        accounts = drive(address, 12, lambda: steps.append(None))
    assert len(steps) == 12 * len(QUESTIONS)
    assert set(accounts) == {"short", "long"}
    for account in accounts.values():
        assert len(account.visitors) == 6
        assert account.requests == 6 * len(QUESTIONS)
        assert account.failed == 2 * len(QUESTIONS)
        assert account.helpful == 4 * len(QUESTIONS)
        assert account.sales == pytest.approx(4 * 2.5 * len(QUESTIONS))
    assert not accounts["short"].visitors & accounts["long"].visitors


def test_nobody_is_served_after_the_block() -> None:
    """The port is free again, and no thread is left."""
    with served(desk) as (host, port):
        with urllib.request.urlopen(f"http://{host}:{port}/ask?visitor=visitor-1") as answer:
            assert answer.status == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port), timeout=5)


def test_a_desk_that_is_broken_is_an_error() -> None:
    """The demo must not tell numbers of answers that nobody could read."""

    def broken(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [b"no json"]

    with served(broken) as address, pytest.raises(ValueError):
        drive(address, 1, lambda: None)
    assert Account() == Account(set(), 0, 0, 0, 0.0)
