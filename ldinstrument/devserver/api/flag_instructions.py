"""LaunchDarkly's semantic patch of a flag: instructions such as `turnFlagOn`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from ..database import Document
from ..flags.environment import REST, availability
from ..responses import invalid
from .flag_representation import new_id, settled, variations_of

USER = "user"


def instructed(
    flag: Document, instructions: Any, other: Callable[[str], Document | None]
) -> Document:
    """Return a flag after a semantic patch.

    Args:
        flag: as it is kept.
        instructions: the list of the body.
        other: finds another flag, for prerequisites.

    Raises:
        RefusedRequest: 400, an instruction that does not exist here or does not apply.
    """
    if not isinstance(instructions, list) or not instructions:
        raise invalid("instructions is required")
    changes = _InstructedFlag(flag, other)
    for instruction in instructions:
        changes.apply(instruction)
    return settled(changes.flag)


def needs_environment(instructions: Any) -> bool:
    """Return whether one of the instructions is about an environment."""
    given = instructions if isinstance(instructions, list) else []
    return any(isinstance(each, dict) and each.get("kind") in IN_AN_ENVIRONMENT for each in given)


class _InstructedFlag:
    """A flag while instructions are carried out, each by the method of its name in `KINDS`."""

    def __init__(self, flag: Document, other: Callable[[str], Document | None]):
        self.flag = copy.deepcopy(flag)
        self.other = other
        self.kept: Document = self.flag.setdefault(REST, {})
        self.kept["variations"] = variations_of(flag)

    def apply(self, instruction: Any) -> None:
        kind = instruction.get("kind") if isinstance(instruction, dict) else None
        do = KINDS.get(kind) if isinstance(kind, str) else None
        if do is None:
            raise invalid(f"instructions: {kind!r} does not exist here")
        try:
            do(self, instruction)
        except KeyError as missing:
            raise invalid(f"{kind}: {missing.args[0]} is required") from None
        except (TypeError, AttributeError, ValueError):
            raise invalid(f"{kind}: a parameter is not of the right type") from None

    # -- variations ------------------------------------------------------------------------------

    def _index(self, variation: Any, of: Document | None = None) -> int:
        known = self.kept["variations"] if of is None else variations_of(of)
        for index, each in enumerate(known):
            if each["_id"] == variation:
                return index
        raise invalid(f"there is no variation with the id {variation!r}")

    def _update_variation(self, given: Document) -> None:
        index = self._index(given["variationId"])
        self.kept["variations"][index] |= _some(given, "name", "description")
        if "value" in given:
            self.flag["variations"][index] = given["value"]

    def _add_variation(self, given: Document) -> None:
        words = _some(given, "name", "description")
        self.flag["variations"].append(given["value"])
        self.kept["variations"].append({"_id": new_id(), **words, "value": given["value"]})

    def _remove_variation(self, given: Document) -> None:
        index = self._index(given["variationId"])
        if index in self._used_variations():
            raise invalid("removeVariation: the variation is served, so it cannot be removed")
        del self.flag["variations"][index], self.kept["variations"][index]
        for holder, name in self._references():
            holder[name] -= holder[name] > index

    def _used_variations(self) -> set[int]:
        return {holder[name] for holder, name in self._references()}

    def _references(self) -> list[tuple[Document, str]]:
        """Return every place that names a variation by its number."""
        flag = self.flag
        places = [flag["fallthrough"], *flag.get("rules", [])]
        shares = [
            each for place in places for each in place.get("rollout", {}).get("variations", [])
        ]
        targets = [*flag.get("targets", []), *flag.get("contextTargets", [])]
        found = [(holder, "variation") for holder in (*places, *shares, *targets)]
        found.append((flag, "offVariation"))
        return [(holder, name) for holder, name in found if holder.get(name) is not None]

    def _update_default(self, given: Document) -> None:
        """Name the values; LaunchDarkly's example writes them with a capital letter."""
        for place, value in given.items():
            if place.lower() == "offvariationvalue":
                self.flag["offVariation"] = self.flag["variations"].index(value)
            elif place.lower() == "onvariationvalue":
                self.flag["fallthrough"] = {"variation": self.flag["variations"].index(value)}

    # -- what is served --------------------------------------------------------------------------

    def _served(self, given: Document) -> Document:
        """Return the variation or the rollout that an instruction asks for."""
        weights = given.get("rolloutWeights")
        if weights is None:
            return {"variation": self._index(given["variationId"])}
        shares = [
            {"variation": self._index(variation), "weight": weight}
            for variation, weight in weights.items()
        ]
        rollout = {"contextKind": given.get("rolloutContextKind", USER), "variations": shares}
        by = given.get("rolloutBucketBy")
        return {"rollout": {**rollout, **({"bucketBy": by} if by else {})}}

    def _update_off(self, given: Document) -> None:
        self.flag["offVariation"] = self._index(given["variationId"])

    def _update_fallthrough(self, given: Document) -> None:
        self.flag["fallthrough"] = self._served(given)

    # -- rules -----------------------------------------------------------------------------------

    @property
    def _rules(self) -> list[Document]:
        found: list[Document] = self.flag.setdefault("rules", [])
        return found

    def _rule(self, given: Document) -> Document:
        for rule in self._rules:
            if rule.get("id") == given["ruleId"]:
                return rule
        raise invalid(f"there is no rule with the id {given['ruleId']!r}")

    def _new_rule(self, given: Document) -> Document:
        words = _some(given, "description", "trackEvents")
        clauses = [_clause(clause) for clause in given["clauses"]]
        return {"id": new_id(), **words, **self._served(given), "clauses": clauses}

    def _add_rule(self, given: Document) -> None:
        made, before = self._new_rule(given), given.get("beforeRuleId")
        place = len(self._rules)
        if before:
            place = self._rules.index(self._rule({"ruleId": before}))
        self._rules.insert(place, made)

    def _remove_rule(self, given: Document) -> None:
        wanted = given["ruleId"]
        self.flag["rules"] = [rule for rule in self._rules if rule.get("id") != wanted]

    def _replace_rules(self, given: Document) -> None:
        self.flag["rules"] = [self._new_rule(rule) for rule in given["rules"]]

    def _reorder_rules(self, given: Document) -> None:
        if sorted(given["ruleIds"]) != sorted(rule.get("id", "") for rule in self._rules):
            raise invalid("reorderRules: ruleIds must name all rules of the flag")
        self._rules.sort(key=lambda rule: given["ruleIds"].index(rule.get("id", "")))

    def _update_rule(self, given: Document) -> None:
        rule, served = self._rule(given), self._served(given)
        for name in ("variation", "rollout"):
            rule.pop(name, None)
        rule |= served

    def _describe_rule(self, given: Document) -> None:
        self._rule(given)["description"] = given["description"]

    def _track_rule(self, given: Document) -> None:
        self._rule(given)["trackEvents"] = given["trackEvents"]

    def _add_clauses(self, given: Document) -> None:
        self._rule(given)["clauses"].extend(_clause(clause) for clause in given["clauses"])

    def _remove_clauses(self, given: Document) -> None:
        rule, gone = self._rule(given), given["clauseIds"]
        rule["clauses"] = [each for each in rule["clauses"] if each.get("id") not in gone]

    def _clause_of(self, given: Document) -> Document:
        for clause in self._rule(given)["clauses"]:
            if clause.get("id") == given["clauseId"]:
                found: Document = clause
                return found
        raise invalid(f"there is no clause with the id {given['clauseId']!r}")

    def _update_clause(self, given: Document) -> None:
        clause, made = self._clause_of(given), _clause(given["clause"])
        identity = clause["id"]
        clause.clear()
        clause |= {**made, "id": identity}

    def _add_values(self, given: Document) -> None:
        clause = self._clause_of(given)
        clause["values"] += [value for value in given["values"] if value not in clause["values"]]

    def _remove_values(self, given: Document) -> None:
        clause = self._clause_of(given)
        clause["values"] = [value for value in clause["values"] if value not in given["values"]]

    # -- targets ---------------------------------------------------------------------------------

    def _targets_of(self, kind: str) -> list[Document]:
        """Return the list that holds the targets of a context kind; those of users have their
        own.
        """
        name = "targets" if kind == USER else "contextTargets"
        found: list[Document] = self.flag.setdefault(name, [])
        return found

    def _target(self, kind: str, index: int) -> Document:
        targets = self._targets_of(kind)
        for target in targets:
            if target["variation"] == index and target.get("contextKind", USER) == kind:
                return target
        targets.append({"contextKind": kind, "variation": index, "values": []})
        return targets[-1]

    def _add_targets(self, given: Document) -> None:
        kind, index = given.get("contextKind", USER), self._index(given["variationId"])
        for target in self._targets_of(kind):
            elsewhere = target.get("contextKind", USER) == kind and target["variation"] != index
            if elsewhere and set(target["values"]) & set(given["values"]):
                raise invalid("a context key is targeted by another variation already")
        values = self._target(kind, index)["values"]
        values += [value for value in given["values"] if value not in values]

    def _remove_targets(self, given: Document) -> None:
        kind = given.get("contextKind", USER)
        target = self._target(kind, self._index(given["variationId"]))
        target["values"] = [value for value in target["values"] if value not in given["values"]]
        self._drop_empty(kind)

    def _clear_targets(self, given: Document) -> None:
        self._clear_user_targets(given)
        self._clear(self.flag.get("contextTargets", []), given)

    def _clear_user_targets(self, given: Document) -> None:
        self._clear(self._targets_of(USER), given)

    def _clear(self, targets: list[Document], given: Document) -> None:
        index = self._index(given["variationId"])
        targets[:] = [target for target in targets if target["variation"] != index]

    def _drop_empty(self, kind: str) -> None:
        targets = self._targets_of(kind)
        targets[:] = [target for target in targets if target["values"]]

    def _replace_targets(self, given: Document) -> None:
        self.flag["targets"], self.flag["contextTargets"] = [], []
        for target in given["targets"]:
            self._add_targets(target)

    def _replace_user_targets(self, given: Document) -> None:
        self.flag["targets"] = []
        for target in given["targets"]:
            self._add_targets({**target, "contextKind": USER})

    # -- prerequisites ---------------------------------------------------------------------------

    @property
    def _prerequisites(self) -> list[Document]:
        found: list[Document] = self.flag.setdefault("prerequisites", [])
        return found

    def _prerequisite(self, given: Document) -> Document:
        other = self.other(given["key"])
        if other is None:
            raise invalid(f"there is no flag {given['key']!r}")
        return {"key": given["key"], "variation": self._index(given["variationId"], other)}

    def _add_prerequisite(self, given: Document) -> None:
        made = self._prerequisite(given)
        self._remove_prerequisite(given)
        self._prerequisites.append(made)

    def _remove_prerequisite(self, given: Document) -> None:
        left = [each for each in self._prerequisites if each["key"] != given["key"]]
        self.flag["prerequisites"] = left

    def _update_prerequisite(self, given: Document) -> None:
        if not any(each["key"] == given["key"] for each in self._prerequisites):
            raise invalid(f"updatePrerequisite: {given['key']!r} is no prerequisite of this flag")
        self._add_prerequisite(given)

    def _replace_prerequisites(self, given: Document) -> None:
        made = [self._prerequisite(each) for each in given["prerequisites"]]
        self.flag["prerequisites"] = made

    # -- settings --------------------------------------------------------------------------------

    def _add_tags(self, given: Document) -> None:
        known = self.kept.get("tags", [])
        self.kept["tags"] = [*known, *(tag for tag in given["values"] if tag not in known)]

    def _remove_tags(self, given: Document) -> None:
        left = [tag for tag in self.kept.get("tags", []) if tag not in given["values"]]
        self.kept["tags"] = left

    def _available(self, given: Document, *, to: bool) -> None:
        known = availability(self.flag)
        if given["value"] not in known:
            raise invalid(f"value must be one of {', '.join(known)}")
        self.flag["clientSideAvailability"] = {**known, given["value"]: to}


