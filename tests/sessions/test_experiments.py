"""What an experiment counts of a session: real evaluations, real events, an analysis of its own.

Each test is a situation in which a number was wrong; rule numbers are those of docs/sessions.md.
"""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from laboratory import Laboratory, client_of, keys_of, laboratory
from ldclient import Context

import ldinstrument as ld
from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag, simple_flag
from ldinstrument.sessions import evaluations


def multi(**keys: str) -> Context:
    return Context.create_multi(*(Context.create(key, kind) for kind, key in keys.items()))


@pytest.fixture(autouse=True)
def _metrics() -> None:
    ld.catalog.add(
        ld.Metric("e.seen", "occurrence"),
        ld.Metric("e.each", unit="items", success_criteria="HigherThanBaseline"),
    )


# -- rule 1: whether a value is counted does not depend on what happened after the exposure ---


def test_totals_count_for_who_did_nothing_after_the_exposure(lab: Laboratory) -> None:
    """Five interactions, then the exposure, and nothing: duration and rate count all the same."""
    with ld.session("u-1", client=lab.client) as s:
        for _ in range(5):
            s.interaction()
        lab.expose("u-1")
    lab.flush()

    assert lab.counted("session.success_rate", "u-1") == [100.0]
    assert len(lab.counted("session.duration", "u-1")) == 1


def test_an_evaluation_is_no_activity(lab: Laboratory) -> None:
    """A variation that evaluates more flags does not last longer for it."""
    lab.server.set_flag(experiment_flag("second", ["a", "b"]))
    began = time.perf_counter()
    with ld.session("u-1", client=lab.client) as s:
        s.interaction()
        lasted = (time.perf_counter() - began) * 1000
        time.sleep(0.05)
        lab.expose("u-1")
        lab.expose("u-1", "second")
    lab.flush()

    assert lab.counted("session.duration", "u-1")[0] <= lasted


# -- rule 2: what is held when an exposure happens leaves dated before it  ---


def test_an_exposure_that_is_sampled_out_divides_nothing(lab: Laboratory) -> None:
    """Of a flag with a `samplingRatio`, the first exposure that leaves is the first that counts;
    the others tell who it is all the same.
    """
    lab.change(experiment_flag("flag", ["a", "b"]) | {"samplingRatio": 3})
    recorded: dict[str, list[tuple[float, float]]] = {}
    for number in range(30):
        user = f"u-{number}"
        with ld.session(client=lab.client) as s:
            for turn in range(5):
                s.conversion(10.0**turn)
                recorded.setdefault(user, []).append((time.time() * 1000, 10.0**turn))
                lab.expose(user)
    lab.flush()

    exposed = {keys_of(event)["user"] for event in lab.server.events("feature")}
    assert 30 < len(lab.server.events("feature")) < 120
    for user in exposed:
        first = lab.exposed_at(user)
        after = sum(amount for at, amount in recorded[user] if at > first)
        assert sum(lab.counted("business.conversion", user)) == after
    known = {keys_of(event)["user"] for event in lab.server.custom_events("business.conversion")}
    assert known == recorded.keys()


def test_sums_are_divided_at_an_exposure(lab: Laboratory) -> None:
    """Interactions and successes too: only what came after the exposure counts."""
    metrics = ("interactions", "successes")
    with ld.session("u-1", client=lab.client, metrics=metrics) as s:
        s.conversion(100)
        s.interaction()
        s.interaction()
        lab.expose("u-1")
        s.conversion(10)
        s.interaction(False)
    lab.flush()

    assert lab.counted("business.conversion", "u-1") == [10]
    assert lab.counted("session.interactions", "u-1") == [1]
    assert sum(lab.counted("session.successes", "u-1")) == 0


def test_within_one_millisecond_a_sum_leaves_before_the_exposure(lab: Laboratory) -> None:
    """Dates have whole milliseconds; the order of a session's own values is known better."""
    for n in range(20):
        with ld.session(f"u-{n}", client=lab.client) as s:
            s.conversion(100)
            lab.client.variation("flag", Context.create(f"u-{n}"), None)
            s.conversion(10)
    lab.flush()

    assert [lab.counted("business.conversion", f"u-{n}") for n in range(20)] == [[10]] * 20


