"""Metric groups over REST, by the official client and its strict models."""

from __future__ import annotations

import launchdarkly_api as api
import pytest
from launchdarkly_api import exceptions

FUNNEL = {
    "key": "checkout",
    "name": "Checkout",
    "kind": "funnel",
    "maintainerId": "569fdeadbeef1644facecafe",
    "tags": ["shop"],
    "metrics": [
        {"key": "cart", "nameInGroup": "1. Cart"},
        {"key": "paid", "nameInGroup": "2. Paid"},
    ],
}
BETA = ("LD-API-Version", "beta")
CONVERSION = {"isNumeric": False, "unit": None, "eventDefault": {"disabled": False}}


@pytest.fixture(name="groups")
def _groups(ld, metric):
    for key in ("cart", "paid"):
        metric(key=key, eventKey=key, **CONVERSION)
    configuration = api.Configuration(host=ld.url)
    configuration.api_key["ApiKey"] = "api-token"
    with api.ApiClient(configuration) as client:
        client.set_default_header(*BETA)
        yield api.MetricsBetaApi(client)


def made_of(**fields) -> api.MetricGroupPost:
    return api.MetricGroupPost.from_dict({**FUNNEL, **fields})


def test_a_group_is_made_read_changed_and_deleted(groups):
    """With the official client, whose models are strict."""
    made = groups.create_metric_group("default", made_of())
    assert (made.key, made.kind, made.version, made.maintainer.key) == (
        "checkout",
        "funnel",
        1,
        FUNNEL["maintainerId"],
    )
    assert [(each.key, each.name_in_group) for each in made.metrics] == [
        ("cart", "1. Cart"),
        ("paid", "2. Paid"),
    ]
    assert groups.get_metric_groups("default").total_count == 1
    change = [api.PatchOperation(op="replace", path="/name", value="Till")]
    changed = groups.patch_metric_group("default", "checkout", change)
    assert (changed.name, changed.version) == ("Till", 2)
    assert groups.patch_metric_group("default", "checkout", change).version == 2
    assert groups.get_metric_group("default", "checkout").name == "Till"
    groups.delete_metric_group("default", "checkout")
    assert groups.get_metric_groups("default").items == []
    with pytest.raises(exceptions.NotFoundException):
        groups.get_metric_group("default", "checkout")


def test_a_taken_key_is_a_conflict_and_projects_do_not_share_groups(groups):
    """A group belongs to one project."""
    groups.create_metric_group("default", made_of())
    with pytest.raises(exceptions.ConflictException):
        groups.create_metric_group("default", made_of())
    assert groups.get_metric_groups("shop").items == []


@pytest.mark.parametrize(
    "fields",
    [
        {"key": "no spaces here"},
        {"key": ""},
        {"kind": "pile"},
        {"maintainerId": ""},
        {"metrics": [{"key": "cart", "nameInGroup": "alone"}]},
        {"metrics": [{"key": "cart", "nameInGroup": "a"}, {"key": "no", "nameInGroup": "b"}]},
        {"metrics": [{"key": "cart", "nameInGroup": ""}, {"key": "paid", "nameInGroup": "b"}]},
        {"tags": [1]},
        {"description": 3},
        {"metrics": 7},
    ],
)
def test_what_is_no_group_is_refused(groups, http, fields):
    """With 400 and the code of LaunchDarkly."""
    path, body = "/api/v2/projects/default/metric-groups", {**FUNNEL, **fields}
    answer = http("POST", path, json=body, headers=dict([BETA]))
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_a_metric_that_was_deleted_leaves_its_groups(groups, http):
    """The others stay in their order."""
    groups.create_metric_group("default", made_of())
    http("DELETE", "/api/v2/metrics/default/cart")
    assert [each.key for each in groups.get_metric_group("default", "checkout").metrics] == ["paid"]


@pytest.mark.parametrize("version", [None, "20240415"])
def test_a_call_without_the_header_of_beta_resources_is_refused(http, version):
    """LaunchDarkly answers 403: a program that forgets the header would fail there only."""
    headers = {"LD-API-Version": version} if version else {}
    path = "/api/v2/projects/default/metric-groups"
    answers = [
        http("GET", path, headers=headers),
        http("DELETE", f"{path}/checkout", headers=headers),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert "LD-API-Version: beta" in answer.json()["message"]
