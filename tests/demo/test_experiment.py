"""The demo's totals and verdicts are what its traffic really did."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ldinstrument.cli.demo import demo_lines
from ldinstrument.demo import model
from ldinstrument.demo.experiment import Finished, local_launchdarkly, run_experiment
from ldinstrument.demo.helpdesk import FLAG, VOICES
from ldinstrument.demo.traffic import QUESTIONS

VISITORS = 120
SWAPPED = {"short": model.HELPFUL["long"], "long": model.HELPFUL["short"]}
MODEL = ("assistant.answer.cost", "assistant.answer.tokens.total", "assistant.answer.unfinished")


@pytest.fixture(name="finished", scope="module")
def _finished() -> Iterator[Finished]:
    """The experiment in a world in which the short voice helps more often."""
    with pytest.MonkeyPatch.context() as patch, local_launchdarkly() as local:
        patch.setattr(model, "HELPFUL", SWAPPED)
        yield run_experiment(local, VISITORS)


def test_the_totals_are_what_the_visitors_got(finished: Finished) -> None:
    """The visitors' own account, kept from HTTP answers, against the read-out's join of exposures
    and events.
    """
    assert finished.report.ok
    assert VISITORS == sum(len(account.visitors) for account in finished.accounts.values())
    assert set(VOICES) == set(finished.accounts)
    for variation, voice in enumerate(VOICES):
        account = finished.accounts[voice]
        answered = finished.readout.row("assistant.answer.success_rate", FLAG, variation)
        sales = finished.readout.row("business.conversion", FLAG, variation)
        requests = finished.readout.row("request.interactions", FLAG, variation)
        rate = finished.readout.row("request.success_rate", FLAG, variation)
        assert answered.units == len(account.visitors)
        assert answered.events == account.requests
        assert answered.mean == pytest.approx(account.helpful / account.requests)
        assert sales.mean is not None
        assert sales.mean * sales.units == pytest.approx(account.sales)
        assert requests.mean == pytest.approx(len(QUESTIONS))
        assert rate.mean == pytest.approx(100 * (1 - account.failed / account.requests))


@pytest.mark.parametrize("metric", MODEL)
def test_what_the_model_used_is_measured(finished: Finished, metric: str) -> None:
    """Of both voices, by `track_ai`."""
    assert all(finished.readout.row(metric, FLAG, place).events for place in range(len(VOICES)))


def test_the_verdict_follows_from_the_data(finished: Finished) -> None:
    """Where the other voice helps more often, the other voice wins."""
    last = [line for line, _ in demo_lines(finished)][-3:]

    assert last[1].startswith("assistant.answer.success_rate: long is worse, -")
