"""`bootstrap`: plan and apply in one call, for the start of a program."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, overload

from ..diagnostics import log, log_internal_error, warn_once
from ..errors import LDInstrumentError, PlanError, StrictError
from ..metrics import catalogs
from ..metrics.metric import Metric
from ..rest import MetricsAPI
from ..rest.credentials import Token
from ..settings import disabled
from .applying import carry_out, refuse_errors
from .changes import Plan
from .comparing import places, plan


@overload
def bootstrap(
    project: str | None = None,
    *,
    catalog: Iterable[Metric] | None = None,
    token: str | Token | None = None,
    base_uri: str | None = None,
    timeout: float = 30.0,
    wait: Literal[True] = True,
) -> Plan: ...


@overload
def bootstrap(
    project: str | None = None,
    *,
    catalog: Iterable[Metric] | None = None,
    token: str | Token | None = None,
    base_uri: str | None = None,
    timeout: float = 30.0,
    wait: bool,
) -> Plan | None: ...


def bootstrap(
    project: str | None = None,
    *,
    catalog: Iterable[Metric] | None = None,
    token: str | Token | None = None,
    base_uri: str | None = None,
    timeout: float = 30.0,
    wait: bool = True,
) -> Plan | None:
    """Make sure that LaunchDarkly has every metric of *catalog*: create what is missing, report
    drift, change nothing.

    Idempotent, and safe when many processes start at once. Call it after the modules that declare
    metrics are imported.

    Args:
        project: the project key; None takes `LAUNCHDARKLY_PROJECT`, or `default` on a local
            LaunchDarkly.
        catalog: which metrics; None takes the default catalog.
        token: an API access token; None searches for one.
        base_uri: `us`, `eu`, `federal` or a URL; None takes the environment's.
        timeout: seconds for everything together.
        wait: False is for the start of a service: the work happens on a daemon thread, this returns
            None at once, and whatever goes wrong is one line in the log.

    Returns:
        The applied plan; an empty one with `LDINSTRUMENT_DISABLED=1`; None with `wait=False`.

    Raises:
        CredentialsError, PlanError, ApiError: only with `wait=True`.

    """
    if disabled():
        return Plan(project or "", "") if wait else None
    source = catalogs.catalog if catalog is None else catalog
    # A snapshot, so that what is created does not depend on how fast the thread starts.
    wanted = list(source)
    place = places(source)
    deadline = time.monotonic() + timeout

    def work() -> Plan:
        with MetricsAPI(project, token=token, base_uri=base_uri, deadline=deadline) as api:
            return _bootstrap(wanted, place, api, strictly=wait)

    if wait:
        return work()
    threading.Thread(
        target=_quietly, args=(work,), name="ldinstrument-bootstrap", daemon=True
    ).start()
    return None


def _bootstrap(
    wanted: Sequence[Metric], place: Callable[[str], str], api: MetricsAPI, *, strictly: bool
) -> Plan:
    for remark in api.token.remarks:
        warn_once("credentials", remark, remark)
    made = plan(wanted, api, unmanaged=False, place=place)
    if strictly:
        refuse_errors(made.errors)
    # Not strictly: one metric that must not be applied is no reason to go without the others.
    done = carry_out(made, api, shuffled=True)
    if strictly:
        for change in done.failed:
            if change.failure is not None:
                raise change.failure
        for change in done.errors:
            # Known only since somebody else's turned out to have the key.
            raise PlanError(f"{change.metric.key}: {change.problem}")
    _say(done)
    return done


def _say(done: Plan) -> None:
    created = [change.metric.key for change in done.changes if change.result == "created"]
    if created:
        log.info("created in LaunchDarkly project %s: %s", done.project, ", ".join(created))
    for change in done.failed:
        warn_once(
            "bootstrap",
            change.metric.key,
            f"metric {change.metric.key!r} was not created: {change.failure}",
        )
    for change in done.errors:
        warn_once("bootstrap", change.metric.key, f"metric {change.metric.key!r}: {change.problem}")
    for change in done.drift:
        fields = ", ".join(
            difference.field for difference in change.differences if not difference.label
        )
        warn_once(
            "drift",
            change.metric.key,
            f"metric {change.metric.key!r} in LaunchDarkly differs from the code in {fields}; see: "
            ""
            ""
            "ldinstrument plan",
        )
    for finer in done.finer:
        warn_once("finer", finer.found.key, finer.advice())
    for remark in (*done.remarks, *(advice for _, advice in done.missing_units)):
        warn_once("bootstrap", remark, remark)


def _quietly(work: Callable[[], Plan]) -> None:
    """Run *work* on a thread of its own; the host hears of a failure in one line and in no other
    way.
    """
    try:
        work()
    except LDInstrumentError as error:
        with contextlib.suppress(StrictError):
            warn_once(
                "bootstrap",
                type(error).__name__,
                f"LaunchDarkly's metrics were not checked: {error}",
            )
    except Exception as error:
        log_internal_error("bootstrap", error)
