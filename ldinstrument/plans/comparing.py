"""`plan`: the catalog beside the project, without changing either."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from ..errors import Forbidden, NotFound
from ..metrics.catalogs import FINENESS, Catalog, event_routing
from ..metrics.metric import Metric, default_rollup
from ..rest import PAGE, MetricsAPI, RemoteMetric, differences, metric_body
from .changes import Change, Finer, Plan, Progress

_CHUNK = 40  # event keys in one filter, so that the URL stays short
_TIME_UNITS = {
    "ns": "nanoseconds",
    "nanosecond": "nanoseconds",
    "us": "microseconds",
    "microsecond": "microseconds",
    "ms": "milliseconds",
    "msec": "milliseconds",
    "millis": "milliseconds",
    "millisecond": "milliseconds",
    "s": "seconds",
    "sec": "seconds",
    "secs": "seconds",
    "second": "seconds",
    "m": "minutes",
    "min": "minutes",
    "mins": "minutes",
    "minute": "minutes",
    "h": "hours",
    "hour": "hours",
}


def plan(
    catalog: Iterable[Metric],
    api: MetricsAPI,
    *,
    unmanaged: bool = True,
    place: Callable[[str], str] | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Compare *catalog* with the project of *api*; changes nothing.

    Args:
        catalog: a `Catalog`, or metrics.
        unmanaged: list the whole project, to say what the catalog does not have. Without it, one or
            two calls find what reads the catalog's events, however large the project is.
        place: says where a metric is declared; a `Catalog` knows.
        progress: told how far it is.

    Raises:
        ApiError: LaunchDarkly refused, or did not answer.

    """
    wanted = list(catalog)
    report = progress or (lambda *_: None)
    there = _whole_project(api, report) if unmanaged else reading_events_of(wanted, api)
    unseen = [metric.key for metric in wanted if metric.key not in there]
    if unseen and not unmanaged and _is_small(api, len(unseen)):
        there |= _whole_project(api, report)
    else:
        there |= _by_key(unseen, api, report)
    units, missing, remarks = _units(wanted, api)
    place = place or places(catalog)
    keys = {metric.key for metric in wanted}
    return Plan(
        project=api.project,
        host=api.host.url,
        changes=tuple(
            _change(metric, there.get(metric.key), units, place(metric.key)) for metric in wanted
        ),
        unmanaged=tuple(metric for key, metric in sorted(there.items()) if key not in keys)
        if unmanaged
        else None,
        finer=tuple(
            _finer(wanted, [metric for key, metric in sorted(there.items()) if key not in keys])
        ),
        missing_units=missing,
        remarks=remarks,
    )


def places(catalog: Iterable[Metric]) -> Callable[[str], str]:
    """Return what says where a metric of *catalog* is declared."""
    return catalog.place if isinstance(catalog, Catalog) else lambda _: ""


def _whole_project(api: MetricsAPI, report: Progress) -> dict[str, RemoteMetric]:
    there: dict[str, RemoteMetric] = {}
    for metric in api.list():
        there[metric.key] = metric
        report("reading metrics", len(there), 0)
    return there


def reading_events_of(wanted: Sequence[Metric], api: MetricsAPI) -> dict[str, RemoteMetric]:
    """Return the metrics in LaunchDarkly that read the events of *wanted*, by key; one or few
    calls.
    """
    events = sorted({metric.event for metric in wanted})
    there: dict[str, RemoteMetric] = {}
    for start in range(0, len(events), _CHUNK):
        there |= {found.key: found for found in api.list(event_keys=events[start : start + _CHUNK])}
    return there


def _is_small(api: MetricsAPI, calls: int) -> bool:
    """Whether the whole project takes fewer calls than *calls*: that of a program which starts for
    the first time.
    """
    total = api.count()
    return total is not None and total <= (calls - 1) * PAGE


