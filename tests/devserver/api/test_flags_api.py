"""Flags and their statuses over REST: what an SDK's flag is in LaunchDarkly's API; made and changed
by LaunchDarkly's own client while an SDK is connected.
"""

from __future__ import annotations

import datetime
import time

import launchdarkly_api as api
import ldclient
import pytest
from launchdarkly_api import exceptions

from ldinstrument.devserver import experiment_flag
from ldinstrument.devserver.responses import now_ms

from ..recorded_events import exposure
from .rest_answers import COLOURS, refused

FLAGS = "/api/v2/flags/default"
STATUS = "/api/v2/flag-statuses/default/production"
SEMANTIC = "application/json; domain-model=launchdarkly.semanticpatch"
USER = ldclient.Context.create("user-1")


@pytest.fixture(name="environment")
def _environment(http):
    return http("GET", "/api/v2/projects/default/environments").json()["items"][0]["key"]


@pytest.fixture(name="flags")
def _flags(ld):
    configuration = api.Configuration(host=ld.url, api_key={"ApiKey": "api-token"})
    with api.ApiClient(configuration) as client:
        yield api.FeatureFlagsApi(client)


@pytest.fixture(name="semantic")
def _semantic(http):
    """`semantic("colour", {"kind": ...}, ...)`: a semantic patch in the environment `local`."""

    def patch(key, *instructions, environment="local", **options):
        body = {"environmentKey": environment, "instructions": list(instructions)}
        return http(
            "PATCH",
            f"/api/v2/flags/default/{key}",
            json=body,
            headers={"Content-Type": SEMANTIC},
            **options,
        )

    return patch


def colours(**fields) -> api.FeatureFlagBody:
    return api.FeatureFlagBody.from_dict({**COLOURS, **fields})


def served(client, key: str, wanted) -> None:
    """Wait until an SDK that streams serves a value."""
    deadline = time.monotonic() + 60
    while (found := client.variation(key, USER, "unknown")) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


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


def test_a_flag_is_made_changed_and_deleted_while_an_sdk_is_connected(flags, sdk, http):
    """Each change over REST reaches the SDK's stream."""
    client = sdk()
    made = flags.post_feature_flag("default", colours())
    assert (made.key, made.name, made.kind, made.tags, made.temporary) == (
        "colour",
        "Colour of the button",
        "multivariate",
        ["web", "button"],
        True,
    )
    assert [(each.value, each.name, each.description) for each in made.variations] == [
        ("red", "Red", None),
        ("green", None, "as grass"),
        ("blue", None, None),
    ]
    assert made.environments["local"].on is False
    served(client, "colour", "blue")
    turn_on = [api.PatchOperation(op="replace", path="/environments/local/on", value=True)]
    changed = flags.patch_feature_flag("default", "colour", api.PatchWithComment(patch=turn_on))
    assert changed.version > made.version
    served(client, "colour", "green")
    flags.delete_feature_flag("default", "colour")
    served(client, "colour", "unknown")
    with pytest.raises(exceptions.NotFoundException):
        flags.get_feature_flag("default", "colour")


def test_a_flag_without_variations_is_boolean_and_off(flags):
    """The defaults are LaunchDarkly's: true and false, off, the last one served while off."""
    made = flags.post_feature_flag("default", api.FeatureFlagBody(key="plain", name="Plain"))
    assert (made.kind, [each.value for each in made.variations]) == ("boolean", [True, False])
    assert (made.defaults.on_variation, made.defaults.off_variation) == (0, 1)
    assert made.environments["local"].off_variation == 1


def test_a_taken_key_is_a_conflict_until_the_flag_is_deleted(flags):
    """A key is free again after its flag was deleted, and the version goes on."""
    first = flags.post_feature_flag("default", colours())
    with pytest.raises(exceptions.ConflictException):
        flags.post_feature_flag("default", colours())
    flags.delete_feature_flag("default", "colour")
    assert flags.post_feature_flag("default", colours()).version > first.version


def test_json_and_merge_patches_change_what_they_name(flags, http, ld):
    """A JSON patch, a merge patch, and one that changes nothing and makes no version."""
    flags.post_feature_flag("default", colours())
    http(
        "PATCH",
        "/api/v2/flags/default/colour",
        json=[
            {"op": "replace", "path": "/name", "value": "Hue"},
            {"op": "add", "path": "/variations/-", "value": {"value": "teal", "name": "Teal"}},
            {
                "op": "add",
                "path": "/environments/local/rules/-",
                "value": {
                    "variation": 3,
                    "clauses": [{"attribute": "country", "op": "in", "values": ["nz"]}],
                },
            },
        ],
    )
    merged = http(
        "PATCH",
        "/api/v2/flags/default/colour",
        json={"description": "of a button", "tags": ["one"]},
        headers={"Content-Type": "application/merge-patch+json"},
    ).json()
    assert (merged["name"], merged["description"], merged["tags"]) == (
        "Hue",
        "of a button",
        ["one"],
    )
    assert [each["value"] for each in merged["variations"]] == ["red", "green", "blue", "teal"]
    assert len({each["_id"] for each in merged["variations"]}) == 4
    (rule,) = merged["environments"]["local"]["rules"]
    assert (rule["variation"], bool(rule["_id"]), rule["clauses"][0]["op"]) == (3, True, "in")
    same = [{"op": "replace", "path": "/name", "value": "Hue"}]
    again = http("PATCH", "/api/v2/flags/default/colour", json=same).json()
    assert again["_version"] == merged["_version"]
    assert "restFields" not in ld.flags.all()["colour"]


