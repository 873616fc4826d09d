"""Experiments as the page shows them: plain values, computed from the read-out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ...analysis import Comparison, Figure, measure_of
from ..database import Database, Document
from ..readout.readout import ExperimentReadout, MetricReadout, Readout, VariationResult
from ..readout.readout_reader import ReadoutReader
from ..readout.sums_over_time import SumsOverTime
from . import charts
from .charts import chance, counted, number, percent
from .development import development

SHOWN_IN_FULL = 10
"""So many metrics of an experiment are shown in full, those of the experiment and those with a
verdict first; the others in a line each, unless all of them are asked for."""
MISMATCH = 0.99
"""The probability of a sample ratio mismatch from which on LaunchDarkly warns."""


@dataclass(frozen=True, slots=True)
class VariationView:
    """One variation in one metric: its numbers in words, and its distribution."""

    name: str
    control: bool
    units: str
    measured: str
    events: str
    estimate: str
    chart: Markup


@dataclass(frozen=True, slots=True)
class ComparisonView:
    """One treatment against the control.

    `word` and `reason` are the verdict; `figures` are pairs of a label and a text; `cautions` are
    sentences; `chart` and `over_time` are the difference, and how it developed.
    """

    name: str
    word: str
    reason: str
    difference: str
    chance: str
    figures: tuple[tuple[str, str], ...]
    cautions: tuple[str, ...]
    chart: Markup
    over_time: Markup


@dataclass(frozen=True, slots=True)
class MetricView:
    """One metric of an experiment."""

    key: str
    project: str
    about: str
    own: bool
    variations: tuple[VariationView, ...]
    comparisons: tuple[ComparisonView, ...]
    shares: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MissingView:
    """A metric without a result, why, and what to run."""

    key: str
    reason: str
    command: str


@dataclass(frozen=True, slots=True)
class BriefView:
    """A metric in one line: for each treatment its name, the verdict, the difference and the chance
    to beat the control.
    """

    key: str
    about: str
    comparisons: tuple[tuple[str, str, str, str], ...]


@dataclass(frozen=True, slots=True)
class ExperimentView:
    """One experiment: its iterations, its split, its metrics, those in brief, and those that say
    nothing.
    """

    flag: str
    number: int
    iterations: int
    running: bool
    started: int
    stopped: int | None
    kinds: str
    split: Markup
    split_text: str
    split_ok: bool
    variations: tuple[tuple[str, str, str], ...]
    metrics: tuple[MetricView, ...]
    others: tuple[BriefView, ...]
    missing: tuple[MissingView, ...]


class ExperimentViews:
    """Makes the views of experiments; what is costly is made once for each state."""

    def __init__(self, database: Database, reader: ReadoutReader):
        self.database = database
        self.reader = reader
        self._made: tuple[Readout | None, str, list[ExperimentView]] = (None, "", [])

    def of(self, readout: Readout, whole: str = "") -> list[ExperimentView]:
        """Return the experiments of a read-out, those with most units first.

        Args:
            readout: what is shown.
            whole: the flag of the experiment whose metrics are all shown in full.
        """
        if self._made[0] is not readout or self._made[1] != whole:
            self._made = readout, whole, self._views(readout, whole)
        return self._made[2]

    def _views(self, readout: Readout, whole: str) -> list[ExperimentView]:
        arrived = {total.event_key for total in readout.totals}
        views = [
            self._experiment(experiment, arrived, whole=experiment.flag == whole)
            for experiment in readout.experiments
        ]
        units = {
            experiment.flag: sum(each.units for each in experiment.variations)
            for experiment in readout.experiments
        }
        return sorted(views, key=lambda view: -units[view.flag])

    def _experiment(
        self, found: ExperimentReadout, arrived: Collection[str], *, whole: bool
    ) -> ExperimentView:
        total = sum(each.units for each in found.variations)
        weights = sum(each.weight for each in found.variations) or 1.0
        shares = [
            (each.units / total if total else 0.0, each.weight / weights)
            for each in found.variations
        ]
        told = [metric for metric in found.metrics if _tells(metric)]
        mismatch = next((m.result.sample_ratio.value for m in told if m.result is not None), None)
        iteration = found.iteration
        own = (self.database.document("flag", "", found.flag) or {}).get("experimentMetrics") or ()
        ordered = sorted(told, key=lambda metric: _order(metric, own))
        in_full = len(ordered) if whole else SHOWN_IN_FULL
        return ExperimentView(
            flag=found.flag,
            number=iteration.number,
            iterations=len(self.reader.iterations.of(found.flag)),
            running=iteration.running,
            started=iteration.started,
            stopped=iteration.stopped,
            kinds=" or ".join(found.kinds) or "nobody yet",
            split=charts.split(shares, _split_text(found, shares)),
            split_text=_split_words(mismatch, total),
            split_ok=mismatch is None or mismatch < MISMATCH,
            variations=tuple(
                (_name(each.value), f"{each.units:,}", f"{percent(is_)} of {percent(wanted)}")
                for each, (is_, wanted) in zip(found.variations, shares, strict=True)
            ),
            metrics=tuple(self._metric(found, metric, own) for metric in ordered[:in_full]),
            others=tuple(_brief(metric) for metric in ordered[in_full:]),
            missing=tuple(
                _missing(metric, arrived) for metric in found.metrics if not _tells(metric)
            ),
        )

    def _metric(
        self, experiment: ExperimentReadout, found: MetricReadout, own: Sequence[str]
    ) -> MetricView:
        key, rows = found.metric["key"], found.rows
        fills = found.result is not None and found.result.metric.fills_zeros
        ordered = [
            found.statistics.of(row.variation).ordered(zero_fill=fills)
            for row in rows
            if found.statistics
        ]
        scale = charts.common_scale(ordered)
        variations = []
        for place, row in enumerate(rows):
            name = _name(row.value)
            label = f"{key} of {name}: median {number(row.p50)}, 90th percentile {number(row.p90)}"
            chart = charts.distribution(ordered[place], scale, label) if scale else Markup("")
            variations.append(_variation(row, name, place == 0, chart))
        comparisons = found.result.comparisons if found.result else ()
        return MetricView(
            key=key,
            project=found.project,
            about=_about(found),
            own=key in own,
            variations=tuple(variations),
            comparisons=tuple(
                self._comparison(experiment, found, comparison) for comparison in comparisons
            ),
            shares=_share_words(found),
            sources=_sources(comparisons),
        )

    def _exposed(self, experiment: ExperimentReadout, found: MetricReadout) -> SumsOverTime:
        kind = found.statistics.kind if found.statistics is not None else ""
        return self.reader.unit_values.over_time(experiment.iteration.id, kind)

    def _comparison(
        self, experiment: ExperimentReadout, found: MetricReadout, comparison: Comparison
    ) -> ComparisonView:
        assert found.result is not None
        treatment, control = int(comparison.treatment), int(comparison.control)
        name = found.result.treatment(comparison.treatment).name
        figure, word = comparison.relative_difference.figure, comparison.verdict.word
        chart = over_time = Markup("")
        text = _difference(comparison)
        if figure.value is not None and figure.lower is not None and figure.upper is not None:
            label = f"{found.metric['key']}, {name} against the control: {text}, {word}"
            chart = charts.interval(figure.value, figure.lower, figure.upper, word, label)
            exposed = self._exposed(experiment, found)
            points = development(found, exposed, treatment, control)
            over_time = charts.development(points, word, f"how it developed: {label}")
        return ComparisonView(
            name=name,
            word=word,
            reason=comparison.verdict.reason,
            difference=text,
            chance=chance(comparison.probability_to_beat_control.value),
            figures=tuple(_figures(comparison, found.metric.get("unit", ""))),
            cautions=(*comparison.cautions, *close_call(figure, word)),
            chart=chart,
            over_time=over_time,
        )


def close_call(figure: Figure, word: str) -> tuple[str, ...]:
    """Say why a verdict stands beside an interval with 0 in it, where it does.

    Args:
        figure: the relative difference.
        word: the verdict.
    """
    if word not in ("better", "worse") or figure.lower is None or figure.upper is None:
        return ()
    if not figure.lower <= 0 <= figure.upper:
        return ()
    return (
        "A close call: the interval reaches 0, and the chance is still beyond its threshold; they "
        "are two formulas, which differ a little.",
    )


def _tells(found: MetricReadout) -> bool:
    return found.result is not None and any(row.measured for row in found.rows)


def _order(found: MetricReadout, own: Sequence[str]) -> tuple[bool, bool]:
    """Return what puts the experiment's own metrics first, then those with a verdict."""
    comparisons = found.result.comparisons if found.result else ()
    decided = any(each.verdict.word in ("better", "worse") for each in comparisons)
    return found.metric["key"] not in own, not decided


