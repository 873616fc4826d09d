"""Invocations: a session around a handler that ends in time, whose it is, and how long a flush may
take.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import sys
import threading
import time
from typing import Any
from unittest.mock import MagicMock

import pytest
from lambda_contexts import LambdaContext
from ldclient import Context

import ldinstrument as ld
from ldinstrument import FlushReport
from ldinstrument import ledger as ledgers
from ldinstrument.errors import DefinitionError
from ldinstrument.integrations import aws_lambda
from ldinstrument.integrations.aws_lambda import invocations, lambda_handler
from ldinstrument.integrations.aws_lambda.watchdog import Watchdog
from ldinstrument.integrations.request_metrics import request_context
from ldinstrument.testing import RecordingClient


@pytest.fixture(name="client")
def _client() -> RecordingClient:
    return RecordingClient()


@pytest.fixture(autouse=True)
def _fresh_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is a process that has not been invoked yet, outside Lambda."""
    monkeypatch.setattr(invocations, "_cold", True)
    monkeypatch.setattr(aws_lambda, "_tried", False)
    monkeypatch.setattr(aws_lambda, "_extension", None)
    for name in (
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_MAX_CONCURRENCY",
    ):
        monkeypatch.delenv(name, raising=False)


def test_provisioned_concurrency_has_no_cold_start(
    client: RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the initialisation was over before anybody asked."""
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "provisioned-concurrency")

    lambda_handler(context="u", client=client)(lambda event, context: None)({}, LambdaContext())

    assert client.only("invocation.duration").data["coldStart"] is False


def test_the_handlers_exception_passes_untouched_and_is_a_failure(client: RecordingClient) -> None:
    """The same object, without a cause or a note of ours."""
    error = KeyError("no such cart")

    @lambda_handler(context="u", client=client)
    def handler(event: Any, context: Any) -> None:
        raise error

    with pytest.raises(KeyError) as caught:
        handler({}, LambdaContext())

    assert caught.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
    ended = client.only("invocation.success_rate")
    assert (ended.value, ended.data["endReason"], ended.data["failures"]) == (0.0, "error", 1)


@pytest.mark.parametrize(("code", "rate"), [(0, [100.0]), (3, [0.0])])
def test_sys_exit_counts_as_it_says(client: RecordingClient, code: int, rate: list[float]) -> None:
    """`sys.exit(0)` is a success, any other a failure; the exit happens all the same."""

    @lambda_handler(context="u", client=client)
    def handler(event: Any, context: Any) -> None:
        sys.exit(code)

    with pytest.raises(SystemExit):
        handler({}, LambdaContext())

    assert client.values("invocation.success_rate") == rate


def test_an_interrupted_invocation_is_neither_a_success_nor_a_failure(
    client: RecordingClient,
) -> None:
    """A sandbox that is shut down, say: it counts as cancelled, and in no rate."""

    @lambda_handler(context="u", client=client)
    def handler(event: Any, context: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        handler({}, LambdaContext())

    assert client.values("invocation.interactions") == [0]
    assert client.values("invocation.success_rate") == []


class Taking:
    """An extension that takes everything and never gets to deliver it."""

    def begin(self, request_id: str) -> None: ...

    def finish(self, request_id: str, deliver: Any) -> bool:
        return True


@pytest.mark.parametrize(
    ("error", "flushes"),
    [(None, 0), (ValueError(), 0), (SystemExit(1), 1), (KeyboardInterrupt(), 1)],
    ids=str,
)
def test_what_ends_the_process_is_delivered_at_once(
    error: BaseException | None, flushes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There will be no freeze before which the extension could do it; all else is left to the
    extension.
    """
    flushed: list[float] = []
    monkeypatch.setattr(invocations.FlushBudget, "flush", lambda self, left: flushed.append(left))
    monkeypatch.setattr(aws_lambda, "_tried", True)
    monkeypatch.setattr(aws_lambda, "_extension", Taking())

    @lambda_handler(context="u", client=RecordingClient(), deliver="after_response")
    def handler(event: Any, context: Any) -> None:
        if error is not None:
            raise error

    with contextlib.nullcontext() if error is None else pytest.raises(type(error)):
        handler({}, LambdaContext())

    assert len(flushed) == flushes


def test_context_may_be_a_callable_of_event_and_lambda_context(client: RecordingClient) -> None:
    """It gets both arguments, and may answer with a Context."""

    @lambda_handler(
        context=lambda event, context: (
            Context.builder(event["userId"]).set("fn", context.function_name).build()
        ),
        client=client,
    )
    def handler(event: Any, context: Any) -> None:
        ld.current_session().conversion(3)

    handler({"userId": "user-9"}, LambdaContext())

    assert {event.context.key for event in client} == {"user-9"}
    assert client.only("business.conversion").context.get("fn") == "quotes"


def test_a_failing_extractor_costs_only_the_identity(client: RecordingClient, caplog: Any) -> None:
    """The handler runs, may identify later, and the failure is said once."""

    @lambda_handler(context=lambda event, context: event["userId"], client=client)
    def handler(event: Any, context: Any) -> str:
        ld.current_session().identify("late-9")
        return "fine"

    assert handler({}, LambdaContext()) == "fine"
    assert handler({}, LambdaContext("request-2")) == "fine"

    assert {event.context.key for event in client.of("invocation.duration")} == {"late-9"}
    said = [record for record in caplog.records if record.name == "ldinstrument"]
    assert len(said) == 1
    assert "context= of lambda_handler" in said[0].getMessage()


def test_data_may_be_made_from_the_event(client: RecordingClient) -> None:
    """It stands beside what we say of the function; what fails is left out."""

    @lambda_handler(
        context="u", data=lambda event, context: {"route": event["path"]}, client=client
    )
    def handler(event: Any, context: Any) -> None: ...

    handler({"path": "/quote"}, LambdaContext())
    handler({}, LambdaContext())

    first, second = client.of("invocation.duration")
    assert (first.data["route"], first.data["functionName"]) == ("/quote", "quotes")
    assert "route" not in second.data


def test_success_judges_the_result(client: RecordingClient) -> None:
    """An API handler's 500 is a failure though nothing was raised; a broken judgement changes
    nothing.
    """

    @lambda_handler(context="u", success=lambda result: result["statusCode"] < 500, client=client)
    def handler(event: Any, context: Any) -> Any:
        return event

    handler({"statusCode": 200}, LambdaContext())
    handler({"statusCode": 503}, LambdaContext())
    assert handler({}, LambdaContext()) == {}

    assert client.values("invocation.success_rate") == [100.0, 0.0, 100.0]


async def coroutine(event: Any, context: Any) -> None: ...


def generator(event: Any, context: Any) -> Any:
    yield


async def async_generator(event: Any, context: Any) -> Any:
    yield


class Callable:
    """A handler as an object, as frameworks have it."""

    def __call__(self, event: Any, context: Any) -> Any:
        return event


class AsyncCallable:
    async def __call__(self, event: Any, context: Any) -> None: ...


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        (coroutine, "asyncio.run"),
        (functools.partial(functools.partial(coroutine)), "asyncio.run"),
        (AsyncCallable(), "asyncio.run"),
        (generator, "whole result"),
        (async_generator, "whole result"),
        (Callable, "a function"),
        ("handler", "a function"),
    ],
)
def test_what_awss_runtime_cannot_call_is_refused_at_decoration(target: Any, advice: str) -> None:
    """AWS would try to serialise a coroutine; the error says what to write instead."""
    with pytest.raises(DefinitionError, match=advice):
        lambda_handler(target)
    with pytest.raises(DefinitionError, match=advice):
        lambda_handler(context="u")(target)


