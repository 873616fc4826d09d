"""A flag as LaunchDarkly's REST API represents it, made of the flag that SDKs get, and back."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from ..database import Document
from ..flags.environment import REST, availability, is_archived
from ..responses import now_ms
from .flag_rules import OF_A_VARIATION, REST_FIELDS
from .projects import link, made_id

CONFIGURED = (
    "on",
    "salt",
    "trackEvents",
    "trackEventsFallthrough",
    "targets",
    "contextTargets",
    "prerequisites",
    "fallthrough",
    "offVariation",
)
"""What an environment configures, under the same name here and there; rules have other ids."""

UNCONFIGURED = {"on": False, "salt": "", "trackEvents": False, "trackEventsFallthrough": False}
UNNAMED: Document = {
    "description": "",
    "temporary": False,
    "archived": False,
    "deprecated": False,
    "tags": [],
    "customProperties": {},
}
"""What a flag that was not made over REST has there."""


def represented(project: str, flag: Document, environments: Iterable[Document]) -> Document:
    """Return the representation of a flag.

    Args:
        project: the project's key; all projects have the same flags here.
        flag: as it is kept.
        environments: those of the project that are shown; all have the same state of the flag.
    """
    key, kept = flag["key"], flag.get(REST, {})
    values = flag.get("variations") or []
    boolean = len(values) == 2 and all(isinstance(value, bool) for value in values)
    return {
        **UNNAMED,
        "name": key,
        **{name: kept[name] for name in (*REST_FIELDS, "archivedDate") if name in kept},
        "kind": "boolean" if boolean else "multivariate",
        "key": key,
        "_version": flag["version"],
        "creationDate": kept.get("creationDate", 0),
        "clientSideAvailability": availability(flag),
        "variations": variations_of(flag),
        "defaults": _defaults(flag),
        "_links": {"self": link(f"/api/v2/flags/{project}/{key}")},
        "experiments": {"baselineIdx": 0, "items": []},
        "environments": {each["key"]: _configuration(flag, each) for each in environments},
    }


def variations_of(flag: Document) -> list[Document]:
    """Return the variations with their ids, names and descriptions."""
    known = flag.get(REST, {}).get("variations", [])
    return [
        {"_id": _usual_id(flag, index), **_words(known, index), "value": value}
        for index, value in enumerate(flag.get("variations") or [])
    ]


def _usual_id(flag: Document, index: int) -> str:
    """Return the id of a variation that was never given one."""
    return made_id("variation", flag["key"], str(index))


def _words(known: Sequence[Document], index: int) -> Document:
    found = known[index] if index < len(known) else {}
    return {name: found[name] for name in OF_A_VARIATION if found.get(name)}


def _defaults(flag: Document) -> Document:
    """Return what a new environment would serve."""
    served = (flag.get("fallthrough") or {}).get("variation")
    return {"onVariation": served or 0, "offVariation": flag.get("offVariation") or 0}


def _configuration(flag: Document, environment: Document) -> Document:
    """Return a flag's state in one environment."""
    found = {name: flag[name] for name in CONFIGURED if flag.get(name) is not None}
    return {
        **UNCONFIGURED,
        **found,
        "archived": is_archived(flag),
        "sel": "",
        "lastModified": flag.get(REST, {}).get("lastModified", 0),
        "version": flag["version"],
        "_site": {"href": "/", "type": "text/html"},
        "_environmentName": environment["name"],
        "rules": [_rule(rule) for rule in flag.get("rules") or []],
    }


def _rule(rule: Document) -> Document:
    clauses = [
        {"negate": False, "_id": f"{rule.get('id', '')}-{place}", **_with_id(clause)}
        for place, clause in enumerate(rule.get("clauses") or [])
    ]
    kept = {name: value for name, value in rule.items() if name != "id"}
    return {"trackEvents": False, **kept, "_id": rule.get("id", ""), "clauses": clauses}


def _with_id(clause: Document) -> Document:
    kept = {name: value for name, value in clause.items() if name != "id"}
    return {**kept, "_id": clause["id"]} if clause.get("id") else kept


def flag_of(flag: Document, before: Document, after: Document) -> Document:
    """Return the flag whose representation was changed.

    Args:
        flag: as it was.
        before: its representation.
        after: the changed one. A change in one environment is one in all; of several, the last.
    """
    variations = after.get("variations")
    made = {
        **flag,
        "clientSideAvailability": after.get("clientSideAvailability", {}),
        REST: {
            **flag.get(REST, {}),
            **{name: after[name] for name in REST_FIELDS if after.get(name) is not None},
            "variations": variations,
        },
    }
    if isinstance(variations, list):
        made["variations"] = [_value(each) for each in variations]
    else:
        made["variations"] = variations
    for key, configuration in _objects(after.get("environments")).items():
        if configuration != _objects(before.get("environments")).get(key):
            made |= _configured(configuration)
    return settled(made)


def _value(variation: Any) -> Any:
    return variation.get("value") if isinstance(variation, dict) else None


def _objects(found: Any) -> Document:
    given = found if isinstance(found, dict) else {}
    return {name: value for name, value in given.items() if isinstance(value, dict)}


def _configured(configuration: Document) -> Document:
    found = {name: configuration[name] for name in CONFIGURED if name in configuration}
    rules = configuration.get("rules", [])
    if isinstance(rules, list):
        rules = [_sdk_rule(rule) if isinstance(rule, dict) else rule for rule in rules]
    return {**found, "rules": rules}


def _sdk_rule(rule: Document) -> Document:
    kept = {name: value for name, value in rule.items() if name != "_id"}
    clauses = rule.get("clauses")
    if isinstance(clauses, list):
        kept["clauses"] = [_sdk_clause(clause) for clause in clauses]
    return {**kept, "id": rule.get("_id") or new_id()}


def _sdk_clause(clause: Any) -> Any:
    if not isinstance(clause, dict):
        return clause
    kept = {name: value for name, value in clause.items() if name != "_id"}
    return {**kept, "id": clause.get("_id") or new_id()}


def settled(flag: Document) -> Document:
    """Return a changed flag with ids for new variations, and the date of the change."""
    kept, at = flag.get(REST, {}), now_ms()
    known = kept.get("variations")
    named = [
        {"_id": new_id(), **{name: value for name, value in each.items() if value is not None}}
        for each in (known if isinstance(known, list) else [])
        if isinstance(each, dict)
    ]
    archived = {"archivedDate": kept.get("archivedDate", at)} if kept.get("archived") else {}
    dated = {name: value for name, value in kept.items() if name != "archivedDate"}
    return {**flag, REST: {**dated, **archived, "variations": named, "lastModified": at}}


def new_id() -> str:
    """Return an id as LaunchDarkly's rules, clauses and variations have."""
    return str(uuid.uuid4())
