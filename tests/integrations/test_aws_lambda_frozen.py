"""Functions under AWS's own runtime client, frozen after each invocation: nothing is lost, and the
plain SDK loses.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "lambda_api"))

from deploying import (  # noqa: F401 - fixtures, used by their names
    MODES,
    OURS,
    PLAIN,
    Deploy,
    Intake,
    _deploy,
    _intake,
    addressed,
    arrivals,
    before_the_freeze,
    invoke,
)

# -- the freezer bites -----------------------------------------------------------------------------


def test_the_freezer_bites_the_plain_sdk(deploy: Deploy, intake: Intake) -> None:
    """The control: `track` and `flush()` of the SDK alone deliver nothing before the freeze."""
    function = deploy(
        PLAIN
        + """
def handler(event, context):
    data = {"sessionId": context.aws_request_id}
    client.track("invocation.duration", ldclient.Context.create("u"), data, 1.0)
    client.flush()
"""
    )

    done = invoke(function, *range(10))

    assert [invocation.outcome for invocation in done] == ["ok"] * 10
    assert sum(before_the_freeze(intake, done)) < 5


@pytest.mark.parametrize("flush", ["client.flush()", "pass"])
def test_a_sandbox_that_is_reclaimed_takes_the_events_along(
    flush: str, deploy: Deploy, intake: Intake
) -> None:
    """The control: one invocation, then the sandbox is gone. The plain SDK delivers none of
    three.
    """
    for _ in range(3):
        function = deploy(
            PLAIN
            + f"""
def handler(event, context):
    data = {{"sessionId": context.aws_request_id}}
    client.track("invocation.duration", ldclient.Context.create("u"), data, 1.0)
    {flush}
"""
        )
        invoke(function, {})
        function.close()

    assert arrivals(intake) == {}


@pytest.mark.parametrize("mode", MODES)
def test_ours_survives_being_reclaimed_after_one_invocation(
    mode: str, deploy: Deploy, intake: Intake
) -> None:
    """The same with lambda_handler, on the same line: three of three."""
    done = []
    for _ in range(3):
        function = deploy(
            OURS + "handler = lambda_handler(context='u', deliver=MODE)(lambda event, context: 1)",
            mode,
        )
        done += invoke(function, {})
        function.close()

    assert before_the_freeze(intake, done) == [True] * 3


# -- nothing is lost -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_nothing_of_a_hundred_invocations_is_lost(mode: str) -> None:
    """The example itself: every event arrives once, before the freeze; only one mode lets the
    caller wait for it.
    """
    import run_local

    result = run_local.run(mode, 100, 0.04)

    assert [invocation.outcome for invocation in result.invocations] == ["ok"] * 100
    assert (result.lost, result.in_time, result.duplicates) == (0, 100, 0)
    assert result.log == ""
    waited = sum(
        result.arrived[invocation.request_id] <= (invocation.responded or 0.0)
        for invocation in result.invocations
    )
    # Which of two things came first, not how long they took. A stalled machine may now and then
    # turn it round.
    assert waited == 100 if mode == "before_response" else waited < 50


@pytest.mark.parametrize("mode", MODES)
def test_a_client_built_elsewhere_is_waited_for_as_well_as_can_be(
    mode: str, deploy: Deploy, intake: Intake
) -> None:
    """A plain `Config` without our event processor: nothing is confirmed, but the SDK's own sending
    is waited for.
    """
    module = f"""{PLAIN}
