"""Visitors of the demo: real HTTP requests, and an account of what they got, apart from all
instrumentation.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlencode
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

QUESTIONS = ("reset", "invoice", "shipping")
TIMEOUT = 30.0


@dataclass(slots=True)
class Account:
    """What the visitors of one voice got, counted from the answers that they received."""

    visitors: set[str] = field(default_factory=set)
    requests: int = 0
    helpful: int = 0
    failed: int = 0
    sales: float = 0.0


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    """A thread per request; `server_close` waits for them, whose sessions may end after the answer
    has arrived.
    """


class _Quiet(WSGIRequestHandler):
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """No access log between the rows of the demo."""


@contextmanager
def served(application: Callable[..., Any]) -> Iterator[tuple[str, int]]:
    """Serve *application* on a free loopback port for the length of the block."""
    server = make_server(
        "127.0.0.1", 0, application, server_class=_ThreadingServer, handler_class=_Quiet
    )
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    try:
        yield "127.0.0.1", server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def drive(
    address: tuple[str, int], visitors: int, progress: Callable[[], None]
) -> dict[str, Account]:
    """Let *visitors* ask every question, a few at a time; returns the accounts by voice."""
    accounts: dict[str, Account] = {}
    lock = threading.Lock()

    def visit(number: int) -> None:
        for question in QUESTIONS:
            status, body = _ask(address, f"visitor-{number}", question)
            with lock:
                _note(
                    accounts.setdefault(body["voice"], Account()), f"visitor-{number}", status, body
                )
            progress()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(visitors)))
    return accounts


def _ask(address: tuple[str, int], visitor: str, question: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(*address, timeout=TIMEOUT)
    try:
        connection.request("GET", "/ask?" + urlencode({"visitor": visitor, "question": question}))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def _note(account: Account, visitor: str, status: int, body: dict[str, Any]) -> None:
    account.visitors.add(visitor)
    account.requests += 1
    account.failed += status >= 500
    account.helpful += bool(body.get("helpful"))
    account.sales += body.get("sale", 0.0)
