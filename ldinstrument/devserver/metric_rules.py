"""What LaunchDarkly accepts as a metric: required fields, enums, combinations, defaults
(launchdarkly.md, 1.2).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from .event_parsing import number
from .responses import Refused, invalid
from .store import Document

KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ENUMS: Mapping[str, tuple[str, ...]] = {
    "kind": ("custom", "pageview", "click", "trace"),
    "successCriteria": ("HigherThanBaseline", "LowerThanBaseline"),
    "unitAggregationType": ("average", "sum", "count_distinct"),
    "analysisType": ("mean", "percentile"),
}
STRINGS = ("key", "name", "eventKey", "unit", "description", "maintainerId", "selector", "category", "traceQuery",
           "traceValueLocation", "unitAggregationField", "valueColumn")  # fmt: skip
BOOLEANS = ("isNumeric", "winsorIncludeImputed", "archived")
INTEGERS = ("percentileValue", "windowStartOffset", "windowEndOffset")
NUMBERS = ("winsorLowerPercentile", "winsorUpperPercentile")
LISTS = ("tags", "analysisUnits", "randomizationUnits")
OBJECTS = ("eventDefault", "dataSource", "filters", "denominator")
URL_FIELD = {"exact": "url", "canonical": "url", "substring": "substring", "regex": "pattern"}
FIELDS = (*STRINGS, *BOOLEANS, *INTEGERS, *NUMBERS, *LISTS, *OBJECTS, *ENUMS, "urls")


def checked(body: Any, available: Collection[str]) -> Document:
    """The metric that a request body defines, complete with LaunchDarkly's defaults; unknown fields
    are left out.

    Args:
        body: the parsed `MetricPost`.
        available: the context kinds that are available for experiments; the first is the default
            analysis unit.

    Raises:
        Refused: 400 with the first thing that is wrong.
    """
    if not isinstance(body, dict):
        raise invalid("Invalid request body")
    metric = {name: body[name] for name in dict.fromkeys(FIELDS) if body.get(name) is not None}
    for check in CHECKS:
        check(metric)
    with_defaults = _with_defaults(metric, available)
    _check_units(with_defaults, available)
    return with_defaults


def _types(metric: Document) -> None:
    """Every field has the type of the schema; numbers are no strings and booleans no numbers."""
    expectations: tuple[tuple[tuple[str, ...], str, Callable[[Any], bool]], ...] = (
        ((*STRINGS, *ENUMS), "a string", lambda value: isinstance(value, str)),
        (BOOLEANS, "true or false", lambda value: isinstance(value, bool)),
        (INTEGERS, "an integer", lambda value: type(value) is int),
        (NUMBERS, "a number", lambda value: number(value) is not None),
        (LISTS, "a list of strings", _is_strings),
        (OBJECTS, "an object", lambda value: isinstance(value, dict)),
        (
            ("urls",),
            "a list of objects",
            lambda v: isinstance(v, list) and all(isinstance(i, dict) for i in v),
        ),
    )
    for names, expected, fits in expectations:
        for name in names:
            if name in metric and not fits(metric[name]):
                raise invalid(f"{name} must be {expected}")


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _key(metric: Document) -> None:
    if not metric.get("key"):
        raise invalid("key is required")
    if not KEY.fullmatch(metric["key"]):
        raise invalid(
            "key must start with a letter or digit and contain only letters, digits, '.', '_' and "
            "'-'"
        )


def _enums(metric: Document) -> None:
    if "kind" not in metric:
        raise invalid("kind is required")
    for name, allowed in ENUMS.items():
        if name in metric and metric[name] not in allowed:
            raise invalid(f"{name} must be one of {', '.join(allowed)}")


def _kind(metric: Document) -> None:
    kind, numeric = metric["kind"], metric.get("isNumeric")
    if kind == "custom" and not metric.get("eventKey"):
        raise invalid("eventKey is required for custom metrics")
    if kind in ("custom", "trace") and numeric is None:
        raise invalid(f"isNumeric is required for {kind} metrics")
    if kind in ("click", "pageview") and numeric:
        raise invalid(f"{kind} metrics cannot be numeric")
    if kind == "trace" and numeric and not metric.get("traceValueLocation"):
        raise invalid("traceValueLocation is required for numeric trace metrics")
    if kind != "custom" and metric.get("filters"):
        raise invalid("filters are only supported for custom metrics")


def _targets(metric: Document) -> None:
    """Click metrics need a selector and urls, page views urls, the others accept neither."""
    kind = metric["kind"]
    if kind == "click" and not metric.get("selector"):
        raise invalid("selector is required for click metrics")
    if kind in ("click", "pageview") and not metric.get("urls"):
        raise invalid(f"urls is required for {kind} metrics")
    if kind != "click" and metric.get("selector"):
        raise invalid("selector is only supported for click metrics")
    if kind not in ("click", "pageview") and metric.get("urls"):
        raise invalid("urls is only supported for click and pageview metrics")
    for url in metric.get("urls", []):
        expected = URL_FIELD.get(url.get("kind"), "") if isinstance(url.get("kind"), str) else ""
        if not expected or not isinstance(url.get(expected), str) or not url[expected]:
            raise invalid(
                "urls need a kind (exact, canonical, substring, regex) and its url, substring or "
                "pattern"
            )


def _numeric(metric: Document) -> None:
    if not metric.get("isNumeric"):
        return
    if not metric.get("unit"):
        raise invalid("unit is required for numeric metrics")
    if "successCriteria" not in metric:
        raise invalid("successCriteria is required for numeric metrics")


def _aggregation(metric: Document) -> None:
    if metric.get("unitAggregationType") == "count_distinct" and not metric.get(
        "unitAggregationField"
    ):
        raise invalid(
            "count_distinct needs a unitAggregationField, which only warehouse data sources have"
        )


def _percentile(metric: Document) -> None:
    value, percentile = metric.get("percentileValue"), metric.get("analysisType") == "percentile"
    if percentile and value is None:
        raise invalid("percentileValue is required when analysisType is percentile")
    if not percentile and value is not None:
        raise invalid("percentileValue is only supported when analysisType is percentile")
    if value is not None and not 0 <= value <= 100:
        raise invalid("percentileValue must be between 0 and 100")


def _event_default(metric: Document) -> None:
    default = metric.get("eventDefault", {})
    disabled, value = default.get("disabled"), default.get("value")
    if disabled is not None and not isinstance(disabled, bool):
        raise invalid("eventDefault.disabled must be true or false")
    if value is not None and (number(value) is None or value != 0):
        raise invalid("eventDefault.value must be 0")
    if metric.get("analysisType") == "percentile" and disabled is False:
        raise invalid("eventDefault.disabled must be true when analysisType is percentile")


def _data_source(metric: Document) -> None:
    source = metric.get("dataSource")
    if source is not None and not (isinstance(source.get("key"), str) and source["key"]):
        raise invalid("dataSource.key is required")


def _winsor(metric: Document) -> None:
    lower, upper = metric.get("winsorLowerPercentile"), metric.get("winsorUpperPercentile")
    if any(bound is not None and not 0 < bound < 100 for bound in (lower, upper)):
        raise invalid("winsorization percentiles must be between 0 and 100, exclusive")
    if lower is not None and upper is not None and upper <= lower:
        raise invalid("winsorUpperPercentile must be greater than winsorLowerPercentile")


def _filter(metric: Document) -> None:
    if "filters" in metric:
        metric["filters"] = _checked_filter(metric["filters"], 0)


def _checked_filter(node: Any, depth: int) -> Document:
    """A filter node and those below it, `negate` filled in."""
    if (
        not isinstance(node, dict)
        or node.get("type") not in ("contextAttribute", "eventProperty", "group")
        or depth > 10
    ):
        raise invalid("filters.type must be one of contextAttribute, eventProperty, group")
    if not isinstance(node.get("op"), str) or not isinstance(node.get("values"), list):
        raise invalid("filters need op and values")
    if not isinstance(node.get("negate", False), bool):
        raise invalid("filters.negate must be true or false")
    if node["type"] == "group":
        return {
            "negate": False,
            **node,
            "values": [_checked_filter(child, depth + 1) for child in node["values"]],
        }
    if not isinstance(node.get("attribute"), str):
        raise invalid("filters.attribute is required")
    return {"negate": False, **node}


CHECKS: tuple[Callable[[Document], None], ...] = (
    _types, _key, _enums, _kind, _targets, _numeric, _aggregation, _percentile, _event_default, _data_source, _winsor,
    _filter,
)  # fmt: skip


def _with_defaults(metric: Document, available: Collection[str]) -> Document:
    """Complete a valid metric as the server would; empty strings go, since the enums of clients
    refuse them.
    """
    given = {name: value for name, value in metric.items() if value != ""}
    units = list(
        dict.fromkeys(
            given.pop("analysisUnits", None) or given.pop("randomizationUnits", None) or []
        )
    )
    given.pop("randomizationUnits", None)
    units = units or list(available)[:1]
    percentile = given.get("analysisType") == "percentile"
    default = given.pop("eventDefault", {})
    complete: Document = {
        "name": given["key"],
        "tags": [],
        "description": "",
        "isNumeric": False,
        "unitAggregationType": "average",
        "analysisType": "mean",
        "dataSource": {"key": "launchdarkly-hosted"},
        "archived": False,
        **({"successCriteria": "HigherThanBaseline"} if given["kind"] == "custom" else {}),
        **given,
        "eventDefault": {"disabled": bool(default.get("disabled", percentile)), "value": 0},
        "analysisUnits": units,
        "randomizationUnits": list(units),
    }
    complete["tags"] = sorted(set(complete["tags"]))
    return complete


def _check_units(metric: Document, available: Collection[str]) -> None:
    missing = [unit for unit in metric["analysisUnits"] if unit not in available]
    if missing:
        raise Refused(
            400,
            "invalid_request",
            f"analysisUnits: {', '.join(missing)} is not available for experiments in this project",
        )
