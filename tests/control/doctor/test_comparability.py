"""Whether the variations of an experiment can be compared."""

from __future__ import annotations

from typing import Any

import pytest
from traffic_and_findings import VALUE, broken, client_of, send, user

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.doctor import examine
from ldinstrument.doctor.comparability import comparable
from ldinstrument.doctor.findings import Subject
from ldinstrument.rest import MetricsAPI


def test_a_broken_split_is_no_comparison(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """As many units as allocated in each variation, or nothing can be said."""
    ld.set_flag(experiment_flag("new-cart", [False, True]))
    api.create(VALUE)
    silent = client_of(ld, send_events=False)
    users = [user(f"u-{number}") for number in range(600)]
    arms = [bool(silent.variation("new-cart", context, False)) for context in users]
    silent.close()
    # Two of three in one arm never come.
    came = [user for nth, user in enumerate(users) if not arms[nth] or nth % 3 == 0]
    send(ld, *(("cart.value", context, 1.0 + len(context.key)) for context in came), exposed=came)

    finding = broken(examine(VALUE.key, api, [VALUE]))

    assert finding.check == "comparison"
    assert "sample ratio mismatch" in finding.what


def analysed(*words: str) -> dict[str, Any]:
    comparisons = [{"verdict": {"word": word, "reason": f"because {word}"}} for word in words]
    return {"metric": VALUE.key, "result": {"ldinstrument": {"comparisons": comparisons}}}


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (analysed("better", "undecided"), [("ok", "f: better, because better")]),
        (analysed("better", "not comparable"), [("broken", "f: because not comparable")]),
        (analysed("not comparable", "not comparable"), [("broken", "f: because not comparable")]),
        (analysed(), []),
        (
            {"metric": VALUE.key, "result": None, "reason": "nobody came"},
            [("warning", "f: nobody came")],
        ),
        ({**analysed("better"), "metric": "another"}, []),
    ],
)
def test_each_experiment_has_one_finding(
    api: MetricsAPI, metric: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    """The verdict, or that there is none; what is broken once, and then nothing is well."""
    experiments = ({"flag": "f", "metrics": [metric]},)
    found = comparable(Subject(VALUE.key, api, {}, api.create(VALUE), experiments=experiments))
    assert [(finding.status, finding.what) for finding in found] == expected


def test_without_a_read_out_nothing_is_said(api: MetricsAPI) -> None:
    """LaunchDarkly's own is not asked."""
    assert list(comparable(Subject(VALUE.key, api, {}, api.create(VALUE)))) == []
