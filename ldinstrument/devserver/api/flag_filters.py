"""Which flags a list over REST asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from ..database import Document
from ..flags.environment import REST, is_archived
from ..responses import invalid

Test = Callable[[Document], bool]


def filter_fields(asked: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of a filter, written `query:dark,tags:beta+web`."""
    parts = [part.partition(":") for part in asked.get("filter", "").split(",") if part.strip()]
    return {name.strip(): value.strip() for name, _, value in parts}


def filters(asked: Mapping[str, str]) -> list[Test]:
    """Return the tests that the flags of a list have to pass; without another word the archived
    ones are not in it.

    Raises:
        RefusedRequest: 400, a field that does not exist here.
    """
    fields = {"state": "live", **filter_fields(asked)}
    if "archived" in {*asked, *fields}:
        fields["state"] = fields.pop("archived", asked.get("archived", ""))
    if "tag" in asked:
        fields["tags"] = asked["tag"]
    fields.pop("filterEnv", None)
    if unknown := [name for name in fields if name not in FILTERS]:
        raise invalid(f"filter: there is no {unknown[0]}")
    return [partial(FILTERS[name], value) for name, value in fields.items()]


def _matches(wanted: str, flag: Document) -> bool:
    name: str = flag.get(REST, {}).get("name", "")
    return wanted.lower() in flag["key"].lower() or wanted.lower() in name.lower()


def _has_tags(wanted: str, flag: Document) -> bool:
    return set(wanted.split("+")) <= set(flag.get(REST, {}).get("tags", []))


def _has_state(wanted: str, flag: Document) -> bool:
    return is_archived(flag) is (wanted in ("archived", "true"))


def _is_named(wanted: str, flag: Document) -> bool:
    return bool(flag["key"] == wanted)


FILTERS: Mapping[str, Callable[[str, Document], bool]] = {
    "query": _matches,
    "tags": _has_tags,
    "state": _has_state,
    "key": _is_named,
}
