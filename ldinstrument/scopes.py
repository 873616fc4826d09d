"""`session(...)`: a `with` block, an `async with` block or a decorator around what belongs to one session."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from .contexts import as_context
from .decorating import rebuilt
from .emission import Tracker, disabled
from .errors import DefinitionError, StrictError
from .following import follow
from .following import async_generator as watched_async_generator
from .following import generator as watched_generator
from .ledger import ledger
from .metrics import check_key
from .sessions import (
    Session,
    _current,
    current_session,
    joinable,
    open_session,
    session_event_keys,
    set_current,
)

if TYPE_CHECKING:
    from ldclient import Context

P = ParamSpec("P")
R = TypeVar("R")


class Visit:
    """One stay in a session: it was opened here, or joined; leaving ends it only where it was opened."""

    __slots__ = ("before", "joined", "session")

    def __init__(self, session: Session, *, joined: bool) -> None:
        self.session = session
        self.joined = joined
        self.before: Session | None = None

    def enter(self) -> None:
        """Make the session current."""
        self.before = set_current(self.session)

    def leave(self) -> None:
        """Restore what was current; in a foreign context, where ours is not current, leave everything alone."""
        if _current.get() is self.session:
            set_current(self.before)

    def end(self, error: BaseException | None = None) -> None:
        """End the session where it was opened."""
        if not self.joined:
            self.session.end("ended" if error is None else "error")


class SessionScope:
    """What `session(...)` returns: enter it with `with` or `async with`, or decorate with it. Reusable."""

    def __init__(
        self,
        context: Any = None,
        *,
        id: str | None = None,
        name: str = "session",
        data: Mapping[str, Any] | None = None,
        client: Tracker | None = None,
        store: Any = None,
    ) -> None:
        self._context = context
        self._id = id
        self._name = check_key("session name", name)
        self._data = data
        self._client = client
        self._store = store
        self._visits: list[Visit] = []
        self._lock = threading.Lock()
        session_event_keys(name)

    # -- with, async with ------------------------------------------------------------------------
    def __enter__(self) -> Session:
        visit = self._visit((), {})
        with self._lock:
            self._visits.append(visit)
        visit.enter()
        return visit.session

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        visit = self._leaving()
        if visit is not None:
            visit.leave()
            visit.end(error)

    async def __aenter__(self) -> Session:
        return self.__enter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.__exit__(kind, error, traceback)

    def _leaving(self) -> Visit | None:
        """The visit that ends here: one scope may be entered by many threads and tasks at once."""
        here = _current.get()
        with self._lock:
            mine = next((visit for visit in reversed(self._visits) if visit.session is here), None)
            if mine is None and self._visits:
                mine = self._visits[-1]
            if mine is not None:
                self._visits.remove(mine)
        return mine

    def _visit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Visit:
        context = self._who(args, kwargs)
        found = None if disabled() else joinable(self._name, context, self._id, self._client)
        if found is None:
            opened = open_session(
                context, id=self._id, name=self._name, data=self._data, client=self._client,
                outer=current_session(), store=self._store,
            )  # fmt: skip
            return Visit(opened, joined=False)
        if context is not None and found.context is None:
            found.identify(context)
        return Visit(found, joined=True)

    def _who(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Context | None:
        try:
            return as_context(self._context(*args, **kwargs) if _is_extractor(self._context) else self._context)
        except StrictError:
            raise
        except Exception as error:
            ledger.failure("context extractor", error)
            return None

    # -- the decorator ---------------------------------------------------------------------------
    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Decorate *fn*: each call is a session of its own, to the end of what it returns or yields."""
        return rebuilt(fn, self._wrap, "session")

    def _wrap(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(fn):
            return self._wrap_coroutine(fn)
        if inspect.isgeneratorfunction(fn):
            return self._wrap_generator(fn)
        if inspect.isasyncgenfunction(fn):
            return self._wrap_async_generator(fn)
        return self._wrap_plain(fn)

    def _wrap_plain(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def run(*args: Any, **kwargs: Any) -> Any:
            visit = self._visit(args, kwargs)
            visit.enter()
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                visit.leave()
                visit.end(error)
                raise
            visit.leave()
            running = follow(result, _Stay(visit))
            if running is not None:
                return running
            visit.end()
            return result

        return run

    def _wrap_coroutine(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        async def run(*args: Any, **kwargs: Any) -> Any:
            visit = self._visit(args, kwargs)
            visit.enter()
            try:
                result = await fn(*args, **kwargs)
            except BaseException as error:
                visit.leave()
                visit.end(error)
                raise
            visit.leave()
            visit.end()
            return result

        return run

    def _wrap_generator(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def run(*args: Any, **kwargs: Any) -> Any:
            stay = _Stay(self._visit(args, kwargs))
            return (yield from watched_generator(fn(*args, **kwargs), stay))

        return run

    def _wrap_async_generator(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        # An async generator cannot delegate with `yield from`: the watched one is driven by one more loop, whose
        # ends (close, throw, exhaustion) pass through it.
        @functools.wraps(fn)
        async def run(*args: Any, **kwargs: Any) -> Any:
            inner = watched_async_generator(fn(*args, **kwargs), _Stay(self._visit(args, kwargs)))
            step: Callable[[], Any] = inner.__anext__
            while True:
                try:
                    item = await step()
                except StopAsyncIteration:
                    return
                try:
                    sent = yield item
                except GeneratorExit:
                    await inner.aclose()
                    raise
                except BaseException as error:
                    step = functools.partial(inner.athrow, error)
                else:
                    step = functools.partial(inner.asend, sent)

        return run


class _Stay:
    """Watches a stream: the session is swapped in by value around each resume, and ends with it."""

    __slots__ = ("_mine", "_visit")

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._mine: Session | None = visit.session

    def resume(self) -> None:
        """In: remember what the consumer has, put mine in its place."""
        self._visit.before = set_current(self._mine)

    def pause(self) -> None:
        """Out: remember mine (the body may have entered another session), give the consumer its own back."""
        self._mine = set_current(self._visit.before)

    def first(self) -> None:
        """Nothing to note."""

    def returned(self, result: Any) -> None:
        """The session ends with the stream."""
        self._visit.end()

    def raised(self, error: BaseException) -> None:
        """The session ends with the stream; a consumer that had enough is no error."""
        if isinstance(error, GeneratorExit):
            # Perhaps the garbage collector's doing: emit later, from a safe place.
            from .emission import postpone

            postpone(self._visit.end)
        else:
            self._visit.end(error)


def _is_extractor(context: Any) -> bool:
    return callable(context) and not isinstance(context, (str, Mapping))


@overload
def session(target: Callable[P, R], /) -> Callable[P, R]: ...


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
) -> Any:
    """Open a session around a block or a function; when it ends, its metrics leave as `track` events.

    `with ld.session("user-123") as s:`, `async with`, `@ld.session`, `@ld.session(context=lambda request: ...)`.
    Inside a session of the same name and context it joins that one; otherwise the innermost receives.

    Args:
        target: whose session: an `ldclient.Context`, or a key of kind `user`. A function: decorate it.
        context: the same, or a callable that is given the decorated function's own arguments.
        id: the session's id, `sessionId` in the data of its events; random when None.
        name: the prefix of its metrics: `<name>.duration`, `<name>.success_rate`, `<name>.interactions`.
        data: goes with its `<name>.*` events.
        client: takes the events; the `ldclient` singleton at the moment of emission when None.
        store: keeps a session that outlives this block (see `ldinstrument.stores`).

    Raises:
        DefinitionError: at definition, for a name that cannot prefix a metric, or a decorated class.
    """
    scope = functools.partial(SessionScope, id=id, name=name, data=data, client=client, store=store)
    if target is not None and context is not None:
        raise DefinitionError("session: give the context once, as the first argument or as context=")
    if _is_function(target):
        return scope(context)(target)
    return scope(target if target is not None else context)


def _is_function(target: Any) -> bool:
    if isinstance(target, (classmethod, staticmethod, property, functools.cached_property)):
        return True
    return callable(target) and not isinstance(target, (str, Mapping))
