"""What is sent to create a metric: `MetricPost` bodies, checked before they reach the network.

A `Metric` is of LaunchDarkly's kind `custom`. Page views and clicks happen in browsers and never
pass through `track`, so they are types of their own here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..errors import DefinitionError
from ..metrics.metric import Metric, SuccessCriteria, check_key

MatchKind = Literal["exact", "canonical", "substring", "regex"]
# LaunchDarkly's UrlPost keeps the text under another name per kind.
_MATCH_FIELD: Mapping[str, str] = {
    "exact": "url",
    "canonical": "url",
    "substring": "substring",
    "regex": "pattern",
}


@dataclass(frozen=True, slots=True)
class UrlMatch:
    """Which pages count: the *text* of a URL, compared in the way that *kind* names."""

    kind: MatchKind
    text: str

    def __post_init__(self) -> None:
        if self.kind not in get_args(MatchKind):
            raise DefinitionError(
                f"UrlMatch: kind: {self.kind!r} is not one of {', '.join(get_args(MatchKind))}"
            )
        if not isinstance(self.text, str) or not self.text.strip():
            raise DefinitionError("UrlMatch: text: give a non-empty string")

    def body(self) -> dict[str, str]:
        """LaunchDarkly's `UrlPost`."""
        return {"kind": self.kind, _MATCH_FIELD[self.kind]: self.text}


@dataclass(frozen=True, slots=True)
class PageViewMetric:
    """A metric of kind `pageview`: did the unit see one of these pages.

    Args:
        key: letters, digits, `.`, `_`, `-`; starts with a letter or digit.
        urls: at least one.
        name, description, tags, success_criteria, analysis_units: as in `Metric`.

    Raises:
        DefinitionError: names the field and what to write instead.

    """

    key: str
    urls: tuple[UrlMatch, ...]
    name: str | None = None
    success_criteria: SuccessCriteria = "HigherThanBaseline"
    description: str = ""
    tags: tuple[str, ...] = ()
    analysis_units: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _check_browser_metric(self)


@dataclass(frozen=True, slots=True)
class ClickMetric:
    """A metric of kind `click`: did the unit click what *selector* (CSS) matches on one of these
    pages.

    Args:
        key: letters, digits, `.`, `_`, `-`; starts with a letter or digit.
        urls: at least one.
        selector: one or more CSS selectors.
        name, description, tags, success_criteria, analysis_units: as in `Metric`.

    Raises:
        DefinitionError: names the field and what to write instead.

    """

    key: str
    urls: tuple[UrlMatch, ...]
    selector: str
    name: str | None = None
    success_criteria: SuccessCriteria = "HigherThanBaseline"
    description: str = ""
    tags: tuple[str, ...] = ()
    analysis_units: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _check_browser_metric(self)
        if not isinstance(self.selector, str) or not self.selector.strip():
            raise DefinitionError(
                f"ClickMetric {self.key!r}: selector: give a CSS selector, such as '#buy'"
            )


AnyMetric = Metric | PageViewMetric | ClickMetric


def _check_browser_metric(metric: PageViewMetric | ClickMetric) -> None:
    what = f"{type(metric).__name__} {metric.key!r}"
    check_key(type(metric).__name__, metric.key)
    urls = tuple(metric.urls) if isinstance(metric.urls, (list, tuple)) else ()
    if not urls or not all(isinstance(url, UrlMatch) for url in urls):
        raise DefinitionError(
            f"{what}: urls: give at least one UrlMatch, such as UrlMatch('substring', '/cart')"
        )
    object.__setattr__(metric, "urls", urls)
    if metric.success_criteria not in get_args(SuccessCriteria):
        choices = ", ".join(get_args(SuccessCriteria))
        raise DefinitionError(
            f"{what}: success_criteria: {metric.success_criteria!r} is not one of {choices}"
        )


def metric_body(metric: AnyMetric) -> dict[str, Any]:
    """LaunchDarkly's `MetricPost` for *metric*.

    `name` and `eventDefault` are always sent: LaunchDarkly's default for a missing `eventDefault`
    counts units without events as 0, which is wrong for latencies and ratios.

    Raises:
        DefinitionError: *metric* is none of `Metric`, `PageViewMetric`, `ClickMetric`.

    """
    if isinstance(metric, Metric):
        return _common(metric, "custom") | _custom(metric)
    if isinstance(metric, PageViewMetric):
        return _common(metric, "pageview") | {"urls": [url.body() for url in metric.urls]}
    if isinstance(metric, ClickMetric):
        return _common(metric, "click") | {
            "urls": [url.body() for url in metric.urls],
            "selector": metric.selector,
        }
    raise DefinitionError(
        f"give a Metric, PageViewMetric or ClickMetric, not {type(metric).__name__}"
    )


def _common(metric: AnyMetric, kind: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "key": metric.key,
        "name": metric.name or metric.key,
        "kind": kind,
        "successCriteria": metric.success_criteria,
    }
    if metric.description:
        body["description"] = metric.description
    if metric.tags:
        body["tags"] = list(metric.tags)
    if metric.analysis_units:
        body["analysisUnits"] = list(metric.analysis_units)
    return body


def _custom(metric: Metric) -> dict[str, Any]:
    body: dict[str, Any] = {
        "eventKey": metric.event,
        "isNumeric": metric.numeric,
        "unitAggregationType": metric.aggregation,
        "analysisType": "mean" if metric.percentile is None else "percentile",
        # The only default value that LaunchDarkly supports is 0.
        "eventDefault": {"disabled": False, "value": 0} if metric.zero_fill else {"disabled": True},
    }
    if metric.numeric:
        body["unit"] = metric.unit
    if metric.percentile is not None:
        body["percentileValue"] = metric.percentile
    return body
