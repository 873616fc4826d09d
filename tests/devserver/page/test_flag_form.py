"""A flag in a form: what is shown is what is saved, and what is not shown stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldinstrument.devserver import experiment_flag, simple_flag
from ldinstrument.devserver.page.flag_form import saved, shown
from ldinstrument.devserver.responses import RefusedRequest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


def filled(flag: dict) -> dict[str, str]:
    """The form as a browser sends it when nothing was changed."""
    fields = {name: str(value) for name, value in shown(flag).items() if name != "on"}
    return {**fields, **({"on": "on"} if flag["on"] else {})}


@given(st.lists(JSON, min_size=2, max_size=4))
def test_a_form_that_nobody_changed_changes_no_value(values):
    """Objects, commas, quotes, empty strings and words that look like numbers."""
    flag = simple_flag("f", values)
    assert saved("f", filled(flag), flag)["variations"] == values


@pytest.mark.parametrize(
    "flag",
    [
        experiment_flag("f", ["a", "b"], weights=[1, 3], seed=7, metrics=["m"]),
        {
            **simple_flag("f", ["a", "b"]),
            "fallthrough": {
                "rollout": {
                    "contextKind": "org",
                    "variations": [
                        {"variation": 0, "weight": 20_000},
                        {"variation": 1, "weight": 80_000},
                    ],
                }
            },
        },
    ],
    ids=["experiment with a seed", "rollout"],
)
def test_switching_a_flag_off_leaves_who_gets_what(flag):
    """Another seed would deal the units anew, and a rollout would be gone."""
    form = filled(flag)
    form.pop("on")
    made = saved("f", form, flag)
    assert made["on"] is False
    assert made["fallthrough"] == flag["fallthrough"]


def test_other_weights_make_another_rollout():
    """Of the kind that the form names."""
    flag = experiment_flag("f", ["a", "b"])
    rollout = saved("f", {**filled(flag), "weights": "10, 90", "kind": "org"}, flag)["fallthrough"]
    assert [each["weight"] for each in rollout["rollout"]["variations"]] == [10_000, 90_000]
    assert rollout["rollout"]["contextKind"] == "org"


@pytest.mark.parametrize(
    "fields",
    [{"variations": "a"}, {"weights": "0, 0"}, {"weights": "x"}, {"weights": "1, 2, 3"}],
)
def test_what_is_no_experiment_is_refused(fields):
    """With a sentence."""
    flag = experiment_flag("f", ["a", "b"])
    with pytest.raises(RefusedRequest):
        saved("f", {**filled(flag), **fields}, flag)


def test_a_variation_that_a_rule_serves_cannot_go():
    """The rule would serve nothing."""
    clauses = [{"attribute": "plan", "op": "in", "values": ["pro"]}]
    flag = {**simple_flag("f", ["a", "b", "c"]), "rules": [{"variation": 2, "clauses": clauses}]}
    with pytest.raises(RefusedRequest, match="no variation 2"):
        saved("f", {**filled(flag), "variations": "a, b"}, flag)
