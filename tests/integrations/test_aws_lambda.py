"""`lambda_handler`, called as AWS's runtime calls it; what needs a frozen process is in
test_aws_lambda_frozen.py.
"""

from __future__ import annotations

import _thread
import inspect
import logging
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lambda_contexts import LambdaContext

import ldinstrument as ld
from ldinstrument.errors import DefinitionError
from ldinstrument.integrations import aws_lambda
from ldinstrument.integrations.aws_lambda import invocations, lambda_handler
from ldinstrument.sessions.current import entered
from ldinstrument.sessions.scopes import open_session
from ldinstrument.testing import RecordingClient, recording


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


def test_an_invocation_is_a_session_with_aws_s_request_id(client: RecordingClient) -> None:
    """Its metrics are called invocation.*, and say whose it was and whether it was cold."""

    @lambda_handler(context="user-1", client=client)
    def handler(event: Any, context: Any) -> str:
        return "done"

    assert handler({}, LambdaContext()) == "done"
    assert handler({}, LambdaContext("request-2")) == "done"

    first, second = client.of("invocation.duration")
    assert first.context.key == "user-1"
    assert first.data == {
        "coldStart": True,
        "functionName": "quotes",
        "functionVersion": "7",
        "sessionId": "request-1",
        "interactions": 1,
        "successes": 1,
        "failures": 0,
        "cancelled": 0,
        "abandoned": 0,
        "endReason": "ended",
    }
    assert (second.data["coldStart"], second.data["sessionId"]) == (False, "request-2")
    assert client.values("invocation.success_rate") == [100.0, 100.0]
    assert client.values("invocation.interactions") == [1, 1]


def test_used_bare_and_called() -> None:
    """Both forms give the handler's own name, document and signature back, and its own result."""
    result = object()

    def plain(event: Any, context: Any) -> object:
        """Say hello."""
        return result

    for decorated in (
        lambda_handler(plain),
        lambda_handler()(plain),
        lambda_handler(context="u")(plain),
    ):
        with recording():
            assert decorated({}, LambdaContext()) is result
        assert (decorated.__name__, decorated.__doc__) == ("plain", "Say hello.")
        assert inspect.signature(decorated) == inspect.signature(plain)


def test_an_unknown_mode_is_refused() -> None:
    """A typo must not silently choose the slower mode."""
    with pytest.raises(DefinitionError, match="after_response"):
        lambda_handler(deliver="afterwards")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "times",
    [
        {"timeout": 0},
        {"timeout": "2"},
        {"timeout": float("nan")},
        {"timeout": None},
        {"reserve": -1},
        {"reserve": float("nan")},
        {"timeout": True},
    ],
    ids=str,
)
def test_a_time_that_is_none_is_refused(times: dict[str, Any]) -> None:
    """At decoration, in one sentence; an invocation would be too late."""
    with pytest.raises(DefinitionError, match="is a number of seconds"):
        lambda_handler(**times)


def test_nobody_elses_session_is_seen_or_left_behind(client: RecordingClient) -> None:
    """Inside is the invocation's session, outside what was there before, also after an
    exception.
    """
    seen = []

    @lambda_handler(context="u", client=client)
    def handler(event: Any, context: Any) -> None:
        seen.append(ld.current_session().name)
        if event:
            raise ValueError

    other = open_session("somebody", name="import", client=client)
    with entered(other):
        handler({}, LambdaContext())
        with pytest.raises(ValueError):
            handler({"fail": True}, LambdaContext("request-2"))
        assert ld.current_session() is other
    other.end()

    assert seen == ["invocation", "invocation"]
    assert ld.current_session() is None


