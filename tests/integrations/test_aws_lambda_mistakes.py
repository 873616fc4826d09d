"""Mistakes that take a Lambda function down or cost its events: the controls make them, ours does
not.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "lambda_api"))

from deploying import (  # noqa: F401 - fixtures, used by their names
    EXAMPLE,
    MODES,
    OURS,
    RAW_EXTENSION,
    SDK,
    Deploy,
    Intake,
    _deploy,
    _far,
    _intake,
    addressed,
    answered_first,
    arrivals,
    before_the_freeze,
    invoke,
)


def test_an_extension_that_never_asks_ends_no_initialisation(deploy: Deploy) -> None:
    """The control: registered but never `next`. The function never answers anybody."""
    function = deploy(
        f"{SDK}{RAW_EXTENSION}\nregister('silent')\ndef handler(event, context): return 1",
        init_timeout=2,
    )

    (done,) = invoke(function, {})

    assert (done.outcome, done.response) == ("exited", None)
    assert function.sandbox is not None
    assert function.sandbox.over == "Sandbox.InitTimedout"


def test_an_extension_that_holds_on_times_a_good_invocation_out(deploy: Deploy) -> None:
    """The control: the caller has the answer, Lambda still reports a time-out and throws the
    sandbox away.
    """
    module = f"""{SDK}{RAW_EXTENSION}
identifier = register("clumsy")
threading.Thread(target=ask_for_ever, args=(identifier, 60), daemon=True).start()
def handler(event, context): return 1
"""
    function = deploy(module, timeout=2)

    done = invoke(function, {}, {})

    assert [(invocation.outcome, invocation.response) for invocation in done] == [
        ("timed out", 1)
    ] * 2
    assert function.cold_starts == 2


@pytest.mark.parametrize("mode", MODES)
def test_ours_is_never_held_past_the_time_out(mode: str, deploy: Deploy, tmp_path: Path) -> None:
    """LaunchDarkly accepts and never answers, and the flush was given half a minute: no invocation
    times out.
    """
    import socket

    with socket.create_server(("127.0.0.1", 0)) as black_hole:
        uri = f"http://127.0.0.1:{black_hole.getsockname()[1]}"
        module = f"""{OURS}
handler = lambda_handler(context="u", deliver=MODE, timeout=30, reserve=30)(lambda *_: 1)
"""
        # A tenth of it is the reserve: half a second for a machine that does something else just
        # then.
        function = deploy(module, mode, timeout=5.0, environment={"LAUNCHDARKLY_EVENTS_URI": uri})
        (done,) = invoke(function, 0)

        assert (done.outcome, done.response) == ("ok", 1)
        assert function.cold_starts == 1


def test_a_decorator_above_ours_that_answers_by_itself_is_not_waited_for(
    deploy: Deploy, intake: Intake
) -> None:
    """An idempotency cache, say: ours never begins, and the extension lets go instead of holding to
    the time-out.
    """
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

    assert [invocation.response for invocation in done] == ["fresh", "cached", "cached", "fresh"]
    assert ({invocation.outcome for invocation in done}, function.cold_starts) == ({"ok"}, 1)
    assert before_the_freeze(intake, done) == [True, False, False, True]


def test_a_slow_decorator_above_ours_loses_nothing(deploy: Deploy, intake: Intake) -> None:
    """Ours begins after the extension let go: it then delivers before the response."""
    function = deploy(
        OURS
        + """
from ldinstrument.integrations.aws_lambda import _shared_extension
@lambda_handler(context="u", deliver=MODE)
def inner(event, context):
    return 1
def handler(event, context):
    extension = _shared_extension()
    while not (extension._seen == context.aws_request_id and extension._asking):
        time.sleep(0.01)
    return inner(event, context)
"""
    )

    done = invoke(function, *range(3))

    assert before_the_freeze(intake, done) == [True] * 3
    assert all(
        arrivals(intake)[invocation.request_id] <= (invocation.responded or 0.0)
        for invocation in done
    )


@pytest.mark.parametrize("seconds", [0.0, 0.6])
def test_a_context_without_a_request_id_loses_nothing(
    seconds: float, deploy: Deploy, intake: Intake
) -> None:
    """Somebody's own context does not say which freeze is meant: so it is delivered before the
    response.
    """
    function = deploy(
        OURS
        + f"""
inner = lambda_handler(context="u", deliver=MODE)(lambda event, context: time.sleep({seconds}))
def handler(event, context):
    return inner(event, object())
