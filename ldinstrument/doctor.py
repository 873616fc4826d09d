"""Why is my metric empty? A walk from the code to the read-out that stops at the first broken link.

The checks are those that LaunchDarkly makes of metrics (event receipt, analysis unit, numeric value), and what its
analysis ignores without a word. What can only be seen inside the program says itself there: each warning is logged
once and counted in `ldinstrument.stats()`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from .errors import ApiError, Forbidden, NotFound, Unauthorized
from .ledger import ledger
from .metrics import RESERVED_PREFIXES, Metric, event_rule
from .plans import incompatible
from .rest import Difference, MetricsAPI, RemoteMetric, differences
from .rest_bodies import metric_body

Status = Literal["ok", "warning", "broken", "unknown"]
STALE_DAYS = 14
"""LaunchDarkly's own check of analysis units looks back so far."""
_LATENCY_WORDS = ("latency", "duration", "time", "tokens", "score")


@dataclass(frozen=True, slots=True)
class Finding:
    """One link of the chain.

    Args:
        check: which link.
        status: `broken` stops the walk; `unknown` could not be looked at.
        what: what was seen.
        why: why it matters; empty when all is well.
        command: what mends it, or where to look next.
    """

    check: str
    status: Status
    what: str
    why: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """What the checks of one metric look at.

    Args:
        key: the metric's key.
        api: the project.
        wanted: what the code declares, by key.
        found: the metric in LaunchDarkly.
        health: what a local LaunchDarkly found; None elsewhere.
    """

    key: str
    api: MetricsAPI
    wanted: dict[str, Metric]
    found: RemoteMetric
    health: tuple[dict[str, Any], ...] | None = None

    @property
    def declared(self) -> Metric | None:
        """The definition in the code, None when the code has none."""
        return self.wanted.get(self.key)


def examine(key: str, api: MetricsAPI, catalog: Iterable[Metric]) -> list[Finding]:
    """Walk the chain for the metric *key* and stop at the first broken link.

    Args:
        key: the metric's key.
        api: the project.
        catalog: what the code declares.

    Returns:
        The findings in the order of the walk; the last one is broken, or all links hold.
    """
    wanted = {metric.key: metric for metric in catalog}
    walked = access(api)
    return walked if walked[-1].status == "broken" else [*walked, *_walk(key, api, wanted, _health(api))]


def _walk(
    key: str, api: MetricsAPI, wanted: dict[str, Metric], health: tuple[dict[str, Any], ...] | None
) -> Iterator[Finding]:
    """The links of one metric, to the first broken one."""
    found, finding = _existence(key, api, wanted)
    yield finding
    if found is None:
        return
    patient = Patient(key, api, wanted, found, health)
    for check in METRIC_CHECKS:
        for link in check(patient):
            yield link
            if link.status == "broken":
                return


def access(api: MetricsAPI) -> list[Finding]:
    """The links that all metrics share: this process, the token and its role, the project."""
    findings = list(_environment())
    try:
        role = api.role()
    except ApiError as error:
        return [*findings, _refused("token", error, api)]
    source = f"from {api.token.source}"
    if role in ("reader", "no_access"):
        findings.append(
            Finding(
                "token",
                "warning",
                f"accepted ({source}), but its role is {role}",
                "it cannot create metrics",
                "make a token with the role Writer, and export LAUNCHDARKLY_ACCESS_TOKEN",
            )
        )
    else:
        findings.append(Finding("token", "ok", f"accepted ({source}){f', role {role}' if role else ''}"))
    try:
        count = api.count()
    except ApiError as error:
        return [*findings, _refused("project", error, api)]
    return [*findings, Finding("project", "ok", f"{api.project} at {api.host.url}, {count} metrics")]


def _environment() -> Iterator[Finding]:
    if os.environ.get("LDINSTRUMENT_DISABLED", "").strip().lower() in ("1", "true", "yes", "on"):
        yield Finding(
            "environment",
            "warning",
            "LDINSTRUMENT_DISABLED is set here",
            "where it is set, nothing is measured or sent",
            "unset LDINSTRUMENT_DISABLED",
        )


def _refused(check: str, error: ApiError, api: MetricsAPI) -> Finding:
    if isinstance(error, Unauthorized):
        command = "make a new API access token, and export LAUNCHDARKLY_ACCESS_TOKEN"
        return Finding(check, "broken", f"refused: {error}", "without it nothing can be read or created", command)
    if isinstance(error, Forbidden):
        return Finding(
            check,
            "broken",
            f"forbidden: {error}",
            "the role of the token does not reach this project",
            "ask for a role with proj/*:metric/*",
        )
    if isinstance(error, NotFound):
        return Finding(
            check,
            "broken",
            f"there is no project {api.project!r} at {api.host.url}",
            "metrics belong to a project",
            "give --project KEY, or export LAUNCHDARKLY_PROJECT",
        )
    return Finding(
        check,
        "broken",
        f"{api.host.url} did not answer: {error}",
        "nothing can be looked at",
        "check the host (LAUNCHDARKLY_API_HOST, LDINSTRUMENT_URL) and the network",
    )


