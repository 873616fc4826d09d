"""Report what has ended in a store. Report: the payload that ended sessions become. Outlet: where
payloads leave, by the connections of a LaunchDarkly client or through a client of another kind.
Sweep: seal, send, acknowledge.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypedDict

from .. import sdk
from ..backoff import Disposition, disposition, retry_delay
from ..delivery.transport import (
    PostHeaders,
    PostResult,
    Transport,
    body_of,
    texts_of,
    transport_of,
)
from ..delivery.worker import worker_of
from ..diagnostics import log_once, raise_if_interrupted
from ..ledger import ledger
from ..sessions import clients
from ..sessions.contexts import json_of_keys
from ..sessions.dilution import EndedSession, note_ended, note_unseen
from ..sessions.rollups import finite
from .circuit_breaker import describe_failure
from .deltas import UNREADABLE
from .protocol import Ended, Rules, Sealed, Store
from .records import readable
from .replay import events_of

_PAYLOADS = uuid.UUID("5f0b4a0e-6f0c-4b67-9d1c-0a7d3b1f5c11")
"""The namespace of payload ids."""
BATCH = 500
"""Sessions in a payload, at most."""
LEASE = 60.0
MAX_AGE = 24 * 3600.0
"""Seconds after which LaunchDarkly may have forgotten a payload id, so that sending it again could
count twice.
"""


class Report:
    """What a batch of ended sessions becomes: payloads, and what is dropped.

    The id of a payload follows from the sessions inside, so that a store that comes back older, and
    reports them again, makes no second report of it. Nothing is counted until `count`, because
    sealing may have to be repeated.

    Args:
        ended: the batch.
        rules: name the reason of an end that nobody gave one.
        zipped: whether to compress.
    """

    def __init__(self, ended: Iterable[Ended], rules: Rules, zipped: bool) -> None:
        self.dropped: Counter[str] = Counter()
        self.totals = 0
        self._ended: list[EndedSession] = []
        self._unseen: Counter[str] = Counter()
        self._rules = rules
        self._texts: list[str] = []
        self._identities: list[str] = []
        self._digests: list[str] = []
        for session in ended:
            self._add(session.text)
        self.payloads: list[Sealed] = []
        if self._texts:
            id = str(uuid.uuid5(_PAYLOADS, "\n".join(sorted(self._identities))))
            body = body_of(map(str.encode, self._texts), zipped)
            digests = tuple(self._digests)
            self.payloads.append(Sealed(id, body, len(self._texts), zipped, sessions=digests))

    def _add(self, text: str) -> None:
        """Add the events of one session."""
        record = readable(text)
        try:
            events = None if record is None else events_of(record, self._rules)
        except UNREADABLE:
            events = None
        if record is None or events is None:
            self.dropped["unreadable"] += 1
            return

        # The same text for the same session, whatever was lost of it.
        identity = f"{record.id} {record.opened_at} {record.opened_by} {record.part}"
        self._identities.append(identity)
        # What stands for the session where it is known to be reported; as in `redis.lua`.
        digest = hashlib.sha1(identity.encode(), usedforsecurity=False).hexdigest()
        self._digests.append(digest[:16])
        self.totals += len(events.totals)
        self._ended += events.ended
        if events.unseen:
            self._unseen[record.name] += events.unseen

        sums = [(event, keys) for event, keys in events.values if finite(event)]
        if len(sums) < len(events.values):
            self.dropped["not_a_number"] += len(events.values) - len(sums)
        for event, keys in [*sums, *events.totals]:
            if not keys:
                self.dropped["no_context"] += 1
                continue
            kind, key = keys[0]
            context = {"kind": kind, "key": key} if len(keys) == 1 else json_of_keys(dict(keys))
            # `kind` comes first: `delivery` recognises a custom event by it.
            fields: dict[str, Any] = {"kind": "custom", "creationDate": event.at}
            fields |= {"key": event.event_key, "context": context}
            if event.data is not None:
                fields["data"] = event.data
            if event.value is not None:
                fields["metricValue"] = event.value
            self._texts.append(_event_json(fields))

    def count(self) -> None:
        """Tell the ledger; what was dropped is also logged."""
        ledger.count(recorded=self.totals, emitted_values=self.totals)
        for session in self._ended:
            if session.before is None:
                ledger.session_ended(session.name, session.exposed, session.milliseconds)
            else:
                note_ended(session)
        for name, exposures in self._unseen.items():
            note_unseen(name, exposures)
        for reason, events in self.dropped.items():
            ledger.count(emitted=events)
            ledger.dropped(reason, events)
        if self.dropped["no_context"]:
            log_once(
                "no_context",
                "store",
                "a stored session ended without a context: say whose it is, identify() or "
                "context=; dropped",
            )
        if self.dropped["unreadable"]:
            log_once(
                "unreadable",
                "store",
                "a stored session cannot be read: it is corrupt, or was written by another version "
                "of ldinstrument; dropped",
            )


def halves(payload: Sealed) -> list[Sealed]:
    """Return two payloads with half of the events each; none if it holds a single one."""
    if payload.events < 2:
        return []
    texts = texts_of(payload.body, payload.zipped)
    middle = len(texts) // 2
    first, second = (
        Sealed(
            str(uuid.uuid5(_PAYLOADS, f"{payload.id} {number}")),
            body_of(map(str.encode, part), payload.zipped),
            len(part),
            payload.zipped,
        )
        for number, part in enumerate((texts[:middle], texts[middle:]))
    )
    return [first, replace(second, sessions=payload.sessions)]  # reported with the last of them


_event_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Outlet(Protocol):
    """Where a sealed payload leaves for LaunchDarkly."""

    zipped: bool
    """Whether it wants its payloads compressed."""

    def post(self, payload: Sealed) -> PostResult:
        """Send it once and wait for the answer; never raises."""


class WireOutlet:
    """POST to `<events_uri>/bulk` with the headers, proxies and time-outs of a client's
    configuration.

    Args:
        config: an `ldclient` `Config` or `AsyncConfig`; its key is read anew for each POST.
        transport: made for it; the SDK's own connections when None.
    """

    def __init__(self, config: Any, transport: Transport | None = None) -> None:
        self.zipped = bool(config.enable_event_compression)
        self._headers = PostHeaders(config)
        self._transport = transport or transport_of(config)

    def post(self, payload: Sealed) -> PostResult:
        """Send it once and wait for the answer."""
        try:
            return self._transport.post(payload, self._headers.of(payload.id, payload.zipped))
        except Exception as error:
            raise_if_interrupted(error)
            return PostResult(0, error=type(error).__name__)


class TrackOutlet:
    """Hand events to a client that has no SDK configuration, such as a recording one in a test."""

    zipped = False

    def __init__(self, client: Any) -> None:
        self._client = client

    def post(self, payload: Sealed) -> PostResult:
        """Track every event of the payload."""
        from ldclient import Context

        try:
            for event in json.loads(payload.body):
                context = Context.from_dict(event["context"])
                self._client.track(
                    event["key"], context, event.get("data"), event.get("metricValue")
                )
        except Exception as error:
            raise_if_interrupted(error)
            return PostResult(0, error=type(error).__name__)
        return PostResult(202)


def outlet_of(client: Any | None) -> Outlet | None:
    """Return the outlet of *client* (the `ldclient` singleton when None); None when there is none,
    or it sends nothing.
    """
    if (recorder := clients.recorder()) is not None:
        return TrackOutlet(recorder)
    taker = client if client is not None else sdk.singleton_client()
    if taker is None or sdk.discards_everything(taker):
        return None
    config = getattr(taker, "_config", None)
    if not isinstance(getattr(config, "events_uri", None), str):
        return TrackOutlet(taker)
    engine = worker_of(taker)
    made = engine.options.transport if engine is not None else None
    return WireOutlet(config, made(config) if made is not None else None)


def outlet_for(sdk_key: str | None) -> Outlet:
    """Return the outlet of a program without a client, such as `ldinstrument sweep` in cron.

    Args:
        sdk_key: None reads `LAUNCHDARKLY_SDK_KEY`; addresses come from the environment, see
            `launchdarkly_config`.

    Raises:
        DefinitionError: no key anywhere.
    """
    from ..delivery.configuration import launchdarkly_config

    return WireOutlet(launchdarkly_config(sdk_key, events_only=True, event_processor_class=None))


# -- the sweep -------------------------------------------------------------------------------------


@dataclass(slots=True)
class SweepReport:
    """What one sweep did.

    Args:
        sessions: sealed, that is: reported now or, whatever happens, later under the same payload
            id.
        delivered: events that LaunchDarkly has taken.
        dropped: events that it never will.
        posts: POSTs made, repeated ones included.
        complete: nothing was left that could be swept; False after a failure, or at *limit*.
        open: sessions that are not over yet, where `stores.sweep` was asked; None when the store
            failed.
        error: why it stopped, when it failed: a status or the kind of an exception, never an
            address or a key.
    """

    sessions: int = 0
    delivered: int = 0
    dropped: int = 0
    posts: int = 0
    complete: bool = False
    error: str = ""
    open: int | None = None


class SweepOptions(TypedDict, total=False):
    """Options of a `Sweep`."""

    pause: Callable[[float], bool] | None
    early: bool
    own_rules: bool


@dataclass(slots=True)
class Sweep:
    """One sweep over one store.

    Args:
        store: what to sweep.
        outlet: where payloads leave.
        rules: name the reason of an end that nobody gave one.
        owner: a random name; the leases are its.
        lease: seconds for which nobody else is handed what this sweep works on; longer than a POST
            may take.
        pause: called after each batch with the seconds that it took, so that a busy worker can
            rest; returns whether to go on.
        early: also report what ended in the current window (see `Rules`), as a batch of its own.
        own_rules: look at every open session whether it is over by *store*'s rules, because those
            of the workers may be longer.
    """

    store: Store
    outlet: Outlet
    rules: Rules
    owner: str
    lease: float = LEASE
    pause: Callable[[float], bool] | None = None
    early: bool = True
    own_rules: bool = False
    report: SweepReport = field(default_factory=SweepReport)

    def run(self, limit: int | None = None) -> SweepReport:
        """Sweep until *limit* sessions are reported, the last batch whole. A failing store or
        server ends the sweep, it does not raise.
        """
        try:
            if self.own_rules:
                self.store.end_silent()
            while True:
                # What was sealed earlier, here or by another worker, goes first.
                while found := self.store.claim_sealed(4, self.lease, self.owner):
                    if not all(map(self._deliver, found)):
                        return self.report
                if limit is not None and self.report.sessions >= limit:
                    return self.report

                started = time.monotonic()
                if not self._batch():
                    self.report.complete = not self.report.error
                    return self.report
                if self.pause is not None and not self.pause(time.monotonic() - started):
                    return self.report
        except Exception as error:
            raise_if_interrupted(error)
            self.report.error = type(error).__name__
            log_once(
                "sweep",
                type(error).__name__,
                f"a sweep of the session store failed ({describe_failure(error)}): it is repeated "
                "later",
            )
            return self.report

    def _batch(self) -> int:
        """Claim, seal, send; return how many sessions, 0 when there were none or sending failed.

        Batches are as large for every sweeper, so that payload ids are the same.
        """
        while ended := self.store.claim(BATCH, self.lease, self.owner, early=self.early):
            while ended:
                report = Report(ended, self.rules, self.outlet.zipped)
                places = [session.place for session in ended]
                lost = self.store.seal(places, report.payloads, self.lease, self.owner)
                if not lost:
                    report.count()
                    self.report.sessions += len(ended)
                    return len(ended) if all(map(self._deliver, report.payloads)) else 0
                # A late request has joined some, or this worker slept beyond its lease: those are
                # handed out anew.
                ended = [session for session in ended if session.place not in set(lost)]
        return 0

    def _deliver(self, sealed: Sealed) -> bool:
        """Send a payload that is stored; tell whether sending may go on."""
        if sealed.age > MAX_AGE:
            self._drop("too_old", sealed)
            return True
        answer = self.outlet.post(sealed)
        self.report.posts += 1
        if answer.accepted:
            self.store.acknowledge(sealed.id)
            self.report.delivered += sealed.events
            ledger.count(emitted=sealed.events, delivered=sealed.events)
            return True

        meaning = disposition(answer.status, sealed.attempts)
        if meaning is Disposition.SPLIT:
            self._split(sealed)
        elif meaning is Disposition.DROP:
            self._drop("http_400", sealed)
        else:
            self._try_later(sealed, answer, meaning)
            return False
        return True

    def _try_later(self, sealed: Sealed, answer: PostResult, meaning: Disposition) -> None:
        self.store.postpone(sealed.id, retry_delay(sealed.attempts, answer.headers))
        self.report.error = str(answer.status or answer.error or "no answer")
        if meaning is Disposition.REFUSED_KEY:
            log_once(
                "refused",
                f"store {answer.status}",
                f"LaunchDarkly refuses the SDK key (HTTP {answer.status}): ended sessions wait in "
                "the store; check LAUNCHDARKLY_SDK_KEY",
            )

    def _split(self, sealed: Sealed) -> None:
        parts = halves(sealed)
        if parts:
            self.store.replace(sealed.id, parts)
        else:
            self._drop("too_large", sealed)

    def _drop(self, reason: str, sealed: Sealed) -> None:
        self.store.acknowledge(sealed.id)
        self.report.dropped += sealed.events
        ledger.count(emitted=sealed.events)
        ledger.dropped(reason, sealed.events)
        log_once(
            reason,
            "store",
            f"LaunchDarkly will not take a payload of ended sessions ({reason}): dropped and "
            "counted; please report this",
        )
