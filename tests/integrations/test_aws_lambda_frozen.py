"""Functions under AWS's own runtime client, frozen after each invocation; events over TLS, 40 ms there and back.

The freezer (examples/lambda/local_lambda) stops the process group when the runtime and every extension asked for the
next event, and kills it in the end without a thaw, as Lambda does.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "lambda"))

from local_lambda.intake import Intake
from local_lambda.sandbox import Function
from local_lambda.state import Invocation

pytest.importorskip("awslambdaric")
if shutil.which("openssl") is None:
    pytest.skip("the openssl command makes the certificate", allow_module_level=True)

MODES = ("before_response", "after_response")

SDK = """
import json, os, sys, threading, time, http.client
import ldclient
from ldclient.config import Config, HTTPConfig
HTTP = HTTPConfig(connect_timeout=1, read_timeout=2, ca_certs=os.environ["EVENTS_CA_FILE"])
"""
OURS = f"""{SDK}
import ldinstrument as ld
from ldinstrument.integrations.aws_lambda import lambda_handler
ldclient.set_config(ld.launchdarkly_config(events_only=True, http=HTTP))
ldclient.get()
MODE = os.environ.get("DELIVER", "after_response")
"""
PLAIN = f"""{SDK}
URI = os.environ["LAUNCHDARKLY_EVENTS_URI"]
ldclient.set_config(Config("sdk-key", base_uri=URI, stream_uri=URI, events_uri=URI, use_ldd=True,
                           diagnostic_opt_out=True, http=HTTP))
client = ldclient.get()
"""
RAW_EXTENSION = """
def call(method, path, headers, body=None):
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    connection.request(method, "/2020-01-01/extension/" + path, body, headers)
    answer = connection.getresponse()
    answer.read()
    return answer
def register(name):
    answer = call("POST", "register", {"Lambda-Extension-Name": name}, '{"events": ["INVOKE"]}')
    return answer.headers["Lambda-Extension-Identifier"]
def ask(identifier):
    return call("GET", "event/next", {"Lambda-Extension-Identifier": identifier})
def ask_for_ever(identifier, pause=0.0):
    while ask(identifier).status == 200:
        time.sleep(pause)
"""

Deploy = Callable[..., Function]


@pytest.fixture(name="intake")
def _intake(tmp_path: Path) -> Iterator[Intake]:
    with Intake(tmp_path) as intake:
        yield intake


@pytest.fixture(name="deploy")
def _deploy(tmp_path: Path, intake: Intake) -> Iterator[Deploy]:
    """Deploys a function from the text of its module; its handler is `handler`."""
    deployed = []

    def deploy(module: str, mode: str = "after_response", **settings: Any) -> Function:
        (tmp_path / "app.py").write_text(module)
        environment = {
            "DELIVER": mode,
            "LAUNCHDARKLY_SDK_KEY": "sdk-local",
            "LAUNCHDARKLY_EVENTS_URI": intake.uri,
            "EVENTS_CA_FILE": str(intake.certificate),
            **settings.pop("environment", {}),
        }
        function = Function("app.handler", tmp_path, environment=environment, **settings)
        deployed.append(function)
        return function

    yield deploy
    for function in deployed:
        function.close()


def invoke(function: Function, *events: Any) -> list[Invocation]:
    """One invocation per event, each to its frozen end."""
    done = []
    for event in events:
        done.append(function.invoke(event))
        function.finish()
    return done


def arrivals(intake: Intake, key: str = "invocation.duration") -> dict[str, float]:
    """When the events of each request were in the server's hands, by request id."""
    return {event["data"]["sessionId"]: event["received"] for event in intake.events(key)}


def before_the_freeze(intake: Intake, invocations: list[Invocation]) -> list[bool]:
    """For each invocation, whether its events were in the server's hands when its sandbox froze."""
    arrived = arrivals(intake)
    return [one.frozen is not None and arrived.get(one.request_id, float("inf")) <= one.frozen for one in invocations]