def _existence(key: str, api: MetricsAPI, wanted: dict[str, Metric]) -> tuple[RemoteMetric | None, Finding]:
    found = api.find(key)
    if found is not None:
        found = api.get(key, expand=("experiments", "experimentCount"))
        return found, Finding("metric", "ok", f"{key} exists: {found.url}")
    why = "LaunchDarkly keeps events without a metric out of every experiment"
    if key in wanted:
        return None, Finding(
            "metric", "broken", f"{key} is declared in the code, but not in LaunchDarkly", why, "ldinstrument apply"
        )
    close = [one for one in wanted if one.lower() == key.lower()] or get_close_matches(key, list(wanted), n=1)
    close = close or [one.key for one in api.list(query=key, limit=1)]
    hint = f"ldinstrument doctor {close[0]}" if close else f"ldinstrument metrics create {key} ..."
    meant = f"; did you mean {close[0]}?" if close else ""
    return None, Finding(
        "metric", "broken", f"there is no metric {key}, in the code or in LaunchDarkly{meant}", why, hint
    )


def _health(api: MetricsAPI) -> tuple[dict[str, Any], ...] | None:
    try:
        found = api.local("health", project=api.project)
    except ApiError:
        return None
    return tuple(one for one in found if isinstance(one, dict)) if isinstance(found, list) else None


# -- the links of one metric -----------------------------------------------------------------------


def _archived(patient: Patient) -> Iterator[Finding]:
    if patient.found.archived:
        yield Finding(
            "archived",
            "broken",
            "the metric is archived",
            "no experiment can use it",
            f"ldinstrument metrics update {patient.key} archived=false",
        )
    else:
        yield Finding("archived", "ok", "no")


def _kind(patient: Patient) -> Iterator[Finding]:
    kind = patient.found.kind
    if kind != "custom":
        yield Finding(
            "kind",
            "broken",
            f"it is a {kind} metric",
            "those are not fed by track, but by browsers or traces",
            "declare a metric under another key",
        )


def _definition(patient: Patient) -> Iterator[Finding]:
    if patient.declared is None:
        yield Finding(
            "definition",
            "unknown",
            "the code that was looked at does not declare it",
            "only LaunchDarkly's side can be checked",
            f"ldinstrument doctor {patient.key} --code YOUR_PACKAGE",
        )
        return
    problem = incompatible(patient.declared, patient.found)
    if problem:
        yield Finding("definition", "broken", problem, "numbers in two units under one metric mean nothing")
        return
    drifted = [one for one in differences(metric_body(patient.declared), patient.found) if not one.label]
    if not drifted:
        yield Finding("definition", "ok", "as the code declares it")
        return
    told = "; ".join(f"{one.field} is {one.found!r}, the code says {one.wanted!r}" for one in drifted)
    yield Finding(
        "definition",
        _weight(drifted),
        told,
        "LaunchDarkly analyses something else than the code means",
        "ldinstrument apply --update (running experiments need a new iteration)",
    )


def _weight(drifted: Sequence[Difference]) -> Status:
    """Which drift makes a metric stay empty, and which only makes it wrong."""
    return "broken" if {one.field for one in drifted} & {"eventKey", "isNumeric", "kind"} else "warning"


def _event_key(patient: Patient) -> Iterator[Finding]:
    event = patient.found.event_key or ""
    sent = sorted({metric.event for metric in patient.wanted.values()})
    if event.startswith(RESERVED_PREFIXES):
        yield Finding(
            "event key",
            "warning",
            f"{event!r} has a prefix of LaunchDarkly's own",
            "the events come from LaunchDarkly's libraries, not from here",
            "choose another event key",
        )
    elif event in sent or not patient.wanted:
        yield Finding("event key", "ok", event)
        yield from _numbers(patient, event)
    else:
        by_case = [one for one in sent if one.lower() == event.lower()]
        if by_case:
            yield Finding(
                "event key",
                "broken",
                f"it reads {event!r}, the code sends {by_case[0]!r}",
                "event keys are case-sensitive",
                f"ldinstrument metrics update {patient.key} eventKey={by_case[0]}",
            )
        else:
            yield Finding(
                "event key",
                "warning",
                f"no metric in the code reads {event!r}",
                "perhaps nothing sends it any more",
                "look for the key in the code that sends it",
            )


