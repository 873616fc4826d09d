"""What a flag may be: what a POST defines, and what is refused of it and of a change."""

from __future__ import annotations

import pytest

from ldinstrument.devserver.api.flag_rules import checked, evaluable, new_flag
from ldinstrument.devserver.flags.environment import REST
from ldinstrument.devserver.flags.flags import simple_flag
from ldinstrument.devserver.responses import RefusedRequest

from .rest_answers import COLOURS

NOBODY = {"usingEnvironmentId": False, "usingMobileKey": False}


@pytest.mark.parametrize(
    "fields",
    [
        {"key": "no spaces"},
        {"key": None},
        {"name": ""},
        {"variations": [{"value": "alone"}]},
        {"variations": [{"value": 1}, {"value": 1}]},
        {"variations": [{"value": 1}, {"value": "two"}]},
        {"variations": ["red", "green"]},
        {"defaults": {"onVariation": 0, "offVariation": 3}},
        {"defaults": {"onVariation": True, "offVariation": 1}},
        {"defaults": {"onVariation": 1}},
        {"tags": "web"},
        {"tags": [1]},
        {"temporary": "yes"},
        {"isFlagOn": 1},
        {"clientSideAvailability": {"usingMobileKey": "yes"}},
        {"purpose": "migration"},
        {"initialPrerequisites": [{"key": "nowhere", "variationId": "x"}]},
    ],
)
def test_what_is_no_flag_is_refused(http, ld, fields):
    """A bad body is 400 and makes nothing."""
    answer = http("POST", "/api/v2/flags/default", json={**COLOURS, **fields})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.text
    assert "colour" not in ld.flags.all()


@pytest.mark.parametrize(
    "patch",
    [
        [{"op": "replace", "path": "/environments/local/fallthrough", "value": {"variation": 9}}],
        [{"op": "replace", "path": "/environments/local/offVariation", "value": "red"}],
        [{"op": "replace", "path": "/environments/local/on", "value": "yes"}],
        [{"op": "replace", "path": "/environments/local/rules", "value": {"a": 1}}],
        [
            {
                "op": "add",
                "path": "/environments/local/rules/-",
                "value": {"variation": 0, "clauses": [{}]},
            }
        ],
        [
            {
                "op": "add",
                "path": "/environments/local/targets/-",
                "value": {"variation": 0, "values": 1},
            }
        ],
        [{"op": "remove", "path": "/variations/2"}],
        [{"op": "replace", "path": "/variations", "value": "none"}],
        [{"op": "replace", "path": "/key", "value": "other"}],
        [{"op": "add", "path": "/kind", "value": "boolean"}],
        [{"op": "add", "path": "/tags/-", "value": 7}],
        {"comment": "nothing to do"},
        7,
    ],
)
def test_a_patch_that_leaves_no_flag_is_refused(http, ld, patch):
    """What an SDK could not evaluate does not get to one."""
    http("POST", "/api/v2/flags/default", json=COLOURS)
    before = ld.flags.all()["colour"]
    answer = http("PATCH", "/api/v2/flags/default/colour", json=patch)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.text
    assert ld.flags.all()["colour"] == before


def test_a_new_flag_is_what_an_sdk_evaluates():
    """What only REST knows is kept beside it; null counts as absent."""
    flag = checked(new_flag({**COLOURS, "maintainerId": None, "foo": 1}, NOBODY))
    assert (flag["key"], flag["variations"], flag["on"]) == (
        "colour",
        ["red", "green", "blue"],
        False,
    )
    assert (flag["fallthrough"], flag["offVariation"]) == ({"variation": 1}, 2)
    assert flag["clientSideAvailability"] == COLOURS["clientSideAvailability"]
    rest = flag[REST]
    assert (rest["name"], rest["tags"], rest["temporary"]) == (
        COLOURS["name"],
        COLOURS["tags"],
        True,
    )
    assert not {"maintainerId", "foo", "key"} & rest.keys()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (False, True)),
        ({"includeInSnippet": True}, (True, True)),
        ({"clientSideAvailability": {"usingMobileKey": False}}, (False, False)),
        ({"includeInSnippet": True, "clientSideAvailability": NOBODY}, (False, False)),
    ],
)
def test_the_project_says_who_sees_a_flag_that_does_not(given, expected):
    """The older field counts where the newer one says nothing."""
    project = {"usingEnvironmentId": False, "usingMobileKey": True}
    found = new_flag({"key": "f", "name": "F", **given}, project)["clientSideAvailability"]
    assert (found["usingEnvironmentId"], found["usingMobileKey"]) == expected


def split(*weights: object) -> dict[str, object]:
    shares = [{"variation": place, "weight": weight} for place, weight in enumerate(weights)]
    return {"fallthrough": {"rollout": {"variations": shares}}}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (split(50_000, 49_999), "add up to 100000"),
        (split(150_000, -50_000), "0 or more"),
        (split(True, 99_999), "must be an integer"),
        (split(50_000, 25_000, 25_000), "no variation 2"),
        ({"fallthrough": {"rollout": {"variations": 3}}}, "must be a list of objects"),
        ({"fallthrough": None}, "fallthrough must be an object"),
        ({"fallthrough": {"variation": True}}, "no variation True"),
        ({"offVariation": -1}, "no variation -1"),
        ({"rules": [{"variation": 0, "clauses": [{"op": "in"}]}]}, "needs op and values"),
        ({"targets": [{"variation": 0, "values": [1]}]}, "list of strings"),
        ({"contextTargets": [{"variation": 2, "values": []}]}, "no variation 2"),
        ({"prerequisites": [{"key": "g"}]}, "the key of a flag, and a variation"),
        ({"trackEvents": 1}, "trackEvents must be true or false"),
        ({"clientSideAvailability": {"usingMobileKey": 0}}, "each must be true or false"),
    ],
)
def test_what_no_sdk_can_evaluate_is_refused(fields, said):
    """With the field."""
    with pytest.raises(RefusedRequest, match=said):
        evaluable({**simple_flag("f", ["a", "b"]), **fields})


def test_an_sdk_evaluates_more_than_rest_takes():
    """Equal values, values of several types and one alone are REST's own rules."""
    assert evaluable({**simple_flag("f", ["a", "b"]), **split(99_999, 1), "offVariation": None})
    for values in (["a"], ["a", "a"], [1, "a"], [0, False]):
        assert evaluable(simple_flag("f", values))
        with pytest.raises(RefusedRequest, match="variations: "):
            checked(simple_flag("f", values))
    assert checked(simple_flag("f", [1, 2.5]))
