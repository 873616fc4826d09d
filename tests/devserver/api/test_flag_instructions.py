"""Each instruction of a semantic patch, on a flag with rules and targets of two kinds."""

from __future__ import annotations

import pytest

from ldinstrument.devserver.api.flag_instructions import KINDS, instructed, needs_environment
from ldinstrument.devserver.api.flag_representation import represented, variations_of
from ldinstrument.devserver.api.flag_rules import checked, new_flag
from ldinstrument.devserver.responses import RefusedRequest

IDS = ("v0", "v1", "v2")
VARIATIONS = [
    {"_id": id, "value": value} for id, value in zip(IDS, ("red", "green", "blue"), strict=True)
]
AVAILABLE = {"usingEnvironmentId": True, "usingMobileKey": True}
RULE = {
    "id": "r0",
    "variation": 1,
    "clauses": [
        {"id": "c0", "contextKind": "user", "attribute": "country", "op": "in", "values": ["nz"]}
    ],
}


@pytest.fixture(name="flag")
def _flag():
    made = new_flag({"key": "colour", "name": "Colour", "variations": VARIATIONS}, AVAILABLE)
    made |= {"rules": [RULE, {**RULE, "id": "r1", "variation": 2}]}
    made["targets"] = [{"contextKind": "user", "variation": 0, "values": ["u1", "u2"]}]
    made["contextTargets"] = [{"contextKind": "org", "variation": 0, "values": ["o1"]}]
    return made


def after(flag, *instructions):
    """The flag after instructions, which an SDK has to be able to evaluate."""
    other = {"key": "other", "version": 1, "variations": [True, False]}
    found = instructed(flag, list(instructions), {"other": other}.get)
    return checked(found)


OTHER = [each["_id"] for each in variations_of({"key": "other", "variations": [True, False]})]
WEIGHTS = {"v0": 20_000, "v2": 80_000}
ROLLOUT = {
    "rollout": {
        "contextKind": "org",
        "variations": [{"variation": 0, "weight": 20_000}, {"variation": 2, "weight": 80_000}],
    }
}


@pytest.mark.parametrize(
    ("instruction", "field", "wanted"),
    [
        ({"kind": "turnFlagOn"}, "on", True),
        ({"kind": "turnFlagOff"}, "on", False),
        ({"kind": "updateOffVariation", "variationId": "v1"}, "offVariation", 1),
        (
            {"kind": "updateFallthroughVariationOrRollout", "variationId": "v2"},
            "fallthrough",
            {"variation": 2},
        ),
        (
            {
                "kind": "updateFallthroughVariationOrRollout",
                "rolloutWeights": WEIGHTS,
                "rolloutContextKind": "org",
            },
            "fallthrough",
            ROLLOUT,
        ),
        ({"kind": "updateDefaultVariation", "OffVariationValue": "green"}, "offVariation", 1),
        (
            {"kind": "updateDefaultVariation", "onVariationValue": "blue"},
            "fallthrough",
            {"variation": 2},
        ),
        ({"kind": "updateTrackEvents", "trackEvents": True}, "trackEvents", True),
        (
            {"kind": "updateTrackEventsFallthrough", "trackEvents": True},
            "trackEventsFallthrough",
            True,
        ),
        (
            {"kind": "addTargets", "contextKind": "org", "variationId": "v1", "values": ["o2"]},
            "contextTargets",
            [
                {"contextKind": "org", "variation": 0, "values": ["o1"]},
                {"contextKind": "org", "variation": 1, "values": ["o2"]},
            ],
        ),
        (
            {"kind": "removeUserTargets", "variationId": "v0", "values": ["u2", "u9"]},
            "targets",
            [{"contextKind": "user", "variation": 0, "values": ["u1"]}],
        ),
        ({"kind": "clearUserTargets", "variationId": "v0"}, "targets", []),
        ({"kind": "clearTargets", "variationId": "v0"}, "contextTargets", []),
        (
            {
                "kind": "replaceTargets",
                "targets": [{"contextKind": "org", "variationId": "v2", "values": ["o7"]}],
            },
            "contextTargets",
            [{"contextKind": "org", "variation": 2, "values": ["o7"]}],
        ),
        (
            {
                "kind": "replaceUserTargets",
                "targets": [{"variationId": "v1", "values": ["u1"]}],
            },
            "targets",
            [{"contextKind": "user", "variation": 1, "values": ["u1"]}],
        ),
        (
            {"kind": "addPrerequisite", "key": "other", "variationId": OTHER[1]},
            "prerequisites",
            [{"key": "other", "variation": 1}],
        ),
        (
            {
                "kind": "replacePrerequisites",
                "prerequisites": [{"key": "other", "variationId": OTHER[0]}],
            },
            "prerequisites",
            [{"key": "other", "variation": 0}],
        ),
        ({"kind": "removePrerequisite", "key": "other"}, "prerequisites", []),
        (
            {"kind": "turnOffClientSideAvailability", "value": "usingMobileKey"},
            "clientSideAvailability",
            {"usingEnvironmentId": True, "usingMobileKey": False},
        ),
    ],
)
def test_an_instruction_changes_the_field_that_sdks_get(flag, instruction, field, wanted):
    """What is asked for is what an SDK gets."""
    assert after(flag, instruction)[field] == wanted


