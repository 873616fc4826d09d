"""The list of metrics: filter grammar, sorting, pages and their links."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import urlencode

from ..database import Document
from ..responses import invalid

DEFAULT_LIMIT, MAX_LIMIT = 20, 50
CLAUSE = re.compile(r"\s*(\w+)\s+(equals|notEquals|contains|anyOf)\s+")
BARE = re.compile(r'[^,"\[\]]+')
Test = Callable[[Document], bool]


def _as_list(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _as_bool(value: Any) -> bool:
    if str(value).lower() not in ("true", "false"):
        raise invalid("filter: expected true or false")
    return str(value).lower() == "true"


def _query(value: Any) -> Test:
    wanted = str(value).lower()
    return lambda metric: wanted in metric["key"].lower() or wanted in metric["name"].lower()


def _tags(value: Any) -> Test:
    wanted = set(_as_list(value))
    return lambda metric: wanted <= set(metric["tags"])


def _any_of(name: str) -> Callable[[Any], Test]:
    def make(value: Any) -> Test:
        wanted = set(_as_list(value))
        return lambda metric: metric.get(name) in wanted

    return make


def _flag(name: str) -> Callable[[Any], Test]:
    def make(value: Any) -> Test:
        wanted = _as_bool(value)
        return lambda metric: bool(metric.get(name)) is wanted

    return make


def _connections(value: Any, used: Collection[str]) -> Test:
    wanted = _as_bool(value)
    return lambda metric: (metric["key"] in used) is wanted


def _used_in(value: Any, used: Collection[str]) -> Test:
    """Guarded rollouts do not exist locally, so nothing is used in one."""
    wanted = {"experiments": True, "any": True, "none": False, "guarded_rollouts": None}
    if str(value) not in wanted:
        raise invalid("filter: metricUsedIn must be experiments, guarded_rollouts, any or none")
    return lambda metric: (metric["key"] in used) is wanted[str(value)]


def _data_source(value: Any) -> Test:
    wanted = set(_as_list(value))
    return lambda metric: metric["dataSource"]["key"] in wanted


def _not_data_source(value: Any) -> Test:
    is_one = _data_source(value)
    return lambda metric: not is_one(metric)


def _nobody(value: Any) -> Test:
    """Teams and views do not exist locally, so nothing belongs to one."""
    return lambda metric: False


FILTERS: Mapping[tuple[str, str], Callable[[Any], Test]] = {
    ("query", "equals"): _query,
    ("tags", "contains"): _tags,
    ("eventKeys", "anyOf"): _any_of("eventKey"),
    ("eventKind", "equals"): _any_of("kind"),
    ("isNumeric", "equals"): _flag("isNumeric"),
    ("unitAggregationType", "equals"): _any_of("unitAggregationType"),
    ("maintainerIds", "anyOf"): _any_of("maintainerId"),
    ("maintainerTeamKey", "equals"): _nobody,
    ("dataSourceKeys", "anyOf"): _data_source,
    ("dataSourceKeys", "notEquals"): _not_data_source,
    ("versionIds", "anyOf"): _any_of("_versionId"),
    ("view", "equals"): _nobody,
}
USES: Mapping[tuple[str, str], Callable[[Any, Collection[str]], Test]] = {
    ("hasConnections", "equals"): _connections,
    ("metricUsedIn", "equals"): _used_in,
}


def filters(text: str, used: Collection[str]) -> list[Test]:
    """Return the tests that a `filter` parameter asks for, all of which have to hold.

    Args:
        text: the parameter.
        used: keys of the metrics that an experiment uses.

    Raises:
        RefusedRequest: 400, a field, operator or value that the API does not know.
    """
    tests, at = [], 0
    while at < len(text):
        clause = CLAUSE.match(text, at)
        if clause is None:
            raise invalid(f"filter: cannot read {text[at : at + 60]!r}")
        value, at = _value(text, clause.end())
        tests.append(_test(clause[1], clause[2], value, used))
        if at < len(text) and text[at] != ",":
            raise invalid(f"filter: expected a comma before {text[at : at + 60]!r}")
        at += 1
    return tests


def _test(field: str, operator: str, value: Any, used: Collection[str]) -> Test:
    if (field, operator) in USES:
        return USES[field, operator](value, used)
    if (field, operator) not in FILTERS:
        raise invalid(f"filter: there is no {field} {operator}")
    return FILTERS[field, operator](value)


def _value(text: str, at: int) -> tuple[Any, int]:
    """Return a JSON string or list, or a bare word that ends at the next comma."""
    if text[at : at + 1] in ('"', "["):
        try:
            return json.JSONDecoder().raw_decode(text, at)
        except (ValueError, RecursionError):
            raise invalid("filter: the value is not JSON") from None
    bare = BARE.match(text, at)
    if bare is None:
        raise invalid("filter: a value is missing")
    return bare[0].strip(), bare.end()


def sorted_by(metrics: list[Document], sort: str) -> list[Document]:
    """By creation or by name; a leading minus turns it round.

    Raises:
        RefusedRequest: 400, another field.
    """
    keys: Mapping[str, Callable[[Document], Any]] = {
        "createdAt": lambda metric: metric["_creationDate"],
        "name": lambda metric: (metric["name"].lower(), metric["key"]),
    }
    field = sort.removeprefix("-")
    if field not in keys:
        raise invalid("sort must be createdAt or name, with an optional -")
    newest_last = list(reversed(metrics)) if sort.startswith("-") else metrics
    return (
        sorted(newest_last, key=keys[field], reverse=sort.startswith("-"))
        if field == "name"
        else newest_last
    )


def whole_number(
    parameters: Mapping[str, str], name: str, default: int, lowest: int, highest: int
) -> int:
    """Return an integer query parameter within its bounds.

    Raises:
        RefusedRequest: 400.
    """
    text = parameters.get(name, str(default))
    if not re.fullmatch(r"\d{1,9}", text) or not lowest <= int(text) <= highest:
        raise invalid(f"{name} must be an integer from {lowest} to {highest}")
    return int(text)


def page_links(
    path: str, parameters: Mapping[str, str], limit: int, offset: int, total: int
) -> Document:
    """Links to this page and, where there are several, to first, last, next and previous."""

    def link(at: int) -> Document:
        query = urlencode({**parameters, "limit": limit, "offset": at})
        return {"href": f"{path}?{query}", "type": "application/json"}

    links = {"self": link(offset)}
    if total > limit or offset:
        links |= {"first": link(0), "last": link((max(total, 1) - 1) // limit * limit)}
    if offset + limit < total:
        links["next"] = link(offset + limit)
    if offset:
        links["prev"] = link(max(0, offset - limit))
    return links