def test_objects_methods_and_keyword_arguments_work(client: RecordingClient) -> None:
    """Mangum is a callable object; a class-based handler is a method; tests like keywords."""

    class Service:
        @lambda_handler(context=lambda event, context: event["u"], client=client)
        def handle(self, event: Any, context: Any) -> Any:
            return self, event

    service = Service()
    assert lambda_handler(context="u", client=client)(Callable())(
        {"a": 1}, LambdaContext("one")
    ) == {"a": 1}
    assert service.handle({"u": "m"}, LambdaContext("two")) == (service, {"u": "m"})
    assert service.handle(event={"u": "k"}, context=LambdaContext("three"))[1] == {"u": "k"}

    assert [event.data["sessionId"] for event in client.of("invocation.duration")] == [
        "one",
        "two",
        "three",
    ]
    assert [event.context.key for event in client.of("invocation.duration")] == ["u", "m", "k"]


@pytest.mark.parametrize(
    "call",
    [
        lambda handler, event, context: handler(event, context),
        lambda handler, event, context: handler(context=context, event=event),
        lambda handler, event, context: handler(event, context=context),
        lambda handler, event, context: handler(event, context, "extra"),
        lambda handler, event, context: handler(event, context, extra=1),
        lambda handler, event, context: handler(event),
    ],
    ids=["positional", "keywords", "both", "a third", "a third by name", "the event only"],
)
def test_extractors_get_event_and_context_wherever_they_stand(
    client: RecordingClient, call: Any
) -> None:
    """AWS passes two; whoever calls a handler from a test or a router passes what its signature
    takes.
    """

    @lambda_handler(context=lambda event, context: event["userId"], client=client)
    def handler(event: Any, context: Any = None, extra: Any = None) -> Any:
        return event, context

    aws = LambdaContext()
    assert call(handler, {"userId": "u-7"}, aws) in (
        ({"userId": "u-7"}, aws),
        ({"userId": "u-7"}, None),
    )
    assert client.only("invocation.duration").context.key == "u-7"