# -- the freezer bites ---------------------------------------------------------------------------------


def test_the_freezer_bites_the_plain_sdk(deploy: Deploy, intake: Intake) -> None:
    """The control: `track` and `flush()` of the SDK alone deliver nothing before the freeze."""
    function = deploy(
        PLAIN
        + """
def handler(event, context):
    client.track("invocation.duration", ldclient.Context.create("u"), {"sessionId": context.aws_request_id}, 1.0)
    client.flush()
"""
    )

    done = invoke(function, *range(10))

    assert [one.outcome for one in done] == ["ok"] * 10
    assert sum(before_the_freeze(intake, done)) < 5


@pytest.mark.parametrize("flush", ["client.flush()", "pass"])
def test_a_sandbox_that_is_reclaimed_takes_the_events_along(flush: str, deploy: Deploy, intake: Intake) -> None:
    """The control: one invocation, then the sandbox is gone. The plain SDK delivers none of three."""
    for _ in range(3):
        function = deploy(
            PLAIN
            + f"""
def handler(event, context):
    client.track("invocation.duration", ldclient.Context.create("u"), {{"sessionId": context.aws_request_id}}, 1.0)
    {flush}
"""
        )
        invoke(function, {})
        function.close()

    assert arrivals(intake) == {}


@pytest.mark.parametrize("mode", MODES)
def test_ours_survives_being_reclaimed_after_one_invocation(mode: str, deploy: Deploy, intake: Intake) -> None:
    """The same with lambda_handler, on the same line: three of three."""
    done = []
    for _ in range(3):
        function = deploy(OURS + "handler = lambda_handler(context='u', deliver=MODE)(lambda event, context: 1)", mode)
        done += invoke(function, {})
        function.close()

    assert before_the_freeze(intake, done) == [True] * 3


# -- nothing is lost -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_nothing_of_a_hundred_invocations_is_lost(mode: str) -> None:
    """The example itself: every event arrives once, before the freeze; only one mode lets the caller wait for it."""
    import run_local

    result = run_local.run(mode, 100, 0.04)

    assert [one.outcome for one in result.invocations] == ["ok"] * 100
    assert (result.lost, result.in_time, result.duplicates) == (0, 100, 0)
    assert result.log == ""
    waited = sum(result.arrived[one.request_id] <= (one.responded or 0.0) for one in result.invocations)
    # Which of two things came first, not how long they took. A stalled machine may now and then turn it round.
    assert waited == 100 if mode == "before_response" else waited < 20


@pytest.mark.parametrize("mode", MODES)
def test_a_client_built_elsewhere_is_waited_for_as_well_as_can_be(mode: str, deploy: Deploy, intake: Intake) -> None:
    """A plain `Config` without our event processor: nothing is confirmed, but the SDK's own sending is waited for."""
    module = f"""{PLAIN}
from ldinstrument.integrations.aws_lambda import lambda_handler
handler = lambda_handler(context="u", deliver=os.environ["DELIVER"])(lambda event, context: 1)
"""
    function = deploy(module, mode)

    done = invoke(function, *range(10))

    assert before_the_freeze(intake, done) == [True] * 10


@pytest.mark.parametrize("mode", MODES)
def test_an_outage_is_made_up_for(mode: str, deploy: Deploy, tmp_path: Path) -> None:
    """LaunchDarkly answers 503 for a while: what was not taken leaves with a later invocation, once."""
    (tmp_path / "tls").mkdir()
    with Intake(tmp_path / "tls", status=lambda number: 503 if number <= 4 else 202) as intake:
        environment = {"LAUNCHDARKLY_EVENTS_URI": intake.uri, "EVENTS_CA_FILE": str(intake.certificate)}
        module = OURS + "handler = lambda_handler(context='u', deliver=MODE)(lambda event, context: time.sleep(0.05))"
        function = deploy(module, mode, environment=environment)
        done = invoke(function, *range(5))
        while set(arrivals(intake)) != {one.request_id for one in done} and len(done) < 200:
            done += invoke(function, {})
        assert set(arrivals(intake)) == {one.request_id for one in done}
        assert {one.outcome for one in done} == {"ok"}
        assert intake.duplicates == 0
        assert len(intake.events("invocation.duration")) == len(done)


