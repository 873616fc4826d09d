"""The messages of a request: what they say of its end, whoever sends them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from asgi_calls import call, http, ok

from ldinstrument import testing
from ldinstrument.integrations.asgi import SessionMiddleware


@pytest.fixture
def events() -> Iterator[testing.RecordingClient]:
    with testing.recording() as recorder:
        yield recorder


def test_an_application_that_stops_in_the_middle_has_failed(
    events: testing.RecordingClient,
) -> None:
    """No response, or half of one: the server says 500 or cuts the connection."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    asyncio.run(call(SessionMiddleware(app, context="ada"), http()))
    done = events.only("request.interactions")
    assert (done.data["failures"], done.data["endReason"]) == (1, "error")


def test_a_disconnect_before_the_end_is_abandoned_and_after_it_nothing(
    events: testing.RecordingClient,
) -> None:
    """Servers report the same message for both."""

    async def early(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await ok(scope, receive, send)

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await ok(scope, receive, send)
        await receive()

    for app in (early, late):
        asyncio.run(
            call(SessionMiddleware(app, context="ada"), http(), {"type": "http.disconnect"})
        )

    assert [
        (event.data["abandoned"], event.data["successes"])
        for event in events.of("request.interactions")
    ] == [
        (1, 0),
        (0, 1),
    ]


def test_a_send_that_fails_is_a_client_that_has_left(events: testing.RecordingClient) -> None:
    """From ASGI 2.4 on servers raise OSError; the application hears of it unchanged."""

    async def serve() -> None:
        async def send(message: Any) -> None:
            raise BrokenPipeError

        async def receive() -> Any:
            raise AssertionError

        with pytest.raises(BrokenPipeError):
            await SessionMiddleware(ok, context="ada")(http(), receive, send)

    asyncio.run(serve())
    assert events.only("request.interactions").data["abandoned"] == 1


@pytest.mark.parametrize(
    ("code", "failures"),
    [(1000, 0), (1001, 0), (1008, 0), (4003, 0), (1011, 1), (1012, 1), (1013, 1), (1014, 1)],
)
def test_a_websocket_fails_when_its_server_says_so(
    events: testing.RecordingClient, code: int, failures: int
) -> None:
    """By its close code; a refusal of the application's own is none."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": code})

    scope = {"type": "websocket", "path": "/chat", "headers": []}
    asyncio.run(call(SessionMiddleware(app, context="ada"), scope))

    done = events.only("websocket.interactions")
    assert (done.data["failures"], done.data["successes"]) == (failures, 1 - failures)


@pytest.mark.parametrize(
    ("method", "status", "left"), [("HEAD", 200, 0), ("GET", 304, 0), ("GET", 200, 1)]
)
def test_a_response_without_a_body_is_complete_with_its_head(
    events: testing.RecordingClient, method: str, status: int, left: int
) -> None:
    """Some servers say that the client has left as soon as the head is out: only a body could still
    be missing.
    """

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        assert (await receive())["type"] == "http.disconnect"

    asyncio.run(
        call(
            SessionMiddleware(app, context="ada"), http(method=method), {"type": "http.disconnect"}
        )
    )

    done = events.only("request.interactions")
    assert (done.data["abandoned"], done.data["successes"]) == (left, 1 - left)


def ends(events: testing.RecordingClient, name: str = "request") -> dict[str, int]:
    """How the one request ended."""
    data = events.only(f"{name}.interactions").data
    kinds = ("successes", "failures", "cancelled", "abandoned")
    return {kind: data[kind] for kind in kinds if data[kind]}


def sending(*messages: dict[str, Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}


@pytest.mark.parametrize(
    "rest",
    [
        [{"type": "http.response.body"}],
        [
            {"type": "http.response.body", "body": b"a", "more_body": True},
            {"type": "http.response.body"},
        ],
        [{"type": "http.response.zerocopysend", "file": 3}],
        [{"type": "http.response.pathsend", "path": "/a"}],
    ],
    ids=["body", "chunks", "zerocopysend", "pathsend"],
)
def test_the_last_message_of_a_response_is_its_end(
    events: testing.RecordingClient, rest: list[dict[str, Any]]
) -> None:
    """However the body is sent."""
    app = SessionMiddleware(sending(START, *rest), context="ada")
    assert asyncio.run(call(app, http())) == [START, *rest]
    assert ends(events) == {"successes": 1}


@pytest.mark.parametrize(
    "message",
    [
        {"type": "http.response.body", "more_body": True},
        {"type": "http.response.zerocopysend", "file": 3, "more_body": True},
        {"type": "http.response.debug", "info": {}},
    ],
)
def test_any_other_message_is_not(events: testing.RecordingClient, message: dict[str, Any]) -> None:
    """An application that stops after it has failed."""
    asyncio.run(call(SessionMiddleware(sending(START, message), context="ada"), http()))
    assert ends(events) == {"failures": 1}


def test_the_status_decides_what_a_complete_response_is(events: testing.RecordingClient) -> None:
    """From 500 on it is a failure."""
    body = {"type": "http.response.body"}
    app = SessionMiddleware(sending({**START, "status": 503}, body), context="ada")
    asyncio.run(call(app, http()))
    assert ends(events) == {"failures": 1}


def websocket() -> dict[str, Any]:
    return {"type": "websocket", "path": "/chat", "headers": []}


@pytest.mark.parametrize(
    ("messages", "status", "end"),
    [
        ([{"type": "websocket.accept"}, {"type": "websocket.close"}], 101, {"successes": 1}),
        ([{"type": "websocket.accept"}], 101, {"successes": 1}),
        ([{"type": "websocket.close"}], 403, {"successes": 1}),
        ([{"type": "websocket.http.response.start", "status": 503}], 503, {"failures": 1}),
    ],
    ids=["closed", "returned", "refused", "denied"],
)
def test_a_websocket_ends_as_it_is_closed(
    events: testing.RecordingClient, messages: Any, status: int, end: dict[str, int]
) -> None:
    """Accepted or refused by the application, or answered as a request."""
    asyncio.run(call(SessionMiddleware(sending(*messages), context="ada"), websocket()))
    assert ends(events, "websocket") == end
    assert events.only("websocket.interactions").data["status"] == status


@pytest.mark.parametrize("how", ["disconnect", "send"])
def test_a_client_that_leaves_a_websocket_ends_it_well(
    events: testing.RecordingClient, how: str
) -> None:
    """That is how websockets end; the application hears of it unchanged."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        if how == "disconnect":
            assert (await receive())["type"] == "websocket.disconnect"
        else:
            await send({"type": "websocket.send", "text": "hello"})

    async def serve() -> None:
        async def send(message: Any) -> None:
            if message["type"] == "websocket.send":
                raise BrokenPipeError

        async def receive() -> Any:
            return {"type": "websocket.disconnect", "code": 1001}

        await SessionMiddleware(app, context="ada")(websocket(), receive, send)

    if how == "disconnect":
        asyncio.run(serve())
    else:
        with pytest.raises(BrokenPipeError):
            asyncio.run(serve())
    assert ends(events, "websocket") == {"successes": 1}