def test_a_handler_of_no_known_signature_gets_the_last_two(client: RecordingClient) -> None:
    """A wrapper that hides what it wraps, as a function and as a method."""

    def hidden(*args: Any, **kwargs: Any) -> Any:
        return args

    handler = lambda_handler(context=lambda event, context: event["userId"], client=client)(hidden)
    handler({"userId": "a"}, LambdaContext())
    handler("self", {"userId": "b"}, LambdaContext("request-2"))

    assert [event.context.key for event in client.of("invocation.duration")] == ["a", "b"]


def test_a_handler_inside_a_handler_is_one_invocation(client: RecordingClient) -> None:
    """A router that calls a decorated handler with its own context adds no second session."""

    @lambda_handler(context="inner", client=client)
    def inner(event: Any, context: Any) -> str:
        return "inner"

    @lambda_handler(context="outer", client=client)
    def outer(event: Any, context: Any) -> str:
        return inner(event, context)

    assert outer({}, LambdaContext()) == "inner"
    assert client.only("invocation.duration").context.key == "outer"
    assert client.values("invocation.interactions") == [1]


class Hostile:
    """A context, perhaps somebody's proxy, of which every question fails."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize(
    "context", [None, object(), MagicMock(), Hostile()], ids=lambda one: type(one).__name__
)
def test_a_strange_lambda_context_changes_nothing(client: RecordingClient, context: Any) -> None:
    """Unit tests call handlers with None or a mock, whose time-out is no number, and must not look
    like one.
    """

    @lambda_handler(context="u", client=client)
    def handler(event: Any, context: Any) -> Any:
        return context

    assert handler({}, context) is context
    ended = client.only("invocation.duration").data
    assert (len(ended["sessionId"]), ended["functionName"], ended["endReason"]) == (
        32,
        None,
        "ended",
    )


@pytest.mark.parametrize(
    "left", [0, -1, float("nan"), float("inf"), sys.maxsize, 10**30, "3000"], ids=str
)
def test_no_answer_about_the_time_left_makes_a_time_out(
    client: RecordingClient, monkeypatch: pytest.MonkeyPatch, left: Any
) -> None:
    """Stubs answer 0, or for ever: the invocation ends as it does, and the watchdog lives on."""
    monkeypatch.setattr(invocations, "watchdog", Watchdog())
    stub, rung = LambdaContext(), threading.Event()
    stub.get_remaining_time_in_millis = lambda: left  # type: ignore[method-assign]

    lambda_handler(context="u", client=client)(lambda event, context: time.sleep(0.02))({}, stub)
    invocations.watchdog.arm(time.monotonic(), rung.set)

    assert client.only("invocation.duration").data["endReason"] == "ended"
    assert rung.wait(30)


def test_a_question_about_the_time_left_may_fail(client: RecordingClient) -> None:
    """Then nobody knows, which costs the watchdog, not the invocation's numbers."""
    stub = LambdaContext()
    stub.get_remaining_time_in_millis = lambda: 1 // 0  # type: ignore[method-assign]

    assert (
        lambda_handler(context="u", client=client)(lambda event, context: "ran")({}, stub) == "ran"
    )
    assert client.only("invocation.duration").data["endReason"] == "ended"


