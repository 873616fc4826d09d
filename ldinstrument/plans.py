"""Plan, then apply: what LaunchDarkly must know for a catalog to count, as a value that can be read and refused.

`plan` compares, `apply` creates what is missing, `bootstrap` is both. What exists is only changed with `update=True`,
because running experiments use it; nothing is ever deleted here.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from . import metrics as definitions
from .credentials import Token
from .errors import ApiError, Conflict, Forbidden, LDInstrumentError, NotFound, PlanError, StrictError
from .ledger import ledger, log
from .metrics import Catalog, Metric, default_rollup, event_rule
from .rest import Difference, MetricsAPI, RemoteMetric, differences
from .rest_bodies import metric_body

Action = Literal["create", "unchanged", "drift", "error"]
Result = Literal["", "created", "created by another", "updated", "failed", "not tried"]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and how many there are."""

_CHUNK = 40  # event keys in one filter, so that the URL stays short
_TIME_UNITS = {
    "ns": "nanoseconds", "nanosecond": "nanoseconds", "us": "microseconds", "microsecond": "microseconds",
    "ms": "milliseconds", "msec": "milliseconds", "millis": "milliseconds", "millisecond": "milliseconds",
    "s": "seconds", "sec": "seconds", "secs": "seconds", "second": "seconds",
    "m": "minutes", "min": "minutes", "mins": "minutes", "minute": "minutes", "h": "hours", "hour": "hours",
}  # fmt: skip
_FINENESS = {"each": 0, "sum": 1, "mean": 2, "last": 2, "once": 3}


@dataclass(frozen=True, slots=True)
class Change:
    """One metric of the catalog, and what has to happen to it.

    Args:
        metric: as the code declares it.
        action: `create`, `unchanged`, `drift` (it exists, but differs) or `error` (it must not be applied).
        found: as LaunchDarkly holds it; None when it does not exist.
        differences: field by field; labels (name, description, tags) alone are no drift.
        problem: why it is an error, and what to do.
        place: `file:line` where it is declared.
        result: what `apply` did.
        failure: why that failed.
    """

    metric: Metric
    action: Action
    found: RemoteMetric | None = None
    differences: tuple[Difference, ...] = ()
    problem: str = ""
    place: str = ""
    result: Result = ""
    failure: ApiError | None = None