def test_a_semantic_patch_says_what_it_is_and_names_its_environment(flags, http, semantic):
    """Without its content type, or the environment that it needs, it is refused."""
    flags.post_feature_flag("default", colours())
    body = {"environmentKey": "local", "instructions": [{"kind": "turnFlagOn"}]}
    bare = http("PATCH", "/api/v2/flags/default/colour", json=body)
    assert bare.status_code == 400
    assert "domain-model" in bare.json()["message"]
    assert semantic("colour", {"kind": "turnFlagOn"}, environment="nowhere").status_code == 400
    answer = semantic("colour", {"kind": "turnFlagOn"})
    assert answer.json()["environments"]["local"]["on"] is True
    assert semantic("colour", {"kind": "updateName", "value": "Hue"}, environment=None).ok
    assert semantic("nowhere", {"kind": "turnFlagOn"}).status_code == 404


def test_a_dry_run_shows_the_flag_and_changes_nothing(flags, semantic, ld):
    """`dryRun` is a preview."""
    flags.post_feature_flag("default", colours())
    before = ld.flags.all()["colour"]
    answer = semantic("colour", {"kind": "turnFlagOn"}, params={"dryRun": "true"})
    assert answer.json()["environments"]["local"]["on"] is True
    assert ld.flags.all()["colour"] == before


def test_an_archived_flag_leaves_the_sdks_and_the_list_and_comes_back(flags, sdk, semantic):
    """An archived flag is as good as deleted to an SDK, and can be restored."""
    client = sdk()
    flags.post_feature_flag("default", colours(isFlagOn=True))
    served(client, "colour", "green")
    archived = semantic("colour", {"kind": "archiveFlag"}).json()
    assert archived["archived"] is True
    assert archived["archivedDate"] > 0
    served(client, "colour", "unknown")
    assert "colour" not in [flag.key for flag in flags.get_feature_flags("default").items]
    found = flags.get_feature_flags("default", filter="state:archived").items
    assert [flag.key for flag in found] == ["colour"]
    assert semantic("colour", {"kind": "restoreFlag"}).json()["archived"] is False
    served(client, "colour", "green")


def test_a_prerequisite_of_another_flag_cannot_be_archived(flags, semantic):
    """LaunchDarkly refuses it, as that flag would serve something else."""
    made = flags.post_feature_flag("default", colours())
    required = {"key": "colour", "variationId": made.variations[0].id}
    body = api.FeatureFlagBody.from_dict(
        {"key": "outer", "name": "Outer", "initialPrerequisites": [required]}
    )
    outer = flags.post_feature_flag("default", body)
    assert [(each.key, each.variation) for each in outer.environments["local"].prerequisites] == [
        ("colour", 0)
    ]
    assert semantic("colour", {"kind": "archiveFlag"}).status_code == 400


def test_a_list_is_filtered_and_has_environments_where_it_asks_for_them(flags):
    """By words, tags and key; with the environments that are named."""
    flags.post_feature_flag("default", colours())
    named = ("query:BUTTON", "tags:web+button", "key:colour")
    for wanted in named:
        found = flags.get_feature_flags("default", filter=wanted).items
        assert [flag.key for flag in found] == ["colour"], wanted
    assert flags.get_feature_flags("default", filter="tags:web+none").items == []
    assert flags.get_feature_flags("default").items[0].environments is None
    (listed,) = flags.get_feature_flags("default", filter="key:colour,filterEnv:local").items
    assert list(listed.environments) == ["local"]
    with pytest.raises(exceptions.BadRequestException):
        flags.get_feature_flags("default", filter="mood:good")


def test_an_edit_in_the_page_keeps_what_rest_knows_of_a_flag(flags, ld, http):
    """The name and tags of a flag outlive the page's form, and so do its variations' names."""
    flags.post_feature_flag("default", colours())
    form = {"key": "colour", "variations": "red, green, blue", "mode": "serve", "serve": "0"}
    assert http("POST", "/dev/forms/flag", data={**form, "on": "on"}).ok
    found = flags.get_feature_flag("default", "colour")
    assert (found.name, found.variations[0].name) == ("Colour of the button", "Red")
    assert found.environments["local"].on is True
