"""One value: what must be true of it so that LaunchDarkly counts it, checked when it is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .data import copied, number
from .ledger import ledger
from .metrics import METRIC_KEY, RESERVED_PREFIXES, EventRule, Metric, catalog

MAX_COUNT = 10_000


def measurement(
    metric: Metric | str, value: Any, data: Mapping[str, Any] | None
) -> tuple[EventRule, float | int | None, dict[str, Any] | None] | None:
    """Check one value: `(rule, value, data)`, or None when it cannot be sent (said once and counted)."""
    if not isinstance(metric, (str, Metric)) or not metric:
        discard("(no key)", "bad_key", f"give a Metric or its key, not {type(metric).__name__}")
        return None
    known = _known(metric)
    key = known.event if known else str.__str__(metric)  # an enum member is the string it stands for
    rule = catalog.rule(key)
    if not rule.declared:
        if key.startswith(RESERVED_PREFIXES):
            discard(key, "reserved_prefix", f"{' and '.join(RESERVED_PREFIXES)} are LaunchDarkly's own; choose another")
            return None
        _say_undeclared(key)
        rule = replace(rule, numeric=value is not None)
    kind = known.measure if known else _kind(rule)
    if (problem := _problem(kind, value)) is not None:
        discard(rule.event_key, *problem)
        return None
    checked = number(value) if value is not None else None
    if kind == "count" and checked == 0:
        return None
    return rule, checked, copied(data, rule.event_key)


def _kind(rule: EventRule) -> str:
    return "value" if rule.numeric else "count" if rule.counted else "occurrence"


def _say_undeclared(key: str) -> None:
    definition = f"Metric({key!r}, ...)" if METRIC_KEY.fullmatch(key) else f"Metric('a.key', event_key={key!r}, ...)"
    ledger.warn(
        "undeclared",
        key,
        f"{key}: no metric is declared for it, so LaunchDarkly may ignore it; "
        f"say ldinstrument.catalog.add({definition}) and create it with bootstrap",
    )


def _known(metric: Metric | str) -> Metric | None:
    if isinstance(metric, Metric):
        if metric.key not in catalog:
            catalog.add(metric)
        elif catalog[metric.key] != metric:
            ledger.warn(
                "two_definitions",
                metric.key,
                f"{metric.key}: recorded with a Metric that differs from the catalog's; the catalog's counts",
            )
        return catalog[metric.key]
    return catalog.get(metric) if isinstance(metric, str) else None


def _problem(kind: str, value: Any) -> tuple[str, str] | None:
    """What is wrong with *value* for a metric of this *kind*: `(reason, advice)`."""
    if kind == "occurrence":
        if value is None:
            return None
        return "value_for_occurrence", "an occurrence takes no value; record it only when it happened"
    if value is None:
        return ("no_value", "a value metric needs a number") if kind == "value" else None
    checked = number(value)
    if checked is None:
        return "not_a_number", f"give a finite number, not {type(value).__name__} {_shown(value)}"
    if kind == "count" and not (checked == int(checked) and 0 <= checked <= MAX_COUNT):
        return "bad_count", f"a count is a whole number from 0 to {MAX_COUNT}"
    return None


def _shown(value: Any) -> str:
    """Numbers may be shown; anything else could be somebody's data."""
    return str(value) if isinstance(value, (bool, float)) else "(a text or an object)"


def discard(event_key: str, reason: str, advice: str) -> None:
    """Count one value as discarded and say once why."""
    ledger.recorded()
    ledger.discarded(reason)
    ledger.warn(reason, event_key, f"{event_key}: {advice}; this value is left out")