@pytest.mark.parametrize("mode", MODES)
def test_a_connection_that_was_closed_while_frozen_costs_nothing(mode: str, deploy: Deploy, intake: Intake) -> None:
    """Minutes may pass between invocations, and servers close idle connections: a new one is made in time."""
    function = deploy(OURS + "handler = lambda_handler(context='u', deliver=MODE)(lambda event, context: 1)", mode)
    done = []
    for number in range(4):
        done += invoke(function, number)
        assert intake.way is not None
        intake.way.hang_up()

    assert before_the_freeze(intake, done) == [True] * 4
    assert intake.duplicates == 0


def test_a_connection_that_died_silently_loses_nothing(deploy: Deploy, intake: Intake) -> None:
    """A gateway forgot it: the POST gets no answer, and what is not confirmed leaves with a later invocation, once."""
    function = deploy(OURS + "handler = lambda_handler(context='u', deliver=MODE)(lambda event, context: 1)")
    done = invoke(function, 0)
    assert intake.way is not None
    intake.way.forget()
    while set(arrivals(intake)) != {one.request_id for one in done} or len(done) < 3:
        done += invoke(function, len(done))
        assert len(done) < 50

    assert {one.outcome for one in done} == {"ok"}
    assert len(intake.events("invocation.duration")) == len(done)


@pytest.mark.parametrize("mode", MODES)
def test_a_raising_handler_delivers_too(mode: str, deploy: Deploy, intake: Intake) -> None:
    """The caller gets the handler's own error, LaunchDarkly a failed invocation."""
    function = deploy(
        OURS
        + """
@lambda_handler(context="u", deliver=MODE)
def handler(event, context):
    raise LookupError("no cart 7")
""",
        mode,
    )

    done = invoke(function, {}, {})

    assert [one.outcome for one in done] == ["error", "error"]
    assert (done[0].error["errorType"], done[0].error["errorMessage"]) == ("LookupError", "no cart 7")
    assert before_the_freeze(intake, done) == [True, True]
    assert {event["data"]["endReason"] for event in intake.events("invocation.duration")} == {"error"}
    assert [event["metricValue"] for event in intake.events("invocation.success_rate")] == [0.0, 0.0]


@pytest.mark.parametrize("mode", MODES)
def test_a_handler_that_exits_delivers_first(mode: str, deploy: Deploy, intake: Intake) -> None:
    """`sys.exit` ends the process: there is no after."""
    function = deploy(
        OURS
        + """
@lambda_handler(context="u", deliver=MODE)
def handler(event, context):
    sys.exit(3)
""",
        mode,
    )

    (done,) = invoke(function, {})

    assert done.outcome == "exited"
    assert list(arrivals(intake)) == [done.request_id]


@pytest.mark.parametrize("mode", MODES)
def test_a_handler_that_times_out_is_in_the_numbers(mode: str, deploy: Deploy, intake: Intake) -> None:
    """The watchdog ends and flushes the session before Lambda kills the sandbox; the next one is as good as new."""
    function = deploy(
        OURS
        + """
@lambda_handler(context="u", deliver=MODE)
def handler(event, context):
    ld.current_session().conversion(5)
    time.sleep(event)
""",
        mode,
        timeout=2.0,
    )

    stuck, fine = invoke(function, 60, 0)

    assert (stuck.outcome, fine.outcome, function.cold_starts) == ("timed out", "ok", 2)
    ended = {event["data"]["sessionId"]: event["data"]["endReason"] for event in intake.events("invocation.duration")}
    assert ended == {stuck.request_id: "timeout", fine.request_id: "ended"}
    assert len(intake.events("business.conversion")) == 2


