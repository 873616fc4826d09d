"""Which client takes an event when the program does not say, and which exposures are seen.

A client is known here when it carries our `Plugin` or was given to `attach`; delivery tells.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from .. import sdk
from ..diagnostics import guard, warn_once
from .clock import clock

if TYPE_CHECKING:
    from ldclient import Context


class Tracker(Protocol):
    """Whatever takes an event: `LDClient` and `AsyncLDClient` fit as they are."""

    def track(
        self,
        event_name: str,
        context: Context,
        data: Any | None = None,
        metric_value: Any | None = None,
    ) -> None:
        """Queue one event; must not wait."""


class _Ambiguous:
    """Stands for several clients of different environments, none of which is meant."""

    def track(self, *_: Any) -> None:
        """Take nothing."""


AMBIGUOUS: Tracker = _Ambiguous()

_lock = threading.RLock()
_known: list[weakref.ref[Any]] = []
_environments: dict[Any, int] = {}
"""In the order in which they became known; one per SDK key and address."""
_seen: weakref.WeakSet[Any] = weakref.WeakSet()
_recorder: Tracker | None = None


class DirectClient(weakref.ref[Any]):
    """A client that takes itself what is meant for it, and whose exposures are seen."""

    __slots__ = ("taken_by",)
    taken_by: tuple[Any, Callable[..., bool] | None]
    """What `sdk.track_path` returned of it, and what `sdk.batch_taker` did then: as long as the one
    stays the same, the other does.
    """


flag_prefixes: dict[int, str] = {}
"""By `id()` of a client: what stands before its flags' keys in the table of exposures. Clients of
the first environment that was known in this process have none.
"""
direct: dict[int, DirectClient] = {}
"""By `id()`: look here before asking `client_for`, `exposures_are_seen` and `find_taker`; it is
empty while a test records.
"""


def register(client: Any, *, exposures_seen: bool) -> None:
    """Note that *client* exists.

    Args:
        client: an `LDClient` or an `AsyncLDClient`.
        exposures_seen: whether its exposures are seen, and its events can be dated.
    """
    with _lock:
        _known[:] = [known for known in _known if known() not in (None, client)]
        _known.append(weakref.ref(client))
        if exposures_seen:
            _seen.add(client)
        _find_flag_prefix(client)
        _find_direct()


def _find_flag_prefix(client: Any) -> None:
    number = _environments.setdefault(sdk.environment_of(client), len(_environments))
    flag_prefixes.pop(id(client), None)  # of one that is gone
    if number:
        flag_prefixes[id(client)] = f"{number}:"


def _find_direct() -> None:
    direct.clear()
    if _recorder is None:
        for client in list(_seen):
            known = DirectClient(client)
            known.taken_by = None, None
            direct[id(client)] = known


def known_clients() -> list[Any]:
    """Return the known clients that still take events, oldest first."""
    found = [reference() for reference in list(_known)]
    return [client for client in found if client is not None and not sdk.has_ended(client)]


def restart_clients(start_wait: float, given: Any = None) -> None:
    """Restart the clients that a forked child has inherited: their flags, hooks and events.

    Args:
        start_wait: seconds that all of them together may wait for their flags.
        given: one that need not be known here.
    """
    latest = clock() + start_wait
    found = [client_for(given), sdk.singleton_client(), *known_clients()]
    for client in {id(client): client for client in found}.values():
        postfork = getattr(client, "postfork", None)
        if postfork is not None:
            with guard("postfork"):
                postfork(max(0.0, latest - clock()))


def set_recorder(recorder: Tracker | None) -> Tracker | None:
    """Send everything to *recorder*, whichever client it was meant for (tests); returns the one
    before.
    """
    global _recorder
    before, _recorder = _recorder, recorder
    _find_direct()
    return before


def recorder() -> Tracker | None:
    """Return what records everything instead of sending it (tests)."""
    return _recorder


def client_for(given: Tracker | None, seen: weakref.ref[Any] | None = None) -> Tracker | None:
    """Find the client that takes a session's events.

    Args:
        given: the one that the program has named.
        seen: the one whose exposure the session saw last.

    Returns:
        A test's recorder; else *given*; else *seen*; else the `ldclient` singleton; else the newest
        known client, or `AMBIGUOUS` when there are several that do not share one environment. None
        while there is none: events then wait.
    """
    if _recorder is not None:
        return _recorder
    if given is not None:
        if type(given).__module__.startswith("openfeature."):
            return _behind_openfeature(given)
        return given
    evaluated: Tracker | None = seen() if seen is not None else None
    if evaluated is not None and not sdk.has_ended(evaluated):
        return evaluated
    singleton: Tracker | None = sdk.singleton_client()
    if singleton is not None:
        return singleton
    found = known_clients()
    environments = {sdk.environment_of(client) for client in found}
    to_come = sdk.environment_of_singleton()
    if not found or (to_come is not None and environments != {to_come}):
        return None
    newest: Tracker = found[-1]
    return newest if len(environments) == 1 else AMBIGUOUS


def _behind_openfeature(client: Any) -> Tracker:
    """Return the LaunchDarkly client of an OpenFeature *client*'s provider."""
    with guard("an OpenFeature client"):
        found: Tracker | None = getattr(client.provider, "client", None)
        if found is not None:
            return found
    return cast("Tracker", client)


def find_taker(client: Tracker) -> Callable[..., bool] | None:
    """Return what takes a session's events for *client* at once, or None where each is tracked;
    note it, where the client is one of `direct`.
    """
    path, known = None, direct.get(id(client))
    if known is not None and known() is client:
        with contextlib.suppress(AttributeError):
            path = sdk.track_path(client)
    take: Callable[..., bool] | None = sdk.batch_taker(client)
    if known is not None and path is not None:
        known.taken_by = path, take
    return take


def exposures_are_seen(client: Any) -> bool:
    """Tell whether the exposures that *client* makes are seen by this process, and its events can
    be dated.

    Where there is no client, nothing is evaluated; of an object that is no LaunchDarkly client,
    nothing is known.
    """
    if client is None or client is AMBIGUOUS or client in _seen:
        return True
    owner = sdk.event_processor_of(client)
    return getattr(client if owner is None else owner, "sees_exposures", False) is True


def warn_unwatched(client: object) -> None:
    """Say it once when *client* is one of LaunchDarkly's, and nobody sees its exposures."""
    if sdk.event_processor_of(client) is not None and not sdk.discards_everything(client):
        warn_once(
            "unwatched_client",
            "",
            "the exposures of a LaunchDarkly client are not seen, so sessions send its events one "
            "by one: give it plugins=[ldinstrument.Plugin()], or call ldinstrument.attach(client)",
        )


def check_client(client: object) -> None:
    """Say it once when *client* cannot take events; they will be dropped one by one."""
    if client is not None and (
        isinstance(client, type) or not callable(getattr(client, "track", None))
    ):
        warn_once(
            "bad_client",
            type(client).__name__,
            f"client: a {type(client).__name__} has no track(); give an LDClient, such as "
            f"ldclient.get() with its parentheses",
        )


def forget() -> None:
    """Forget which clients there are (tests)."""
    with _lock:
        _known.clear()
        _seen.clear()
        direct.clear()
        flag_prefixes.clear()
        _environments.clear()


def forked() -> None:
    """Begin with a lock of one's own in a forked child; clients are copied by a fork."""
    global _lock
    _lock = threading.RLock()