def test_rules_are_added_moved_changed_and_removed(flag):
    """The order of rules decides what is served."""
    clauses = [{"attribute": "plan", "op": "in", "values": ["pro"]}]
    added = after(
        flag,
        {"kind": "addRule", "variationId": "v0", "clauses": clauses, "beforeRuleId": "r1"},
        {"kind": "updateRuleVariationOrRollout", "ruleId": "r1", "rolloutWeights": WEIGHTS},
        {"kind": "updateRuleDescription", "ruleId": "r1", "description": "the rest"},
        {"kind": "updateRuleTrackEvents", "ruleId": "r1", "trackEvents": True},
    )
    first, new, last = added["rules"]
    assert (first["id"], new["variation"], last["description"]) == ("r0", 0, "the rest")
    assert "variation" not in last
    moved = after(added, {"kind": "reorderRules", "ruleIds": ["r1", new["id"], "r0"]})
    assert [rule["id"] for rule in moved["rules"]] == ["r1", new["id"], "r0"]
    left = after(moved, {"kind": "removeRule", "ruleId": "r1"})
    assert [rule["id"] for rule in left["rules"]] == [new["id"], "r0"]
    replaced = after(
        left, {"kind": "replaceRules", "rules": [{"variationId": "v1", "clauses": clauses}]}
    )
    assert [rule["variation"] for rule in replaced["rules"]] == [1]


def test_clauses_are_added_changed_and_removed(flag):
    """A clause keeps its id while its values change."""
    more = {"kind": "addClauses", "ruleId": "r0", "clauses": [{"op": "in", "values": ["a"]}]}
    found = after(
        flag,
        more,
        {"kind": "addValuesToClause", "ruleId": "r0", "clauseId": "c0", "values": ["au", "nz"]},
    )
    first, second = found["rules"][0]["clauses"]
    assert (first["values"], second["negate"]) == (["nz", "au"], False)
    kind = {"ruleId": "r0", "clauseId": "c0"}
    updated = after(
        found,
        {**kind, "kind": "removeValuesFromClause", "values": ["au"]},
        {"kind": "removeClauses", "ruleId": "r0", "clauseIds": [second["id"]]},
    )
    assert [clause["values"] for clause in updated["rules"][0]["clauses"]] == [["nz"]]
    made = {"attribute": "city", "op": "endsWith", "values": ["ton"], "negate": True}
    (clause,) = after(updated, {**kind, "kind": "updateClause", "clause": made})["rules"][0][
        "clauses"
    ]
    assert (clause["id"], clause["op"], clause["negate"]) == ("c0", "endsWith", True)