# -- mistakes that take a function down ------------------------------------------------------------------


def test_an_extension_that_never_asks_ends_no_initialisation(deploy: Deploy) -> None:
    """The control: registered but never `next`. The function never answers anybody."""
    function = deploy(
        f"{SDK}{RAW_EXTENSION}\nregister('silent')\ndef handler(event, context): return 1", init_timeout=2
    )

    (done,) = invoke(function, {})

    assert (done.outcome, done.response) == ("exited", None)
    assert function.sandbox is not None
    assert function.sandbox.over == "Sandbox.InitTimedout"


def test_an_extension_that_holds_on_times_a_good_invocation_out(deploy: Deploy) -> None:
    """The control: the caller has the answer, Lambda still reports a time-out and throws the sandbox away."""
    module = f"""{SDK}{RAW_EXTENSION}
identifier = register("clumsy")
threading.Thread(target=ask_for_ever, args=(identifier, 60), daemon=True).start()
def handler(event, context): return 1
"""
    function = deploy(module, timeout=1)

    done = invoke(function, {}, {})

    assert [(one.outcome, one.response) for one in done] == [("timed out", 1)] * 2
    assert function.cold_starts == 2


@pytest.mark.parametrize("mode", MODES)
def test_ours_is_never_held_past_the_time_out(mode: str, deploy: Deploy, tmp_path: Path) -> None:
    """LaunchDarkly accepts and never answers, and the flush was given half a minute: no invocation times out."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as black_hole:
        uri = f"http://127.0.0.1:{black_hole.getsockname()[1]}"
        module = OURS + "handler = lambda_handler(context='u', deliver=MODE, timeout=30)(lambda event, context: 1)"
        function = deploy(module, mode, timeout=1.5, environment={"LAUNCHDARKLY_EVENTS_URI": uri})
        done = invoke(function, 0, 1)

        assert [(one.outcome, one.response) for one in done] == [("ok", 1)] * 2
        assert function.cold_starts == 1


def test_a_decorator_above_ours_that_answers_by_itself_is_not_waited_for(deploy: Deploy, intake: Intake) -> None:
    """An idempotency cache, say: ours never begins, and the extension lets go instead of holding to the time-out."""
    function = deploy(
        OURS
        + """
@lambda_handler(context="u", deliver=MODE)
def inner(event, context):
    return "fresh"
def handler(event, context):
    return "cached" if event else inner(event, context)
"""
    )

    done = invoke(function, 0, 1, 1, 0)

    assert [one.response for one in done] == ["fresh", "cached", "cached", "fresh"]
    assert ({one.outcome for one in done}, function.cold_starts) == ({"ok"}, 1)
    assert before_the_freeze(intake, done) == [True, False, False, True]


def test_a_slow_decorator_above_ours_loses_nothing(deploy: Deploy, intake: Intake) -> None:
    """Ours begins after the extension let go: it then delivers before the response."""
    function = deploy(
        OURS
        + """
@lambda_handler(context="u", deliver=MODE)
def inner(event, context):
    return 1
def handler(event, context):
    time.sleep(0.6)
    return inner(event, context)
"""
    )

    done = invoke(function, *range(3))

    assert before_the_freeze(intake, done) == [True] * 3
    assert all(arrivals(intake)[one.request_id] <= (one.responded or 0.0) for one in done)


def test_decorated_in_the_middle_of_an_invocation_it_falls_back(deploy: Deploy, intake: Intake) -> None:
    """Registration is closed by then: said in one line, delivered before the response, nothing lost."""
    function = deploy(
        OURS
        + """
def handler(event, context):
    global handle
    if event == 0:
        handle = lambda_handler(context="u", deliver="after_response")(lambda event, context: 1)
    return handle(event, context)
