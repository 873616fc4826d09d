"""Event filters of metrics: which events pass, for each operator and shape."""

from __future__ import annotations

import pytest

from ldinstrument.devserver.events.metric_filters import MAX_DEPTH, checked_filter, predicate
from ldinstrument.devserver.responses import RefusedRequest

EVENT = {
    "kind": "custom",
    "key": "k",
    "context": {
        "kind": "multi",
        "user": {"key": "u", "plan": "pro"},
        "request": {"key": "r", "plan": "free"},
    },
    "data": {"channel": "web", "count": 3, "paid": True, "deep": {"x": 1}, "list": ["web"]},
}


def of_data(attribute: str, op: str, *values: object, **more: object) -> dict:
    return {"type": "eventProperty", "attribute": attribute, "op": op, "values": values, **more}


def passes(node: dict) -> bool:
    checked = checked_filter({**node, "values": list(node["values"])})
    found = predicate(checked)
    assert found is not None
    return found(EVENT)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (of_data("channel", "in", "web", "app"), True),
        (of_data("/channel", "in", "web"), True),
        (of_data("channel", "in", "app"), False),
        (of_data("channel", "in", "app", negate=True), True),
        (of_data("channel", "startsWith", "w"), True),
        (of_data("channel", "endsWith", "w"), False),
        (of_data("channel", "contains", "e"), True),
        (of_data("channel", "matches", "^w.b$"), True),
        (of_data("channel", "matches", "("), False),
        (of_data("count", "in", 3), True),
        (of_data("count", "greaterThan", 2), True),
        (of_data("count", "lessThanOrEqual", 2), False),
        (of_data("count", "greaterThan", "2"), False),
        (of_data("paid", "in", True), True),
        (of_data("paid", "in", 1), False),
        (of_data("paid", "greaterThan", 0), False),
        (of_data("deep", "in", {"x": 1}), False),
        (of_data("list", "in", ["web"]), False),
        (of_data("nothing", "in", "web"), False),
        (of_data("channel", "unknownOperator", "web"), False),
    ],
)
def test_conditions_on_top_level_values_of_data(node, expected):
    """Strings, numbers and booleans only, and true is not 1."""
    assert passes(node) is expected


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [("user", ["pro"], True), ("request", ["pro"], False), ("device", ["pro"], False)],
)
def test_conditions_on_attributes_of_a_context_kind(kind, values, expected):
    """Of the one kind that the condition names."""
    node = {"type": "contextAttribute", "attribute": "plan", "contextKind": kind, "op": "in"}
    assert passes({**node, "values": values}) is expected


@pytest.mark.parametrize(("op", "expected"), [("and", False), ("or", True)])
def test_groups_join_their_conditions(op, expected):
    """By and or by or; a negated group is the opposite."""
    parts = [of_data("channel", "in", "web"), of_data("count", "in", 4)]
    parts = [{**part, "values": list(part["values"])} for part in parts]
    assert passes({"type": "group", "op": op, "values": parts}) is expected
    assert passes({"type": "group", "op": op, "values": parts, "negate": True}) is not expected


def test_a_filter_nested_too_deeply_is_refused():
    """And no filter is no predicate."""
    node: dict = {**of_data("a", "in"), "values": []}
    for _ in range(MAX_DEPTH + 1):
        node = {"type": "group", "op": "and", "values": [node]}
    with pytest.raises(RefusedRequest):
        checked_filter(node)
    assert predicate(None) is None
