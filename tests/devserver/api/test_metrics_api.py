"""The metrics REST API over plain HTTP: validation, answers, lists, patches."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag

BASE = "/api/v2/metrics/default"
NUMERIC = {
    "key": "m",
    "kind": "custom",
    "eventKey": "m",
    "isNumeric": True,
    "unit": "ms",
    "successCriteria": "LowerThanBaseline",
}
CLICK = {
    "key": "c",
    "kind": "click",
    "selector": "#buy",
    "urls": [{"kind": "exact", "url": "https://x.test/"}],
}
PERCENTILE = {"analysisType": "percentile", "percentileValue": 95}
FILTER = {"type": "eventProperty", "attribute": "category", "op": "in", "values": ["books"]}
PAGE = {"key": "p", "kind": "pageview", "urls": [{"kind": "regex", "pattern": "^/a"}]}


def refused(answer, status=400, code="invalid_request"):
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"code", "message", "id"}
    assert answer.json()["code"] == code
    return answer.json()["message"]


def test_a_created_metric_is_complete_with_the_defaults_of_launchdarkly(http):
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
    assert message in refused(
        http("POST", BASE, json={name: value for name, value in body.items() if value is not None})
    )


@pytest.mark.parametrize(
    "body", [CLICK, PAGE, {"key": "t", "kind": "trace", "isNumeric": False, "traceQuery": "x"}]
)
def test_the_other_kinds_are_created_too(http, body):
    answer = http("POST", BASE, json=body)
    assert answer.status_code == 201
    assert answer.json()["kind"] == body["kind"]
    assert "eventKey" not in answer.json()


def test_a_percentile_metric_never_fills_with_zero(http):
    rep = http(
        "POST", BASE, json={**NUMERIC, "analysisType": "percentile", "percentileValue": 95}
    ).json()
    assert rep["eventDefault"]["disabled"] is True


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b'{"key": NaN}', b"\xff", b"[" * 100_000]
)
def test_a_body_that_is_no_object_is_refused(http, body):
    refused(http("POST", BASE, data=body, headers={"Content-Type": "application/json"}))


def test_a_taken_key_is_a_conflict(http, metric):
    metric()
    answer = http("POST", BASE, json={**NUMERIC, "key": "session.duration"})
    assert "already exists" in refused(answer, 409, "conflict")


@pytest.mark.parametrize(
    "token",
    ["", "sdk-12345678", "mob-12345678", "Bearer api-12345", "api-1 2", "0123456789abcdef01234567"],
)
def test_what_is_no_access_token_is_unauthorized(http, token):
    """SDK keys, mobile keys, client-side ids and a scheme before the token are refused, as by
    LaunchDarkly.
    """
    refused(http("GET", BASE, headers={"Authorization": token}), 401, "unauthorized")


def test_configured_tokens_and_projects_are_the_only_ones(http):
    with LocalLaunchDarkly(tokens={"api-good"}, projects=["shop"]) as strict:
        import requests

        def status(project, token):
            url = f"{strict.url}/api/v2/metrics/{project}"
            return requests.get(url, headers={"Authorization": token}, timeout=5).status_code

        assert [
            status("shop", "api-good"),
            status("shop", "api-other"),
            status("default", "api-good"),
        ] == [
            200,
            401,
            404,
        ]
        strict.tokens = {"api-other"}
        assert status("shop", "api-other") == 200


def test_every_answer_announces_the_rate_limit_and_the_limit_is_real(ld):
    import requests

    with LocalLaunchDarkly(rate_limit=3) as limited:
        headers = {"Authorization": "api-t"}
        answers = [requests.get(limited.url + BASE, headers=headers, timeout=5) for _ in range(9)]
    assert 429 in [answer.status_code for answer in answers]
    stopped = next(answer for answer in answers if answer.status_code == 429)
    refused(stopped, 429, "rate_limited")
    assert stopped.headers["X-Ratelimit-Global-Remaining"] == "0"
    assert int(stopped.headers["X-Ratelimit-Reset"]) > 1_600_000_000_000
    assert answers[0].headers["X-Ratelimit-Global-Limit"] == "3"


# -- list ------------------------------------------------------------------------------------------


@pytest.fixture(name="many")
def _many(metric):
    for i in range(55):
        extra = {"isNumeric": False, "unit": None, "successCriteria": None} if i % 5 == 0 else {}
        metric(
            key=f"m-{i:02}",
            name=f"Name {54 - i:02}",
            eventKey=f"e-{i % 3}",
            tags=["all", f"t{i % 2}"],
            **extra,
        )


def keys(answer):
    assert answer.status_code == 200, answer.text
    return [item["key"] for item in answer.json()["items"]]


def test_pages_hold_20_by_default_and_links_lead_through_all(http, many):
    answer = http("GET", BASE)
    assert len(keys(answer)) == 20
    assert answer.json()["totalCount"] == 55
    found, path = [], BASE + "?limit=20"
    while path:
        page = http("GET", path)
        found += keys(page)
        path = page.json()["_links"].get("next", {}).get("href")
    assert found == [f"m-{i:02}" for i in range(55)]
    assert keys(http("GET", page.json()["_links"]["first"]["href"]))[0] == "m-00"
    assert keys(http("GET", page.json()["_links"]["prev"]["href"]))[0] == "m-20"
    assert keys(http("GET", page.json()["_links"]["last"]["href"]))[-1] == "m-54"


@pytest.mark.parametrize(
    "query",
    [
        "limit=51",
        "limit=0",
        "limit=x",
        "limit=-1",
        "offset=-1",
        "sort=key",
        "expand=foo",
        "filter=key equals x",
        "filter=tags equals",
        "filter=isNumeric equals maybe",
        'filter=tags contains ["a"',
        "filter=query equals a b,,",
        "filter=metricUsedIn equals moon",
    ],
)
def test_a_wrong_query_is_refused(http, query):
    name, _, value = query.partition("=")
    refused(http("GET", BASE, params={name: value}))


def test_lists_are_sorted_by_creation_or_name(http, many):
    assert keys(http("GET", f"{BASE}?limit=2&sort=-createdAt")) == ["m-54", "m-53"]
    assert keys(http("GET", f"{BASE}?limit=2&sort=createdAt")) == ["m-00", "m-01"]
    assert keys(http("GET", f"{BASE}?limit=2&sort=name")) == ["m-54", "m-53"]
    assert keys(http("GET", f"{BASE}?limit=2&sort=-name")) == ["m-00", "m-01"]


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ("query equals M-07", ["m-07"]),
        ("query equals name 54", ["m-00"]),
        (
            'tags contains ["all","t1"],eventKeys anyOf ["e-0"]',
            [f"m-{i:02}" for i in range(55) if i % 2 and i % 3 == 0],
        ),
        ('eventKeys anyOf ["e-1","e-2"]', [f"m-{i:02}" for i in range(55) if i % 3]),
        ("isNumeric equals false", [f"m-{i:02}" for i in range(0, 55, 5)]),
        ("eventKind equals click", []),
        ("unitAggregationType equals sum", []),
        ("dataSourceKeys notEquals elsewhere,query equals m-1", [f"m-1{i}" for i in range(10)]),
        ("hasConnections equals true", []),
        ("metricUsedIn equals guarded_rollouts", []),
    ],
)
def test_filters_find_what_they_say(http, many, filter, expected):
    assert keys(http("GET", BASE, params={"filter": filter, "limit": 50})) == expected[:50]


def test_an_experiment_that_names_a_metric_counts_as_its_user(http, ld, metric):
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


def patch(http, key, *operations, **headers):
    return http("PATCH", f"{BASE}/{key}", json=list(operations), headers=headers)


def replace(path, value):
    return {"op": "replace", "path": path, "value": value}


def test_a_patch_makes_a_new_version_and_one_that_changes_nothing_does_not(http, metric):
    first = metric()
    second = patch(http, first["key"], replace("/name", "Longer")).json()
    assert (second["name"], second["_version"], second["_id"]) == ("Longer", 2, first["_id"])
    assert second["_versionId"] != first["_versionId"]
    third = patch(http, first["key"], replace("/name", "Longer"), replace("/kind", "custom")).json()
    assert third == second


def test_replace_of_an_absent_member_adds_it(http, metric):
    """LaunchDarkly's Terraform provider replaces whatever it sets."""
    metric(isNumeric=False, unit=None, successCriteria=None)
    answer = patch(
        http,
        "session.duration",
        replace("/isNumeric", True),
        replace("/unit", "ms"),
        replace("/successCriteria", "LowerThanBaseline"),
        replace("/eventDefault/disabled", True),
        replace("/percentileValue", None),
        replace("/selector", ""),
        replace("/urls", []),
    )
    assert answer.status_code == 200, answer.text
    assert (
        answer.json()["isNumeric"],
        answer.json()["unit"],
        answer.json()["eventDefault"]["disabled"],
    ) == (
        True,
        "ms",
        True,
    )
    assert "selector" not in answer.json()


