"""The metrics REST API over plain HTTP: validation, answers, lists, patches."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ldinstrument.devserver import experiment_flag

from .rest_answers import BASE, NUMERIC, keys, patch, refused, replace


def test_a_created_metric_is_complete_with_the_defaults_of_launchdarkly(http):
    """Fields that it does not know are ignored."""
    answer = http(
        "POST",
        BASE,
        json={
            "key": "m",
            "kind": "custom",
            "eventKey": "Order placed",
            "isNumeric": False,
            "foo": 1,
        },
    )
    assert answer.status_code == 201
    rep = answer.json()
    names = ("key", "name", "kind", "eventKey", "isNumeric", "successCriteria", "tags")
    assert {name: rep[name] for name in names} == {
        "key": "m",
        "name": "m",
        "kind": "custom",
        "eventKey": "Order placed",
        "isNumeric": False,
        "successCriteria": "HigherThanBaseline",
        "tags": [],
    }
    assert (rep["unitAggregationType"], rep["analysisType"]) == ("average", "mean")
    assert rep["eventDefault"] == {"disabled": False, "value": 0}
    assert rep["analysisUnits"] == rep["randomizationUnits"] == ["user"]
    assert rep["dataSource"]["key"]
    assert rep["_version"] == 1
    assert type(rep["_creationDate"]) is int
    assert rep["_links"]["self"]["href"] == f"{BASE}/m"
    assert "foo" not in rep
    assert "lastSeen" not in rep
    assert http("GET", f"{BASE}/m").json() == rep


def test_a_taken_key_is_a_conflict(http, metric):
    """With 409."""
    metric()
    answer = http("POST", BASE, json={**NUMERIC, "key": "session.duration"})
    assert "already exists" in refused(answer, 409, "conflict")


def test_an_experiment_that_names_a_metric_counts_as_its_user(http, ld, metric):
    """Other metrics have none."""
    metric(key="used")
    metric(key="unused")
    ld.set_flag(experiment_flag("exp", metrics=["used"]))
    assert (
        http("GET", f"{BASE}/used?expand=experimentCount,experiments").json()["experimentCount"]
        == 1
    )
    assert http("GET", f"{BASE}/unused?expand=experimentCount").json()["experimentCount"] == 0
    assert keys(http("GET", BASE, params={"filter": "hasConnections equals true"})) == ["used"]


# -- patch -----------------------------------------------------------------------------------------


def test_a_patch_makes_a_new_version_and_one_that_changes_nothing_does_not(http, metric):
    """The id of the metric stays."""
    first = metric()
    second = patch(http, first["key"], replace("/name", "Longer")).json()
    assert (second["name"], second["_version"], second["_id"]) == ("Longer", 2, first["_id"])
    assert second["_versionId"] != first["_versionId"]
    third = patch(http, first["key"], replace("/name", "Longer"), replace("/kind", "custom")).json()
    assert third == second


def test_archiving_dates_itself(http, metric):
    """In milliseconds; bringing it back takes the date away."""
    metric()
    rep = patch(http, "session.duration", replace("/archived", True)).json()
    assert rep["archived"] is True
    assert rep["archivedAt"] > 1_600_000_000_000
    assert "archivedAt" not in patch(http, "session.duration", replace("/archived", False)).json()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 105) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
PATHS = st.sampled_from(
    [
        "",
        "/",
        "/name",
        "/tags",
        "/tags/0",
        "/tags/-",
        "/eventDefault",
        "/eventDefault/disabled",
        "/unit",
        "/urls/0/kind",
        "/analysisUnits",
        "/analysisUnits/0",
        "/filters",
        "/~2",
        "/kind",
        "/percentileValue",
    ]
)
OPERATION = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
        "path": PATHS,
        "value": JSON,
    },
    optional={"from": PATHS},
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    operations=st.lists(OPERATION, max_size=3),
    body=st.dictionaries(st.sampled_from([*NUMERIC, "urls", "filters", "tags"]), JSON),
)
def test_nothing_that_is_sent_breaks_the_server(http, operations, body):
    """Every answer is an answer of the contract, never a 500, and what is accepted can be read
    back.
    """
    created = http("POST", BASE, json={**NUMERIC, **body})
    assert created.status_code in (201, 400, 409), created.text
    changed = http("PATCH", f"{BASE}/m", json=operations)
    assert changed.status_code in (200, 400, 404, 409), changed.text
    listed = http("GET", BASE)
    assert listed.status_code == 200
    for item in listed.json()["items"]:
        assert http("DELETE", f"{BASE}/{item['key']}").status_code == 204


# -- the rest --------------------------------------------------------------------------------------


def test_a_deleted_metric_is_gone(http, metric):
    """Every later request for it is a 404."""
    metric()
    answer = http("DELETE", f"{BASE}/session.duration")
    assert (answer.status_code, answer.content) == (204, b"")
    refused(http("DELETE", f"{BASE}/session.duration"), 404, "not_found")
    refused(http("GET", f"{BASE}/session.duration"), 404, "not_found")
    refused(patch(http, "session.duration"), 404, "not_found")


def test_the_method_can_be_overridden_on_post(http, metric):
    """For clients behind proxies that let only GET and POST through."""
    metric()
    override = {"X-HTTP-Method-Override": "PATCH"}
    answer = http(
        "POST", f"{BASE}/session.duration", json=[replace("/name", "x")], headers=override
    )
    assert answer.json()["name"] == "x"
    assert (
        http(
            "POST", f"{BASE}/session.duration", headers={"X-HTTP-Method-Override": "DELETE"}
        ).status_code
        == 204
    )


def test_unknown_places_and_methods_answer_with_documents(http):
    """Never with a page of HTML."""
    refused(http("GET", "/api/v2/nothing"), 404, "not_found")
    refused(http("PUT", BASE, json={}), 405, "method_not_allowed")
    refused(http("GET", f"{BASE}/a%2Fb"), 404, "not_found")
    refused(http("GET", "/api/v2/metrics/no%20project"), 404, "not_found")


def test_last_seen_comes_from_the_intake(http, metric):
    """A metric is live when its event has arrived."""
    metric()
    event = {
        "kind": "custom",
        "key": "session.duration",
        "context": {"kind": "user", "key": "u"},
        "metricValue": 3,
    }
    assert http("POST", "/bulk", json=[event]).status_code == 202
    assert type(http("GET", f"{BASE}/session.duration").json()["lastSeen"]) is int
