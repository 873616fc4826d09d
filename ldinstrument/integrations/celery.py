"""Celery: what a task does in a worker belongs to whoever asked for it.

```python
app = Celery(...)
instrument(app)
```

A task sent from within a session takes its context (kinds and keys, no attributes) and its id along
in a message header. In the worker each run is a session of its own, called `job`, for that context;
with a store it is part of the visit that it was sent from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..diagnostics import guard
from ..errors import missing_extra
from ..sessions.accounts import DEFAULT_METRICS
from ..sessions.baggage import HEADER as BAGGAGE
from ..sessions.clients import Tracker, restart_clients
from ..sessions.contexts import kinds
from ..sessions.current import current_session
from ..sessions.outcomes import Outcome
from ..sessions.registry import end_open_sessions
from .request_session import RequestSession, RequestSessionFactory, request_of_visit

if TYPE_CHECKING:
    from ldclient import Context


try:
    from celery import signals
except ImportError as error:
    raise missing_extra("celery", "celery") from error

HEADER = "ldinstrument"
START_SECONDS = 2.0
"""How long a pool process waits for flags: Celery kills one that takes four seconds to begin."""
App = TypeVar("App")


def instrument(
    app: App,
    context: Any = None,
    *,
    name: str | None = None,
    client: Tracker | None = None,
    store: Any = None,
    metrics: Iterable[str] = DEFAULT_METRICS,
    flush_timeout: float = 2.0,
) -> App:
    """Give every run of a task of *app* a session, for the context of the session that sent the
    task.

    The run is an interaction: a success when the task returns, a failure when it raises; a retry, a
    rejected or an ignored run is neither. Pool processes get their LaunchDarkly client going after
    the fork, and end and flush before they exit, because no `atexit` runs in them.

    Args:
        app: the Celery application; call this where it is made, in the sending and in the working
            program. Doing it twice is harmless.
        context: whose runs these are instead of the sender's: a Context, a key of kind `user`, or a
            callable that is given the task (`task.request` has its arguments). None, also as its
            answer, means the sender's.
        name: the prefix of the session's metrics: `<name>.duration`, `<name>.success_rate`,
            `<name>.interactions`. None is `job`, or `session` with a store.
        client: takes the events; the `ldclient` singleton at the moment of emission when None.
        store: the store that the sender's boundary has, or its address: what a run records then
            joins the visit.
        metrics: which metrics of the session are wanted, by suffix; on request also `successes` and
            `unfinished`.
        flush_timeout: seconds that the end of a pool process, or of the worker, may wait for
            delivery.

    Returns:
        *app*.
    """
    name = name or ("job" if store is None else None)
    # A run finds its visit by the sender's message: no cookie.
    sessions = RequestSessionFactory(
        context, name=name, client=client, store=store, metrics=metrics, cookie=False
    )
    sessions.remember_open()
    runs = Runs(app, sessions, flush_timeout)
    connect(signals.before_task_publish, runs.send, HEADER)
    connect(signals.task_prerun, runs.begin, (HEADER, id(app)))
    connect(signals.task_postrun, runs.end, (HEADER, id(app)))
    connect(signals.worker_process_init, runs.forked, HEADER)
    connect(signals.worker_process_shutdown, runs.stop_process, HEADER)
    connect(signals.worker_shutdown, runs.stop_worker, (HEADER, id(app)))
    return app


def connect(signal: Any, receiver: Any, uid: Any) -> None:
    """Connect *receiver* to *signal*, once per *uid*, however often this is called."""
    signal.connect(receiver, weak=False, dispatch_uid=(uid, receiver.__name__))


class Runs:
    """The receivers of Celery's signals: what happens to a task on its way.

    Celery logs what a receiver raises.
    """

    def __init__(self, app: Any, sessions: RequestSessionFactory, flush_timeout: float) -> None:
        self._app = app
        self._sessions = sessions
        self._flush_timeout = flush_timeout

    # -- in the sending program --------------------------------------------------------------------
    def send(self, headers: dict[str, Any] | None = None, **_: Any) -> None:
        """Let a task that is about to be sent take the session's context along."""
        sender = _current_sender()
        if sender is not None and headers is not None:
            headers[HEADER] = packed(sender)

    # -- in the worker -----------------------------------------------------------------------------
    def begin(self, task: Any = None, **_: Any) -> None:
        """Open the session of a run; it is current until the run ends."""
        if task is None or task.app is not self._app:
            return
        sender = _sender_of(task)
        who = self._sessions.source.ask(task)
        run = self._sessions.open(
            who=sender.context if who is None else who,
            baggage=_baggage_of(task),
        )
        run.visitor = sender.visitor
        if run.session is not None and run.store is None:
            run.session.add_data(task=task.name, parentSessionId=sender.session_id)
        task.request.ldinstrument_run = run
        run.resume()

    def end(self, task: Any = None, state: str | None = None, **_: Any) -> None:
        """End the session of a run that has ended."""
        run = getattr(getattr(task, "request", None), "ldinstrument_run", None)
        if isinstance(run, RequestSession):
            task.request.ldinstrument_run = None
            run.pause()
            finish(run, state or "", task.request.retries or 0)

    # -- the worker's life -------------------------------------------------------------------------
    def forked(self, **_: Any) -> None:
        """Restart the clients that a pool process inherited: their threads are gone."""
        restart_clients(START_SECONDS, self._sessions.client)

    def stop_process(self, **_: Any) -> None:
        """End and flush everything in a pool process that is about to exit."""
        end_open_sessions("abandoned")
        self._flush()

    def stop_worker(self, **_: Any) -> None:
        """End the runs of a worker that stops; its process may go on with something else."""
        self._sessions.end_open()
        self._flush()

    def _flush(self) -> None:
        from ..delivery import flush

        flush(self._flush_timeout)