def _some(given: Document, *names: str) -> Document:
    return {name: given[name] for name in names if name in given}


def _clause(given: Document) -> Document:
    """Return a clause; one about segments has no attribute that an SDK would look at."""
    kept = {name: value for name, value in given.items() if name != "_id"}
    return {"id": new_id(), "negate": False, "attribute": "", "contextKind": USER, **kept}


_Do = Callable[[_InstructedFlag, Document], Any]


def _set(name: str, value: Any) -> _Do:
    return lambda change, given: change.flag.update({name: value})


def _set_from(name: str, parameter: str) -> _Do:
    return lambda change, given: change.flag.update({name: given[parameter]})


def _keep(name: str, value: Any) -> _Do:
    return lambda change, given: change.kept.update({name: value})


def _keep_from(name: str) -> _Do:
    return lambda change, given: change.kept.update({name: given["value"]})


IN_AN_ENVIRONMENT: Mapping[str, _Do] = {
    "turnFlagOn": _set("on", True),
    "turnFlagOff": _set("on", False),
    "updateOffVariation": _InstructedFlag._update_off,
    "updateFallthroughVariationOrRollout": _InstructedFlag._update_fallthrough,
    "addRule": _InstructedFlag._add_rule,
    "removeRule": _InstructedFlag._remove_rule,
    "replaceRules": _InstructedFlag._replace_rules,
    "reorderRules": _InstructedFlag._reorder_rules,
    "updateRuleVariationOrRollout": _InstructedFlag._update_rule,
    "updateRuleDescription": _InstructedFlag._describe_rule,
    "updateRuleTrackEvents": _InstructedFlag._track_rule,
    "addClauses": _InstructedFlag._add_clauses,
    "removeClauses": _InstructedFlag._remove_clauses,
    "updateClause": _InstructedFlag._update_clause,
    "addValuesToClause": _InstructedFlag._add_values,
    "removeValuesFromClause": _InstructedFlag._remove_values,
    "addTargets": _InstructedFlag._add_targets,
    "addUserTargets": _InstructedFlag._add_targets,
    "removeTargets": _InstructedFlag._remove_targets,
    "removeUserTargets": _InstructedFlag._remove_targets,
    "clearTargets": _InstructedFlag._clear_targets,
    "clearUserTargets": _InstructedFlag._clear_user_targets,
    "replaceTargets": _InstructedFlag._replace_targets,
    "replaceUserTargets": _InstructedFlag._replace_user_targets,
    "addPrerequisite": _InstructedFlag._add_prerequisite,
    "removePrerequisite": _InstructedFlag._remove_prerequisite,
    "updatePrerequisite": _InstructedFlag._update_prerequisite,
    "replacePrerequisites": _InstructedFlag._replace_prerequisites,
}
"""Instructions that need an `environmentKey`, by LaunchDarkly's names."""
EVERYWHERE: Mapping[str, _Do] = {
    "addVariation": _InstructedFlag._add_variation,
    "removeVariation": _InstructedFlag._remove_variation,
    "updateVariation": _InstructedFlag._update_variation,
    "updateDefaultVariation": _InstructedFlag._update_default,
    "updateTrackEvents": _set_from("trackEvents", "trackEvents"),
    "updateTrackEventsFallthrough": _set_from("trackEventsFallthrough", "trackEvents"),
    "updateName": _keep_from("name"),
    "updateDescription": _keep_from("description"),
    "updateMaintainerMember": _keep_from("maintainerId"),
    "removeMaintainer": lambda change, given: change.kept.pop("maintainerId", None),
    "addTags": _InstructedFlag._add_tags,
    "removeTags": _InstructedFlag._remove_tags,
    "makeFlagPermanent": _keep("temporary", False),
    "makeFlagTemporary": _keep("temporary", True),
    "archiveFlag": _keep("archived", True),
    "restoreFlag": _keep("archived", False),
    "deprecateFlag": _keep("deprecated", True),
    "restoreDeprecatedFlag": _keep("deprecated", False),
    "turnOnClientSideAvailability": lambda change, given: change._available(given, to=True),
    "turnOffClientSideAvailability": lambda change, given: change._available(given, to=False),
}
"""Instructions that need none. What is about approvals, schedules, migrations, teams and custom
properties is in neither."""
KINDS = {**IN_AN_ENVIRONMENT, **EVERYWHERE}