def _by_key(keys: Sequence[str], api: MetricsAPI, report: Progress) -> dict[str, RemoteMetric]:
    """Those of *keys* that exist although no list had them: under another event, or archived."""
    there: dict[str, RemoteMetric] = {}
    for done, key in enumerate(keys):
        report("looking for metrics", done, len(keys))
        found = api.find(key, expand=("experimentCount",))
        if found is not None:
            there[key] = found
    return there


def _change(
    metric: Metric, found: RemoteMetric | None, units: frozenset[str] | None, place: str
) -> Change:
    absent = [
        unit for unit in metric.analysis_units or () if units is not None and unit not in units
    ]
    if found is None:
        problem = (
            f"the project has no analysis unit {', '.join(map(repr, absent))}" if absent else ""
        )
        return Change(metric, "error" if absent else "create", problem=problem, place=place)
    return compared(metric, found, place)


def compared(metric: Metric, found: RemoteMetric, place: str = "") -> Change:
    """Return the change for a metric that exists."""
    differing = differences(metric_body(metric), found)
    problem = incompatible(metric, found)
    if problem:
        return Change(metric, "error", found, differing, problem, place)
    drifted = any(not difference.label for difference in differing)
    return Change(metric, "drift" if drifted else "unchanged", found, differing, place=place)


def incompatible(metric: Metric, found: RemoteMetric) -> str:
    """Why the events of *metric* would spoil what *found* has counted so far; empty when they would
    not.
    """
    if found.kind != "custom":
        return (
            f"it exists as kind {found.kind!r}, which never changes; "
            "give this metric another key, or delete that one"
        )
    ours, theirs = _time_unit(metric.unit), _time_unit(found.unit)
    own_clock = metric.key.endswith(".duration") and ours == "milliseconds"
    if metric.numeric and found.numeric and ours != theirs and ours and (theirs or own_clock):
        return (
            f"it counts {found.unit or 'no unit'} in LaunchDarkly, and the events are in "
            f"{metric.unit}: the numbers "
            f"would be mixed. Use another key (session(name=...), or another task key), or delete "
            f"the old one by name: "
            f"ldinstrument metrics delete {metric.key}"
        )
    return ""


def _time_unit(unit: str | None) -> str:
    """Return the unit of time that *unit* means, or an empty string."""
    text = (unit or "").strip().lower()
    text = _TIME_UNITS.get(text, text)
    return text if text in _TIME_UNITS.values() else ""


def _finer(wanted: Sequence[Metric], others: Sequence[RemoteMetric]) -> Iterator[Finer]:
    for found in others:
        feeding = [metric for metric in wanted if metric.event == found.event_key]
        if not feeding or found.archived or found.event_key is None:
            continue
        rollup = event_routing(found.event_key, feeding).rollup
        needed = default_rollup(found.measure, "sum" if found.aggregation == "sum" else "average")
        if FINENESS[needed] < FINENESS[rollup]:
            yield Finer(found, found.event_key, rollup, tuple(metric.key for metric in feeding))


def _units(
    wanted: Sequence[Metric], api: MetricsAPI
) -> tuple[frozenset[str] | None, tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Return the project's analysis units (None: unknown), what is missing with advice, and
    remarks.
    """
    asked = sorted({unit for metric in wanted for unit in metric.analysis_units or ()})
    if not asked:
        return None, (), ()
    try:
        units = frozenset(api.analysis_units())
        kinds = api.context_kinds() if set(asked) - units else {}
    except (Forbidden, NotFound) as error:
        return None, (), (f"the project's analysis units could not be read: {error}",)
    return (
        units,
        tuple((unit, _unit_advice(unit, kinds)) for unit in asked if unit not in units),
        (),
    )


def _unit_advice(unit: str, kinds: dict[str, bool]) -> str:
    if unit not in kinds:
        start = f"the project has no context kind {unit!r}: create it"
    elif kinds[unit]:
        start = f"the context kind {unit!r} is archived: bring it back"
    else:
        start = f"the context kind {unit!r} is not available for experiments: make it so"
    return (
        f"{start} in LaunchDarkly (Settings, Contexts), or with: ldinstrument apply "
        "--create-context-kinds"
    )