def finish(run: RequestSession, state: str, retries: int) -> None:
    """Set a run's outcome by Celery's *state*, and end its session."""
    outcome, reason = _ENDINGS.get(state, (Outcome.CANCELLED, "abandoned"))
    run.set_outcome(outcome, reason)
    if run.session is not None and run.store is None:
        run.session.add_data(state=state, retries=retries)
    run.end()


_ENDINGS = {
    "SUCCESS": (Outcome.SUCCESS, "ended"),
    "FAILURE": (Outcome.FAILURE, "error"),
    # It goes on elsewhere, or later, or is somebody else's.
    "RETRY": (Outcome.SUSPENDED, "abandoned"),
    "IGNORED": (Outcome.SUSPENDED, "abandoned"),
    "REJECTED": (Outcome.SUSPENDED, "abandoned"),
}


# -- the header ------------------------------------------------------------------------------------


class TaskSender(NamedTuple):
    """Where a task comes from.

    Args:
        context: of the session that sent it.
        session_id: of that session.
        visitor: of the visit that it was part of, where there is a store.
    """

    context: Context | None = None
    session_id: str | None = None
    visitor: str | None = None


def _current_sender() -> TaskSender | None:
    session = current_session()
    if session is None:
        return None
    request = request_of_visit(session)
    return TaskSender(session.context, session.id, None if request is None else request.visitor)


def _sender_of(task: Any) -> TaskSender:
    """Return whose session sent the task: as the message says, or, when it runs eagerly, the one
    that is current here.
    """
    header = getattr(task.request, HEADER, None)
    if header is not None:
        return unpacked(header)
    return (_current_sender() if task.request.is_eager else None) or TaskSender()


def _baggage_of(task: Any) -> Any:
    """Return what OpenTelemetry's instrumentor of the sender has put into the message."""
    headers = getattr(task.request, "headers", None)
    eager = headers.get(BAGGAGE) if isinstance(headers, dict) else None
    return getattr(task.request, BAGGAGE, None) or eager


def packed(sender: TaskSender) -> str:
    """Return a header: kinds and keys of the context, which of them are anonymous, and the ids.

    The context's other attributes stay at home.
    """
    known = {} if sender.context is None else kinds(sender.context)
    parts = [[kind, part.key, part.anonymous] for kind, part in known.items()]
    return json.dumps({"context": parts, "session": sender.session_id, "visitor": sender.visitor})


def unpacked(header: Any) -> TaskSender:
    """Return what a header says; nothing, when it is not ours."""
    from ldclient import Context

    with guard("celery header"):
        told = json.loads(header)
        parts = [
            Context.builder(key).kind(kind).anonymous(anonymous).build()
            for kind, key, anonymous in told["context"]
        ]
        context = Context.create_multi(*parts) if parts else None
        valid = context if context is not None and context.valid else None
        return TaskSender(valid, told.get("session"), told.get("visitor"))
    return TaskSender()