def test_a_comment_may_come_with_the_patch(http, metric):
    metric()
    body = {"comment": "why", "patch": [{"op": "add", "path": "/tags/-", "value": "b"}]}
    assert http("PATCH", f"{BASE}/session.duration", json=body).json()["tags"] == ["b"]


@pytest.mark.parametrize("path", ["/analysisUnits", "/randomizationUnits"])
def test_analysis_units_go_by_two_names(http, metric, path):
    metric()
    rep = patch(http, "session.duration", replace(path, ["request"])).json()
    assert rep["analysisUnits"] == rep["randomizationUnits"] == ["request"]


def test_tests_guard_a_patch(http, metric):
    version = metric()["_version"]
    guard = {"op": "test", "path": "/_version", "value": version}
    assert patch(http, "session.duration", guard, replace("/name", "x")).status_code == 200
    refused(
        patch(http, "session.duration", guard, replace("/name", "y")),
        409,
        "optimistic_locking_error",
    )
    assert http("GET", f"{BASE}/session.duration").json()["name"] == "x"


def test_archiving_dates_itself(http, metric):
    metric()
    rep = patch(http, "session.duration", replace("/archived", True)).json()
    assert rep["archived"] is True
    assert rep["archivedAt"] > 1_600_000_000_000
    assert "archivedAt" not in patch(http, "session.duration", replace("/archived", False)).json()


