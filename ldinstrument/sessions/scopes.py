"""`session(...)`: a `with` block, an `async with` block or a decorator around what belongs to one
session.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..callables.compiler import shaped, stream_shaped
from ..callables.decorating import Rebinder, rebuilt
from ..callables.streams import notice_frameworks, settled, settled_awaited
from ..callables.templates import TEMPLATES
from ..diagnostics import warn_user_code
from ..errors import DefinitionError, StrictError
from ..metrics.catalogs import catalog
from ..settings import DISABLED_KEY, disabled, encoded, environ, scans
from . import registry  # noqa: F401 - it ends at exit what is open
from .accounts import DEFAULT_METRICS, declared, declared_metrics
from .clients import Tracker
from .contexts import as_context, is_function, same
from .current import EntryStack, current_session, current_variable, set_current
from .ids import session_id
from .inert import InertSession
from .outcomes import Outcome, current_task, is_closing, outcome_of
from .postponed import postpone
from .session import Session, observers

if TYPE_CHECKING:
    from ldclient import Context

    from ..callables.decorating import Decorated
    from .observers import SessionObserver


F = TypeVar("F", bound="Decorated")


# -- opening ---------------------------------------------------------------------------------------


def open_session(context: Any = None, *, id: str | None = None, **options: Any) -> Session:
    """Open a session without making it current; somebody must `end()` it.

    Args:
        context: whose; anything that `as_context` takes.
        id: of the session; random when None.
        options: of `Session`.
    """
    if (scans or DISABLED_KEY in encoded or os.environ is not environ) and disabled():
        return InertSession(None, id=id, name=options.get("name", "session"))
    return Session(context, id=id, **options)


def observe_sessions(make: Callable[[Session], SessionObserver] | None) -> None:
    """Let *make* give each session that is opened from now on its observer; None: none."""
    observers[:] = [] if make is None else [make]


def joinable(
    around: Session, name: str, context: Context | None, id: str | None, client: Tracker | None
) -> Session | None:
    """Return the open session, *around* or around that, which one of this *name* and *context*
    joins; None when there is none.
    """
    found: Session | None = around
    while found is not None:
        if (
            found.name == name
            and not found.ended
            and (id is None or session_id(id) == found.id)
            and (client is None or client is found.client)
            and (context is None or found.context is None or same(found.context, context))
        ):
            return found
        found = found.outer
    return None


# -- scopes ----------------------------------------------------------------------------------------


class Joined:
    """A stay in a session that somebody else opened: leaving does not end it."""

    __slots__ = ("before", "session")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.before: Session | None = None


Entered = Session | Joined
"""What is entered: a session that was opened for it, or a stay in one."""


def _session_of(entered: Entered) -> Session:
    return entered.session if isinstance(entered, Joined) else entered


def _is_current(entered: Entered) -> bool:
    """Tell whether the session of *entered* is the current one, innermost."""
    return current_variable.get() is _session_of(entered)


def _end(entered: Entered, error: BaseException | None = None) -> None:
    """End the session where it was opened: because *error* came out, when there is one."""
    if isinstance(entered, Joined):
        entered.session.leave()
        return
    if error is None:
        entered.end()
        return
    reason = _REASONS[outcome_of(error)]
    if is_closing(error):  # perhaps the garbage collector's doing: emit from a safe place
        postpone(functools.partial(entered.end, reason))
    else:
        entered.end(reason)


_REASONS = {
    Outcome.SUCCESS: "ended",  # SystemExit(0)
    Outcome.FAILURE: "error",
    Outcome.CANCELLED: "abandoned",  # where it broke off says nothing of how long it takes
    Outcome.ABANDONED: "ended",  # the consumer of a stream had enough
    Outcome.SUSPENDED: "abandoned",  # it goes on elsewhere, so this is not how long it takes
}


class SessionScope:
    """What `session(...)` returns: enter it with `with` or `async with`, or decorate with it.
    Reusable.
    """

    __slots__ = (
        "_client",
        "_context",
        "_data",
        "_entries",
        "_id",
        "_metrics",
        "_name",
        "_rebinder",
        "_store",
    )

    def __init__(
        self,
        context: Any = None,
        *,
        id: str | None = None,
        name: str = "session",
        data: Mapping[str, Any] | None = None,
        client: Tracker | None = None,
        store: Any = None,
        metrics: Iterable[str] = DEFAULT_METRICS,
    ) -> None:
        self._context = context
        self._id = id
        self._name = name
        self._data = data
        self._client = client
        self._store = store if store is None else _checked_store(store)
        if metrics is not DEFAULT_METRICS or declared.get(name) != catalog.version:
            metrics = declared_metrics(name, metrics)
        self._metrics = tuple(metrics)
        self._entries: EntryStack[Entered] = EntryStack()
        self._rebinder: Rebinder | None = None

    # -- with, async with ------------------------------------------------------------------------
    def __enter__(self) -> Session:
        entered = self._begin((), {})
        session = entered.session if isinstance(entered, Joined) else entered
        entered.before = current_variable.get()
        try:
            current_variable.set(session)

            # As `EntryStack.push` notes it: who asks for the task in vain pays for it.
            asyncio = sys.modules.get("asyncio")
            on_loop = asyncio is not None and asyncio._get_running_loop() is not None
            task = current_task() if on_loop else None
            self._entries.append((threading.get_ident(), task, entered))
        except BaseException as error:  # a signal's handler: there will be no `__exit__`
            current_variable.set(entered.before)
            self._entries[:] = [entry for entry in self._entries if entry[2] is not entered]
            _end(entered, error)
            raise
        return session

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        entries = self._entries
        try:  # mostly there is one, and no question whose
            entered = entries.pop(0)[2] if len(entries) == 1 else entries.take(_is_current)
        except IndexError:  # another thread left it meanwhile
            entered = entries.take(_is_current)
        if entered is None:
            return

        session = entered.session if isinstance(entered, Joined) else entered
        if current_variable.get() is session:  # else a foreign context, to be left alone
            current_variable.set(entered.before)
        if error is None and entered is session:
            session.end()
        else:
            _end(entered, error)

    async def __aenter__(self) -> Session:
        return self.__enter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.__exit__(kind, error, traceback)

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Entered:
        """Join the session that this one is part of, or open it."""
        if (scans or DISABLED_KEY in encoded or os.environ is not environ) and disabled():
            return InertSession(None, id=self._id, name=self._name)
        who, around = self._context, current_variable.get()
        if around is not None or callable(who):
            who, around = self._told(args, kwargs), current_session()
            joined = None if around is None else self._joining(around, who)
            if joined is not None:
                return joined
        return Session(
            who,
            id=self._id,
            name=self._name,
            data=self._data,
            client=self._client,
            outer=around,
            store=self._store,
            metrics=self._metrics,
        )

    def _told(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Context | None:
        """Return whose the session is; what goes wrong in a function that tells is logged."""
        try:
            who = self._context
            if callable(who) and is_function(who):
                who = who(*args, **kwargs)
            return as_context(who)
        except StrictError:
            raise
        except Exception as error:
            consequence = "the session has no identity until identify()"
            warn_user_code("context= of a session", error, consequence)
            return None

    def _joining(self, around: Session, context: Context | None) -> Joined | None:
        found = joinable(around, self._name, context, self._id, self._client)
        if found is None:
            return None
        if context is not None:
            # It agrees, or it would not join: this names nobody else, it only widens.
            found.identify(context)
        if self._data is not None:
            found.merge_data(self._data)
        return Joined(found)

    if not TYPE_CHECKING:  # where it would allow every name

        def __getattr__(self, name: str) -> Any:
            advice = (
                f": enter it first, with session(...) as s: s.{name}"
                if hasattr(Session, name)
                else ""
            )
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}{advice}"
            )

    # -- the decorator ---------------------------------------------------------------------------
    def __call__(self, fn: F) -> F:
        """Decorate *fn*: each call is a session of its own, to the end of what it returns or
        yields.
        """
        if self._rebinder is None:
            self._rebinder = Rebinder()
        again: F | None = self._rebinder.rebound(fn, lambda: SessionWrapper(self))
        made: F = rebuilt(fn, SessionWrapper(self)) if again is None else again
        return made

    def watch(
        self, streaming: bool, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> SessionWatcher:
        """Begin one call of a decorated function; *streaming*: its steps each end in the context
        they began in.
        """
        return SessionWatcher(self._begin(args, kwargs or {}), streaming=streaming)

    def __reduce__(self) -> Any:
        return _scope, (
            self._context,
            self._id,
            self._name,
            self._data,
            self._client,
            self._store,
            self._metrics,
        )


def _checked_store(store: Any) -> Any:
    if store is not None and not callable(getattr(store, "end_request", None)):
        raise DefinitionError(
            f"session: store: give a store, such as "
            f"ldinstrument.open_store('sqlite:///sessions.db'), "
            f"not a {type(store).__name__}"
        )
    return store


def _scope(
    context: Any,
    id: str | None,
    name: str,
    data: Any,
    client: Any,
    store: Any,
    metrics: tuple[str, ...],
) -> SessionScope:
    return SessionScope(
        context, id=id, name=name, data=data, client=client, store=store, metrics=metrics
    )


@dataclass(frozen=True, slots=True, eq=False)
class SessionWrapper:
    """Wraps functions so that each call is a session."""

    scope: SessionScope
    what: str = "session"

    def wrap(self, fn: Callable[..., Any], kind: str) -> Callable[..., Any]:
        """Make a function that runs *fn* in a session."""
        made: Callable[..., Any] = shaped(
            TEMPLATES[kind], fn, self._names(kind), arguments=is_function(self.scope._context)
        )
        return made

    def stream(self, kind: str) -> Callable[[Any], Any]:
        """Make a function that watches a coroutine or generator that nobody has started yet."""
        return stream_shaped(TEMPLATES[kind], self._names(kind))

    def _names(self, kind: str) -> dict[str, Any]:
        notice_frameworks()
        begin = functools.partial(self.scope.watch, kind != "coroutine")
        return {"_begin": begin, "_settle": settled_awaited if kind == "coroutine" else settled}


class SessionWatcher:
    """Watches one call or stream: the session is swapped in by value around each resume, and ends
    with it.
    """

    __slots__ = ("_entered", "_mine", "_streaming")
    delegates = False

    def __init__(self, entered: Entered, *, streaming: bool) -> None:
        self._entered = entered
        self._mine: Session | None = _session_of(entered)
        self._streaming = streaming

    def resume(self) -> None:
        """In: remember what the consumer has, put mine in its place."""
        self._entered.before = set_current(self._mine)

    def pause(self) -> None:
        """Out: give the consumer its own back, and remember mine (the body may have entered another
        session).

        A coroutine that ends in a foreign context, where mine is not current, leaves everything
        alone.
        """
        if self._streaming:
            self._mine = set_current(self._entered.before)
            return
        if _is_current(self._entered):
            current_variable.set(self._entered.before)
        self._streaming = True  # what comes now, if anything, is the stream that the call returned

    def first(self) -> None:
        """Nothing to note."""

    def unstarted(self) -> None:
        """End the session: nobody wanted the stream."""
        _end(self._entered)

    def returned(self, result: Any) -> None:
        """End the session with the stream."""
        _end(self._entered)

    def raised(self, error: BaseException) -> None:
        """End the session with the stream; a consumer that had enough is no error."""
        _end(self._entered, error)


if TYPE_CHECKING:  # the docstring is the implementation's

    @overload
    def session(target: F, /) -> F: ...

    @overload
    def session(
        target: Context | str | Mapping[str, Any] | None = None,
        /,
        *,
        context: Context | str | Mapping[str, Any] | Callable[..., Any] | None = None,
        id: str | None = None,
        name: str = "session",
        data: Mapping[str, Any] | None = None,
        client: Tracker | None = None,
        store: Any = None,
        metrics: Iterable[str] = DEFAULT_METRICS,
    ) -> SessionScope: ...


def session(
    target: Any = None,
    /,
    *,
    context: Any = None,
    id: str | None = None,
    name: str = "session",
    data: Mapping[str, Any] | None = None,
    client: Tracker | None = None,
    store: Any = None,
    metrics: Iterable[str] = DEFAULT_METRICS,
) -> Any:
    """Open a session around a block or a function; when it ends, its metrics leave as `track`
    events.

    `with ld.session("user-123") as s:`, `async with`, `@ld.session`, `@ld.session(context=lambda
    request: ...)`. Inside a session of the same name and context it joins that one; otherwise the
        innermost receives.

    Args:
        target: whose session: an `ldclient.Context`, or a key of kind `user`. A function: decorate
            it.
        context: the same, or a callable that is given the decorated function's own arguments.
        id: the session's id, `sessionId` in the data of its events; random when None.
        name: the prefix of its metrics: `<name>.duration`, `<name>.success_rate`,
            `<name>.interactions`.
        data: goes with its `<name>.*` events.
        client: takes the events; the `ldclient` singleton at the moment of emission when None.
        store: keeps a session that outlives this block (see `ldinstrument.stores`).
        metrics: which of `duration`, `success_rate`, `interactions`, `successes` and `unfinished`
            to send for it.

    Raises:
        DefinitionError: at definition, for a name that cannot prefix a metric, or a decorated
            class.
    """
    if target is not None and context is not None:
        raise DefinitionError(
            "session: give the context once, as the first argument or as context="
        )
    decorated = (callable(target) or issubclass(type(target), _DESCRIPTORS)) and _is_decorated(
        target
    )
    scope = SessionScope(
        context if decorated or target is None else target,
        id=id,
        name=name,
        data=data,
        client=client,
        store=store,
        metrics=metrics,
    )
    return scope(target) if decorated else scope


_DESCRIPTORS = (classmethod, property, functools.cached_property)


def _is_decorated(target: Any) -> bool:
    if getattr(target, "__name__", "") == "<lambda>":
        raise DefinitionError(
            "session: a lambda that says whose session it is goes in as context=lambda ...: ..."
        )
    return isinstance(target, (staticmethod, *_DESCRIPTORS)) or is_function(target)
