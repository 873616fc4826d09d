"""A metric's definition: which fields each kind has, and what LaunchDarkly refuses."""

from __future__ import annotations

import pytest

from ldinstrument.devserver.api.metric_rules import checked
from ldinstrument.devserver.responses import RefusedRequest

from .rest_answers import BASE, CLICK, NUMERIC, PAGE, refused

PERCENTILE = {"analysisType": "percentile", "percentileValue": 95}


FILTER = {"type": "eventProperty", "attribute": "category", "op": "in", "values": ["books"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": None}, "key is required"),
        ({"key": ""}, "key is required"),
        ({"key": ".m"}, "key must start"),
        ({"key": "a b"}, "key must start"),
        ({"key": "$ld:ai"}, "key must start"),
        ({"key": 7}, "key must be a string"),
        ({"kind": None}, "kind is required"),
        ({"kind": "funnel"}, "kind must be one of"),
        ({"eventKey": None}, "eventKey is required"),
        ({"isNumeric": None}, "isNumeric is required"),
        ({"isNumeric": "yes"}, "isNumeric must be true or false"),
        ({"unit": None}, "unit is required"),
        ({"unit": ""}, "unit is required"),
        ({"successCriteria": None}, "successCriteria is required"),
        ({"successCriteria": ""}, "successCriteria must be one of"),
        ({"successCriteria": "Higher"}, "successCriteria must be one of"),
        ({"unitAggregationType": "median"}, "unitAggregationType must be one of"),
        ({"unitAggregationType": "count_distinct"}, "unitAggregationField"),
        (
            {"analysisType": "percentile", "eventDefault": {"disabled": True}},
            "percentileValue is required",
        ),
        ({"percentileValue": 95}, "only supported when analysisType is percentile"),
        ({"analysisType": "percentile", "percentileValue": 101}, "between 0 and 100"),
        ({"analysisType": "percentile", "percentileValue": 9.5}, "must be an integer"),
        ({"analysisType": "percentile", "percentileValue": True}, "must be an integer"),
        ({**PERCENTILE, "eventDefault": {"disabled": False}}, "must be true when"),
        ({"eventDefault": {"disabled": False, "value": 1}}, "must be 0"),
        ({"eventDefault": {"disabled": "no"}}, "true or false"),
        ({"eventDefault": []}, "must be an object"),
        ({"analysisUnits": ["session"]}, "session is not available"),
        ({"analysisUnits": "user"}, "list of strings"),
        ({"tags": [1]}, "list of strings"),
        ({"selector": "#x"}, "selector is only supported"),
        ({"urls": [{"kind": "exact", "url": "x"}]}, "urls is only supported"),
        ({"dataSource": {}}, "dataSource.key"),
        ({"winsorLowerPercentile": 0}, "exclusive"),
        ({"winsorLowerPercentile": 9, "winsorUpperPercentile": 5}, "greater"),
        ({"filters": {"type": "x"}}, "filters.type"),
        (
            {"filters": {"type": "group", "op": "and", "values": [{**FILTER, "attribute": None}]}},
            "attribute",
        ),
        ({"filters": {**FILTER, "negate": "no"}}, "negate"),
    ],
)
def test_a_body_that_cannot_be_a_metric_is_refused_with_the_field(http, change, message):
    """And nothing was made."""
    body = {name: value for name, value in {**NUMERIC, **change}.items() if value is not None}
    assert message in refused(http("POST", BASE, json=body))
    assert http("GET", BASE).json()["totalCount"] == 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({**CLICK, "selector": None}, "selector is required"),
        ({**CLICK, "urls": []}, "urls is required"),
        ({**CLICK, "isNumeric": True}, "cannot be numeric"),
        ({**CLICK, "filters": FILTER}, "filters are only"),
        ({**PAGE, "urls": None}, "urls is required"),
        ({**PAGE, "urls": [{"kind": "regex", "url": "x"}]}, "urls need a kind"),
        ({**PAGE, "urls": [{"kind": ["regex"]}]}, "urls need a kind"),
        ({**NUMERIC, "kind": "trace", "eventKey": None}, "traceValueLocation"),
    ],
)
def test_each_kind_has_its_own_fields(http, body, message):
    """A click needs a selector, a page view needs URLs, a trace needs a place of its value."""
    assert message in refused(
        http("POST", BASE, json={name: value for name, value in body.items() if value is not None})
    )


@pytest.mark.parametrize(
    "body", [CLICK, PAGE, {"key": "t", "kind": "trace", "isNumeric": False, "traceQuery": "x"}]
)
def test_the_other_kinds_are_created_too(http, body):
    """Clicks, page views and traces have no event key."""
    answer = http("POST", BASE, json=body)
    assert answer.status_code == 201
    assert answer.json()["kind"] == body["kind"]
    assert "eventKey" not in answer.json()


def test_a_percentile_metric_never_fills_with_zero(http):
    """A unit without events has no percentile."""
    rep = http(
        "POST", BASE, json={**NUMERIC, "analysisType": "percentile", "percentileValue": 95}
    ).json()
    assert rep["eventDefault"]["disabled"] is True


def test_a_metric_is_complete_and_says_nothing_twice():
    """Defaults are filled in, null counts as absent, tags and units are listed once."""
    given = {**NUMERIC, "tags": ["b", "a", "b"], "analysisUnits": ["request", "request"]}
    found = checked({**given, "description": None, "selector": "", "foo": 1}, ["user", "request"])
    assert found["tags"] == ["a", "b"]
    assert found["analysisUnits"] == found["randomizationUnits"] == ["request"]
    assert (found["name"], found["description"], found["archived"]) == ("m", "", False)
    assert found["eventDefault"] == {"disabled": False, "value": 0}
    assert not {"foo", "selector", "percentileValue"} & found.keys()
    assert checked(found, ["user", "request"]) == found


def test_the_first_unit_that_is_available_is_the_default():
    """Where none is given; the older name of the field counts where the newer is not there."""
    assert checked(NUMERIC, ["request", "user"])["analysisUnits"] == ["request"]
    older = {**NUMERIC, "randomizationUnits": ["user"]}
    assert checked(older, ["request", "user"])["analysisUnits"] == ["user"]
    both = {**older, "analysisUnits": ["request"]}
    assert checked(both, ["request", "user"])["randomizationUnits"] == ["request"]


@pytest.mark.parametrize("body", [None, [], "x", 7])
def test_what_is_no_object_defines_nothing(body):
    """A 400, as for every other mistake."""
    with pytest.raises(RefusedRequest, match="Invalid request body") as caught:
        checked(body, ["user"])
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")