@pytest.mark.parametrize(
    "operations",
    [
        [replace("/key", "other")],
        [replace("/kind", "click")],
        [{"op": "remove", "path": "/key"}],
        [{"op": "move", "from": "/kind", "path": "/name"}],
        [replace("/_version", 7)],
        [replace("/lastSeen", 7)],
        [replace("/isNumeric", "no")],
        [replace("/unit", "")],
        [replace("/successCriteria", "")],
        [replace("/analysisUnits", ["nobody"])],
        [{"op": "remove", "path": "/nothing"}],
        [{"op": "add", "path": "/tags/9", "value": "x"}],
        [{"op": "add", "path": "/a/b/c", "value": "x"}],
        [{"op": "replace", "path": "name", "value": "x"}],
        [{"op": "replace", "path": "", "value": {}}],
        [{"op": "replace", "path": "/name"}],
        [{"op": "merge", "path": "/name", "value": 1}],
        [{"op": "copy", "path": "/name", "from": 3}],
        ["x"],
        "x",
        {"comment": "x"},
    ],
)
def test_a_patch_that_cannot_be_applied_changes_nothing(http, metric, operations):
    before = metric()
    refused(http("PATCH", f"{BASE}/session.duration", json=operations))
    assert http("GET", f"{BASE}/session.duration").json() == before


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
    metric()
    answer = http("DELETE", f"{BASE}/session.duration")
    assert (answer.status_code, answer.content) == (204, b"")
    refused(http("DELETE", f"{BASE}/session.duration"), 404, "not_found")
    refused(http("GET", f"{BASE}/session.duration"), 404, "not_found")
    refused(patch(http, "session.duration"), 404, "not_found")


def test_the_method_can_be_overridden_on_post(http, metric):
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
    refused(http("GET", "/api/v2/nothing"), 404, "not_found")
    refused(http("PUT", BASE, json={}), 405, "method_not_allowed")
    refused(http("GET", f"{BASE}/a%2Fb"), 404, "not_found")
    refused(http("GET", "/api/v2/metrics/no%20project"), 404, "not_found")


def test_last_seen_comes_from_the_intake(http, metric):
    metric()
    event = {
        "kind": "custom",
        "key": "session.duration",
        "context": {"kind": "user", "key": "u"},
        "metricValue": 3,
    }
    assert http("POST", "/bulk", json=[event]).status_code == 202
    assert type(http("GET", f"{BASE}/session.duration").json()["lastSeen"]) is int


def test_a_new_context_kind_has_to_be_made_available_before_it_can_be_an_analysis_unit(http):
    project, body = "/api/v2/projects/default", {**NUMERIC, "analysisUnits": ["session"]}
    units = http("GET", f"{project}/experimentation-settings").json()["randomizationUnits"]
    assert {unit["randomizationUnit"]: unit["default"] for unit in units} == {
        "user": True,
        "request": False,
    }
    unknown = {"randomizationUnits": [*units, {"randomizationUnit": "session", "default": False}]}
    refused(http("PUT", f"{project}/experimentation-settings", json=unknown))
    assert (
        http("PUT", f"{project}/context-kinds/session", json={"name": "Session"}).json()["status"]
        == "created"
    )
    assert (
        http("PUT", f"{project}/context-kinds/session", json={"name": "Sitting"}).json()["status"]
        == "updated"
    )
    refused(http("POST", BASE, json=body))
    assert http("PUT", f"{project}/experimentation-settings", json=unknown).status_code == 200
    assert http("POST", BASE, json=body).status_code == 201
    assert "session" in [
        kind["key"] for kind in http("GET", f"{project}/context-kinds").json()["items"]
    ]


@pytest.mark.parametrize(
    "units", [None, [], ["user"], [("user", False)], [("user", True), ("request", True)]]
)
def test_experimentation_settings_need_exactly_one_default(http, units):
    listed = units and [
        {"randomizationUnit": unit[0], "default": unit[1]}
        for unit in units
        if isinstance(unit, tuple)
    ]
    body = {"randomizationUnits": listed or units}
    refused(http("PUT", "/api/v2/projects/default/experimentation-settings", json=body))


def test_a_token_can_be_checked_cheaply(http):
    assert http("GET", "/api/v2/caller-identity").json()["authKind"] == "token"
    assert http("GET", "/api/v2/projects/default").json()["key"] == "default"
    refused(
        http("GET", "/api/v2/caller-identity", headers={"Authorization": "sdk-x"}),
        401,
        "unauthorized",
    )