from ldinstrument.integrations.aws_lambda import lambda_handler
handler = lambda_handler(context="u", deliver=os.environ["DELIVER"])(lambda event, context: 1)
"""
    function = deploy(module, mode)

    done = invoke(function, *range(10))

    assert before_the_freeze(intake, done) == [True] * 10


@pytest.mark.parametrize("mode", MODES)
def test_an_outage_is_made_up_for(mode: str, deploy: Deploy, tmp_path: Path) -> None:
    """LaunchDarkly answers 503 for a while: what was not taken leaves with a later invocation,
    once.
    """
    (tmp_path / "tls").mkdir()
    with Intake(tmp_path / "tls", status=lambda number: 503 if number <= 4 else 202) as intake:
        environment = addressed(intake)
        module = (
            OURS
            + "handler = lambda_handler(context='u', deliver=MODE)(lambda *_: time.sleep(0.05))"
        )
        function = deploy(module, mode, environment=environment)
        done = invoke(function, *range(5))
        while (
            set(arrivals(intake)) != {invocation.request_id for invocation in done}
            and len(done) < 200
        ):
            done += invoke(function, {})
        assert set(arrivals(intake)) == {invocation.request_id for invocation in done}
        assert {invocation.outcome for invocation in done} == {"ok"}
        assert intake.duplicates == 0
        assert len(intake.events("invocation.duration")) == len(done)


@pytest.mark.parametrize("how", ["closed", "reset on use"])
@pytest.mark.parametrize("mode", MODES)
def test_a_connection_that_ended_while_frozen_costs_nothing(
    how: str, mode: str, deploy: Deploy, intake: Intake
) -> None:
    """Minutes pass between invocations: servers close idle connections, gateways forget them. A new
    one is made.
    """
    function = deploy(
        OURS + "handler = lambda_handler(context='u', deliver=MODE)(lambda event, context: 1)", mode
    )
    assert intake.way is not None
    done = []
    for number in range(4):
        done += invoke(function, number)
        if how == "closed":
            intake.way.hang_up()
        else:
            intake.way.forget(resets=True)

    assert before_the_freeze(intake, done) == [True] * 4
    assert intake.duplicates == 0


def test_a_connection_that_died_silently_loses_nothing(deploy: Deploy, intake: Intake) -> None:
    """A gateway forgot it: the POST gets no answer, and what is not confirmed leaves with a later
    invocation, once.
    """
    function = deploy(
        OURS + "handler = lambda_handler(context='u', deliver=MODE)(lambda event, context: 1)"
    )
    done = invoke(function, 0)
    assert intake.way is not None
    intake.way.forget()
    while set(arrivals(intake)) != {invocation.request_id for invocation in done} or len(done) < 3:
        done += invoke(function, len(done))
        assert len(done) < 50

    assert {invocation.outcome for invocation in done} == {"ok"}
    assert len(intake.events("invocation.duration")) == len(done)


@pytest.mark.parametrize("mode", MODES)
def test_a_result_of_any_kind_and_size_is_the_callers(
    mode: str, deploy: Deploy, intake: Intake
) -> None:
    """Bytes, megabytes, and what is no JSON, which is AWS's runtime's to refuse: the events arrive
    with each.
    """
    function = deploy(
        OURS
        + """
@lambda_handler(context="u", deliver=MODE)
def handler(event, context):
    return (b"raw", "x" * 5_000_000, (number for number in range(3)))[event]
""",
        mode,
    )

    raw, large, odd = done = invoke(function, 0, 1, 2)

    assert (raw.response, len(large.response), odd.error["errorType"]) == (
        b"raw",
        5_000_000,
        "Runtime.MarshalError",
    )
    assert before_the_freeze(intake, done) == [True] * 3


@pytest.mark.parametrize("mode", MODES)
def test_what_a_child_process_tracks_is_delivered(
    mode: str, deploy: Deploy, intake: Intake
) -> None:
    """A handler that shares its work out: neither the child's events nor its own are lost, or sent
    twice.
    """
    function = deploy(
        OURS
        + """
import multiprocessing
def work():
    ld.track_conversion(1.0, context="child")
@lambda_handler(context="u", deliver=MODE)
def handler(event, context):
    ld.track_conversion(2.0)
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    return child.exitcode
""",
        mode,
    )

    done = invoke(function, 0, 1)

    assert [invocation.response for invocation in done] == [0, 0]
    assert before_the_freeze(intake, done) == [True, True]
    assert sorted(event["metricValue"] for event in intake.events("business.conversion")) == [
        1.0,
        1.0,
        2.0,
        2.0,
    ]


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

    assert [invocation.outcome for invocation in done] == ["error", "error"]
    assert (done[0].error["errorType"], done[0].error["errorMessage"]) == (
        "LookupError",
        "no cart 7",
    )
    assert before_the_freeze(intake, done) == [True, True]
    assert {event["data"]["endReason"] for event in intake.events("invocation.duration")} == {
        "error"
    }
    assert [event["metricValue"] for event in intake.events("invocation.success_rate")] == [
        0.0,
        0.0,
    ]


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
def test_a_handler_that_times_out_is_in_the_numbers(
    mode: str, deploy: Deploy, intake: Intake
) -> None:
    """The watchdog ends and flushes the session before Lambda kills the sandbox; the next one is as
    good as new.
    """
    function = deploy(
        OURS.replace(
            "events_only=True", "events_only=True, flush_interval=3600"
        )  # nobody else sends
        + """
from ldinstrument.integrations.aws_lambda import invocations
invocations.WATCHDOG = 2.0  # the machine may be busy
@lambda_handler(context="u", deliver=MODE)
def handler(event, context):
    ld.current_session().conversion(5)
    time.sleep(event)
""",
        mode,
        timeout=6.0,
    )

    stuck, fine = invoke(function, 60, 0)

    assert (stuck.outcome, fine.outcome, function.cold_starts) == ("timed out", "ok", 2)
    ended = {
        event["data"]["sessionId"]: event["data"]["endReason"]
        for event in intake.events("invocation.duration")
    }
    assert ended == {stuck.request_id: "timeout", fine.request_id: "ended"}
    assert len(intake.events("business.conversion")) == 2