@pytest.mark.parametrize("where", ["thread", "sibling", "outside", "executor"])
def test_an_exposure_elsewhere_in_the_process_divides_too(lab: Laboratory, where: str) -> None:
    """On another thread, in another session of the same user, outside the session's context."""
    with ld.session("u-1", client=lab.client) as s:
        s.conversion(100)
        s.record("e.seen")
        if where == "sibling":
            with ld.session("u-1", client=lab.client, name="websocket"):
                lab.expose("u-1")
        elif where == "outside":
            with ld.session("somebody-else", client=lab.client):
                lab.expose("u-1")
        elif where == "executor":
            lab.elsewhere(ld.propagate(lambda: lab.expose("u-1")))
        else:
            lab.elsewhere(lambda: lab.expose("u-1"))
        s.conversion(10)
        s.record("e.seen")
    lab.flush()

    assert lab.counted("business.conversion", "u-1") == [10]
    assert lab.counted("e.seen", "u-1") == [None]


def test_without_a_session_a_run_counts_from_its_exposure_on(lab: Laboratory) -> None:
    """It has a session of its own, which is opened when it is over."""

    @ld.track_task("e.task", context="u-1", record={"e.each": lambda result: result})
    def work(result: int) -> int:
        if not result:
            raise ValueError
        return result

    def record(value: int) -> None:
        work(value)
        ld.track_conversion(value, context="u-1")

    record(1)
    lab.expose("u-1")
    record(2)
    with pytest.raises(ValueError):
        work(0)
    record(3)
    lab.flush()

    assert lab.counted("e.task.success_rate", "u-1") == [1.0, 0.0, 1.0]
    assert lab.counted("e.each", "u-1") == [2, 3]
    assert lab.counted("business.conversion", "u-1") == [2, 3]


def test_a_prerequisites_exposure_divides_and_gives_identity() -> None:
    """An experiment that is met only as a prerequisite of another flag is exposed by its event."""
    prerequisite = experiment_flag("inner", ["a", "b"], weights=[1, 0])
    outer = simple_flag("outer", [False, True]) | {
        "prerequisites": [{"key": "inner", "variation": 0}]
    }
    with laboratory(prerequisite, outer) as lab:
        with ld.session(client=lab.client) as s:
            s.conversion(100)
            lab.expose("u-1", "outer")
            s.conversion(10)
        lab.flush()

        assert lab.counted("business.conversion", "u-1", "inner") == [10]


def test_a_widening_between_two_exposures_of_one_evaluation_divides_interactions() -> None:
    """The holdout's exposure is known, and tells of a device; the experiment's is new."""
    on_holdout = {"prerequisites": [{"key": "holdout", "variation": 0}]}
    holdout = experiment_flag("holdout", ["in", "out"], weights=[100_000, 0])
    user, device = Context.create("u-1"), Context.create("d-1", "device")
    with laboratory(holdout, {**experiment_flag("flag", ["a", "b"]), **on_holdout}) as lab:
        for _ in range(5):  # how often two exposures share a millisecond is up to the machine
            with ld.session(user, client=lab.client) as s:
                lab.expose(user, "holdout")
                s.interaction()
                lab.expose(Context.create_multi(user, device))
            lab.flush()
            assert sum(lab.counted("session.interactions", user.key)) == 0
            user = Context.create(user.key + "+")


def test_an_experiment_that_starts_or_restarts_meanwhile_divides() -> None:
    """A flag that was evaluated before it was an experiment, and a new version of one."""
    off = experiment_flag("flag", ["a", "b"]) | {"on": False}
    with laboratory(off) as lab:
        with ld.session("u-1", client=lab.client) as s:
            lab.expose("u-1")
            s.conversion(1)
            lab.change(experiment_flag("flag", ["a", "b"]))
            lab.expose("u-1")
            s.conversion(10)
            restarted = experiment_flag("flag", ["a", "b"], seed=7)
            lab.change(restarted)
            time.sleep(0.003)
            second = int(time.time() * 1000)
            lab.expose("u-1")
            s.conversion(100)
        lab.flush()

        assert lab.counted("business.conversion", "u-1") == [10, 100]
        events = lab.server.custom_events("business.conversion")
        assert [event["metricValue"] for event in events if event["creationDate"] >= second] == [
            100
        ]


