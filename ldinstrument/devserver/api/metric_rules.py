"""Check a metric definition as LaunchDarkly does: types, required fields, combinations."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from ..database import Document
from ..events.metric_filters import checked_filter
from ..responses import RefusedRequest, invalid

KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
Kind = Literal["custom", "pageview", "click", "trace"]
SuccessCriteria = Literal["HigherThanBaseline", "LowerThanBaseline"]
UnitAggregation = Literal["average", "sum", "count_distinct"]
Analysis = Literal["mean", "percentile"]
CHOICES: Mapping[str, tuple[str, ...]] = {
    "kind": get_args(Kind),
    "successCriteria": get_args(SuccessCriteria),
    "unitAggregationType": get_args(UnitAggregation),
    "analysisType": get_args(Analysis),
}
URL_FIELD = {"exact": "url", "canonical": "url", "substring": "substring", "regex": "pattern"}
WANTED = {
    "string_type": "a string",
    "bool_type": "true or false",
    "int_type": "an integer",
    "float_type": "a number",
    "finite_number": "a number",
    "model_type": "an object",
    "dict_type": "an object",
}
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class EventDefault(_Strict):
    """What units without events count as."""

    disabled: bool | None = None
    value: Number | None = None


class DataSource(_Strict):
    """Where the events of a metric come from."""

    key: str = Field(min_length=1)


class MetricPost(_Strict):
    """The body that creates a metric, in the field names of the REST API."""

    key: str
    kind: Kind
    name: str = ""
    eventKey: str = ""  # noqa: N815 - the API's names
    isNumeric: bool | None = None  # noqa: N815
    unit: str = ""
    successCriteria: SuccessCriteria | None = None  # noqa: N815
    unitAggregationType: UnitAggregation = "average"  # noqa: N815
    unitAggregationField: str = ""  # noqa: N815
    analysisType: Analysis = "mean"  # noqa: N815
    percentileValue: int | None = None  # noqa: N815
    eventDefault: EventDefault = EventDefault()  # noqa: N815
    analysisUnits: list[str] = []  # noqa: N815
    randomizationUnits: list[str] = []  # noqa: N815
    tags: list[str] = []
    description: str = ""
    maintainerId: str = ""  # noqa: N815
    category: str = ""
    archived: bool = False
    selector: str = ""
    urls: list[dict[str, Any]] = []
    filters: dict[str, Any] | None = None
    dataSource: DataSource = DataSource(key="launchdarkly-hosted")  # noqa: N815
    winsorLowerPercentile: Number | None = None  # noqa: N815
    winsorUpperPercentile: Number | None = None  # noqa: N815
    winsorIncludeImputed: bool = False  # noqa: N815
    windowStartOffset: int | None = None  # noqa: N815
    windowEndOffset: int | None = None  # noqa: N815
    traceQuery: str = ""  # noqa: N815
    traceValueLocation: str = ""  # noqa: N815
    valueColumn: str = ""  # noqa: N815
    denominator: dict[str, Any] | None = None


Rule = tuple[Callable[[MetricPost], Any], str]


def _outside(value: float | None, low: float, high: float) -> bool:
    return value is not None and not low < value < high


def _wrong_url(url: Mapping[str, Any]) -> bool:
    field = URL_FIELD.get(url["kind"]) if isinstance(url.get("kind"), str) else None
    return field is None or not isinstance(url.get(field), str) or not url[field]


RULES: tuple[Rule, ...] = (
    (lambda m: not m.key, "key is required"),
    (
        lambda m: not KEY.fullmatch(m.key),
        "key must start with a letter or digit and contain only letters, digits, '.', '_' and '-'",
    ),
    (
        lambda m: m.kind == "custom" and not m.eventKey,
        "eventKey is required for custom metrics",
    ),
    (
        lambda m: m.kind in ("custom", "trace") and m.isNumeric is None,
        "isNumeric is required for {kind} metrics",
    ),
    (
        lambda m: m.kind in ("click", "pageview") and m.isNumeric,
        "{kind} metrics cannot be numeric",
    ),
    (
        lambda m: m.kind == "trace" and m.isNumeric and not m.traceValueLocation,
        "traceValueLocation is required for numeric trace metrics",
    ),
    (
        lambda m: m.kind != "custom" and m.filters,
        "filters are only supported for custom metrics",
    ),
    (lambda m: m.kind == "click" and not m.selector, "selector is required for click metrics"),
    (
        lambda m: m.kind in ("click", "pageview") and not m.urls,
        "urls is required for {kind} metrics",
    ),
    (lambda m: m.kind != "click" and m.selector, "selector is only supported for click metrics"),
    (
        lambda m: m.kind not in ("click", "pageview") and m.urls,
        "urls is only supported for click and pageview metrics",
    ),
    (
        lambda m: any(map(_wrong_url, m.urls)),
        "urls need a kind (exact, canonical, substring, regex) and its url, substring or pattern",
    ),
    (lambda m: m.isNumeric and not m.unit, "unit is required for numeric metrics"),
    (
        lambda m: m.isNumeric and not m.successCriteria,
        "successCriteria is required for numeric metrics",
    ),
    (
        lambda m: m.unitAggregationType == "count_distinct" and not m.unitAggregationField,
        "count_distinct needs a unitAggregationField, which only warehouse data sources have",
    ),
    (
        lambda m: m.analysisType == "percentile" and m.percentileValue is None,
        "percentileValue is required when analysisType is percentile",
    ),
    (
        lambda m: m.analysisType != "percentile" and m.percentileValue is not None,
        "percentileValue is only supported when analysisType is percentile",
    ),
    (
        lambda m: _outside(m.percentileValue, -1, 101),
        "percentileValue must be between 0 and 100",
    ),
    (lambda m: m.eventDefault.value, "eventDefault.value must be 0"),
    (
        lambda m: m.analysisType == "percentile" and m.eventDefault.disabled is False,
        "eventDefault.disabled must be true when analysisType is percentile",
    ),
    (
        lambda m: (
            _outside(m.winsorLowerPercentile, 0, 100) or _outside(m.winsorUpperPercentile, 0, 100)
        ),
        "winsorization percentiles must be between 0 and 100, exclusive",
    ),
    (
        lambda m: _outside(m.winsorUpperPercentile, m.winsorLowerPercentile or 0, 100),
        "winsorUpperPercentile must be greater than winsorLowerPercentile",
    ),
)
"""Combinations that LaunchDarkly refuses, in the order in which they are looked for."""


def checked(body: Any, available: Collection[str]) -> Document:
    """Return the metric that a request body defines, complete with LaunchDarkly's defaults.

    Args:
        body: the parsed body; unknown fields are left out, null counts as absent.
        available: the context kinds that are available for experiments; the first is the default
            analysis unit.

    Raises:
        RefusedRequest: 400 with the first thing that is wrong.
    """
    if not isinstance(body, dict):
        raise invalid("Invalid request body")
    given = {name: value for name, value in body.items() if value is not None}
    try:
        metric = MetricPost.model_validate(given)
    except ValidationError as error:
        raise invalid(_message(error.errors()[0])) from None
    for is_wrong, message in RULES:
        if is_wrong(metric):
            raise invalid(message.format(kind=metric.kind))
    if metric.filters is not None:
        metric.filters = checked_filter(metric.filters)
    complete = _with_defaults(metric, available)
    _check_units(complete, available)
    return complete


def _message(error: ErrorDetails) -> str:
    """Say what pydantic found in the words of the REST API."""
    name, *below = (str(part) for part in error["loc"])
    field = ".".join([name, *(part for part in below if not part.isdigit())])
    if error["type"] in ("missing", "string_too_short"):
        return f"{field} is required"
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        return f"{field} must be one of {', '.join(CHOICES[name])}"
    if field == "eventDefault.value":
        return "eventDefault.value must be 0"
    if error["type"] == "list_type" or any(part.isdigit() for part in below):
        return f"{field} must be a list of {'objects' if name == 'urls' else 'strings'}"
    return f"{field} must be {WANTED.get(error['type'], 'a string')}"


def _with_defaults(metric: MetricPost, available: Collection[str]) -> Document:
    """Complete a valid metric; empty strings go, since the enums of clients refuse them."""
    given = metric.model_dump(exclude_none=True, exclude_unset=True)
    percentile = metric.analysisType == "percentile"
    units = list(dict.fromkeys(metric.analysisUnits or metric.randomizationUnits))
    units = units or list(available)[:1]
    default = {"successCriteria": "HigherThanBaseline"} if metric.kind == "custom" else {}
    return {
        "name": metric.key,
        "description": "",
        **default,
        **{name: value for name, value in given.items() if value != ""},
        "isNumeric": bool(metric.isNumeric),
        "unitAggregationType": metric.unitAggregationType,
        "analysisType": metric.analysisType,
        "archived": metric.archived,
        "dataSource": given.get("dataSource", {"key": metric.dataSource.key}),
        "tags": sorted(set(metric.tags)),
        "eventDefault": {
            "disabled": percentile
            if metric.eventDefault.disabled is None
            else metric.eventDefault.disabled,
            "value": 0,
        },
        "analysisUnits": units,
        "randomizationUnits": list(units),
    }


def _check_units(metric: Document, available: Collection[str]) -> None:
    missing = [unit for unit in metric["analysisUnits"] if unit not in available]
    if missing:
        raise RefusedRequest(
            400,
            "invalid_request",
            f"analysisUnits: {', '.join(missing)} is not available for experiments in this project",
        )
