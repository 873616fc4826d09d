"""Projects and their settings over REST."""

from __future__ import annotations

import pytest

from .rest_answers import BASE, NUMERIC, refused, replace


def test_a_new_context_kind_has_to_be_made_available_before_it_can_be_an_analysis_unit(http):
    """As in LaunchDarkly, where this surprises most."""
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
    """None, two and what is no list are refused."""
    listed = units and [
        {"randomizationUnit": unit[0], "default": unit[1]}
        for unit in units
        if isinstance(unit, tuple)
    ]
    body = {"randomizationUnits": listed or units}
    refused(http("PUT", "/api/v2/projects/default/experimentation-settings", json=body))


def test_a_token_can_be_checked_cheaply(http):
    """The identity of the caller is one small answer."""
    assert http("GET", "/api/v2/caller-identity").json()["authKind"] == "token"
    assert http("GET", "/api/v2/projects/default").json()["key"] == "default"
    refused(
        http("GET", "/api/v2/caller-identity", headers={"Authorization": "sdk-x"}),
        401,
        "unauthorized",
    )


PROJECTS = "/api/v2/projects"


def test_a_project_lives_from_its_creation_to_its_end(http):
    """Created and patched it is answered with its environments as a list."""
    made = http("POST", PROJECTS, json={"key": "shop", "name": "Shop"})
    assert made.status_code == 201
    assert [each["key"] for each in made.json()["environments"]]
    changed = http("PATCH", f"{PROJECTS}/shop", json=[replace("/name", "Store")])
    assert changed.json()["name"] == "Store"
    assert http("GET", f"{PROJECTS}/shop").json()["name"] == "Store"
    assert {item["key"] for item in http("GET", PROJECTS).json()["items"]} == {"default", "shop"}
    assert http("DELETE", f"{PROJECTS}/shop").status_code == 204
    refused(http("GET", f"{PROJECTS}/shop"), 404, "not_found")


def test_projects_come_in_pages(http):
    """With links, as metrics do."""
    for number in range(3):
        http("POST", PROJECTS, json={"key": f"p-{number}", "name": "P"})
    page = http("GET", PROJECTS, params={"limit": 2, "offset": 2}).json()
    assert (len(page["items"]), page["totalCount"]) == (2, 4)
    assert "prev" in page["_links"]
    refused(http("GET", PROJECTS, params={"limit": 0}))


def test_environments_have_keys_of_their_own(http):
    """Made, changed and deleted within their project."""
    place = f"{PROJECTS}/default/environments"
    made = http("POST", place, json={"key": "staging", "name": "Staging", "color": "ffffff"})
    assert made.status_code == 201
    assert made.json()["apiKey"] == "sdk-local-staging"
    changed = http("PATCH", f"{place}/staging", json=[replace("/name", "Stage")]).json()
    assert (changed["name"], changed["_id"]) == ("Stage", made.json()["_id"])
    listed = [item["key"] for item in http("GET", place).json()["items"]]
    assert "staging" in listed
    assert http("DELETE", f"{place}/staging").status_code == 204
    refused(http("GET", f"{place}/staging"), 404, "not_found")


@pytest.mark.parametrize(
    ("asked", "current", "beta"),
    [
        ("20220603", 20220603, False),
        ("20200101", 20240415, False),
        ("beta", 20240415, True),
        ("x", 20240415, False),
    ],
)
def test_an_unknown_version_gets_the_latest(http, asked, current, beta):
    """By the header that LaunchDarkly reads."""
    found = http("GET", "/api/v2/versions", headers={"LD-API-Version": asked}).json()
    assert (found["currentVersion"], found["beta"]) == (current, beta)
    assert found["latestVersion"] == max(found["validVersions"])


def test_the_root_leads_to_the_rest(http):
    """Each link answers."""
    for link in http("GET", "/api/v2").json()["links"].values():
        assert http("GET", link["href"]).status_code == 200