def test_an_exposure_that_was_dropped_is_noted_anew() -> None:
    """Its event never left: the next one is the first that LaunchDarkly knows."""
    with laboratory() as lab:
        with ld.session("u-1", client=lab.client) as s:
            s.conversion(1)
            evaluations.exposed("flag", 1, Context.create("u-1"), int(time.time() * 1000))
            evaluations.lost(_Exposure)
            s.conversion(10)
            lab.expose("u-1")
            s.conversion(100)
        lab.flush()

        assert lab.counted("business.conversion", "u-1") == [100]


class _Exposure:
    """An event of the SDK."""

    key = "flag"
    context = Context.create("u-1")
    reason = {"kind": "FALLTHROUGH", "inExperiment": True}

    class flag:
        version = 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_parent_folds_nothing_across_an_exposure_of_its_child(lab: Laboratory) -> None:
    """Of which it hears nothing: what it records in an open session leaves value by value."""
    with ld.session("u-1", client=lab.client) as s:
        s.conversion(100)
        child = os.fork()
        if child == 0:  # pragma: no cover - not measured there
            try:
                lab.client.postfork()
                lab.expose("u-1")
                ld.flush(5, client=lab.client)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        s.conversion(10)
        s.conversion(1)
    with ld.session("u-1", client=lab.client) as s:  # opened later: as in any other worker
        s.conversion(5)
        s.conversion(5)
    lab.flush()

    assert sorted(lab.counted("business.conversion", "u-1")) == [1, 10, 10]


@pytest.mark.parametrize("attached", [False, True])
def test_a_forked_child_sees_its_exposures_after_postfork(attached: bool) -> None:
    """`postfork()` drops hooks that were added; they are restored with the next session."""
    options: dict[str, Any] = {"plugins": [], "event_processor_class": None} if attached else {}
    with laboratory(**options) as lab:
        if attached:
            ld.attach(lab.client)
        child = os.fork()
        if child == 0:
            try:
                lab.client.postfork(start_wait=60)
                with ld.session("u-1", client=lab.client) as s:
                    s.conversion(1)
                    s.conversion(99)
                    lab.expose("u-1")
                    s.conversion(10)
                ld.flush(60, client=lab.client)
                lab.client.close()  # the SDK's own processor says only here when it has sent all
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        lab.server.wait_for(lambda: lab.server.count(key="session.duration"))

        assert lab.counted("business.conversion", "u-1") == [10]
        assert len(lab.server.custom_events("business.conversion")) == 2


# -- rule 3: once  ---


def test_an_occurrence_before_and_after_counts(lab: Laboratory) -> None:
    """At most two events, first and last, whenever the exposure was."""
    with ld.session("u-1", client=lab.client) as s:
        s.record("e.seen")
        lab.expose("u-1")
        for _ in range(50):
            s.record("e.seen")
    with ld.session("u-2", client=lab.client) as s:
        s.record("e.seen")
        lab.expose("u-2")
    lab.flush()

    assert lab.counted("e.seen", "u-1") == [None]
    assert lab.counted("e.seen", "u-2") == []
    assert len(lab.server.custom_events("e.seen")) == 3


def test_an_occurrence_beside_a_sum_is_no_value_of_it(lab: Laboratory) -> None:
    """A sum that leaves units without events out would take a 0 for a value."""
    ld.catalog.add(
        ld.Metric(
            "e.sum",
            unit="items",
            success_criteria="HigherThanBaseline",
            aggregation="sum",
            zero_fill=False,
        ),
        ld.Metric("e.sum.happened", "occurrence", event_key="e.sum"),
    )
    for unit in ("u-1", "u-2"):
        lab.expose(unit)
        with ld.session(unit, client=lab.client) as s:
            s.record("e.sum.happened")
            if unit == "u-1":
                s.record("e.sum", 10)
    lab.flush()

    assert sorted(map(str, lab.counted("e.sum", "u-1"))) == ["10", "None"]
    assert lab.counted("e.sum", "u-2") == [None]


