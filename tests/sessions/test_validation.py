"""Bad input costs at most that one value, says once what to do, and never raises into the host."""

from __future__ import annotations

import datetime
import decimal
import fractions
import json
import logging
import subprocess
import sys
import uuid
from typing import Any

import ldclient
import pytest
from ldclient.client import LDClient
from ldclient.config import Config

import ldinstrument as ld
from ldinstrument.errors import StrictError
from ldinstrument.metrics.metric import Metric
from ldinstrument.sessions import emission
from ldinstrument.sessions.registry import stats
from ldinstrument.testing import RecordingClient, recording

CIRCLE: dict[str, Any] = {"a": 1}
CIRCLE["self"] = CIRCLE


@pytest.fixture(autouse=True)
def _metrics() -> None:
    ld.catalog.add(
        Metric("in.value", unit="items", success_criteria="HigherThanBaseline"),
        Metric("in.count", "count"),
        Metric("in.once", "occurrence"),
    )


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        float("-inf"),
        True,
        False,
        "7",
        b"7",
        None,
        object(),
        10**400,
        1 + 2j,
        [1],
    ],
)
def test_a_value_that_is_no_finite_number_costs_itself(
    ld_events: RecordingClient, caplog: pytest.LogCaptureFixture, value: object
) -> None:
    """The good value beside it arrives; the log says it once, in one line, without the value's
    text.
    """
    with ld.session("u-1") as s:
        s.record("in.value", value)
        s.record("in.value", value)
        s.record("in.value", 1.5)

    assert [1.5] == ld_events.values("in.value")
    assert sum(stats().values.discarded.values()) == 2
    said = [record.message for record in caplog.records]
    assert len(said) == 1
    assert "in.value" in said[0]
    assert "\n" not in said[0]


@pytest.mark.parametrize("value", [decimal.Decimal("1.5"), 1.5, 3, fractions.Fraction(3, 2)])
def test_every_real_number_is_one(ld_events: RecordingClient, value: Any) -> None:
    """`Decimal` is what shops count money in."""
    with ld.session("u-1") as s:
        s.record("in.value", value)

    assert [float(value)] == ld_events.values("in.value")


@pytest.mark.parametrize("value", [-1, 1.5, "2", True, 10**9])
def test_a_count_is_a_small_whole_number(ld_events: RecordingClient, value: object) -> None:
    """Anything else costs itself."""
    with ld.session("u-1") as s:
        s.record("in.count", value)

    assert ld_events.values("in.count") == []


@pytest.mark.parametrize("value", [0.0, 1, True, "yes"])
def test_an_occurrence_takes_no_value(ld_events: RecordingClient, value: object) -> None:
    """LaunchDarkly would count 0.0 as a conversion."""
    with ld.session("u-1") as s:
        s.record("in.once", value)

    assert ld_events.values("in.once") == []
    assert stats().values.discarded == {"value_for_occurrence": 1}


@pytest.mark.parametrize(
    "bad",
    [
        decimal.Decimal(1),
        datetime.datetime(2026, 1, 1),
        {1, 2},
        b"bytes",
        CIRCLE,
        float("nan"),
        object(),
        lambda: 1,
    ],
    ids=lambda bad: type(bad).__name__,
)
def test_bad_data_costs_its_own_entry(
    ld_events: RecordingClient, caplog: pytest.LogCaptureFixture, bad: object
) -> None:
    """The event and the entries beside it arrive; the entry is named."""
    with ld.session("u-1") as s:
        s.record("in.value", 1, data={"bad": bad, "good": 1, "list": [1, bad]})

    data = ld_events.only("in.value").data
    assert data["good"] == 1
    assert data["list"][0] == 1
    assert "'bad'" in caplog.text
    json.dumps(data, allow_nan=False)


@pytest.mark.parametrize("data", ["text", [1], 7, {1: 2}, {"k": "\ud800"}])
def test_data_of_another_shape_costs_no_event(ld_events: RecordingClient, data: Any) -> None:
    """Not a dict, no string key, a lone surrogate."""
    with ld.session("u-1") as s:
        s.record("in.value", 1, data=data)

    json.dumps(ld_events.only("in.value").data).encode("utf-8")


def test_huge_data_is_capped(ld_events: RecordingClient) -> None:
    """The largest entries go first."""
    with ld.session("u-1") as s:
        s.record("in.value", 1, data={"huge": "x" * 100_000, "small": 1})

    assert ld_events.only("in.value").data == {"small": 1}


