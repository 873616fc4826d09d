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
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from .. import sdk
from ..diagnostics import log_internal_error
from ..errors import missing_extra
from ..sessions.contexts import kinds
from ..sessions.current import current_session
from ..sessions.emission import Tracker
from ..sessions.outcomes import Outcome
from ..sessions.registry import end_open_sessions
from .request_session import Boundary, RequestSession, visit_of

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
        flush_timeout: seconds that the end of a pool process, or of the worker, may wait for
            delivery.

    Returns:
        *app*.
    """
    boundary = Boundary(
        context, name=name or ("job" if store is None else None), client=client, store=store
    )
    runs = Runs(app, boundary, flush_timeout)
    connect(signals.before_task_publish, runs.send, HEADER)
    connect(signals.task_prerun, runs.begin, (HEADER, id(app)))
    connect(signals.task_postrun, runs.end, (HEADER, id(app)))
    connect(signals.worker_process_init, runs.forked, HEADER)
    connect(signals.worker_process_shutdown, runs.stop, HEADER)
    connect(signals.worker_shutdown, runs.stop, HEADER)
    return app


def connect(signal: Any, receiver: Any, uid: Any) -> None:
    """Let *receiver* hear *signal*, once per *uid*, however often this is called."""
    signal.connect(receiver, weak=False, dispatch_uid=(uid, receiver.__name__))


class Runs:
    """What happens to a task on its way, as Celery's signals tell it."""

    def __init__(self, app: Any, boundary: Boundary, flush_timeout: float) -> None:
        self._app = app
        self._boundary = boundary
        self._flush_timeout = flush_timeout

    # -- in the sending program ------------------------------------------------------------------
    def send(self, headers: dict[str, Any] | None = None, **_: Any) -> None:
        """A task is about to be sent: it takes the session's context along."""
        session = current_session()
        if session is not None and headers is not None:
            visit = visit_of(session)
            headers[HEADER] = packed(
                session.context, session.id, None if visit is None else visit.visitor
            )

    # -- in the worker ---------------------------------------------------------------------------
    def begin(self, task: Any = None, **_: Any) -> None:
        """A run begins: its session is current until it ends. Celery logs what a signal's receiver
        raises.
        """
        if task is None or task.app is not self._app:
            return
        sender = self._sender(task)
        who = self._boundary.who(task)
        run = self._boundary.open()
        run.visitor = sender.visitor
        run.identify(sender.context if who is None else who)
        if run.session is not None and run.store is None:
            run.session.add_data(task=task.name, parentSessionId=sender.session_id)
        task.request.ldinstrument_run = run
        run.resume()

    def _sender(self, task: Any) -> Sender:
        """Whose session sent the task: as the message says, or, when it runs eagerly, the one that
        is current here.
        """
        header = getattr(task.request, HEADER, None)
        if header is not None:
            return unpacked(header)
        session = current_session() if task.request.is_eager else None
        visit = visit_of(session)
        return Sender(
            None if session is None else session.context,
            None if session is None else session.id,
            None if visit is None else visit.visitor,
        )

    def end(self, task: Any = None, state: str | None = None, **_: Any) -> None:
        """A run has ended."""
        run = getattr(getattr(task, "request", None), "ldinstrument_run", None)
        if isinstance(run, RequestSession):
            task.request.ldinstrument_run = None
            run.pause()
            finish(run, state or "", task.request.retries or 0)

    # -- the worker's life -----------------------------------------------------------------------
    def forked(self, **_: Any) -> None:
        """A pool process begins: the client that it inherited has no threads any more."""
        client = self._boundary.client or sdk.singleton_client()
        postfork = getattr(client, "postfork", None)
        if postfork is not None:
            postfork(START_SECONDS)

    def stop(self, **_: Any) -> None:
        """A pool process, or the worker, is about to exit."""
        from ..delivery import flush

        end_open_sessions("abandoned")
        flush(self._flush_timeout)


def finish(run: RequestSession, state: str, retries: int) -> None:
    """Judge a run by Celery's *state*, and end its session; a run that will be repeated was no
    interaction.
    """
    outcome = {"SUCCESS": Outcome.SUCCESS, "FAILURE": Outcome.FAILURE}.get(state, Outcome.CANCELLED)
    run.judge(
        outcome, {Outcome.SUCCESS: "ended", Outcome.FAILURE: "error"}.get(outcome, "abandoned")
    )
    if run.session is not None and run.store is None:
        run.session.add_data(state=state, retries=retries)
    run.end()


# -- the header ------------------------------------------------------------------------------------


class Sender(NamedTuple):
    """Where a task comes from: its context, the session's id, and the visit's visitor where there
    is a store.
    """

    context: Context | None = None
    session_id: str | None = None
    visitor: str | None = None


def packed(context: Context | None, session_id: str, visitor: str | None = None) -> str:
    """Kinds and keys of *context*, and which of them are anonymous; its other attributes stay at
    home.
    """
    known = {} if context is None else kinds(context)
    parts = [[kind, part.key, part.anonymous] for kind, part in known.items()]
    return json.dumps({"context": parts, "session": session_id, "visitor": visitor})


def unpacked(header: Any) -> Sender:
    """What a header says; nothing, when it is not ours."""
    from ldclient import Context

    try:
        told = json.loads(header)
        parts = [
            Context.builder(key).kind(kind).anonymous(anonymous).build()
            for kind, key, anonymous in told["context"]
        ]
        context = Context.create_multi(*parts) if parts else None
        valid = context if context is not None and context.valid else None
        return Sender(valid, told.get("session"), told.get("visitor"))
    except Exception as error:
        log_internal_error("celery header", error)
        return Sender()