def _numbers(patient: Patient, event: str) -> Iterator[Finding]:
    """A numeric metric ignores events without a value; the others ignore the value, 0 included."""
    feeding = [metric for metric in patient.wanted.values() if metric.event == event]
    if not feeding:
        return
    rule = event_rule(event, feeding)
    if patient.found.numeric and not rule.numeric:
        yield Finding(
            "numbers",
            "broken",
            "it is numeric, and the code sends its event without a number",
            "events without a number do not count",
            "declare it with measure='value'",
        )
    if patient.found.numeric is False and rule.numeric and patient.found.measure == "occurrence":
        yield Finding(
            "numbers",
            "warning",
            "it counts occurrences of an event that carries numbers",
            "a value of 0 counts as much as any other",
            "send the event only when it happened",
        )


def _analysis_units(patient: Patient) -> Iterator[Finding]:
    units = patient.found.analysis_units
    if not units:
        return
    try:
        available = patient.api.analysis_units()
    except (NotFound, Forbidden) as error:
        yield Finding("analysis unit", "unknown", f"the project's settings cannot be read: {error}")
        return
    missing = [unit for unit in units if unit not in available]
    why = "an event counts only for a context that has one of the metric's analysis units"
    if missing:
        yield Finding(
            "analysis unit",
            "broken" if len(missing) == len(units) else "warning",
            f"{', '.join(missing)} is not available for experiments in this project",
            why,
            "ldinstrument apply --create-context-kinds",
        )
    else:
        yield Finding("analysis unit", "ok", f"{' or '.join(units)}; contexts of these kinds count")


def _experiments(patient: Patient) -> Iterator[Finding]:
    listed = patient.found.raw.get("experiments")
    experiments = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    if not experiments and not patient.found.experiments:
        yield Finding(
            "experiments",
            "warning",
            "no experiment uses it",
            "its numbers show in experiments only",
            f"add it to an experiment: {patient.found.url}",
        )
        return
    for one in experiments[:5]:
        unit = patient.api.randomization_unit(str(one.get("environmentKey") or "production"), str(one.get("key")))
        if unit and patient.found.analysis_units and unit not in patient.found.analysis_units:
            yield Finding(
                "experiments",
                "broken",
                f"{one.get('name')} randomizes by {unit!r}, the metric is analysed by "
                f"{' or '.join(patient.found.analysis_units)}",
                "then no event finds its exposure",
                f"declare analysis_units=({unit!r},), then ldinstrument apply --update",
            )
            return
    yield Finding("experiments", "ok", f"{patient.found.experiments or len(experiments)} use it")


def _last_seen(patient: Patient) -> Iterator[Finding]:
    seen = patient.found.last_seen
    if seen is None:
        yield Finding(
            "last seen",
            "broken",
            f"LaunchDarkly has never received {patient.found.event_key!r}",
            "the program has not run, is offline or disabled, was forked without postfork, ends before it flushes, or "
            "uses another environment's SDK key",
            "in the program: ldinstrument.flush() and ldinstrument.stats(); events show after about 5 minutes",
        )
        return
    days = (time.time() * 1000 - seen) / 86_400_000
    if days > STALE_DAYS:
        yield Finding(
            "last seen",
            "warning",
            f"{days:.0f} days ago",
            "the event has stopped coming",
            "look whether the code that sends it still runs",
        )
    else:
        yield Finding("last seen", "ok", f"{_ago(days * 86_400)} ago")


def _ago(seconds: float) -> str:
    for length, word in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {word}"
    return f"{max(0, seconds):.0f} seconds"


_LOCAL_ADVICE = {
    "event receipt": ("event keys are case-sensitive", "ldinstrument tail"),
    "analysis unit": (
        "events whose context has none of the metric's analysis units count for nothing",
        "give the session a context of that kind: session(Context.create(key, kind))",
    ),
    "numeric value": ("events without a finite number do not count", "record a finite number"),
    "exposure": (
        "only events after an exposure of the same context count",
        "evaluate the flag before recording, with the very context of the session: not with another key, nor with one "
        "made anew in each call",
    ),
}


def _seen_locally(patient: Patient) -> Iterator[Finding]:
    """What only a local LaunchDarkly can see: each event, its context, and the exposures."""
    for one in patient.health or ():
        if one.get("subject") != patient.key or one.get("check") not in _LOCAL_ADVICE:
            continue
        detail, (why, command) = str(one.get("detail")), _LOCAL_ADVICE[one["check"]]
        if one.get("ok"):
            yield Finding(one["check"], "ok", detail)
        elif one["check"] != "event receipt" or "case-sensitive" in detail:  # never received: see last seen
            yield Finding(one["check"], "broken", detail, why, command)
    if patient.health is None:
        yield Finding(
            "exposure",
            "unknown",
            "LaunchDarkly does not tell whose exposure it has seen",
            "only events after an exposure of the same context count",
            "try it against a local LaunchDarkly: ldinstrument dev",
        )