def test_hostile_data_never_reaches_the_host(ld_events: RecordingClient) -> None:
    """A mapping that raises costs its data."""

    class Hostile(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            raise RuntimeError("no")

        keys = __iter__ = __getitem__ = items

    with ld.session("u-1") as s:
        s.record("in.value", 1, data=Hostile(a=1))

    assert len(ld_events.of("in.value")) == 1


def test_an_undeclared_key_is_sent_and_said_once(
    ld_events: RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    """LaunchDarkly accepts it; somebody may have made the metric by hand."""
    with ld.session("u-1") as s:
        s.record("nobody.knows", 3)
        s.record("nobody.knows", 4)

    assert [3, 4] == ld_events.values("nobody.knows")
    assert caplog.text.count("nobody.knows") >= 1
    assert len(caplog.records) == 1


@pytest.mark.parametrize("key", [None, 7, "", object()])
def test_a_key_that_is_none_costs_itself(ld_events: RecordingClient, key: Any) -> None:
    """Nothing is raised."""
    with ld.session("u-1") as s:
        s.record(key, 1)

    assert stats().values.discarded == {"bad_key": 1}


def test_no_client_holds_events_and_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They leave when a client appears; we never make one, which could take seconds."""
    with ld.session("u-1") as s:
        s.record("in.value", 1)
    assert "no LaunchDarkly client yet" in caplog.text
    assert stats().values.open == 3

    somebody_elses, singleton = RecordingClient(), RecordingClient()
    with ld.session("u-2", client=somebody_elses):
        pass
    assert somebody_elses.values("in.value") == []
    monkeypatch.setitem(vars(ldclient), "__client", singleton)
    with ld.session("u-3"):
        pass

    assert [1] == singleton.values("in.value")
    assert stats().values.open == 0


def test_held_events_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first, and are counted."""
    monkeypatch.setattr(emission, "HELD_EVENTS", 10)
    for n in range(25):
        ld.track_revenue(n + 1, context="u-1")

    assert stats().values.discarded == {"no_client": 15}
    assert stats().values.open == 10


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"offline": True}, "offline"), ({"send_events": False}, "send_events_off")],
)
def test_a_client_that_sends_nothing_is_named(
    fields: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Offline, or with events off: nothing leaves, and the ledger says why."""
    client = LDClient(Config("sdk-key", use_ldd=True, **fields))
    try:
        with (
            caplog.at_level(logging.WARNING, "ldinstrument"),
            ld.session("u-1", client=client) as s,
        ):
            s.record("in.value", 1)
    finally:
        client.close()

    assert stats().values.discarded == {reason: 3}
    (said,) = [record.getMessage() for record in caplog.records if record.name == "ldinstrument"]
    (setting,) = fields.items()
    assert f"({setting[0]}={setting[1]}): take that out of its Config" in said


def test_a_failing_client_never_reaches_the_host() -> None:
    """An exception in track costs the event and is counted."""

    class Broken:
        def track(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("broken")

    with ld.session("u-1", client=Broken()) as s:  # type: ignore[arg-type]
        s.record("in.value", 1)

    assert stats().events.dropped == {"client_error": 3}


def test_a_missing_analysis_unit_is_said(
    ld_events: RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    """LaunchDarkly would silently ignore the event."""
    ld.catalog.add(
        Metric(
            "in.request",
            unit="items",
            success_criteria="HigherThanBaseline",
            analysis_units=["request"],
        )
    )
    with ld.session("u-1") as s:
        s.record("in.request", 1)

    assert "analysed by request" in caplog.text


def test_strict_raises_what_production_logs() -> None:
    """In tests a complaint may be an error."""
    with (
        recording(strict=True),
        ld.session("u-1") as s,
        pytest.raises(StrictError, match="finite number"),
    ):
        s.record("in.value", float("nan"))


def test_two_sums_that_overflow_are_dropped(ld_events: RecordingClient) -> None:
    """Finite values may sum to infinity, which JSON cannot carry."""
    with ld.session("u-1") as s:
        s.revenue(1.7e308)
        s.revenue(1.7e308)

    assert ld_events.values("revenue.impact") == []
    assert stats().values.discarded == {"not_a_number": 2}


@pytest.mark.parametrize("given", [uuid.uuid4(), 7, b"x", object(), "\ud800", "x" * 1000, 0])
def test_any_id_becomes_a_text(ld_events: RecordingClient, given: Any) -> None:
    """An id that JSON cannot carry would cost the SDK's whole batch."""
    with ld.session("u-1", id=given):
        pass

    data = ld_events.only("session.duration").data
    assert isinstance(data["sessionId"], str)
    assert 0 < len(data["sessionId"]) <= 256
    json.dumps(data).encode()


class Hostile:
    """Raises whatever it is asked."""

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")

    __str__ = __len__ = __iter__ = __repr__ = __bool__  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("attempt", "discarded"),
    [
        (lambda s: s.interaction(Hostile()), {}),
        (lambda s: s.feedback(Hostile()), {}),
        (lambda s: s.task_success("t", Hostile()), {}),
        (lambda s: s.add_data(x=10**5000, y=Hostile()), {}),
        (lambda s: s.record("in.value", 1, data=Hostile()), {}),
        (lambda s: s.record("in.value", Hostile()), {"not_a_number": 1}),
        (lambda s: s.record(Hostile(), 1), {"bad_key": 1}),
        (lambda s: s.conversion(Hostile()), {"not_a_number": 1}),
        (lambda s: s.revenue(Hostile()), {"not_a_number": 1}),
        (lambda s: s.satisfaction(Hostile()), {"not_a_number": 1}),
        (lambda s: s.identify(Hostile()), {}),
        (lambda s: s.end(Hostile()), {}),
        (lambda s: ld.track_revenue(Hostile(), context=Hostile()), {"not_a_number": 1}),
        (lambda s: ld.session("u", id=Hostile(), data=Hostile()).__enter__(), {}),
    ],
)
def test_a_hostile_object_never_reaches_the_host(
    ld_events: RecordingClient, attempt: Any, discarded: dict[str, int]
) -> None:
    """The block goes on, what it records arrives, the bad value is counted, and it is said."""
    with ld.session("u-1") as s:
        attempt(s)
        s.record("in.value", 2)

    assert 2 in ld_events.values("in.value")
    assert ld_events.of("session.interactions")
    read = stats()
    assert dict(read.values.discarded) == discarded
    assert read.values.open == 0
    assert sum(read.warnings.values()) >= 1


