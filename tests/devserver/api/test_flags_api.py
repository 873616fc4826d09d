"""Flags and their statuses over REST: what an SDK's flag is in LaunchDarkly's API."""

from __future__ import annotations

import datetime

import pytest

from ldinstrument.devserver import experiment_flag
from ldinstrument.devserver.responses import now_ms

from ..recorded_events import exposure
from .rest_answers import refused

FLAGS = "/api/v2/flags/default"
STATUS = "/api/v2/flag-statuses/default/production"


@pytest.fixture(name="environment")
def _environment(http):
    return http("GET", "/api/v2/projects/default/environments").json()["items"][0]["key"]


def test_a_flag_has_launchdarklys_shape(http, ld, environment):
    """Its variations, who gets it, and its state in each environment."""
    ld.set_flag(
        {
            "key": "new-cart",
            "on": True,
            "variations": [False, True],
            "fallthrough": {"variation": 1},
            "rules": [{"id": "r-1", "variation": 0, "clauses": [{"attribute": "plan"}]}],
            "clientSide": True,
        }
    )
    found = http("GET", f"{FLAGS}/new-cart").json()
    assert (found["key"], found["kind"]) == ("new-cart", "boolean")
    assert [each["value"] for each in found["variations"]] == [False, True]
    assert found["clientSideAvailability"] == {"usingEnvironmentId": True, "usingMobileKey": True}
    state = found["environments"][environment]
    assert (state["on"], state["fallthrough"]) == (True, {"variation": 1})
    (rule,) = state["rules"]
    assert (rule["_id"], "id" in rule) == ("r-1", False)
    assert rule["clauses"] == [{"_id": "r-1-0", "negate": False, "attribute": "plan"}]


def test_any_other_values_are_multivariate(http, ld):
    """Three booleans, too; ours stay ours."""
    ld.set_flag(experiment_flag("text", ["a", "b"], metrics=["m"]))
    found = http("GET", f"{FLAGS}/text").json()
    assert found["kind"] == "multivariate"
    assert "experimentMetrics" not in found


def test_flags_come_in_pages(http, ld):
    """A flag that is not there is none."""
    for number in range(3):
        ld.set_flag(experiment_flag(f"f-{number}", ["a", "b"]))
    page = http("GET", FLAGS, params={"limit": 2, "offset": 2}).json()
    assert (len(page["items"]), page["totalCount"]) == (2, 4)
    refused(http("GET", FLAGS, params={"limit": 101}))
    refused(http("GET", f"{FLAGS}/nobodys"), 404, "not_found")


@pytest.mark.parametrize(
    ("days", "name"), [(0, "active"), (6.9, "active"), (7.1, "inactive"), (None, "new")]
)
def test_a_flag_is_active_for_a_week_after_an_evaluation(http, ld, environment, days, name):
    """Before the first one it is new."""
    ld.set_flag(experiment_flag("f", ["a", "b"]))
    at = None if days is None else now_ms() - int(days * 86_400_000)
    if at is not None:
        http("POST", "/bulk", json=[exposure("u", at=at)])
    status = http("GET", f"/api/v2/flag-statuses/default/{environment}/f").json()
    assert status["name"] == name
    everywhere = http("GET", "/api/v2/flag-status/default/f").json()["environments"]
    assert everywhere[environment] == {key: status[key] for key in status if key != "_links"}
    if at is None:
        assert "lastRequested" not in status
    else:
        moment = datetime.datetime.strptime(status["lastRequested"], "%Y-%m-%dT%H:%M:%S.%f%z")
        assert moment.timestamp() * 1000 == pytest.approx(at, abs=1)
