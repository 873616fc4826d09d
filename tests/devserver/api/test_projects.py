"""Projects and environments are made, changed and deleted over REST by the official client."""

from __future__ import annotations

import launchdarkly_api as api
import pytest
from launchdarkly_api import exceptions

SHOP = {"key": "shop", "name": "Shop", "tags": ["web"]}


@pytest.fixture(name="client")
def _client(ld):
    configuration = api.Configuration(host=ld.url)
    configuration.api_key["ApiKey"] = "api-token"
    with api.ApiClient(configuration) as client:
        yield client


def replacing(path: str, value: object) -> list[api.PatchOperation]:
    return [api.PatchOperation(op="replace", path=path, value=value)]


def test_a_project_is_changed_by_json_patch_and_keeps_its_key(client):
    """Name and tags can be replaced."""
    projects = api.ProjectsApi(client)
    projects.post_project(api.ProjectPost.from_dict(SHOP))
    projects.patch_project("shop", replacing("/name", "Store"))
    projects.patch_project("shop", replacing("/tags", ["a", "b"]))
    read = projects.get_project("shop")
    assert (read.name, read.tags) == ("Store", ["a", "b"])
    for path, value in (("/key", "store"), ("/environments", []), ("/tags", "x"), ("/name", "")):
        with pytest.raises(exceptions.BadRequestException):
            projects.patch_project("shop", replacing(path, value))


def test_a_deleted_project_is_gone_with_its_metrics_until_it_is_made_again(client, http, metric):
    """Also the one that existed without being made."""
    metric()
    projects = api.ProjectsApi(client)
    projects.delete_project("default")
    assert projects.get_projects().items == []
    for call in (projects.get_project, projects.delete_project):
        with pytest.raises(exceptions.NotFoundException):
            call("default")
    assert http("GET", "/api/v2/metrics/default").status_code == 404
    projects.post_project(api.ProjectPost.from_dict({"key": "default", "name": "Again"}))
    assert http("GET", "/api/v2/metrics/default").json()["items"] == []


def test_environments_are_made_changed_and_deleted(client):
    """With the official client, whose models are strict."""
    projects, environments = api.ProjectsApi(client), api.EnvironmentsApi(client)
    projects.post_project(api.ProjectPost.from_dict(SHOP))
    post = {"key": "staging", "name": "Staging", "color": "DADBEE", "tags": ["soon"]}
    made = environments.post_environment("shop", api.EnvironmentPost.from_dict(post))
    assert (made.key, made.color, made.tags) == ("staging", "DADBEE", ["soon"])
    with pytest.raises(exceptions.ConflictException):
        environments.post_environment("shop", api.EnvironmentPost.from_dict(post))
    changed = environments.patch_environment("shop", "staging", replacing("/secureMode", True))
    assert changed.secure_mode is True
    found = environments.get_environments_by_project("shop").items
    assert [each.key for each in found] == ["test", "production", "staging"]
    for key in ("staging", "test"):
        environments.delete_environment("shop", key)
    with pytest.raises(exceptions.BadRequestException):
        environments.delete_environment("shop", "production")
    with pytest.raises(exceptions.NotFoundException):
        environments.get_environment("shop", "staging")


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {"key": "a b", "name": "x"},
        {"key": "x"},
        {"key": "x", "name": "x", "tags": "t"},
        {"key": "x", "name": "x", "tags": [1]},
        {"key": "x", "name": "x", "environments": 7},
        {"key": "x", "name": "x", "environments": [None]},
        {"key": "x", "name": "x", "includeInSnippetByDefault": "yes"},
    ],
)
def test_what_is_no_project_is_refused(http, body):
    """With 400 and the code of LaunchDarkly."""
    answer = http("POST", "/api/v2/projects", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