def test_wide_data_neither_stalls_nor_floods(
    ld_events: RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten thousand keys, a list of dates, and lists shared to the power of eight: bounded, and said
    once each.
    """
    shared: list[Any] = [1]
    for _ in range(8):
        shared = [shared] * 6
    with ld.session("u-1") as s:
        s.record("in.value", 1, data={f"k{n}": n for n in range(10_000)})
        s.record("in.value", 1, data={"dates": [datetime.datetime(2026, 1, 1)] * 500})
        s.record("in.value", 1, data={"shared": shared})

    assert len(ld_events.of("in.value")) == 3
    assert len(caplog.records) <= 4


@pytest.mark.parametrize("key", ["$ld:ai:tokens:total", "otel.http.error"])
def test_launchdarklys_own_keys_are_not_recorded(
    ld_events: RecordingClient, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    """They would mix with its own metrics, and no Metric may be declared for them."""
    with ld.session("u-1") as s:
        s.record(key, 1)

    assert stats().values.discarded == {"reserved_prefix": 1}
    assert "catalog.add" not in caplog.text


@pytest.mark.parametrize("client", [LDClient, ldclient.get, "sdk-key", 5])
def test_what_is_no_client_is_said_with_advice(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The class, the forgotten parentheses, a key: the block runs, each event is counted."""
    with ld.session("u-1", client=client) as s:
        s.record("in.value", 1)

    assert "give an LDClient" in caplog.text
    read = stats()
    assert read.values.open == 0
    assert read.events.pending == 0


def test_a_client_that_interrupts_leaves_no_value_open() -> None:
    """Ctrl-C inside track comes out, and what it cut off is counted."""

    class Interrupted:
        def track(self, *args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    s = ld.session("u-1", client=Interrupted()).__enter__()  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        s.end()

    read = stats()
    assert (read.values.open, read.events.pending) == (0, 0)
    assert dict(read.events.dropped) == {"client_error": 1, "interrupted": 1}


@pytest.mark.parametrize("key", ["area.a\nWARNING:root:all is well", "\x1b[2Jarea", "k" * 5000])
def test_what_comes_from_outside_is_said_in_one_line(
    key: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A key with a line break in it writes no second line into the log, and a long one no page."""
    with ld.session("u-1", client=RecordingClient()) as s:
        s.record(key, 1)

    (said,) = caplog.records
    assert said.getMessage().isprintable()
    assert len(said.getMessage()) < 700


@pytest.mark.parametrize("broken", ["filter", "handler"])
def test_a_log_that_is_broken_costs_only_the_message(broken: str) -> None:
    """The host's logging raises where we complain: what we complain of is counted, and nobody is
    interrupted.
    """

    class Broken(logging.Handler):
        def filter(self, record: logging.LogRecord) -> bool:
            raise RuntimeError("filter")

        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("handler")

    @ld.track_task("in.task")
    def work() -> int:
        return 3

    class Failing:
        def track(self, *args: Any, **kwargs: Any) -> None:
            raise OSError

    log, handler = logging.getLogger("ldinstrument"), Broken()
    attach, detach = (
        (log.addFilter, log.removeFilter)
        if broken == "filter"
        else (log.addHandler, log.removeHandler)
    )
    if broken == "handler":
        handler.filter = lambda record: True  # type: ignore[method-assign]
    attach(handler)  # type: ignore[operator]
    try:
        assert work() == 3
        ld.track_conversion("no number", context="u-1")
        with ld.session(5, client=Failing()) as s:  # type: ignore[call-overload]
            s.identify("u-1")
    finally:
        detach(handler)  # type: ignore[operator]

    read = stats()
    assert read.values.discarded == {"no_session": 2, "not_a_number": 1}
    assert dict(read.events.dropped) == {"client_error": 2}


def test_strictness_ends_with_its_block() -> None:
    """A strict recording inside a lenient one, and after it, production's leniency."""
    with recording() as outer:
        with recording(strict=True), pytest.raises(StrictError):
            ld.track_conversion("no number", context="u-1")
        ld.track_conversion("no number", context="u-1")
        ld.track_conversion(3, context="u-1")
    ld.track_conversion("no number", context="u-1")

    assert [3] == outer.values("business.conversion")
    assert stats().values.discarded == {"not_a_number": 3}


def test_a_wrong_call_is_said_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """It costs itself; there is nothing of ours to see in a traceback."""
    with ld.session("u-1", client=RecordingClient()) as s:
        s.conversion(1, value=2)  # type: ignore[misc]
        s.revenue()  # type: ignore[call-arg]

    assert [False, False] == [bool(record.exc_info) for record in caplog.records]
    assert "conversion() got multiple values for argument 'value'" in caplog.text
    assert "revenue() missing 1 required positional argument: 'value'" in caplog.text


def test_data_nested_too_deep_costs_its_entry(caplog: pytest.LogCaptureFixture) -> None:
    """A tree of 20 levels goes with the event; a deeper one is left out, by name, however deep it
    is.
    """
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"deeper": deep}
    shallow: list[Any] = ["leaf"]
    for _ in range(10):
        shallow = [shallow]
    client = RecordingClient()
    with ld.session("u-1", client=client) as s:
        s.record("in.value", 1, data={"deep": deep, "shallow": shallow, "kept": 1})

    data = client.only("in.value").data
    assert (data["shallow"], data["kept"]) == (shallow, 1)
    assert str(data["deep"]).count("deeper") < 20
    assert "data['deep'] left out: nested deeper than 20" in caplog.text


def test_whole_numbers_beyond_64_bits_travel_as_floats() -> None:
    """JSON has no limit, but who reads it has: LaunchDarkly's numbers are doubles."""
    client = RecordingClient()
    with ld.session("u-1", client=client) as s:
        for number in (2**62, 2**80, -(2**80)):
            s.record("in.value", number)

    assert [(type(value), value) for value in client.values("in.value")] == [
        (int, 2**62),
        (float, 2.0**80),
        (float, -(2.0**80)),
    ]


@pytest.mark.parametrize("timeout", ["2", None, float("nan"), -1, object()])
def test_flush_takes_any_timeout(timeout: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It never raises; what is no number of seconds is said in one line."""
    assert ld.flush(timeout) is not None
    assert "ldinstrument bug" not in caplog.text


def test_numbers_are_told_without_loading_their_modules() -> None:
    """Who records a `Decimal` has loaded `decimal`; a subclass of `int` stays whole without."""
    program = (
        "import sys, enum\n"
        "from ldinstrument.sessions.validation import number\n"
        "class Plan(enum.IntEnum):\n    PRO = 3\n"
        "loaded = {'decimal', 'numbers'} & set(sys.modules)\n"
        "print(repr(number(Plan.PRO)), number(object()), loaded)\n"
        "from decimal import Decimal\n"
        "print(number(Decimal('1.5')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["3 None set()", "1.5"]
