"""Runs of LaunchDarkly's AI configs: a model call bound to one carries its data, and what
LaunchDarkly's SDK leaves out of its own events is added, never what it has sent.

Both SDKs measure survivors: a call that is cancelled, timed out or abandoned sends nothing, one
that fails no tokens, a stream no time to first token. The old SDK (`ldai`) has a tracker per run,
which says what it has sent; the new one (`launchdarkly_ai_server`) sends the same set each time,
and only its handlers see the run.
"""

from __future__ import annotations

import base64
import json
import sys
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from ..ledger import ledger
from ..sessions.contexts import as_context
from ..sessions.emission import emit
from ..sessions.outcomes import Outcome
from ..sessions.rollups import Emission
from ..sessions.session import Session
from .fields import field, path
from .usage import Generation

_SCALARS = (str, int, float, bool)
_FEEDBACK = {True: "$ld:ai:feedback:user:positive", False: "$ld:ai:feedback:user:negative"}


@dataclass(frozen=True, slots=True, eq=False)
class ConfigRun:
    """One run of an AI config.

    Args:
        data: `runId`, `configKey`, `variationKey` and the rest, as LaunchDarkly's own events of
            this run carry it.
        context: whose run it is, where that is known.
        tracker: of the old SDK, which sends this run's events; None: nobody's.
    """

    data: dict[str, Any]
    context: Any = None
    tracker: Any = None

    def settle(self, outcome: Outcome, ended: CallEnd) -> None:
        """Add what LaunchDarkly's SDK has not sent of a call that ended so."""
        if self.tracker is not None:
            _settle_tracker(self.tracker, outcome, ended)
        else:
            _settle_handler(self, outcome, ended)

    def feedback(self, positive: bool, context: Any = None, client: Any = None) -> None:
        """Send the user's feedback on this run, once where a tracker knows."""
        if self.tracker is not None:
            _tracker_feedback(self.tracker, positive)
        else:
            self.send(_FEEDBACK[positive], 1, context, client)

    def send(self, key: str, value: float, context: Any = None, client: Any = None) -> None:
        """Send one event of LaunchDarkly's own with this run's data."""
        whose = context if context is not None else as_context(self.context)
        ledger.count(recorded=1)
        event = Emission(key, value, dict(self.data), int(time.time() * 1000))
        emit(event, whose, client if client is not None else _client_of_the_new_sdk())


@dataclass(frozen=True, slots=True)
class CallEnd:
    """What is known of a call at its end.

    Args:
        known: usage and the rest.
        duration: milliseconds.
        first_token: milliseconds to the first token; None when there was none, or no stream.
        usage_sent: whether LaunchDarkly's SDK was given the usage, and sends it.
    """

    known: Generation
    duration: float
    first_token: float | None
    usage_sent: bool = False


# -- from what the user gives ----------------------------------------------------------------------


def run_from(given: Any) -> ConfigRun | None:
    """Return the run that *given* stands for: a tracker or a config of the old SDK, of which a new
    run is begun; a response or the `variables["__ld"]` of the new one. None when it is none of
    these.
    """
    create = field(given, "create_tracker")  # a stored function: a mock has none
    if callable(create):
        return _run_of_tracker(create(), given)
    if all(hasattr(type(given), name) for name in ("get_summary", "resumption_token")):
        return _run_of_tracker(given, None)
    data = given if isinstance(given, Mapping) else field(given, "track_data")
    return run_of(data) if isinstance(data, Mapping) else None


def run_told_by(result: Any) -> ConfigRun | None:
    """Return the run that a managed call of the old SDK was, which has sent its events itself."""
    token = path(result, "metrics", "resumption_token")
    return run_of(_resumed(token)) if type(token) is str else None


def run_of(data: Mapping[str, Any], context: Any = None) -> ConfigRun | None:
    """Return the run that *data* names; None when it names none."""
    if not all(isinstance(data.get(name), str) for name in ("runId", "configKey")):
        return None
    return ConfigRun(
        {
            name: value
            for name, value in data.items()
            if isinstance(value, _SCALARS) and value != ""
        },
        context,
    )


