"""One behaviour suite for all frameworks, over real HTTP: when a session begins, for whom, and when
it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from ldinstrument.integrations.request_session import RequestSession, end_requests
from ldinstrument.sessions import registry
from ldinstrument.sessions.scopes import open_session
from ldinstrument.stores import open_store
from ldinstrument.testing import RecordingClient


def outcome(event: Any) -> tuple[int, int, int]:
    """Successes, failures, and interactions that were neither."""
    return (
        event.data["successes"],
        event.data["failures"],
        event.data["abandoned"] + event.data["cancelled"],
    )


def test_a_plain_request_is_one_session_with_one_successful_interaction(
    running: Any, events: Any
) -> None:
    """The session's data names method and status; the task's events carry the request's user."""
    answer = running.get("/items/7")

    done = events.only("request.interactions")
    assert outcome(done) == (1, 0, 0)
    assert (done.data["method"], done.data["status"]) == ("GET", 200)
    assert "ada" == done.context.key == events.only("business.conversion").context.key
    assert answer.text.strip('"') == done.data["sessionId"]
    assert events.only("request.duration").value > 0
    assert events.only("request.success_rate").value == 100.0


def test_the_route_is_a_template_and_nothing_the_user_typed(running: Any, events: Any) -> None:
    """Neither paths nor queries reach the data: a found route shows as its template, an unknown one
    not at all.
    """
    running.get("/items/7?token=typed-by-user")
    found = events.only("request.interactions").data  # ended before the next one
    running.get("/typed-by-user")

    unknown = events.of("request.interactions", 2)[1].data
    assert "typed-by-user" not in repr((found, unknown))
    assert unknown["status"] == 404
    assert "route" not in unknown
    if "route" in running.kind.features:
        assert found["route"] in ("/items/<int:item>", "/items/{item}", "/items/{item:int}")


def test_an_odd_method_is_not_kept(running: Any, events: Any) -> None:
    """A method is typed by the user, too: unknown ones become OTHER."""
    with contextlib.suppress(httpx.HTTPError):
        running.http.request("TYPEDBYUSER", "/who", headers={"X-User": "ada"})

    assert "TYPEDBYUSER" not in repr(running.kind) + repr([event.data for event in events.recorder])


def test_an_exception_in_the_view_is_a_failure(running: Any, events: Any) -> None:
    """The session ends, and is counted, also when the view raises."""
    running.get("/boom")

    assert outcome(events.only("request.interactions")) == (0, 1, 0)
    assert events.only("request.success_rate").value == 0.0


def test_an_exception_in_another_middleware_is_a_failure(running: Any, events: Any) -> None:
    """Ours is outside of the others, so their failures belong to the request."""
    with contextlib.suppress(httpx.HTTPError):
        running.get("/who", **{"X-Break": "1"})

    assert outcome(events.only("request.interactions")) == (0, 1, 0)


@pytest.mark.parametrize(
    ("path", "expected"), [("/teapot", (1, 0, 0)), ("/unavailable", (0, 1, 0))]
)
def test_an_error_status_is_a_failure_from_500(
    running: Any, events: Any, path: str, expected: Any
) -> None:
    """What the client did wrong is no failure of the program."""
    answer = running.get(path)

    done = events.only("request.interactions")
    assert expected == outcome(done)
    assert answer.status_code == done.data["status"]


def test_a_session_lasts_until_the_last_byte_of_a_stream(running: Any, events: Any) -> None:
    """What each step of a streamed body records belongs to the request's session."""
    answer = running.get(running.path("/stream"))

    assert answer.text == "012"
    done = events.only("request.interactions")
    assert outcome(done) == (1, 0, 0)
    # business.conversion is a sum: the three steps met in one session
    assert events.only("business.conversion").value == 3.0
    assert events.only("business.conversion").context.key == "ada"


def test_an_exception_in_the_stream_is_a_failure(running: Any, events: Any) -> None:
    """The status was 200 already, and yet the user did not get the answer."""
    with contextlib.suppress(httpx.HTTPError):
        running.get(running.path("/stream-boom"))

    assert outcome(events.only("request.interactions")) == (0, 1, 0)


def test_a_client_that_leaves_is_neither_success_nor_failure(running: Any, events: Any) -> None:
    """The request is abandoned: counted beside the others, without a duration; and it ends long
    before its stream.
    """
    leave_early(running.port, running.path("/endless"))

    done = events.only("request.interactions")
    assert outcome(done) == (0, 0, 1)
    assert done.data["endReason"] == "abandoned"
    assert done.value == 0
    assert (
        [] == events.recorder.of("request.duration") == events.recorder.of("request.success_rate")
    )
    assert events.only("business.conversion").value == 1.0  # from the stream's own `finally`


def leave_early(port: int, path: str) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=100) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-User: ada\r\n\r\n".encode()
        )
        assert b"200" in connection.recv(1000)