"""
    )

    done = invoke(function, *range(3))

    arrived = [event["received"] for event in intake.events("invocation.duration")]
    assert len(arrived) == 3
    assert all(
        at <= (invocation.responded or 0.0) for at, invocation in zip(arrived, done, strict=True)
    )


@pytest.mark.parametrize("extractor", ["context", "data"])
def test_an_extractor_that_exits_is_not_waited_for(extractor: str, deploy: Deploy) -> None:
    """The exit is the host's, and may be caught above ours; the sandbox is not held to the time-out
    for it.
    """
    function = deploy(
        OURS
        + f"""
inner = lambda_handler({extractor}=lambda *_: sys.exit(1), deliver=MODE)(lambda *_: 1)
def handler(event, context):
    try:
        return inner(event, context)
    except SystemExit as exit:
        return "exit"
""",
        timeout=60.0,
    )

    done = invoke(function, *range(2))

    assert [(invocation.outcome, invocation.response) for invocation in done] == [
        ("ok", "exit")
    ] * 2
    assert all(invocation.held_ms < 30_000 for invocation in done)


def test_a_slow_extractor_is_part_of_the_handler(deploy: Deploy, far: Intake) -> None:
    """The extension waits for it, too, and the response does not wait for LaunchDarkly."""
    module = (
        OURS
        + """
def who(event, context):
    time.sleep(0.5)
    return "u"
handler = lambda_handler(context=who, deliver=MODE)(lambda event, context: 1)
"""
    )
    function = deploy(module, environment=addressed(far))

    done = invoke(function, *range(3))

    assert before_the_freeze(far, done) == [True] * 3
    assert answered_first(far, done) > 0


def test_an_exit_that_is_caught_above_ours_is_not_waited_for(
    deploy: Deploy, intake: Intake
) -> None:
    """A framework may turn `sys.exit` into an answer; the sandbox is not held to the time-out for
    it.
    """
    function = deploy(
        OURS
        + """
@lambda_handler(context="u", deliver=MODE)
def inner(event, context):
    sys.exit(1)
def handler(event, context):
    try:
        inner(event, context)
    except SystemExit as exit:
        return exit.code
""",
        timeout=30.0,
    )

    done = invoke(function, *range(3))

    assert [(invocation.outcome, invocation.response) for invocation in done] == [("ok", 1)] * 3
    assert all(invocation.held_ms < 15_000 for invocation in done)
    assert before_the_freeze(intake, done) == [True] * 3


def test_decorated_in_the_middle_of_an_invocation_it_falls_back(
    deploy: Deploy, intake: Intake
) -> None:
    """Registration is closed by then: said in one line, delivered before the response, nothing
    lost.
    """
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
    assert all(
        arrivals(intake)[invocation.request_id] <= (invocation.responded or 0.0)
        for invocation in done
    )
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
    function = deploy(
        module, environment={"AWS_LAMBDA_INITIALIZATION_TYPE": "lambda-managed-instances"}
    )

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

    assert [invocation.response for invocation in done] == ["first", "second", "first"]
    assert function.sandbox is not None
    assert [extension.name for extension in function.sandbox.extensions.values()] == [
        "ldinstrument"
    ]
    assert function.sandbox.refusals == []
    assert before_the_freeze(intake, done) == [True] * 3


def test_snap_start_goes_on_after_the_restore(deploy: Deploy, far: Intake) -> None:
    """The snapshot is taken while the extension waits; what was registered before it serves after
    it.
    """
    module = OURS + "handler = lambda_handler(context='u', deliver=MODE)(lambda event, context: 1)"
    function = deploy(
        module, environment={"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start", **addressed(far)}
    )

    done = invoke(function, *range(3))

    assert function.log() == ""
    assert before_the_freeze(far, done) == [True] * 3
    assert answered_first(far, done) > 0


def test_the_local_run_prints_its_table() -> None:
    """As the README shows it; the exit status is what CI looks at."""
    command = [sys.executable, "run_local.py", "--invocations", "3"]
    printed = subprocess.run(
        command, cwd=EXAMPLE, capture_output=True, text=True, check=True, timeout=60
    ).stdout

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

    done = invoke(function, *range(10))

    assert before_the_freeze(intake, done) == [True] * 10
    assert function.log() == ""
    # Nor does a thread stay behind per invocation; one that posts may just be ending.
    assert abs(done[-1].response - done[1].response) <= 1