def test_a_variation_that_nothing_serves_is_removed_and_the_numbers_follow(flag):
    """The others keep what they serve, though their numbers change."""
    added = after(flag, {"kind": "addVariation", "value": "teal", "name": "Teal"})
    assert added["variations"] == ["red", "green", "blue", "teal"]
    free = after(
        added,
        {"kind": "updateOffVariation", "variationId": "v1"},
        {"kind": "removeRule", "ruleId": "r1"},
        {
            "kind": "updateFallthroughVariationOrRollout",
            "variationId": represented("p", added, ())["variations"][3]["_id"],
        },
    )
    found = after(free, {"kind": "removeVariation", "variationId": "v2"})
    assert found["variations"] == ["red", "green", "teal"]
    assert (found["fallthrough"], found["offVariation"]) == ({"variation": 2}, 1)
    assert [each["_id"] for each in variations_of(found)][:2] == ["v0", "v1"]
    with pytest.raises(RefusedRequest, match="served"):
        after(found, {"kind": "removeVariation", "variationId": "v1"})


def test_names_tags_and_marks_are_kept_beside_the_flag(flag):
    """What SDKs do not get is in the representation."""
    found = represented(
        "default",
        after(
            flag,
            {"kind": "updateName", "value": "Hue"},
            {"kind": "updateDescription", "value": "of it"},
            {"kind": "updateMaintainerMember", "value": "m1"},
            {"kind": "addTags", "values": ["a", "b"]},
            {"kind": "removeTags", "values": ["a"]},
            {"kind": "makeFlagPermanent"},
            {"kind": "deprecateFlag"},
            {"kind": "updateVariation", "variationId": "v0", "value": "rose", "name": "Rose"},
        )
        | {"version": 1},
        (),
    )
    assert {name: found[name] for name in ("name", "description", "maintainerId", "tags")} == {
        "name": "Hue",
        "description": "of it",
        "maintainerId": "m1",
        "tags": ["b"],
    }
    assert (found["temporary"], found["deprecated"]) == (False, True)
    assert found["variations"][0] == {"_id": "v0", "name": "Rose", "value": "rose"}


@pytest.mark.parametrize(
    "instruction",
    [
        {"kind": "doAMiracle"},
        {"kind": ["turnFlagOn"]},
        {},
        7,
        {"kind": "updateOffVariation"},
        {"kind": "updateOffVariation", "variationId": "v9"},
        {"kind": "updateRuleDescription", "ruleId": "r9", "description": "x"},
        {"kind": "updateClause", "ruleId": "r0", "clauseId": "c9", "clause": {}},
        {"kind": "reorderRules", "ruleIds": ["r0"]},
        {"kind": "addTargets", "variationId": "v1", "values": ["u1"]},
        {"kind": "addPrerequisite", "key": "nowhere", "variationId": "v0"},
        {"kind": "updatePrerequisite", "key": "other", "variationId": OTHER[0]},
        {"kind": "turnOnClientSideAvailability", "value": "usingSmoke"},
        {"kind": "updateFallthroughVariationOrRollout", "rolloutWeights": {"v0": 10}},
        {"kind": "updateFallthroughVariationOrRollout", "rolloutWeights": 7},
        {"kind": "addRule", "variationId": "v0", "clauses": 7},
        {"kind": "updateDefaultVariation", "offVariationValue": "pink"},
        {"kind": "addVariation", "value": "red"},
        {"kind": "updateTrackEvents", "trackEvents": "yes"},
    ],
)
def test_an_instruction_that_does_not_apply_is_refused(flag, instruction):
    """400 with a sentence, and never another error."""
    with pytest.raises(RefusedRequest) as refused:
        after(flag, instruction)
    assert refused.value.status == 400
    assert flag["offVariation"] == 2, "the flag itself was not touched"


@pytest.mark.parametrize("instructions", [None, [], "turnFlagOn", {}])
def test_a_patch_needs_instructions(flag, instructions):
    """An empty patch is none."""
    with pytest.raises(RefusedRequest, match="instructions is required"):
        instructed(flag, instructions, {}.get)


def test_targeting_needs_an_environment_and_settings_do_not():
    """As LaunchDarkly documents for each instruction."""
    assert needs_environment([{"kind": "updateName"}, {"kind": "turnFlagOn"}])
    assert not needs_environment([{"kind": "updateName"}, {"kind": "addVariation"}, 7])
    assert not needs_environment(None)
    assert len(KINDS) > 40