# -- rule 4: what the process cannot see  ---


def test_an_exposure_in_another_service_divides_no_sum(lab: Laboratory) -> None:
    """The table in docs/experiments.md: sums count whole by their last value, the rest is exact."""
    service = client_of(lab.server, plugins=[], event_processor_class=None)
    try:
        with ld.session("u-1", client=lab.client) as s:
            for _ in range(2):
                s.conversion(50)
                s.record("e.each", 1)
                s.record("e.seen")
                s.interaction()
            time.sleep(0.003)
            service.variation("flag", Context.create("u-1"), None)
            time.sleep(0.003)
            s.conversion(10)
            s.record("e.each", 2)
            s.interaction(False)
        with ld.session("u-2", client=lab.client) as s:
            s.record("e.seen")
            s.conversion(50)
            time.sleep(0.003)
            service.variation("flag", Context.create("u-2"), None)
            time.sleep(0.003)
        service.flush()
        lab.flush()
        lab.server.wait_for(lambda: len(lab.server.events("feature")) == 2)
    finally:
        service.close()

    assert lab.counted("business.conversion", "u-1") == [110]  # 10 came after it
    assert lab.counted("session.interactions", "u-1") == [3]  # 1 came after it
    assert lab.counted("e.each", "u-1") == [2]
    assert lab.counted("e.seen", "u-1") == []
    assert lab.counted("e.seen", "u-2") == []
    assert lab.counted("business.conversion", "u-2") == []
    assert len(lab.counted("session.duration", "u-1")) == 1
    assert len(lab.counted("session.duration", "u-2")) == 1


# -- rule 5: clocks  ---


@pytest.mark.parametrize("step", [+3600.0, -3600.0, +0.06, -0.06])
@pytest.mark.parametrize("seen", [True, False])
def test_a_corrected_wall_clock_moves_nothing_across_an_exposure(
    lab: Laboratory, monkeypatch: pytest.MonkeyPatch, step: float, seen: bool
) -> None:
    """Set forward or back while a session is open: before stays before, and after stays after."""
    real = time.time
    with ld.session("u-1", client=lab.client) as s:
        s.conversion(100)
        s.interaction()
        monkeypatch.setattr(time, "time", lambda: real() + step)
        if seen:
            lab.expose("u-1")
        else:
            lab.elsewhere(lambda: lab.expose("u-1"))
        s.conversion(10)
        s.record("e.each", 3)
    monkeypatch.setattr(time, "time", real)
    lab.flush()

    assert lab.counted("business.conversion", "u-1") == [10]
    assert lab.counted("e.each", "u-1") == [3]
    assert sum(lab.counted("session.interactions", "u-1")) == 0
    (duration,) = lab.counted("session.duration", "u-1")
    assert duration < 60_000


def test_a_clock_set_back_between_sessions_loses_nothing(
    lab: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a later session records is not dated before an exposure that the process has seen."""
    real = time.time
    lab.expose("u-1")
    monkeypatch.setattr(time, "time", lambda: real() - 3600)
    with ld.session("u-1", client=lab.client) as s:
        with ld.track_task("e.task"):
            pass
        s.conversion(10)
        s.record("e.each", 3)
    monkeypatch.setattr(time, "time", real)
    lab.flush()

    assert lab.counted("e.task.success_rate", "u-1") == [1.0]

    assert lab.counted("business.conversion", "u-1") == [10]
    assert lab.counted("e.each", "u-1") == [3]
    assert len(lab.counted("session.duration", "u-1")) == 1


def test_a_clock_set_back_by_little_keeps_what_has_left_before_an_exposure(
    lab: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less than a time server corrects at once; also between two exposures of a user."""
    real, by = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() - by)
    lab.server.set_flag(experiment_flag("second", ["a", "b"]))
    lab.until_served("second")
    with ld.session("u-1", client=lab.client) as s:
        s.record("e.each", 1)
    by = 0.06
    lab.expose("u-1")
    with ld.session("u-1", client=lab.client) as s:
        s.record("e.each", 2)
        by = 0.12
        lab.elsewhere(lambda: lab.expose("u-1", "second"))
        s.record("e.each", 3)
    lab.flush()

    assert lab.counted("e.each", "u-1") == [2, 3]
    assert lab.counted("e.each", "u-1", "second") == [3]


