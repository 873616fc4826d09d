"""Accounts: what the `session.*` events of one identity tell, and which of them are wanted.

An account belongs to context kinds and their keys. Another key of a kind ends that kind's account
and opens one; the accounts of kinds that stay go on. Kinds that began together share an account.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import DefinitionError
from ..metrics.catalogs import catalog
from ..metrics.metric import check_key
from ..metrics.standard import DEFAULT_SESSION_METRICS, SESSION_METRICS, session_metrics
from ..values import Fields
from .outcomes import NO_TALLIES, Tallies, added
from .parts import Segment

DEFAULT_METRICS = DEFAULT_SESSION_METRICS
SUMS = ("interactions", "successes")
"""By suffix, the metrics that add up over parts of a session."""


def checked_metrics(metrics: Iterable[str]) -> tuple[str, ...]:
    """Return which `session.*` metrics are wanted, by suffix.

    Raises:
        DefinitionError: there is no such metric.
    """
    try:
        wanted = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    except TypeError:
        raise DefinitionError(
            f"session: metrics: give suffixes, such as ('duration', 'unfinished'), not "
            f"{type(metrics).__name__}"
        ) from None
    for suffix in wanted:
        if suffix not in SESSION_METRICS:
            raise DefinitionError(
                f"session: metrics: {suffix!r} is not one of {', '.join(SESSION_METRICS)}"
            )
    return wanted


def declare_session_metrics(name: str, metrics: Iterable[str] = DEFAULT_METRICS) -> None:
    """Declare the metrics of the sessions called *name*, but for those that the program has defined
    itself.
    """
    wanted = tuple(metrics)
    keys = [f"{name}.{suffix}" for suffix in wanted]
    catalog.declare_implied(name, keys, lambda: session_metrics(name, wanted))


def declared_metrics(name: str, metrics: Iterable[str]) -> tuple[str, ...]:
    """Check and declare the metrics of the sessions called *name*; return their suffixes.

    Raises:
        DefinitionError: there is no such metric, or *name* cannot prefix one.
    """
    if metrics is DEFAULT_METRICS and declared.get(name) == catalog.version:
        return DEFAULT_METRICS
    check_key("session name", name)
    wanted = checked_metrics(metrics)
    declare_session_metrics(name, wanted)
    if wanted == DEFAULT_METRICS and len(declared) < MOST_DECLARED:
        declared[name] = catalog.version
    return wanted


MOST_DECLARED = 1_000
declared: dict[Any, int] = {}
"""With which version of the catalog the default metrics of sessions of a name were declared."""


class Piece(Fields):
    """Interactions that lie before an exposure, and the date that they leave with."""

    __slots__ = ("interactions", "successes", "at")

    def __init__(
        self,
        interactions: int,
        successes: int,
        at: int,
    ) -> None:
        self.interactions = interactions
        self.successes = successes
        self.at = at


class SessionAccount(Fields):
    """The session of one identity.

    Args:
        keys: its keys by context kind; empty while nobody is known.
        began: its start, in the unit of `Segment.began`.
        tallies: its interactions.
        last: its last activity; None while there was none.
        pieces: what of its interactions lies before its last exposure.
        before: its last activity before the first exposure in it; None while there was none.
        exposed: whether there was an exposure in it.
        counted: the date of its last interactions, which another identity may have ended.
    """

    __slots__ = (
        "keys",
        "began",
        "tallies",
        "last",
        "pieces",
        "before",
        "exposed",
        "counted",
    )

    def __init__(
        self,
        keys: dict[str, str],
        began: float,
        tallies: Tallies = NO_TALLIES,
        last: float | None = None,
        pieces: Iterable[Piece] = (),
        before: float | None = None,
        exposed: bool = False,
        counted: int = 0,
    ) -> None:
        self.keys = keys
        self.began = began
        self.tallies = tallies
        self.last = last
        self.pieces = list(pieces)
        self.before = before
        self.exposed = exposed
        self.counted = counted

    def add(self, segment: Segment) -> None:
        """Add *segment*, after those before it."""
        if segment.tallies is not NO_TALLIES:
            self.tallies = added(self.tallies, segment.tallies)
            if segment.tallies[0] or segment.tallies[1]:
                self.counted = segment.last
        if segment.active is not None:
            self.last = segment.active if self.last is None else max(self.last, segment.active)
        if segment.exposed:
            if not self.exposed:
                self.exposed, self.before = True, self.last
            # Nothing may have come since the identity changed: an exposure that widened it may
            # follow another of the same millisecond, after which no date is left before it.
            self.divide(min(segment.last, self.counted))

    @property
    def before_ms(self) -> float | None:
        """Milliseconds up to its last activity before its first exposure; None without any."""
        return None if self.before is None else (self.before - self.began) * 1000

    def divide(self, at: int) -> None:
        """Let the interactions since the last exposure leave dated *at*: another one follows."""
        successes, failures, *_ = self.tallies
        interactions = successes + failures - sum(piece.interactions for piece in self.pieces)
        successes -= sum(piece.successes for piece in self.pieces)
        if interactions:
            self.pieces.append(Piece(interactions, successes, at))

    def split_off(self, kinds: Iterable[str]) -> SessionAccount:
        """Take *kinds* out, as an account of their own with the same past."""
        gone = {kind: self.keys.pop(kind) for kind in kinds}
        return self.replace(keys=gone)


class Accounts:
    """The open accounts of one session.

    Args:
        keys: the first identity's.
        began: the start of the session.
    """

    def __init__(self, keys: Mapping[str, str], began: float) -> None:
        self.open = [SessionAccount(dict(keys), began)]

    def add(self, segment: Segment) -> None:
        """Add *segment* to all of them."""
        for account in self.open:
            account.add(segment)

    def past(self, date: Callable[[float], int]) -> tuple[Segment, ...]:
        """Return what the first of them has counted, as a segment; *date* dates clock readings."""
        account = self.open[0]
        if account.last is None:
            return ()
        first, last = date(account.began), date(account.last)
        began, active, tallies = account.began, account.last, account.tallies
        return (Segment(account.keys, first, last, tallies, (), began, active, exposed=True),)

    def identify(self, keys: Mapping[str, str], at: float) -> list[SessionAccount]:
        """Change the identity to *keys*, *at* the time of a boundary.

        Returns:
            The accounts that have ended with it.
        """
        ended = []
        for account in list(self.open):
            changed = [kind for kind, key in account.keys.items() if keys.get(kind, key) != key]
            if changed:
                ended.append(account.split_off(changed))
                if not account.keys:
                    self.open.remove(account)
        self._open_new(keys, at)
        return ended

    def _open_new(self, keys: Mapping[str, str], at: float) -> None:
        known = {kind for account in self.open for kind in account.keys}
        new = {kind: key for kind, key in keys.items() if kind not in known}
        if not new:
            return
        for account in self.open:
            if not account.keys or account.last is None:
                # Nobody was known, or nothing has happened yet: it is theirs from the start.
                account.keys.update(new)
                return
        self.open.append(SessionAccount(new, at))


def fed_metrics(
    name: str, metrics: tuple[str, ...], keys: Mapping[str, str], all_keys: Mapping[str, str]
) -> tuple[str, ...]:
    """Return which of *metrics* an account feeds: not those analysed by a kind of another one.

    Args:
        name: the prefix of the metrics.
        metrics: by suffix.
        keys: the account's, by context kind.
        all_keys: the session's.
    """
    others = all_keys.keys() - keys.keys()
    units = {suffix: catalog.routing(f"{name}.{suffix}").analysis_units for suffix in metrics}
    return tuple(
        suffix
        for suffix in metrics
        if not (wanted := units[suffix]) or not wanted.isdisjoint(keys) or wanted.isdisjoint(others)
    )