def test_an_outage_costs_each_invocation_half_of_the_one_before(
    caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that accepts and never answers; the first confirmed flush restores the full time."""
    import ldclient

    with socket.create_server(("127.0.0.1", 0)) as black_hole:
        uri = f"http://127.0.0.1:{black_hole.getsockname()[1]}"
        config = ld.launchdarkly_config(
            "sdk-key", events_only=True, events_uri=uri, base_uri=uri, stream_uri=uri
        )
        client = ldclient.LDClient(config)
        budget = invocations.FlushBudget(client, timeout=0.4, reserve=0.1)
        given = []
        real = invocations.flush

        def flush(timeout: float, client: Any) -> FlushReport:
            given.append(timeout)
            return real(timeout, client)

        monkeypatch.setattr(invocations, "flush", flush)
        for _ in range(4):
            client.track("e", Context.create("u"))
            budget.flush(left=10.0)
        budget.flush(left=0.0)
        assert given == [0.4, 0.2, 0.1, 0.1]
        assert caplog.text.count("they stay pending and leave with the next invocation") == 1
        ledgers.ledger.clear()
    threading.Thread(target=client.close, daemon=True).start()


def test_a_confirmed_flush_restores_the_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that ended early because nothing more could happen: only a flush that ran out of
    time costs the next.
    """
    reports = [
        FlushReport(timed_out=True, pending=1),
        FlushReport(timed_out=True, failed=1),
        FlushReport(delivered=2),
    ]
    given: list[float] = []

    def flush(timeout: float, client: Any) -> FlushReport:
        given.append(timeout)
        return reports[(len(given) - 1) % 3]

    monkeypatch.setattr(invocations, "flush", flush)
    budget = invocations.FlushBudget(None, timeout=2.0, reserve=0.2)
    for _ in range(5):
        budget.flush(left=60.0)

    assert given == [2.0, 1.0, 0.5, 2.0, 1.0]


@pytest.mark.parametrize(("reserve", "most"), [(0.0, 60.0), (1.0, 59.0), (30.0, 54.0)])
def test_the_reserve_is_left_to_the_runtime(
    reserve: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush ends before it, the watchdog rings before it; of a minute it is six seconds at
    most.
    """
    left: list[float] = []
    alarms: list[float] = []
    monkeypatch.setattr(
        invocations.FlushBudget, "flush", lambda self, seconds: left.append(seconds)
    )
    monkeypatch.setattr(
        invocations.watchdog, "arm", lambda at, action: alarms.append(at - time.monotonic())
    )
    context = LambdaContext(seconds=60.0)

    lambda_handler(context="u", client=RecordingClient(), reserve=reserve)(
        lambda event, context: None
    )({}, context)

    assert 0 < left[0] <= most
    assert 0 < alarms[0] <= most - 0.5


V2 = {
    "version": "2.0",
    "headers": {"host": "shop.example", "x-forwarded-proto": "https"},
    "requestContext": {
        "domainName": "shop.example",
        "http": {"method": "GET", "path": "/items", "protocol": "HTTP/1.1", "userAgent": "curl/8"},
    },
}


V1 = {
    "httpMethod": "GET",
    "path": "/items",
    "headers": {"Host": "shop.example", "User-Agent": "curl/8"},
    "requestContext": {"protocol": "HTTP/1.1"},
}


@pytest.mark.parametrize("event", [V1, V2])
def test_an_invocation_by_http_is_a_unit_of_its_own_on_request(
    client: RecordingClient, event: Any
) -> None:
    """With both formats of events; its context is there for evaluations."""
    seen: list[Any] = []

    @lambda_handler(context="ada", client=client, request_metrics=True)
    def handler(event: Any, context: Any) -> Any:
        seen.append(request_context())
        return {"statusCode": 503}

    handler(event, LambdaContext())

    duration, broken = client.only("http.request.duration_ms"), client.only("http.response.5xx")
    assert duration.context.key == broken.context.key == seen[0].key
    assert duration.value is not None
    assert duration.data == {"status": 503}
    about = duration.context
    assert [
        about.get(name) for name in ("kind", "method", "path", "host", "proto", "userAgent")
    ] == [
        "request",
        "GET",
        "/items",
        "shop.example",
        "HTTP/1.1",
        "curl/8",
    ]
    assert client.only("invocation.interactions").context.key == "ada"


@pytest.mark.parametrize("event", [{}, None, {"Records": []}, {"headers": 7, "httpMethod": 1}])
def test_an_event_that_is_no_request_is_none(client: RecordingClient, event: Any) -> None:
    """A queue's message has no status."""

    @lambda_handler(context="ada", client=client, request_metrics=True)
    def handler(event: Any, context: Any) -> Any:
        assert request_context() is None
        return "done"

    assert handler(event, LambdaContext()) == "done"
    assert client.of("http.request.duration_ms") == []