def test_two_requests_at_once_have_a_session_each(running: Any, events: Any) -> None:
    """They wait for each other inside the view: what each records is its own user's."""
    path = running.path("/meet")
    with ThreadPoolExecutor(2) as pool:
        answers = [
            job.result()
            for job in [pool.submit(running.get, path, user) for user in ("ada", "bob")]
        ]

    assert len({answer.text for answer in answers}) == 2
    assert {"ada", "bob"} == {event.context.key for event in events.of("request.interactions", 2)}
    for event in events.of("business.conversion", 2):
        assert event.context.key == event.data["user"]


@pytest.mark.parametrize("path", ["/health", "/quiet/who"])
def test_health_checks_and_ignored_paths_have_no_session(
    running: Any, events: Any, path: str
) -> None:
    """Nor does the session of the request before on the same connection leak into them."""
    with running.connection() as client:
        client.get("/who")
        answer = client.get(path)

    assert answer.text.strip('"') == "none"
    assert len(events.of("request.interactions")) == 1


def test_a_probe_by_its_user_agent_has_no_session(running: Any, events: Any) -> None:
    """Whatever path an orchestrator asks for."""
    answer = running.get("/who", **{"User-Agent": "kube-probe/1.30"})

    assert answer.text.strip('"') == "none"
    assert events.none()


def test_a_cors_preflight_has_no_session(running: Any, events: Any) -> None:
    """The browser asks it, not the user; an OPTIONS of somebody's own is a request like any
    other.
    """
    asked = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "PUT",
        "X-User": "ada",
    }
    running.http.options("/who", headers=asked)
    running.http.options("/who", headers={"X-User": "bob"})

    done = events.only("request.interactions")
    assert (done.context.key, done.data["method"]) == ("bob", "OPTIONS")


def test_a_login_inside_the_request_gives_the_session_its_user(running: Any, events: Any) -> None:
    """Nobody was known at the beginning; `identify` says it in time for all events."""
    running.get("/login", user=None)

    assert events.only("request.interactions").context.key == "late"


def test_nothing_is_left_open_after_many_requests(running: Any, events: Any) -> None:
    """Twenty requests on one connection: twenty sessions, each ended, all different."""
    with running.connection() as client:
        answers = {client.get(running.path("/who")).text for _ in range(20)}

    assert len(answers) == 20
    assert len({event.data["sessionId"] for event in events.of("request.interactions", 20)}) == 20
    assert registry.open_sessions() == []


def test_a_background_task_belongs_to_the_request_but_not_to_its_duration(
    running: Any, events: Any
) -> None:
    """The user had the answer before it began; its values are the session's all the same."""
    if "background" not in running.kind.features:
        pytest.skip("this framework has no background tasks")
    answered = sys.modules["integration_applications"].ANSWERED
    answered.clear()
    began = time.perf_counter()
    running.get("/background")
    waited = (time.perf_counter() - began) * 1000
    answered.set()

    assert events.only("business.conversion").value == 9.0
    assert events.only("business.conversion").context.key == "ada"
    assert events.only("request.duration").value <= waited  # the task ends 50 ms after that


@pytest.mark.parametrize(
    ("says", "expected"),
    [(["hello", "again"], (1, 0, 0)), (["boom"], (0, 1, 0)), (["fail"], (0, 1, 0))],
)
def test_a_websocket_is_one_session_of_its_own_name(
    running: Any, events: Any, says: Any, expected: Any
) -> None:
    """From the handshake to the close; its minutes do not spoil the durations of requests."""
    if "websocket" not in running.kind.features:
        pytest.skip("this framework has no websockets")
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    with contextlib.suppress(ConnectionClosed):
        address = f"ws://127.0.0.1:{running.port}/chat"
        with connect(address, additional_headers={"X-User": "ada"}, proxy=None) as socket:
            for text in says:
                socket.send(text)
                socket.recv(timeout=100)

    done = events.only("websocket.interactions")
    assert expected == outcome(done)
    assert done.context.key == "ada"
    assert events.recorder.of("request.interactions") == []


def test_a_request_that_waits_for_a_thread_to_end_has_ended(tmp_path: Path) -> None:
    """Whoever ends what is open meanwhile (a shutdown) leaves it to its visit."""

    async def ends_while_all_threads_are_busy() -> str:
        threads, busy = ThreadPoolExecutor(1), threading.Event()
        asyncio.get_running_loop().set_default_executor(threads)
        threads.submit(busy.wait)
        ending = asyncio.ensure_future(request.aend())
        await asyncio.sleep(0)
        end_requests([request])
        busy.set()
        await ending
        record = store.end("visitor-1")
        return "" if record is None else record.id

    store = open_store(f"sqlite:///{tmp_path}/sessions.db", client=RecordingClient(), sweep=False)
    session = open_session("ana", store=store, client=RecordingClient())
    request = RequestSession(session, method="GET", store=store)
    request.visitor = "visitor-1"
    request.set_outcome()
    try:
        assert asyncio.run(ends_while_all_threads_are_busy()) == session.id
    finally:
        store.close()
