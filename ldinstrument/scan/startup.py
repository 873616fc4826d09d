"""`bootstrap`: plan and apply in one call, for the start of a program."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, overload

from ..diagnostics import log, log_internal_error, warn_once
from ..errors import LDInstrumentError, PlanError, StrictError
from ..metrics import catalogs
from ..metrics.metric import Metric
from ..metrics.standard import STANDARD_METRICS
from ..plans.applying import carry_out, refuse_errors
from ..plans.changes import Change, Plan
from ..plans.comparing import places, plan
from ..process import on_exit, on_fork, start_thread
from ..rest import MetricsAPI
from ..rest.credentials import Token
from ..settings import disabled
from .loaded import standard_metrics_in_use

SETTLE_SECONDS = 0.5
EXIT_SECONDS = 2.0
"""How long a program that ends at once waits for its metrics."""


if TYPE_CHECKING:  # the docstring is the implementation's

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
        project: the project key; None takes `LAUNCHDARKLY_PROJECT`, or `default`.
        catalog: which metrics; None takes the default catalog, but for the standard metrics that
            no loaded module uses, which `ldinstrument plan` leaves out, too.
        token: an API access token; None searches for one.
        base_uri: `us`, `eu`, `federal` or a URL; None takes the environment's.
        timeout: seconds for everything together; with `wait=False`, for each time.
        wait: False is for the start of a service: the work happens on a daemon thread, this returns
            None at once, and whatever goes wrong is one line in the log. What is declared or first
            used later (by middleware, a URLconf, task modules) is created, too.

    Returns:
        The applied plan; an empty one with `LDINSTRUMENT_DISABLED=1`; None with `wait=False`.

    Raises:
        CredentialsError, PlanError, ApiError: only with `wait=True`.
    """
    if disabled():
        return Plan(project or "", "") if wait else None
    source = catalogs.catalog if catalog is None else catalog
    needed = _needed_by(source)

    def ensure(metrics: Sequence[Metric]) -> Plan:
        deadline = time.monotonic() + timeout
        with MetricsAPI(project, token=token, base_uri=base_uri, deadline=deadline) as api:
            return _bootstrap(metrics, places(source), api, strictly=wait)

    if wait:
        return ensure(needed())
    _Background(source, needed, ensure).start()
    return None


def _needed_by(source: Iterable[Metric]) -> Callable[[], list[Metric]]:
    """Return what tells which metrics of *source* are needed, also later.

    Of the default catalog's standard metrics those in use, or all, where the source of a loaded
    module cannot be read. It is read here, on the caller's thread: CPython's `ast.parse` may fail
    in two threads at once, and the other one may be the host's.
    """
    used = standard_metrics_in_use() if source is catalogs.catalog else None
    if used is None:
        return lambda: list(source)
    catalog, keys = catalogs.catalog, used
    return lambda: [
        metric
        for metric in list(catalog)
        if metric not in STANDARD_METRICS or metric.key in keys or catalog.in_use(metric)
    ]


class _Background:
    """Ensures metrics on a daemon thread: those of now, then those that are declared later.

    Middleware, a URLconf and task modules often declare theirs after `bootstrap` was called. Each
    change of the catalog starts a thread, unless one is at work, which then goes round once more.
    """

    def __init__(
        self,
        source: Iterable[Metric],
        needed: Callable[[], list[Metric]],
        ensure: Callable[[Sequence[Metric]], Plan],
    ) -> None:
        self._source = source
        self._needed = needed
        self._ensure = ensure
        # A snapshot, so that what is created first does not depend on how fast the thread starts.
        self._wanted = needed()
        self._ensured: set[str] = set()
        self._forked()

    def _forked(self) -> None:
        """Begin with the locks of a process in which no thread of ours runs."""
        self._lock = threading.Lock()
        self._running = self._again = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Ensure what is declared, and listen for more when the source is a `Catalog`."""
        if isinstance(self._source, catalogs.Catalog):
            on_fork(in_child=self._forked)
            self._source.on_change(self._run)
            self._source.on_use(self._used)
        on_exit(self._finish)
        self._run()

    def _finish(self) -> None:
        """Let a program that ends at once have its metrics all the same."""
        if self._thread is not None:
            self._thread.join(EXIT_SECONDS)

    def _run(self) -> None:
        with self._lock:
            self._again = True
            if self._running:
                return
            self._running = True
        self._thread = start_thread("bootstrap", self._work) or self._thread

    def _used(self) -> None:
        """Create a standard metric that is used, and that the modules loaded before did not
        show.
        """
        catalog = catalogs.catalog
        if any(
            catalog.in_use(metric) and metric.key not in self._ensured
            for metric in STANDARD_METRICS
        ):
            self._run()

    def _work(self) -> None:
        wanted, self._wanted = self._wanted, []
        self._ensure_all(wanted)
        tried = {metric.key for metric in wanted}
        while self._goes_on():  # also once when this thread is new: more may have come before it
            if any(metric.key not in tried for metric in self._missing()):
                time.sleep(SETTLE_SECONDS)  # what one module declares is one call
                self._ensure_all(self._missing())
            tried = set()

    def _ensure_all(self, wanted: Sequence[Metric]) -> None:
        # What fails is tried again with the next metric that is declared.
        if wanted and _quietly(self._ensure, wanted):
            self._ensured.update(metric.key for metric in wanted)

    def _missing(self) -> list[Metric]:
        return [metric for metric in self._needed() if metric.key not in self._ensured]

    def _goes_on(self) -> bool:
        with self._lock:
            self._running, self._again = self._again, False
            return self._running


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
        _say_drift(change)
    for finer in done.finer:
        warn_once("finer", finer.found.key, finer.advice())
    for remark in (*done.remarks, *(advice for _, advice in done.missing_units)):
        warn_once("bootstrap", remark, remark)


def _say_drift(change: Change) -> None:
    fields = [difference.field for difference in change.differences if not difference.label]
    warn_once(
        "drift",
        change.metric.key,
        f"metric {change.metric.key!r} in LaunchDarkly differs from the code in "
        f"{', '.join(fields)}; see: ldinstrument plan",
    )


def _quietly(ensure: Callable[[Sequence[Metric]], Plan], wanted: Sequence[Metric]) -> bool:
    """Ensure *wanted*, tell whether it worked; the host hears of a failure in one log line."""
    try:
        ensure(wanted)
        return True
    except LDInstrumentError as error:
        with contextlib.suppress(StrictError):  # nobody on this thread would catch it
            warn_once(
                "bootstrap",
                type(error).__name__,
                f"LaunchDarkly's metrics were not checked: {error}",
            )
    except Exception as error:
        log_internal_error("bootstrap", error)
    return False