def _brief(found: MetricReadout) -> BriefView:
    comparisons = found.result.comparisons if found.result else ()
    return BriefView(
        found.metric["key"],
        _about(found),
        tuple(
            (
                found.result.treatment(each.treatment).name if found.result else "",
                each.verdict.word,
                _difference(each),
                chance(each.probability_to_beat_control.value),
            )
            for each in comparisons
        ),
    )


def _difference(comparison: Comparison) -> str:
    """Return the relative difference and its interval in words; empty without one."""
    figure = comparison.relative_difference.figure
    if figure.value is None or figure.lower is None or figure.upper is None:
        return ""
    return (
        f"{percent(figure.value, sign=True)} ({percent(figure.lower, sign=True)} to "
        f"{percent(figure.upper, sign=True)})"
    )


def _missing(found: MetricReadout, arrived: Collection[str]) -> MissingView:
    key, event_key = found.metric["key"], found.metric["eventKey"]
    reason = found.reason
    if event_key not in arrived:
        reason = f"no event {event_key} has arrived"
    elif not reason:
        reason = "none of its events came from an exposed unit after its exposure"
    return MissingView(key, reason, f"ldinstrument doctor {key}")


def _split_text(found: ExperimentReadout, shares: Sequence[tuple[float, float]]) -> str:
    pairs = zip(found.variations, shares, strict=True)
    return "exposed units: " + ", ".join(
        f"{_name(each.value)} {percent(share)} of {percent(weight)} allocated"
        for each, (share, weight) in pairs
    )


