"""JSON Patch: as lenient as LaunchDarkly, and never half done."""

from __future__ import annotations

import pytest

from ldinstrument.devserver.api.patches import operations, patched
from ldinstrument.devserver.responses import RefusedRequest

from .rest_answers import BASE, patch, refused, replace


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
    """The operations are under `patch` then."""
    metric()
    body = {"comment": "why", "patch": [{"op": "add", "path": "/tags/-", "value": "b"}]}
    assert http("PATCH", f"{BASE}/session.duration", json=body).json()["tags"] == ["b"]


@pytest.mark.parametrize("path", ["/analysisUnits", "/randomizationUnits"])
def test_analysis_units_go_by_two_names(http, metric, path):
    """The newer and the deprecated one always say the same."""
    metric()
    rep = patch(http, "session.duration", replace(path, ["request"])).json()
    assert rep["analysisUnits"] == rep["randomizationUnits"] == ["request"]


def test_tests_guard_a_patch(http, metric):
    """One that was written for an older version is a conflict and changes nothing."""
    version = metric()["_version"]
    guard = {"op": "test", "path": "/_version", "value": version}
    assert patch(http, "session.duration", guard, replace("/name", "x")).status_code == 200
    refused(
        patch(http, "session.duration", guard, replace("/name", "y")),
        409,
        "optimistic_locking_error",
    )
    assert http("GET", f"{BASE}/session.duration").json()["name"] == "x"


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
    """Fixed and computed fields, unknown places, wrong operations."""
    before = metric()
    refused(http("PATCH", f"{BASE}/session.duration", json=operations))
    assert http("GET", f"{BASE}/session.duration").json() == before


DOCUMENT = {"key": "m", "kind": "custom", "name": "M", "tags": ["a"], "unit": "ms"}


def test_the_document_itself_is_never_changed():
    """The result is another one; what is emptied goes."""
    before = {**DOCUMENT, "tags": ["a"]}
    found = patched(before, [replace("/tags/0", "b"), replace("/unit", ""), replace("/name", None)])
    assert found == {"key": "m", "kind": "custom", "tags": ["b"]}
    assert before == DOCUMENT


@pytest.mark.parametrize("body", [[], {"patch": []}, {"comment": "why", "patch": []}])
def test_no_operation_is_a_patch_too(body):
    """It changes nothing."""
    assert operations(body) == []
    assert patched(DOCUMENT, []) == DOCUMENT


@pytest.mark.parametrize("name", ["_version", "_links", "lastSeen", "experiments", "isActive"])
def test_what_is_computed_can_be_tested_and_not_changed(name):
    """Of a copy or a move either end counts."""
    for operation in (
        replace(f"/{name}", 1),
        {"op": "move", "from": f"/{name}", "path": "/name"},
        {"op": "copy", "from": "/name", "path": f"/{name}/0"},
    ):
        with pytest.raises(RefusedRequest, match="cannot be changed"):
            operations([operation])
    guard = {"op": "test", "path": f"/{name}", "value": 1}
    assert operations([guard]) == [guard]


def test_other_fields_may_be_the_fixed_ones():
    """Of a metric group or a project."""
    with pytest.raises(RefusedRequest, match="key and unit cannot be changed"):
        patched(DOCUMENT, [replace("/unit", "s")], fixed=("key", "unit"))
    assert patched(DOCUMENT, [replace("/kind", "click")], fixed=("key",))["kind"] == "click"


def test_a_failed_test_is_a_conflict():
    """LaunchDarkly's optimistic locking."""
    with pytest.raises(RefusedRequest, match="test of /name failed") as caught:
        patched(DOCUMENT, [{"op": "test", "path": "/name", "value": "N"}])
    assert (caught.value.status, caught.value.code) == (409, "optimistic_locking_error")


def test_units_that_are_removed_go_under_both_names():
    """The two are one list, and no copy of it is shared."""
    units = {**DOCUMENT, "analysisUnits": ["user"], "randomizationUnits": ["user"]}
    gone = patched(units, [{"op": "remove", "path": "/randomizationUnits"}])
    assert not {"analysisUnits", "randomizationUnits"} & gone.keys()
    more = patched(units, [{"op": "add", "path": "/analysisUnits/-", "value": "request"}])
    assert more["randomizationUnits"] == ["user", "request"]
    assert more["randomizationUnits"] is not more["analysisUnits"]


@pytest.mark.parametrize("op", ["add", "replace", "test"])
def test_a_value_must_be_given(op):
    """A test without one does not test for null."""
    with pytest.raises(RefusedRequest, match="value is required"):
        operations([{"op": op, "path": "/description"}])