@dataclass(frozen=True, slots=True)
class Finer:
    """A metric in LaunchDarkly that needs the single values of an event which sessions fold together.

    Args:
        found: the metric that nobody declared here.
        event_key: the event that both read.
        rollup: how the catalog folds the values of that event.
        declared: the catalog's metrics on that event.
    """

    found: RemoteMetric
    event_key: str
    rollup: str
    declared: tuple[str, ...]

    def advice(self) -> str:
        """What is wrong, and what to do."""
        return (
            f"{self.found.key} reads the event {self.event_key!r} as {_statistic(self.found)}, but sessions send one "
            f"{self.rollup} of it: declare that metric in the code too, or set rollup='each' on {self.declared[0]}"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to happen so that LaunchDarkly and the code agree; after `apply`, also what did happen.

    Args:
        project: the LaunchDarkly project.
        host: where LaunchDarkly is.
        changes: one per metric of the catalog.
        unmanaged: metrics in LaunchDarkly that the catalog does not have; None when nobody looked.
        finer: metrics in LaunchDarkly that need finer values than the catalog's rollups send.
        missing_units: analysis units that the catalog asks for and the project does not have, and what to do.
        remarks: what could not be found out, and why.
    """

    project: str
    host: str
    changes: tuple[Change, ...] = ()
    unmanaged: tuple[RemoteMetric, ...] | None = None
    finer: tuple[Finer, ...] = ()
    missing_units: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def create(self) -> tuple[Change, ...]:
        """What does not exist yet."""
        return self._of("create")

    @property
    def drift(self) -> tuple[Change, ...]:
        """What exists, but differs in more than its labels."""
        return self._of("drift")

    @property
    def errors(self) -> tuple[Change, ...]:
        """What must not be applied as it stands."""
        return self._of("error")

    @property
    def labels(self) -> tuple[Change, ...]:
        """What differs in its labels (name, description, tags) only."""
        return tuple(change for change in self._of("unchanged") if change.differences)

    @property
    def failed(self) -> tuple[Change, ...]:
        """What `apply` tried in vain, or did not come to."""
        return tuple(change for change in self.changes if change.result in ("failed", "not tried"))

    def _of(self, action: Action) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.action == action)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON types."""
        return {
            "project": self.project,
            "host": self.host,
            "changes": [_change_json(change) for change in self.changes],
            "unmanaged": None if self.unmanaged is None else [_found_json(metric) for metric in self.unmanaged],
            "finer": [{"key": one.found.key, "eventKey": one.event_key, "advice": one.advice()} for one in self.finer],
            "missingAnalysisUnits": [{"unit": unit, "advice": advice} for unit, advice in self.missing_units],
            "remarks": list(self.remarks),
        }


def _change_json(change: Change) -> dict[str, Any]:
    found = change.found
    return {
        "key": change.metric.key,
        "action": change.action,
        "declaredAt": change.place,
        "differences": [
            {"field": one.field, "wanted": one.wanted, "found": one.found, "label": one.label}
            for one in change.differences
        ],
        "problem": change.problem,
        "experiments": found.experiments if found else None,
        "url": found.url if found else None,
        "result": change.result,
        "failure": str(change.failure) if change.failure else "",
    }


def _found_json(metric: RemoteMetric) -> dict[str, Any]:
    return {"key": metric.key, "name": metric.name, "kind": metric.kind, "url": metric.url}


def _statistic(found: RemoteMetric) -> str:
    if not found.numeric:
        return "a count of events" if found.measure == "count" else "an occurrence"
    return f"percentile {found.percentile} of the values" if found.percentile else f"the {found.aggregation} of values"


# -- plan ----------------------------------------------------------------------------------------


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
        unmanaged: list the whole project, to say what the catalog does not have. Without it, one or two calls find
            what reads the catalog's events, however large the project is.
        place: says where a metric is declared; a `Catalog` knows.
        progress: told how far it is.

    Raises:
        ApiError: LaunchDarkly refused, or did not answer.
    """
    wanted = list(catalog)
    report = progress or (lambda *_: None)
    there = _whole_project(api, report) if unmanaged else _about(wanted, api, report)
    units, missing, remarks = _units(wanted, api)
    place = place or _places(catalog)
    keys = {metric.key for metric in wanted}
    return Plan(
        project=api.project,
        host=api.host.url,
        changes=tuple(_change(metric, there.get(metric.key), units, place(metric.key)) for metric in wanted),
        unmanaged=tuple(one for key, one in sorted(there.items()) if key not in keys) if unmanaged else None,
        finer=tuple(_finer(wanted, [one for key, one in sorted(there.items()) if key not in keys])),
        missing_units=missing,
        remarks=remarks,
    )


def _places(catalog: Iterable[Metric]) -> Callable[[str], str]:
    return catalog.place if isinstance(catalog, Catalog) else lambda _: ""


def _whole_project(api: MetricsAPI, report: Progress) -> dict[str, RemoteMetric]:
    there: dict[str, RemoteMetric] = {}
    for metric in api.list():
        there[metric.key] = metric
        report("reading metrics", len(there), 0)
    return there


def _about(wanted: Sequence[Metric], api: MetricsAPI, report: Progress) -> dict[str, RemoteMetric]:
    """What reads the events of *wanted*, and what has one of their keys but reads another event."""
    events = sorted({metric.event for metric in wanted})
    there: dict[str, RemoteMetric] = {}
    for start in range(0, len(events), _CHUNK):
        there |= {found.key: found for found in api.list(event_keys=events[start : start + _CHUNK])}
    missing = [metric.key for metric in wanted if metric.key not in there]
    for done, key in enumerate(missing):
        report("looking for metrics", done, len(missing))
        found = api.find(key)
        if found is not None:
            there[key] = found
    return there


def _change(metric: Metric, found: RemoteMetric | None, units: frozenset[str] | None, place: str) -> Change:
    absent = [unit for unit in metric.analysis_units or () if units is not None and unit not in units]
    if found is None:
        problem = f"the project has no analysis unit {', '.join(map(repr, absent))}" if absent else ""
        return Change(metric, "error" if absent else "create", problem=problem, place=place)
    differing = differences(metric_body(metric), found)
    problem = incompatible(metric, found)
    if problem:
        return Change(metric, "error", found, differing, problem, place)
    drifted = any(not one.label for one in differing)
    return Change(metric, "drift" if drifted else "unchanged", found, differing, place=place)


def incompatible(metric: Metric, found: RemoteMetric) -> str:
    """Why the events of *metric* would spoil what *found* has counted so far; empty when they would not."""
    if found.kind != "custom":
        return (
            f"it exists as kind {found.kind!r}, which never changes; give this metric another key, or delete that one"
        )
    ours, theirs = _time_unit(metric.unit), _time_unit(found.unit)
    own_clock = metric.key.endswith(".duration") and ours == "milliseconds"
    if metric.numeric and found.numeric and ours != theirs and ours and (theirs or own_clock):
        return (
            f"it counts {found.unit or 'no unit'} in LaunchDarkly, and the events are in {metric.unit}: the numbers "
            f"would be mixed. Use another key (session(name=...), or another task key), or delete the old one by name: "
            f"ldinstrument metrics delete {metric.key}"
        )
    return ""


def _time_unit(unit: str | None) -> str:
    """The unit of time that *unit* means, or an empty string."""
    text = (unit or "").strip().lower()
    text = _TIME_UNITS.get(text, text)
    return text if text in _TIME_UNITS.values() else ""


def _finer(wanted: Sequence[Metric], others: Sequence[RemoteMetric]) -> Iterator[Finer]:
    for found in others:
        feeding = [metric for metric in wanted if metric.event == found.event_key]
        if not feeding or found.archived or found.event_key is None:
            continue
        rollup = event_rule(found.event_key, feeding).rollup
        needed = default_rollup(found.measure, "sum" if found.aggregation == "sum" else "average")
        if _FINENESS[needed] < _FINENESS[rollup]:
            yield Finer(found, found.event_key, rollup, tuple(metric.key for metric in feeding))


def _units(
    wanted: Sequence[Metric], api: MetricsAPI
) -> tuple[frozenset[str] | None, tuple[tuple[str, str], ...], tuple[str, ...]]:
    """The project's analysis units (None: unknown), what is missing with advice, and remarks."""
    asked = sorted({unit for metric in wanted for unit in metric.analysis_units or ()})
    if not asked:
        return None, (), ()
    try:
        units = frozenset(api.analysis_units())
        kinds = api.context_kinds() if set(asked) - units else {}
    except (Forbidden, NotFound) as error:
        return None, (), (f"the project's analysis units could not be read: {error}",)
    return units, tuple((unit, _unit_advice(unit, kinds)) for unit in asked if unit not in units), ()


def _unit_advice(unit: str, kinds: dict[str, bool]) -> str:
    if unit not in kinds:
        start = f"the project has no context kind {unit!r}: create it"
    elif kinds[unit]:
        start = f"the context kind {unit!r} is archived: bring it back"
    else:
        start = f"the context kind {unit!r} is not available for experiments: make it so"
    return f"{start} in LaunchDarkly (Settings, Contexts), or with: ldinstrument apply --create-context-kinds"


# -- apply ---------------------------------------------------------------------------------------


def apply(
    plan: Plan,
    api: MetricsAPI,
    *,
    update: bool = False,
    create_context_kinds: bool = False,
    progress: Progress | None = None,
) -> Plan:
    """Create what *plan* says is missing; with *update*, also change what differs.

    Args:
        update: patch drifted metrics. Running experiments keep the old version until a new iteration.
        create_context_kinds: create missing context kinds and make them available for experiments first.
        progress: told how far it is.

    Returns:
        The plan with what happened to each change. A metric that LaunchDarkly refused does not keep the others from
        being created; see `Plan.failed`.

    Raises:
        PlanError: the plan has errors; nothing was done.
        ApiError: a context kind could not be created.
    """
    if create_context_kinds:
        plan = _with_context_kinds(plan, api)
    if plan.errors:
        raise PlanError(
            "nothing was applied: " + "; ".join(f"{change.metric.key}: {change.problem}" for change in plan.errors)
        )
    return _carry_out(plan, api, update, progress or (lambda *_: None))


def _with_context_kinds(plan: Plan, api: MetricsAPI) -> Plan:
    kinds = api.context_kinds() if plan.missing_units else {}
    made = {unit for unit, _ in plan.missing_units}
    for unit in sorted(made):
        if kinds.get(unit, True):
            api.create_context_kind(unit)
        api.add_analysis_unit(unit)
    changes = tuple(
        replace(change, action="create", problem="")
        if change.action == "error" and change.found is None and made
        else change
        for change in plan.changes
    )
    return replace(plan, changes=changes, missing_units=())


def _carry_out(plan: Plan, api: MetricsAPI, update: bool, report: Progress) -> Plan:
    done: list[Change] = []
    hopeless = False
    todo = sum(_is_work(change, update) for change in plan.changes)
    worked = 0
    for change in plan.changes:
        if not _is_work(change, update):
            done.append(change)
            continue
        if hopeless:
            done.append(replace(change, result="not tried"))
            continue
        report(change.metric.key, worked, todo)
        worked += 1
        try:
            done.append(_create(change, api) if change.action == "create" else _patch(change, api))
        except ApiError as error:
            done.append(replace(change, result="failed", failure=error))
            # Only a refusal of this one metric says nothing about the next.
            hopeless = error.status not in (400, 404, 409, 422)
    report("", worked, todo)
    return replace(plan, changes=tuple(done))


def _is_work(change: Change, update: bool) -> bool:
    return change.action == "create" or (update and change.action != "error" and bool(change.differences))


def _create(change: Change, api: MetricsAPI) -> Change:
    """Create; when another process was faster, look whether it made the same."""
    for attempt in range(3):
        try:
            return replace(change, found=api.create(change.metric), result="created")
        except Conflict as error:
            conflict = error
        found = api.find(change.metric.key)
        if found is not None:
            differing = differences(metric_body(change.metric), found)
            action: Action = "drift" if any(not one.label for one in differing) else "unchanged"
            return replace(change, action=action, found=found, differences=differing, result="created by another")
        # "Try again later" is LaunchDarkly's own advice for a 409 behind which there is nothing.
        time.sleep(0.1 * 2**attempt)
    raise conflict


def _patch(change: Change, api: MetricsAPI) -> Change:
    found = api.update(change.metric.key, {one.field: one.wanted for one in change.differences})
    return replace(change, found=found, result="updated")


# -- bootstrap -----------------------------------------------------------------------------------


def bootstrap(
    project: str | None = None,
    *,
    catalog: Iterable[Metric] | None = None,
    token: str | Token | None = None,
    base_uri: str | None = None,
    timeout: float = 30.0,
    wait: bool = True,
) -> Plan | None:
    """Make sure that LaunchDarkly has every metric of *catalog*: create what is missing, report drift, change nothing.

    Idempotent, and safe when many processes start at once. Call it after the modules that declare metrics are imported.

    Args:
        project: the project key; None takes `LAUNCHDARKLY_PROJECT`, or `default` on a local LaunchDarkly.
        catalog: which metrics; None takes the default catalog.
        token: an API access token; None searches for one.
        base_uri: `us`, `eu`, `federal` or a URL; None takes the environment's.
        timeout: seconds for everything together.
        wait: False is for the start of a service: the work happens on a daemon thread, this returns None at once, and
            whatever goes wrong is one line in the log.

    Returns:
        The applied plan; an empty one with `LDINSTRUMENT_DISABLED=1`; None with `wait=False`.

    Raises:
        CredentialsError, PlanError, ApiError: only with `wait=True`.
    """
    if disabled() or _held:
        return Plan(project or "", "") if wait else None
    source = definitions.catalog if catalog is None else catalog
    # A snapshot, so that what is created does not depend on how fast the thread starts.
    wanted = list(source)
    place = _places(source)
    deadline = time.monotonic() + timeout

    def work() -> Plan:
        with MetricsAPI(project, token=token, base_uri=base_uri, deadline=deadline) as api:
            return _bootstrap(wanted, place, api, strictly=wait)

    if wait:
        return work()
    threading.Thread(target=_quietly, args=(work,), name="ldinstrument-bootstrap", daemon=True).start()
    return None


_held: list[bool] = []


@contextlib.contextmanager
def on_hold() -> Iterator[None]:
    """Make `bootstrap` inert meanwhile: code that is only looked at must not create metrics by being imported."""
    _held.append(True)
    try:
        yield
    finally:
        _held.pop()


def disabled() -> bool:
    """Whether `LDINSTRUMENT_DISABLED` makes everything inert."""
    return os.environ.get("LDINSTRUMENT_DISABLED", "").strip().lower() in ("1", "true", "yes", "on")


def _bootstrap(wanted: Sequence[Metric], place: Callable[[str], str], api: MetricsAPI, *, strictly: bool) -> Plan:
    made = plan(wanted, api, unmanaged=False, place=place)
    if strictly:
        done = apply(made, api)
        for change in done.failed:
            if change.failure is not None:
                raise change.failure
    else:
        # One metric that must not be applied is no reason to go without the others.
        done = _carry_out(made, api, False, lambda *_: None)
    _say(done)
    return done


def _say(done: Plan) -> None:
    created = [change.metric.key for change in done.changes if change.result == "created"]
    if created:
        log.info("created in LaunchDarkly project %s: %s", done.project, ", ".join(created))
    for change in done.failed:
        ledger.warn("bootstrap", change.metric.key, f"metric {change.metric.key!r} was not created: {change.failure}")
    for change in done.errors:
        ledger.warn("bootstrap", change.metric.key, f"metric {change.metric.key!r}: {change.problem}")
    for change in done.drift:
        fields = ", ".join(one.field for one in change.differences if not one.label)
        ledger.warn(
            "drift",
            change.metric.key,
            f"metric {change.metric.key!r} in LaunchDarkly differs from the code in {fields}; see: ldinstrument plan",
        )
    for one in done.finer:
        ledger.warn("finer", one.found.key, one.advice())
    for remark in (*done.remarks, *(advice for _, advice in done.missing_units)):
        ledger.warn("bootstrap", remark, remark)


def _quietly(work: Callable[[], Plan]) -> None:
    """Run *work* on a thread of its own; the host hears of a failure in one line and in no other way."""
    try:
        work()
    except LDInstrumentError as error:
        with contextlib.suppress(StrictError):
            ledger.warn("bootstrap", type(error).__name__, f"LaunchDarkly's metrics were not checked: {error}")
    except Exception as error:
        ledger.failure("bootstrap", error)