def _split_words(mismatch: float | None, units: int) -> str:
    if mismatch is None:
        return counted(units, "unit")
    if mismatch >= MISMATCH:
        return (
            f"the split is not the allocated one (probability of a mismatch {percent(mismatch)}): "
            "do not trust the differences"
        )
    told = f"chance of a mismatch {percent(mismatch)}: it begins at 50 %, the alarm is at 99 %"
    return f"{counted(units, 'unit')}, split as allocated ({told})"


def _variation(row: VariationResult, name: str, control: bool, chart: Markup) -> VariationView:
    unit = "" if row.estimate is None else _unit(row.unit, row.measure)
    return VariationView(
        name=name,
        control=control,
        units=f"{row.units:,}",
        measured=f"{row.measured:,}",
        events=f"{row.events:,}",
        estimate=f"{_estimate(row)}{unit}",
        chart=chart,
    )


def _estimate(row: VariationResult) -> str:
    return percent(row.estimate) if row.measure == "occurrence" else number(row.estimate)


def _unit(unit: str, measure: str) -> str:
    short = {"milliseconds": "ms", "percent": "%", "seconds": "s"}
    if measure == "occurrence":
        return " of units"
    return f" {short.get(unit, unit)}" if unit else " per unit"


def _about(found: MetricReadout) -> str:
    metric = found.metric
    better = "lower" if metric.get("successCriteria") == "LowerThanBaseline" else "higher"
    kind = found.statistics.kind if found.statistics else "unit"
    filtered = ", of events that pass its filter" if metric.get("filters") else ""
    return f"{_statistic(metric, kind)}{filtered}; {better} is better"


def _statistic(metric: Document, kind: str) -> str:
    """Return what is compared, in words."""
    measure = measure_of(metric)
    if measure == "occurrence":
        return f"share of {kind}s with an event"
    if measure == "count":
        return f"events per {kind}"
    summed = metric["unitAggregationType"] == "sum"
    own = metric.get("percentileValue")
    if own is not None:
        return f"percentile {own} of the {'totals' if summed else 'averages'} of {kind}s"
    return f"{'total' if summed else 'average'} per {kind}, the mean of all"


def _share_words(found: MetricReadout) -> str:
    """Say when the means are of different people."""
    share = found.result.measured_share if found.result else None
    if share is None or share.value is None or share.value >= 0.001:
        return ""
    shares = ", ".join(
        f"{_name(row.value)} {percent(row.measured / row.units if row.units else None)}"
        for row in found.rows
    )
    return (
        f"The share of exposed units that have a value differs ({shares}; p {share.value:.1g}): "
        "the means are of different people."
    )


def _figures(comparison: Comparison, unit: str) -> Iterator[tuple[str, str]]:
    difference, test = comparison.difference, comparison.frequentist
    if difference.value is not None:
        text = f"{number(difference.value)}{_unit(unit, 'value') if unit else ''}"
        yield "difference", text.replace("-", charts.MINUS)
    if test.p_value is not None:
        yield "p", f"{test.p_value:.2g}" if test.p_value >= 0.0001 else "< 0.0001"
    regression = comparison.regression
    if regression.probability.value is not None:
        yield "chance of a regression", chance(regression.probability.value)
    effect = comparison.minimum_detectable_effect.value
    if effect is not None:
        yield "smallest effect that so many units show", percent(effect)
    if comparison.more_units:
        yield "more units needed for this effect", f"{comparison.more_units:,}"


def _sources(comparisons: Iterable[Comparison]) -> tuple[str, ...]:
    figures = [
        figure
        for comparison in comparisons
        for figure in (
            comparison.relative_difference.figure,
            comparison.probability_to_beat_control,
            comparison.frequentist.difference,
        )
    ]
    return tuple(dict.fromkeys(figure.source for figure in figures))


def _name(value: object) -> str:
    return (
        value
        if isinstance(value, str)
        else str(value).lower()
        if value is not None
        else charts.DASH
    )