"""
    )

    done = invoke(function, *range(3))

    assert before_the_freeze(intake, done) == [True] * 3
    assert all(arrivals(intake)[one.request_id] <= (one.responded or 0.0) for one in done)
    log = function.log()
    assert log.count("deliver='after_response' is not possible here") == 1
    assert "403 Extension.RegistrationClosed" in log
    assert "Decorate the handler at module level" in log


def test_a_name_that_is_taken_makes_it_fall_back(deploy: Deploy, intake: Intake) -> None:
    """Another extension has our name: Lambda says 403, and the function works all the same."""
    module = f"""{OURS}{RAW_EXTENSION}
identifier = register("ldinstrument")
threading.Thread(target=ask_for_ever, args=(identifier,), daemon=True).start()
handler = lambda_handler(context="u", deliver=MODE)(lambda event, context: 1)
"""
    function = deploy(module)

    done = invoke(function, *range(3))

    assert before_the_freeze(intake, done) == [True] * 3
    assert "403 Extension.InvalidExtensionState" in function.log()


def test_managed_instances_are_left_alone(deploy: Deploy, intake: Intake) -> None:
    """No registration at all there, one line, and events before the response."""
    module = OURS + "handler = lambda_handler(context='u', deliver=MODE)(lambda event, context: 1)"
    function = deploy(module, environment={"AWS_LAMBDA_INITIALIZATION_TYPE": "lambda-managed-instances"})

    done = invoke(function, *range(3))

    assert function.sandbox is not None
    assert (function.sandbox.extensions, function.sandbox.refusals) == ({}, [])
    assert before_the_freeze(intake, done) == [True] * 3
    assert function.log().count("Lambda Managed Instances") == 1


def test_two_handlers_share_one_extension(deploy: Deploy, intake: Intake) -> None:
    """A process has one, however many of its functions are decorated."""
    function = deploy(
        OURS
        + """
first = lambda_handler(context="u", deliver=MODE)(lambda event, context: "first")
second = lambda_handler(context="u", deliver=MODE)(lambda event, context: "second")
def handler(event, context):
    return (first, second)[event](event, context)
"""
    )

    done = invoke(function, 0, 1, 0)

    assert [one.response for one in done] == ["first", "second", "first"]
    assert function.sandbox is not None
    assert [one.name for one in function.sandbox.extensions.values()] == ["ldinstrument"]
    assert function.sandbox.refusals == []
    assert before_the_freeze(intake, done) == [True] * 3


def test_snap_start_goes_on_after_the_restore(deploy: Deploy, intake: Intake) -> None:
    """The snapshot is taken while the extension waits; what was registered before it serves after it."""
    module = OURS + "handler = lambda_handler(context='u', deliver=MODE)(lambda event, context: 1)"
    function = deploy(module, environment={"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"})

    done = invoke(function, *range(3))

    assert function.log() == ""
    assert before_the_freeze(intake, done) == [True] * 3
    assert all((one.responded or 0.0) <= arrivals(intake)[one.request_id] for one in done)


def test_the_local_run_prints_its_table() -> None:
    """As the README shows it; the exit status is what CI looks at."""
    command = [sys.executable, "run_local.py", "--invocations", "3"]
    folder = Path(__file__).parents[2] / "examples" / "lambda"

    printed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=60).stdout

    header, before, after = printed.splitlines()
    assert header.split()[:3] == ["mode", "invocations", "lost"]
    assert before.split()[:4] == ["before_response", "3", "0", "3"]
    assert after.split()[:4] == ["after_response", "3", "0", "3"]


def test_the_client_is_never_closed(deploy: Deploy, intake: Intake) -> None:
    """It was made during the initialisation and serves every invocation of the sandbox."""
    function = deploy(
        OURS
        + """
def closed(*args, **kwargs):
    print("the client was closed", flush=True)
ldclient.LDClient.close = closed
handler = lambda_handler(context="u", deliver=MODE)(lambda event, context: threading.active_count())
"""
    )

    done = invoke(function, *range(5))

    assert before_the_freeze(intake, done) == [True] * 5
    assert function.log() == ""
    assert done[-1].response == done[1].response  # nor does a thread stay behind per invocation
