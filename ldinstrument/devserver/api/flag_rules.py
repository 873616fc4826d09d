"""What a flag may be: the body of a POST, and the check of a flag that was changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..database import Document
from ..flags.environment import REST
from ..flags.flags import TOTAL_WEIGHT, simple_flag
from ..responses import invalid, now_ms
from .metric_rules import KEY

REST_FIELDS: Mapping[str, type] = {
    "name": str,
    "description": str,
    "maintainerId": str,
    "temporary": bool,
    "archived": bool,
    "deprecated": bool,
    "tags": list,
    "customProperties": dict,
}
OF_A_VARIATION = ("_id", "name", "description")
TYPES = {bool: "true or false", str: "a string", list: "a list", dict: "an object"}
LEAST_VARIATIONS = 2


def new_flag(body: Any, client_side: Mapping[str, bool]) -> Document:
    """Return the flag that the body of a POST defines.

    Args:
        body: what was sent.
        client_side: the project's default availability to client-side SDKs.

    Raises:
        RefusedRequest: 400 with the first thing that is wrong.
    """
    if not isinstance(body, dict):
        raise invalid("Invalid request body")
    body = {name: value for name, value in body.items() if value is not None}
    for name in ("key", "name"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise invalid(f"{name} is required")
    if not KEY.fullmatch(body["key"]):
        raise invalid("key must be of letters, digits, '.', '_' and '-'")
    if body.get("purpose"):
        raise invalid("purpose: migration and holdout flags do not exist here")
    variations = _new_variations(body)
    flag = simple_flag(body["key"], [each["value"] for each in variations], on=_is_on(body))
    kept = {name: body[name] for name in REST_FIELDS if name in body}
    flag[REST] = {"temporary": True, **kept, "creationDate": now_ms(), "variations": variations}
    flag["clientSideAvailability"] = _availability(body, client_side)
    flag |= _defaults(body, len(variations))
    flag["prerequisites"] = body.get("initialPrerequisites") or []
    return flag


def _is_on(body: Document) -> bool:
    is_on = body.get("isFlagOn", False)
    if not isinstance(is_on, bool):
        raise invalid("isFlagOn must be true or false")
    return is_on


def _new_variations(body: Document) -> list[Document]:
    given = body.get("variations", [{"value": True}, {"value": False}])
    if not isinstance(given, list) or not all(_has_value(each) for each in given):
        raise invalid("variations must be a list of objects, each with a value")
    return given


def _has_value(variation: Any) -> bool:
    return isinstance(variation, dict) and "value" in variation


def _availability(body: Document, client_side: Mapping[str, bool]) -> dict[str, bool]:
    older = body.get("includeInSnippet")
    default = {**client_side, **({} if older is None else {"usingEnvironmentId": older})}
    given = body.get("clientSideAvailability", {})
    if not isinstance(given, dict):
        raise invalid("clientSideAvailability must be an object")
    return {**default, **given}


def _defaults(body: Document, variations: int) -> Document:
    """Return what is served while the flag is on and off: the first and the last variation, where
    nothing else is said.
    """
    given = body.get("defaults", {"onVariation": 0, "offVariation": variations - 1})
    if not isinstance(given, dict):
        raise invalid("defaults must be an object")
    names = ("onVariation", "offVariation")
    if missing := [name for name in names if given.get(name) is None]:
        raise invalid(f"defaults.{missing[0]} is required")
    served, off = (given[name] for name in names)
    return {"fallthrough": {"variation": served}, "offVariation": off}


def checked(flag: Document) -> Document:
    """Return a flag that LaunchDarkly's REST API would take.

    Raises:
        RefusedRequest: 400 with the first thing that is wrong.
    """
    _check_variations(flag)
    evaluable(flag)
    _check_rest_fields(flag.get(REST, {}))
    return flag


def evaluable(flag: Document) -> Document:
    """Return a flag that an SDK can evaluate.

    Raises:
        RefusedRequest: 400 with the first thing that is wrong.
    """
    count = len(flag["variations"])
    if flag.get("offVariation") is not None:
        _check_index("offVariation", flag["offVariation"], count)
    _check_served("fallthrough", flag.get("fallthrough"), count)
    for rule in _objects(flag, "rules"):
        _check_served("rules", rule, count)
        _check_clauses(rule)
    for name in ("targets", "contextTargets"):
        for target in _objects(flag, name):
            _check_index(name, target.get("variation"), count)
            _check_strings(f"{name}: values", target.get("values"))
    for required in _objects(flag, "prerequisites"):
        if not isinstance(required.get("key"), str) or type(required.get("variation")) is not int:
            raise invalid("prerequisites: each needs the key of a flag, and a variation")
    for name in ("on", "trackEvents", "trackEventsFallthrough"):
        if not isinstance(flag.get(name, False), bool):
            raise invalid(f"{name} must be true or false")
    _check_availability(flag.get("clientSideAvailability", {}))
    return flag


def _check_variations(flag: Document) -> None:
    values = flag.get("variations")
    if not isinstance(values, list) or len(values) < LEAST_VARIATIONS:
        raise invalid("variations: a flag needs at least two")
    if any(value in values[:place] for place, value in enumerate(values)):
        raise invalid("variations: the values must be unique")
    if len({_kind_of(value) for value in values}) > 1:
        raise invalid("variations: the values must be of one type")


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    return "string" if isinstance(value, str) else "json"


def _check_index(name: str, index: Any, count: int) -> None:
    if type(index) is not int or not 0 <= index < count:
        raise invalid(f"{name}: there is no variation {index!r}")


def _check_served(name: str, place: Any, count: int) -> None:
    """Check the variation or the rollout that a fallthrough or a rule serves."""
    if not isinstance(place, dict):
        raise invalid(f"{name} must be an object")
    rollout = place.get("rollout")
    if rollout is None:
        _check_index(name, place.get("variation"), count)
        return
    shares = rollout.get("variations") if isinstance(rollout, dict) else None
    if not isinstance(shares, list) or not all(isinstance(share, dict) for share in shares):
        raise invalid(f"{name}: rollout.variations must be a list of objects")
    for share in shares:
        _check_index(name, share.get("variation"), count)
        if type(share.get("weight")) is not int or share["weight"] < 0:
            raise invalid(f"{name}: a weight must be an integer of 0 or more")
    if sum(share["weight"] for share in shares) != TOTAL_WEIGHT:
        raise invalid(f"{name}: the weights must add up to {TOTAL_WEIGHT}")


def _check_clauses(rule: Document) -> None:
    for clause in _objects(rule, "clauses"):
        if not isinstance(clause.get("op"), str) or not isinstance(clause.get("values"), list):
            raise invalid("rules: each clause needs op and values")


def _objects(flag: Document, name: str) -> Iterable[Document]:
    found = flag.get(name) or []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise invalid(f"{name} must be a list of objects")
    return found


def _check_strings(name: str, found: Any) -> None:
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise invalid(f"{name} must be a list of strings")


def _check_availability(given: Any) -> None:
    if not isinstance(given, dict) or not all(isinstance(each, bool) for each in given.values()):
        raise invalid("clientSideAvailability: each must be true or false")


def _check_rest_fields(fields: Document) -> None:
    for name, wanted in REST_FIELDS.items():
        if name in fields and not isinstance(fields[name], wanted):
            raise invalid(f"{name} must be {TYPES[wanted]}")
    _check_strings("tags", fields.get("tags", []))