_SAID: dict[str, tuple[str, str]] = {
    "no_analysis_unit": (
        "LaunchDarkly ignores events without the metric's analysis unit",
        "use a context of that kind",
    ),
    "bad_data": ("a field of the data was left out", "give JSON types"),
    "not_json": ("the event was dropped", "give JSON types"),
    "too_large": ("LaunchDarkly refused the event for its size", "send less data with it"),
    "not_a_number": ("the value was left out", "record a finite number"),
    "no_value": ("the value was left out", "record a finite number"),
    "value_for_occurrence": ("the value was left out", "record an occurrence without a value, only when it happened"),
    "bad_count": ("the value was left out", "record a whole number"),
    "out_of_range": ("the value was left out", "record a value within the range"),
    "undeclared": ("no metric reads the event", "catalog.add(Metric(...)), then ldinstrument apply"),
    "two_definitions": ("only the catalog's definition counts", "make the two equal"),
    "no_session": ("its numbers go nowhere", "run it inside session(...), or give it context="),
    "no_context": ("an event needs a context", "session(context), or identify() before the end"),
    "invalid_context": ("an event needs a valid context", "give an ldclient.Context or a key"),
    "no_client": ("events wait for a client", "call ldclient.set_config(...) and ldclient.get()"),
    "offline": ("nothing is sent", "do not set offline=True"),
    "send_events_off": ("nothing is sent", "do not set send_events=False"),
}


def _said_here(patient: Patient) -> Iterator[Finding]:
    """What this very process complained about, when the doctor is called from inside the program."""
    event = patient.found.event_key or patient.key
    about = {event, patient.key, *(one.key for one in patient.wanted.values() if one.event == event)}
    tasks = {key.rpartition(".")[0] for key in about}
    for (cause, subject), count in ledger.stats().warnings.items():
        if cause in _SAID and (subject in about or subject in tasks or subject.split(" ")[0] in about or not subject):
            why, command = _SAID[cause]
            yield Finding("this process", "warning", f"{cause.replace('_', ' ')}, {count} times", why, command)


def _zero_fill(patient: Patient) -> Iterator[Finding]:
    found = patient.found
    if not found.numeric or not found.zero_fill:
        yield Finding("zero-fill", "ok", "off" if found.numeric else "on, as it should be without numbers")
        return
    slow_is_bad = found.success_criteria == "LowerThanBaseline" or any(word in found.key for word in _LATENCY_WORDS)
    if found.percentile is not None or (found.aggregation == "average" and slow_is_bad):
        yield Finding(
            "zero-fill",
            "warning",
            "units without events count as 0",
            "that pulls a latency, score or ratio towards 0, and 'never called' looks fast",
            f"ldinstrument metrics update {found.key} eventDefault/disabled=true",
        )
    else:
        yield Finding("zero-fill", "ok", "on: units without events count as 0")


def _percentile(patient: Patient) -> Iterator[Finding]:
    raw, found = patient.found.raw, patient.found
    if raw.get("analysisType") != "percentile":
        return
    if found.percentile is None:
        yield Finding(
            "percentile",
            "broken",
            "it is analysed by percentile, but which one is not set",
            "LaunchDarkly needs the number",
            f"ldinstrument metrics update {found.key} percentileValue=95",
        )
        return
    yield Finding(
        "percentile",
        "ok" if not found.zero_fill else "warning",
        f"p{found.percentile} over the units, not over the events",
        "it cannot be in a funnel, and with CUPED LaunchDarkly uses the mean",
    )


METRIC_CHECKS: tuple[Callable[[Patient], Iterator[Finding]], ...] = (
    _archived,
    _kind,
    _definition,
    _event_key,
    _analysis_units,
    _percentile,
    _zero_fill,
    _said_here,
    _seen_locally,
    _last_seen,
    _experiments,
)


def examine_all(api: MetricsAPI, catalog: Iterable[Metric]) -> tuple[list[Finding], dict[str, list[Finding]]]:
    """The shared links, and what is wrong with each metric of *catalog* (an empty list: nothing is).

    Returns:
        The findings about token and project; and by metric key those that are not `ok`.
    """
    wanted = {metric.key: metric for metric in catalog}
    shared = access(api)
    if shared[-1].status == "broken":
        return shared, {}
    health = _health(api)
    return shared, {
        key: [link for link in _walk(key, api, wanted, health) if link.status in ("broken", "warning")]
        for key in wanted
    }
