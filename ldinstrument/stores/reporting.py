"""Report: the payload that ended sessions become. Outlet: where payloads leave, by the connections
of a LaunchDarkly client or through a client of another kind.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol

from .. import sdk
from ..delivery.payloads import body_of, texts_of
from ..delivery.transport import PAYLOAD_ID, PostResult, Transport, transport_of
from ..delivery.worker import worker_of
from ..diagnostics import log_once
from ..ledger import ledger
from ..sessions import clients
from ..sessions.contexts import json_of_keys
from ..sessions.dilution import EndedSession, note_ended, note_unseen
from ..sessions.rollups import Emission, finite
from .deltas import UNREADABLE
from .protocol import Ended, Rules, Sealed
from .records import readable
from .replay import events_of

_PAYLOADS = uuid.UUID("5f0b4a0e-6f0c-4b67-9d1c-0a7d3b1f5c11")
"""The namespace of payload ids."""


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
        for session in ended:
            self._add(session.text)
        id = str(uuid.uuid5(_PAYLOADS, "\n".join(sorted(self._identities))))
        payload = sealed(self._texts, zipped, id)
        sessions = tuple(self._identities)
        self.payloads = [replace(payload, sessions=sessions)] if self._texts else []

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
        self._identities.append(record.identity)
        self.totals += len(events.totals)
        self._ended += events.ended
        self._unseen[record.name] += events.unseen
        for event, keys in [*events.values, *events.totals]:
            context = json_of_keys(dict(keys))
            if not finite(event):
                self.dropped["not_a_number"] += 1
            elif context is None:
                self.dropped["no_context"] += 1
            else:
                self._texts.append(_text(event, context))

    def count(self) -> None:
        """Tell the ledger; what was dropped is also logged."""
        ledger.recorded(self.totals)
        ledger.emitted_values(self.totals)
        for session in self._ended:
            note_ended(session)
        for name, exposures in self._unseen.items():
            note_unseen(name, exposures)
        for reason, events in self.dropped.items():
            ledger.emitted(events)
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


def sealed(texts: list[str], zipped: bool, id: str) -> Sealed:
    """Return the payload *id* of the events *texts*, each JSON."""
    return Sealed(id, body_of(texts, zipped), len(texts), zipped)


def halves(payload: Sealed) -> list[Sealed]:
    """Return two payloads with half of the events each; none if it holds a single one."""
    if payload.events < 2:
        return []
    texts = texts_of(payload.body, payload.zipped)
    middle = len(texts) // 2
    return [
        sealed(part, payload.zipped, str(uuid.uuid5(_PAYLOADS, f"{payload.id} {number}")))
        for number, part in enumerate((texts[:middle], texts[middle:]))
    ]


def _text(emission: Emission, context: dict[str, Any]) -> str:
    # `kind` comes first: `delivery.payloads` recognises a custom event by it.
    event: dict[str, Any] = {"kind": "custom", "creationDate": emission.at}
    event |= {"key": emission.event_key, "context": context}
    if emission.data is not None:
        event["data"] = emission.data
    if emission.value is not None:
        event["metricValue"] = emission.value
    return json.dumps(event, separators=(",", ":"), allow_nan=False)


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
        self._config = config
        self._transport = transport or transport_of(config)

    def post(self, payload: Sealed) -> PostResult:
        """Send it once and wait for the answer."""
        try:
            headers = sdk.event_headers(self._config) | {PAYLOAD_ID: payload.id}
            if payload.zipped:
                headers["Content-Encoding"] = "gzip"
            return self._transport.post(payload, headers)
        except Exception as error:
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