def test_a_clock_set_back_moves_nobody_elses_exposure(
    lab: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the program tracks itself is dated by that clock: it comes after the exposure, too."""
    real = time.time
    with ld.session("u-1", client=lab.client) as s:
        s.conversion(1)
    monkeypatch.setattr(time, "time", lambda: real() - 3600)
    user = Context.create("u-2")
    with ld.session(user, client=lab.client) as s:
        s.conversion(100)
        lab.expose(user)
        s.conversion(10)
        lab.client.track("by.hand", user, None, 3)
    lab.flush()

    assert lab.counted("business.conversion", "u-2") == [10]
    assert lab.counted("by.hand", "u-2") == [3]


# -- rule 6: identity  ---


def test_somebody_else_gets_nothing_of_the_totals_before(lab: Laboratory) -> None:
    """Nine successes of A, a failure of B: two accounts, and each has its own."""
    for unit in ("A", "B"):
        lab.expose(unit)
    with ld.session("A", client=lab.client) as s:
        for _ in range(9):
            s.interaction()
        s.identify("B")
        s.interaction(False)
    lab.flush()

    assert lab.counted("session.success_rate", "A") == [100.0]
    assert lab.counted("session.success_rate", "B") == [0.0]
    assert sum(lab.counted("session.interactions", "A")) == 9
    assert sum(lab.counted("session.interactions", "B")) == 1
    reasons = {
        keys_of(event)["user"]: event["data"]["endReason"]
        for event in lab.server.custom_events("session.duration")
    }
    assert reasons == {"A": "identified", "B": "ended"}


def test_widening_is_a_boundary(lab: Laboratory) -> None:
    """What was recorded before an organisation was known is not the organisation's."""
    lab.expose(multi(user="u-1", org="acme"))
    with ld.session("u-1", client=lab.client) as s:
        s.conversion(100)
        s.identify(multi(user="u-1", org="acme"))
        s.conversion(10)
    lab.flush()

    assert sum(lab.counted("business.conversion", "u-1")) == 110
    assert lab.counted("business.conversion", "acme", kind="org") == [10]


# -- which client  ---


def test_the_client_whose_exposure_was_seen_takes_the_events() -> None:
    """Two environments in one process: conversions follow the exposures."""
    with LocalLaunchDarkly() as first, laboratory() as second:
        other = client_of(first, "sdk-other")
        try:
            with ld.session("u-1") as s:
                second.expose("u-1")
                s.conversion(10)
            second.flush()
            ld.flush(5, client=other)
            assert second.counted("business.conversion", "u-1") == [10]
            assert first.custom_events() == []
        finally:
            other.close()


def test_an_exposure_in_another_environment_is_another_one(lab: Laboratory) -> None:
    """The flags have one key and one version, and the user was exposed to the other one before."""
    lab.expose("u-1")
    with laboratory() as other:
        with ld.session("u-1", client=other.client) as s:
            s.conversion(100)
            other.expose("u-1")
            s.conversion(10)
        other.flush()
        assert other.counted("business.conversion", "u-1") == [10]


def test_several_environments_and_no_exposure_are_ambiguous() -> None:
    """Never one environment's events to another: they are discarded by name, and it is said."""
    with LocalLaunchDarkly() as first, laboratory() as second:
        other = client_of(first, "sdk-other")
        try:
            with ld.session("u-1"):
                pass
            read = ld.stats()
            assert dict(read.values.discarded) == {"ambiguous_client": 2}
            assert ("ambiguous_client", "") in read.warnings
        finally:
            other.close()
        with ld.session("u-2"):
            pass
        second.flush()
        assert len(second.server.custom_events("session.duration")) == 1


def test_clients_of_one_environment_are_one(lab: Laboratory) -> None:
    """The newest takes the events; nothing is ambiguous about it."""
    newer = client_of(lab.server)
    try:
        with ld.session("u-1"):
            pass
        ld.flush(5)
        assert len(lab.server.custom_events("session.duration")) == 1
        assert "ambiguous_client" not in ld.stats().values.discarded
    finally:
        newer.close()
