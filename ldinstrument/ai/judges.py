"""Scores of LaunchDarkly's judges as metrics of the session: `judge.<key>`, 0 to 1, averaged.

LaunchDarkly's SDKs send a judge's score under the key that the judge's config names, for the
context of the call. As a metric of the session it stands beside what the session did, also when the
judge ran later, in another process.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..diagnostics import guard
from ..metrics.catalogs import catalog
from ..metrics.metric import Metric
from ..sessions.clients import Tracker
from ..sessions.contexts import as_context
from ..sessions.current import current_session
from ..sessions.scopes import open_session
from ..sessions.session import Session
from .fields import field, package_of, text

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


def track_judge(
    result: Any,
    *,
    key: str | None = None,
    session: Session | None = None,
    context: Any = None,
    client: Tracker | None = None,
) -> int:
    """Record the scores of *result* as `judge.<key>`; return how many there were.

    Args:
        result: of either SDK: a `JudgeRunResult` or `JudgeResult`, a response with `judge_results`,
            a list of these, or a mapping of key to score.
        key: of the judge, where *result* does not name it.
        session: the current one when None.
        context: whose, where there is no session: the one that was judged, as for a judge that
            runs later.
        client: as of the other `track_*`.
    """
    found = list(_scores(result, key))
    with guard("track_judge"):
        receiver = session or (current_session() if context is None else None)
        own = None
        if receiver is None:
            receiver = own = open_session(
                as_context(context), name="task", client=client, silent=True
            )
        for name, score, data in found:
            receiver.record(_metric(name), score, data=data or None)
        if own is not None:
            own.end()
    return len(found)


def track_judges_of(result: Any, session: Session) -> None:
    """Record the scores that come with *result*, a response of either SDK, now or once they are
    there: the old one's judges run in a task of their own.
    """
    if isinstance(field(result, "judge_results"), dict):
        track_judge(result, session=session)
    task = field(result, "evaluations")
    if task is not None and package_of(type(result)) == "ldai":
        with guard("track_judge"):
            task.add_done_callback(functools.partial(_judged, session))


def _judged(session: Session, task: Any) -> None:
    with guard("track_judge", strict=False):
        if not task.cancelled() and task.exception() is None:
            track_judge(task.result(), session=session)


def _metric(name: str) -> str:
    key = f"judge.{_UNFIT.sub('-', name)}"
    catalog.declare_implied(key, [key], lambda: [_definition(key, name)])
    return key


def _definition(key: str, name: str) -> Metric:
    return Metric(
        key,
        unit="ratio",
        success_criteria="HigherThanBaseline",
        name=f"Judge: {name}",
        description="The judge's score of an answer, 0 to 1. Define it yourself, with "
        "LowerThanBaseline, for a judge whose low scores are good.",
    )


_Scored = tuple[str, float, dict[str, Any]]


def _scores(result: Any, key: str | None) -> Iterator[_Scored]:
    """Yield key, score and data of each score in *result*."""
    if isinstance(result, (list, tuple)):
        for part in result:
            yield from _scores(part, key)
        return
    several = field(result, "judge_results") or field(result, "results")
    if isinstance(several, Mapping):
        data = _data(field(result, "track_data"))
        for name, part in several.items():
            yield from ((found, score, data) for found, score, _ in _scores(part, str(name)))
        return
    score = field(result, "score")
    if type(score) in (int, float):
        data = _data(field(result, "track_data"))
        name = key or text(result, "judge_config_key") or data.get("judgeConfigKey")
        if name:
            yield str(name), float(score), data
    elif isinstance(result, Mapping):
        yield from (
            (str(name), float(value), {})
            for name, value in result.items()
            if type(value) in (int, float)
        )


def _data(given: Any) -> dict[str, Any]:
    """Return the run's own data: scalars, as LaunchDarkly's event filters see them."""
    if not isinstance(given, Mapping):
        return {}
    return {name: value for name, value in given.items() if isinstance(value, (str, int, float))}