def test_disabled_the_handler_is_only_called(
    client: RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LDINSTRUMENT_DISABLED=1 makes it inert: no session, no registration."""
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", "1")
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")

    @lambda_handler(context="u", client=client, deliver="after_response")
    def handler(event: Any, context: Any) -> Any:
        return ld.current_session()

    assert handler({}, LambdaContext()) is None
    assert len(client) == 0
    assert aws_lambda._tried is False


def test_outside_lambda_after_response_is_before_response(
    client: RecordingClient, caplog: Any
) -> None:
    """In a unit test there is no Extensions API; that is no reason for a warning."""
    caplog.set_level(logging.INFO, "ldinstrument")

    @lambda_handler(context="u", client=client, deliver="after_response")
    def handler(event: Any, context: Any) -> str:
        return "ok"

    assert handler({}, LambdaContext()) == "ok"
    assert client.values("invocation.interactions") == [1]
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_an_unanswered_registration_falls_back_and_says_so(
    client: RecordingClient, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused connection is no reason to fail an import; the module is usable and the log says
    why it is slower.
    """
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", f"127.0.0.1:{unused.getsockname()[1]}")

        @lambda_handler(context="u", client=client, deliver="after_response")
        def handler(event: Any, context: Any) -> str:
            return "ok"

        lambda_handler(deliver="after_response")(repr)  # once per process, so said once

    assert handler({}, LambdaContext()) == "ok"
    assert client.values("invocation.interactions") == [1]
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "deliver='after_response' is not possible here: the extension could not be registered "
        "(ConnectionRefusedError); events are flushed before each response instead"
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "lambda-managed-instances"),
        ("AWS_LAMBDA_MAX_CONCURRENCY", "4"),
    ],
)
def test_managed_instances_get_no_extension(
    name: str, value: str, client: RecordingClient, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They do not freeze, and refuse internal extensions: not even tried, and said."""
    with socket.create_server(("127.0.0.1", 0)) as api:
        api.setblocking(False)
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", f"127.0.0.1:{api.getsockname()[1]}")
        monkeypatch.setenv(name, value)

        lambda_handler(context="u", client=client, deliver="after_response")(
            lambda event, context: None
        )

        with pytest.raises(BlockingIOError):
            api.accept()
    assert "Managed Instances" in caplog.text


def test_green_threads_get_no_extension(
    client: RecordingClient, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS's runtime blocks in C: a greenlet would never get to ask for an event, and the function
    would hang.
    """
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")
    original = _thread.start_new_thread
    monkeypatch.setattr(
        _thread, "start_new_thread", lambda *args, **kwargs: original(*args, **kwargs)
    )

    handler = lambda_handler(context="u", client=client, deliver="after_response")(
        lambda event, context: "ok"
    )

    assert handler({}, LambdaContext()) == "ok"
    assert "threads are patched here (gevent, eventlet)" in caplog.text


def test_the_examples_readme_names_its_metrics() -> None:
    """`ldinstrument plan` finds them in the code, so the README must not know better."""
    folder = Path(__file__).parents[2] / "examples" / "lambda"
    code = (
        "from ldinstrument.scan import scan; "
        "print(*(metric.key for metric in scan('handler.py').metrics))"
    )
    environment = {
        **os.environ,
        "LAUNCHDARKLY_SDK_KEY": "sdk-local",
        "LAUNCHDARKLY_EVENTS_URI": "http://127.0.0.1:9",
    }
    command = [sys.executable, "-c", code]
    printed = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    ).stdout

    assert len(printed.split()) == 6
    sentence = (folder / "README.md").read_text().split("creates the metrics: ")[1].split(".\n")[0]
    assert sorted(printed.split()) == sorted(re.findall(r"`([^`]+)`", sentence))


def test_the_package_of_integrations_imports_nothing() -> None:
    """Who wants the Lambda part does not load Flask, and the other way round."""
    code = (
        "import sys; import ldinstrument; before = set(sys.modules); "
        "import ldinstrument.integrations; "
        "print([name for name in set(sys.modules) - before if name.startswith('ldinstrument.')])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout

    assert printed.strip() == "['ldinstrument.integrations']"


def test_the_metrics_of_an_invocation_may_be_chosen(client: RecordingClient) -> None:
    """As of a session."""

    @lambda_handler(context="ada", client=client, metrics=("successes", "unfinished"))
    def handler(event: Any, context: Any) -> None:
        pass

    handler({}, LambdaContext())
    assert client.keys() == ["invocation.successes", "invocation.unfinished"]
    with pytest.raises(DefinitionError, match="metrics"):
        lambda_handler(metrics=("durations",))
