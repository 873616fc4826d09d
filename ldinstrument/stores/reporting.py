"""Report: the payload that ended sessions become. Outlet: where payloads leave, by the connections
of a LaunchDarkly client or through a client of another kind.
"""

from __future__ import annotations

import gzip
import json
import uuid
from collections import Counter
from collections.abc import Iterable
from typing import Any, Protocol

from .. import sdk
from ..delivery.registry import worker_of
from ..delivery.transport import PAYLOAD_ID, PostResult, Transport, transport_of
from ..diagnostics import log_once
from ..ledger import ledger
from ..sdk import as_json
from ..sessions import emission
from ..sessions.rollups import Emission, finite
from .protocol import Ended, GroupValues, Rules, Sealed
from .records import Record, group_parts, readable


class Report:
    """What a batch of ended sessions becomes: payloads, and what is dropped.

    Nothing is counted until `count`, because sealing may have to be repeated.

    Args:
        ended: the batch.
        rules: name the reason of an end that nobody gave one.
        zipped: whether to compress.
    """

    def __init__(self, ended: Iterable[Ended], rules: Rules, zipped: bool) -> None:
        self.dropped: Counter[str] = Counter()
        self.totals = 0
        texts = [text for session in ended for text in self._texts(readable(session.text), rules)]
        self.payloads = [sealed(texts, zipped, str(uuid.uuid4()))] if texts else []

    def count(self) -> None:
        """Tell the ledger; what was dropped is also logged."""
        ledger.recorded(self.totals)
        ledger.emitted_values(self.totals)
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

    def _texts(self, record: Record | None, rules: Rules) -> list[str]:
        """Return the events of one session, each as JSON text: its groups, then its totals."""
        if record is None:
            self.dropped["unreadable"] += 1
            return []
        emissions = [_emission(key, group, record.base) for key, group in record.groups.items()]
        kept = [event for event in emissions if finite(event)]
        self.dropped["not_a_number"] += len(emissions) - len(kept)
        if not record.part:
            totals = _totals(record, rules)
            self.totals += len(totals)
            kept += totals
        context = context_of(record.context)
        if context is None:
            self.dropped["no_context"] += len(kept)
            return []
        return [_text(event, context) for event in kept]


def sealed(texts: list[str], zipped: bool, id: str) -> Sealed:
    """Return the payload *id* of the events *texts*, each JSON."""
    body = f"[{','.join(texts)}]".encode()
    return Sealed(id, gzip.compress(body) if zipped else body, len(texts), zipped)


def halves(payload: Sealed) -> list[Sealed]:
    """Return two payloads with half of the events each; none if it holds a single one."""
    if payload.events < 2:
        return []
    events = json.loads(gzip.decompress(payload.body) if payload.zipped else payload.body)
    texts, middle = [as_json(event) for event in events], len(events) // 2
    return [
        sealed(texts[:middle], payload.zipped, str(uuid.uuid4())),
        sealed(texts[middle:], payload.zipped, str(uuid.uuid4())),
    ]


def _emission(key: str, group: GroupValues, base: int) -> Emission:
    rollup, numeric, event_key, data = group_parts(key)
    total, count, first, latest, value = group
    chosen: float | None = {"s": total, "m": total / max(1, count)}.get(rollup, value)
    at = base + (first if rollup == "o" else latest)
    return Emission(
        event_key, chosen if numeric else None, json.loads(data) if data else None, at, count
    )


def _totals(record: Record, rules: Rules) -> list[Emission]:
    """Return the `<name>.*` events; of an abandoned session only its counts, because duration and
    rate would be censored.
    """
    reason = record.reason or silence_of(record, rules)
    successes, failures = record.tallies[:2]
    seen: list[tuple[str, float]] = [("interactions", successes + failures)]
    if reason != "abandoned":
        if successes + failures:
            seen.insert(0, ("success_rate", 100.0 * successes / (successes + failures)))
        seen.insert(0, ("duration", float(record.last - record.started)))
    data = _totals_data(record, reason)
    return [
        Emission(f"{record.name}.{suffix}", value, data, record.base + record.last)
        for suffix, value in seen
    ]


def silence_of(record: Record, rules: Rules) -> str:
    """Return why a session ended by itself: `idle`, or `maximum` if it was busy for so long."""
    longest = record.started + int(rules.maximum * 1000)
    return "maximum" if longest < record.last + int(rules.idle * 1000) else "idle"


def _totals_data(record: Record, reason: str) -> dict[str, Any]:
    counted = dict(
        zip(("successes", "failures", "cancelled", "abandoned"), record.tallies, strict=True)
    )
    linked = {"previousId": record.previous} if record.previous else {}
    return {
        **(json.loads(record.data) if record.data else {}),
        "sessionId": record.id,
        **linked,
        "interactions": counted["successes"] + counted["failures"],
        **counted,
        "endReason": reason,
    }


def context_of(keys: dict[str, str]) -> dict[str, Any] | None:
    """Return a context in LaunchDarkly's JSON form from its keys by kind; None without keys."""
    if not keys:
        return None
    if len(keys) == 1:
        ((kind, key),) = keys.items()
        return {"kind": kind, "key": key}
    return {"kind": "multi", **{kind: {"key": key} for kind, key in sorted(keys.items())}}


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
    if (recorder := emission.recorder()) is not None:
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
