"""The SDK's hook: exposures of a client that can be watched in no other way."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from laboratory import laboratory
from ldclient import Context

import ldinstrument as ld
from ldinstrument import sdk
from ldinstrument.sessions.exposures import exposures
from ldinstrument.sessions.hook import ExposureHook
from ldinstrument.testing import RecordingClient

SERIES = SimpleNamespace(key="flag", context=Context.create("u-1"))


def detail(in_experiment: Any = True, reason: Any = None) -> Any:
    """What an evaluation came to."""
    return SimpleNamespace(reason=reason or {"kind": "FALLTHROUGH", "inExperiment": in_experiment})


def evaluate(hook: ExposureHook, evaluated: Any, series: Any = SERIES) -> Any:
    """The way of the SDK through its hook: what it hands back before goes in again after."""
    return hook.after_evaluation(series, hook.before_evaluation(series, {"other": 1}), evaluated)


def test_an_exposure_is_noted_at_the_date_of_its_evaluation() -> None:
    """Before its event, however long it took."""
    hook = ExposureHook()
    data = hook.before_evaluation(SERIES, {})
    data["ldinstrument"] -= 7000
    hook.after_evaluation(SERIES, data, detail())
    (noted,) = exposures.of(["u-1"])
    assert noted.date == data["ldinstrument"]


def test_the_session_here_is_whose_it_was_evaluated_for() -> None:
    """Where it did not know anybody."""
    with ld.session(client=RecordingClient()) as s:
        evaluate(ExposureHook(), detail())
        assert s.context == SERIES.context


@pytest.mark.parametrize(
    "evaluated",
    [
        detail(in_experiment=False),
        detail(in_experiment="yes"),
        detail(reason="ERROR"),
        SimpleNamespace(),
    ],
)
def test_any_other_evaluation_is_none(evaluated: Any) -> None:
    """A rule without an experiment, an error, whatever a wrapper hands over."""
    evaluate(ExposureHook(), evaluated)
    assert list(exposures.of(["u-1"])) == []


def test_a_context_that_the_sdk_refuses_is_no_exposure() -> None:
    """Hooks see it all the same."""
    series = SimpleNamespace(key="flag", context=Context.create(""))
    evaluate(ExposureHook(), detail(), series)
    assert exposures.noted == {}


def test_it_is_silent_where_our_processor_sees_more() -> None:
    """Exposures are noted once, with the version of the flag."""
    hook = ExposureHook()
    hook.active = False
    assert hook.before_evaluation(SERIES, {"other": 1}) == {"other": 1}
    evaluate(hook, detail())
    assert exposures.noted == {}


def test_the_data_of_other_hooks_passes_through() -> None:
    """An async client of some versions awaits it."""
    hook = ExposureHook()
    assert evaluate(hook, detail())["other"] == 1
    assert hook.metadata.name == "ldinstrument"

    async def awaited() -> Any:
        return await hook.before_evaluation(SERIES, {"other": 1})

    assert asyncio.run(awaited())["other"] == 1


def test_a_client_that_lets_nobody_look_is_seen_by_the_hook(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A real one: values leave one by one, before and after its exposure."""
    monkeypatch.setattr(sdk, "watch_events", lambda client, look: False)
    with laboratory(plugins=[], event_processor_class=None) as lab:
        ld.attach(lab.client)
        with ld.session("u-1", client=lab.client) as s:
            s.conversion(1)
            lab.expose("u-1")
            s.conversion(10)
        lab.client.flush()
        lab.server.wait_for(lambda: lab.server.count(key="session.duration"))

        assert lab.counted("business.conversion", "u-1") == [10]
