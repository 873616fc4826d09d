"""The options that every request boundary takes, documented once: `RequestOptions`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from ..errors import DefinitionError
from ..sessions.clients import Tracker
from .visitors import Secret, Visitors, visitors_for

if TYPE_CHECKING:
    from ..stores import SessionStore


class RequestOptions(TypedDict, total=False):
    """Options of `SessionMiddleware` (WSGI, ASGI, Django) and of `flask.instrument`.

    Args:
        name: the prefix of the session's metrics: `<name>.duration`, `<name>.success_rate`,
            `<name>.interactions`. By default `request`, or `session` with a store.
        websocket: the same for websockets, by default `websocket`: they last for minutes and would
            spoil the durations of requests. None makes no sessions for them. With a store they are
            part of the visit, and of this only None matters.
        client: takes the events; by default the client that `ldinstrument` finds when they leave.
        metrics: which metrics of the session are wanted, by suffix; by default `duration`,
            `success_rate` and `interactions`, and on request `successes` and `unfinished`.
        request_metrics: whether each request is a unit of its own, too, as guarded rollouts want
            it: `http.request.duration_ms`, `http.response.4xx` and `http.response.5xx` for the
            context that `request_context()` gives.
        ignore: path patterns (as in `fnmatch`: `/static/*`) that make no session; health checks
            never make one.
        baggage: whether the session goes on under the id that arrives as W3C baggage
            (`session.id`), as it does by default. Anybody can send one: it is a label in the data
            of events, and never decides whose the session is, nor which visit it belongs to.
        store: a store, or its address such as `sqlite:///sessions.db`: a session then is a visit
            of many requests, over all workers, and ends in the store (see `ldinstrument.stores`).
        cookie: with a store: the cookie that carries a signed, random visitor id, or its name.
            False sends none, and visits go by context.
        header: a request header that may carry the same, for clients without cookies; the response
            has it, too.
        secret: signs the id, the same in all workers; by default `LDINSTRUMENT_SECRET`. Of several,
            the first signs and all are accepted. Without any, no id is sent, which is logged, and
            visits go by context.
    """

    name: str | None
    websocket: str | None
    client: Tracker | None
    metrics: Iterable[str]
    request_metrics: bool
    ignore: Iterable[str]
    baggage: bool
    store: SessionStore | str | Path | None
    cookie: bool | str
    header: str | None
    secret: Secret


OPTIONS = frozenset(RequestOptions.__annotations__)


def check_options(where: str, options: Mapping[str, Any], known: frozenset[str] = OPTIONS) -> None:
    """Refuse an option that does not exist.

    Raises:
        DefinitionError: names it, and those that exist.
    """
    if unknown := sorted(options.keys() - known):
        raise DefinitionError(
            f"{where}: unknown {', '.join(unknown)}; the options are {', '.join(sorted(known))}"
        )


def store_of(options: RequestOptions) -> SessionStore | None:
    """Return the store of *options*; one that is given by its address is opened."""
    store = options.get("store")
    if not isinstance(store, (str, Path)):
        return store
    from ..stores import open_store

    return open_store(store)


def visitors_of(options: RequestOptions) -> Visitors | None:
    """Return who reads and writes visitors' ids; None without a store, or to mark nobody."""
    if options.get("store") is None:
        return None
    return visitors_for(options.get("cookie", True), options.get("header"), options.get("secret"))


def ignored_paths(options: RequestOptions) -> list[str]:
    """Return the path patterns of *options*; a single one may be given as it is."""
    ignore = options.get("ignore", ())
    return [ignore] if isinstance(ignore, str) else list(ignore)