def _run_of_tracker(tracker: Any, config: Any) -> ConfigRun | None:
    data = _resumed(tracker.resumption_token)
    names = {
        "modelName": getattr(getattr(config, "model", None), "name", None),
        "providerName": getattr(getattr(config, "provider", None), "name", None),
    }
    found = run_of({**data, **{name: value for name, value in names.items() if value}})
    return None if found is None else ConfigRun(found.data, tracker=tracker)


def _resumed(token: str) -> dict[str, Any]:
    """Return what the tracker's public token says: base64 of a JSON object."""
    text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    found = json.loads(text)
    return found if isinstance(found, dict) else {}


# -- what is missing -------------------------------------------------------------------------------


def _settle_tracker(tracker: Any, outcome: Outcome, ended: CallEnd) -> None:
    """Give the tracker what nobody has given it; it sends each thing once."""
    summary, usage = tracker.get_summary(), ended.known.usage
    if ended.first_token is not None and summary.time_to_first_token is None:
        tracker.track_time_to_first_token(int(ended.first_token))
    if not outcome.finished:  # where it broke off says nothing of how long a generation takes
        return
    if summary.duration_ms is None:
        tracker.track_duration(int(ended.duration))
    if summary.success is None:
        (tracker.track_success if outcome is Outcome.SUCCESS else tracker.track_error)()
    if summary.tokens is None and usage is not None and None not in (usage.input, usage.output):
        from ldai.tracker import TokenUsage

        tracker.track_tokens(TokenUsage(usage.total or 0, usage.input or 0, usage.output or 0))


def _settle_handler(run: ConfigRun, outcome: Outcome, ended: CallEnd) -> None:
    """Send time to first token, which the new SDK never does, and tokens that it was not given."""
    if ended.first_token is not None:
        run.send("$ld:ai:tokens:ttf", int(ended.first_token))
    usage = ended.known.usage
    if ended.usage_sent or not outcome.finished or usage is None:
        return
    for name, tokens in (("total", usage.total), ("input", usage.input), ("output", usage.output)):
        if tokens and None not in (usage.input, usage.output):
            run.send(f"$ld:ai:tokens:{name}", tokens)


def _tracker_feedback(tracker: Any, positive: bool) -> None:
    if tracker.get_summary().feedback is None:
        from ldai.tracker import FeedbackKind

        kind = FeedbackKind.Positive if positive else FeedbackKind.Negative
        tracker.track_feedback({"kind": kind})


def adopt_context(session: Session | None, given: Any) -> None:
    """Let a session that nobody is known in belong to the context that an AI config was evaluated
    for, whichever client `init_client` was given: not every client lets evaluations be seen.
    """
    if session is None or session.ended or session.context is not None:
        return
    context, client = as_context(given), _client_of_the_new_sdk()
    if context is not None:
        session.see_exposure(context, None if client is None else weakref.ref(client))


def _client_of_the_new_sdk() -> Any:
    """Return the client that `init_client` was given; None: the usual one."""
    module = sys.modules.get("launchdarkly_ai_server")
    if module is None:
        return None
    try:
        return module.get_client()
    except RuntimeError:  # not initialised
        return None


# -- the latest run of a session -------------------------------------------------------------------

_latest: WeakKeyDictionary[Session, ConfigRun] = WeakKeyDictionary()


def note_run(session: Session | None, run: ConfigRun) -> None:
    """Remember *run* as the latest one of *session*: what feedback given there is about."""
    if session is not None:
        _latest[session] = run


def latest_run(session: Session | None) -> ConfigRun | None:
    """Return the latest run of *session*, or of one around it."""
    while session is not None:
        if (found := _latest.get(session)) is not None:
            return found
        session = session.outer
    return None
