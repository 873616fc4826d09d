"""A flag as REST represents it: made of the flag of the SDKs, and back without a loss."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ldinstrument.devserver import experiment_flag, simple_flag
from ldinstrument.devserver.api.flag_representation import (
    flag_of,
    represented,
    settled,
    variations_of,
)
from ldinstrument.devserver.flags.environment import REST

ENVIRONMENTS = [{"key": "local", "name": "Local"}, {"key": "staging", "name": "Staging"}]
RULE = {
    "id": "r-1",
    "variation": 1,
    "trackEvents": True,
    "clauses": [{"id": "c-1", "attribute": "plan", "op": "in", "values": ["pro"]}],
}


def flag(**fields: Any) -> dict[str, Any]:
    return {**simple_flag("f"), "version": 3, **fields}


def shown(document: dict[str, Any]) -> dict[str, Any]:
    return represented("default", document, ENVIRONMENTS)


def test_a_flag_that_was_not_made_over_rest_has_everything_a_client_expects() -> None:
    """Its key stands for its name; the state is the same in each environment."""
    found = shown(flag(rules=[RULE]))
    assert (found["name"], found["key"], found["kind"], found["_version"]) == (
        "f",
        "f",
        "boolean",
        3,
    )
    assert (found["archived"], found["tags"], found["temporary"]) == (False, [], False)
    assert found["defaults"] == {"onVariation": 0, "offVariation": 0}
    local, staging = found["environments"]["local"], found["environments"]["staging"]
    assert local.pop("_environmentName") == "Local"
    assert staging.pop("_environmentName") == "Staging"
    assert local == staging
    (rule,) = local["rules"]
    assert (rule["_id"], rule["trackEvents"], "id" in rule) == ("r-1", True, False)
    assert (rule["clauses"][0]["_id"], "id" in rule["clauses"][0]) == ("c-1", False)
    assert rule["clauses"][0]["negate"] is False


def test_what_rest_knows_is_shown() -> None:
    """Names and descriptions of the flag and of its variations."""
    rest = {
        "name": "Fine flag",
        "tags": ["a"],
        "temporary": True,
        "variations": [{"_id": "v-0", "name": "Off"}, {"description": "the new one"}],
    }
    found = shown(flag(**{REST: rest}))
    assert (found["name"], found["tags"], found["temporary"]) == ("Fine flag", ["a"], True)
    first, second = found["variations"]
    assert first == {"_id": "v-0", "name": "Off", "value": False}
    assert (second["description"], second["value"]) == ("the new one", True)
    assert second["_id"] == variations_of(flag())[1]["_id"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, False], "boolean"),
        ([True, False, True], "multivariate"),
        (["a", "b"], "multivariate"),
    ],
)
def test_two_booleans_are_a_boolean_flag(values: list[Any], kind: str) -> None:
    """Anything else is multivariate."""
    assert shown(flag(variations=values))["kind"] == kind


def test_a_representation_that_was_not_changed_is_the_same_flag() -> None:
    """Also that of an experiment with rules; only the date of the change is new."""
    before = settled({**experiment_flag("f", ["a", "b"]), "rules": [RULE]})
    kept = copy.deepcopy(before)
    seen = shown(before)
    after = flag_of(before, seen, copy.deepcopy(seen))
    for found in (before, after):
        found[REST].pop("lastModified")
        found[REST].pop("variations")
    for name in ("rules", "fallthrough", "variations", "on", "salt"):
        assert after[name] == kept[name], name


def test_a_change_in_one_environment_is_one_in_all() -> None:
    """A new rule gets ids; what is not configured stays."""
    before = flag(rules=[RULE])
    seen = shown(before)
    after = copy.deepcopy(seen)
    after["environments"]["staging"]["on"] = False
    after["environments"]["staging"]["rules"].append(
        {"variation": 0, "clauses": [{"attribute": "x"}]}
    )
    found = flag_of(before, seen, after)
    assert (found["on"], found["fallthrough"], len(found["rules"])) == (False, {"variation": 0}, 2)
    assert found["rules"][1]["id"]
    assert found["rules"][1]["clauses"][0]["id"]
    assert before["rules"] == [RULE]


def test_new_variations_have_ids_and_the_old_ones_keep_theirs() -> None:
    """Their values go to the SDKs, their words stay here."""
    before = flag()
    seen = shown(before)
    after = {**seen, "variations": [*seen["variations"], {"value": 7, "name": "Seven"}]}
    found = flag_of(before, seen, after)
    assert found["variations"] == [False, True, 7]
    ids = [variation["_id"] for variation in found[REST]["variations"]]
    assert ids[:2] == [variation["_id"] for variation in seen["variations"]]
    assert len(set(ids)) == 3


def test_an_archived_flag_has_the_date_of_that() -> None:
    """The first one; without it when it is taken back."""
    archived = settled(flag(**{REST: {"archived": True}}))
    date = archived[REST]["archivedDate"]
    assert date > 1_700_000_000_000
    assert settled(archived)[REST]["archivedDate"] == date
    back = settled({**archived, REST: {**archived[REST], "archived": False}})
    assert "archivedDate" not in back[REST]
