"""Where sealed payloads leave: over the connections of a LaunchDarkly client, or through a client
of another kind.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, Protocol

from .. import sdk
from ..delivery.lifecycle import engine_of
from ..delivery.payloads import Payload, join
from ..delivery.transport import Answer, Transport, transport_of
from ..diagnostics import log_once
from ..ledger import ledger
from ..sessions.rollups import Emission, finite
from .protocol import Ended, GroupValues, Rules, Sealed
from .records import Record, group_parts, readable


class Sealing:
    """What a batch of ended sessions becomes; nothing is counted until `count`, for sealing may
    have to be repeated.

    Args:
        ended: the batch.
        rules: name the reason of an end that nobody gave one.
        zipped: whether to compress.
    """

    def __init__(self, ended: Iterable[Ended], rules: Rules, zipped: bool) -> None:
        self.dropped: Counter[str] = Counter()
        self.totals = 0
        texts = [text for one in ended for text in self._texts(readable(one.text), rules)]
        self.sealed = as_sealed(join(texts, zipped)) if texts else None

    def count(self) -> None:
        """Tell the ledger; what was dropped is also said."""
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
        """The events of one session, each as JSON text: its groups, then its totals."""
        if record is None:
            self.dropped["unreadable"] += 1
            return []
        emissions = [_emission(key, group, record.base) for key, group in record.groups.items()]
        kept = [one for one in emissions if finite(one)]
        self.dropped["not_a_number"] += len(emissions) - len(kept)
        if not record.part:
            totals = _totals(record, rules)
            self.totals += len(totals)
            kept += totals
        context = context_of(record.context)
        if context is None:
            self.dropped["no_context"] += len(kept)
            return []
        return [_text(one, context) for one in kept]


def as_sealed(payload: Payload) -> Sealed:
    """A payload of `delivery` as a store keeps it."""
    return Sealed(payload.id, payload.body, payload.events, payload.zipped)


def as_payload(sealed: Sealed) -> Payload:
    """A stored payload as `delivery` sends it: the same bytes, the same id."""
    payload = Payload(sealed.body, sealed.events, sealed.events, sealed.zipped, sealed.id)
    payload.attempts = sealed.attempts
    return payload


def _emission(key: str, group: GroupValues, base: int) -> Emission:
    rollup, numeric, event_key, data = group_parts(key)
    total, count, first, latest, value = group
    chosen: float | None = {"s": total, "m": total / max(1, count)}.get(rollup, value)
    at = base + (first if rollup == "o" else latest)
    return Emission(
        event_key, chosen if numeric else None, json.loads(data) if data else None, at, count
    )


def _totals(record: Record, rules: Rules) -> list[Emission]:
    """The `<name>.*` events; an abandoned session's duration and rate would be censored, so it has
    only counts.
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
    """Why a session ended that nobody ended: `idle`, or `maximum` when it was busy for so long."""
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
    """A context in LaunchDarkly's JSON form from its keys by kind; None when there are none."""
    if not keys:
        return None
    if len(keys) == 1:
        ((kind, key),) = keys.items()
        return {"kind": kind, "key": key}
    return {"kind": "multi", **{kind: {"key": key} for kind, key in sorted(keys.items())}}


def _text(one: Emission, context: dict[str, Any]) -> str:
    # `kind` comes first: `delivery.payloads` recognises a custom event by it.
    event: dict[str, Any] = {
        "kind": "custom",
        "creationDate": one.at,
        "key": one.event_key,
        "context": context,
    }
    if one.data is not None:
        event["data"] = one.data
    if one.value is not None:
        event["metricValue"] = one.value
    return json.dumps(event, separators=(",", ":"), allow_nan=False)


class Outlet(Protocol):
    """Takes a sealed payload to LaunchDarkly."""

    zipped: bool
    """Whether it wants its payloads compressed."""

    def post(self, sealed: Sealed) -> Answer:
        """Send it once and wait for the answer; never raises."""


class WireOutlet:
    """POSTs to `<events_uri>/bulk` with the headers, proxies and time-outs of a client's
    configuration.

    Args:
        config: an `ldclient` `Config` or `AsyncConfig`; its key is read anew for each POST.
        transport: made for it; the SDK's own connections when None.
    """

    def __init__(self, config: Any, transport: Transport | None = None) -> None:
        self.zipped = bool(config.enable_event_compression)
        self._config = config
        self._transport = transport or transport_of(config)

    def post(self, sealed: Sealed) -> Answer:
        """Send it once and wait for the answer."""
        try:
            headers = sdk.event_headers(self._config) | {"X-LaunchDarkly-Payload-ID": sealed.id}
            if sealed.zipped:
                headers["Content-Encoding"] = "gzip"
            return self._transport.post(as_payload(sealed), headers)
        except Exception as error:
            return Answer(0, error=type(error).__name__)


class TrackOutlet:
    """Hands events to a client that has no SDK configuration, such as a recording one in a test."""

    zipped = False

    def __init__(self, client: Any) -> None:
        self._client = client

    def post(self, sealed: Sealed) -> Answer:
        """Track every event of the payload."""
        from ldclient import Context

        try:
            for event in json.loads(sealed.body):
                context = Context.from_dict(event["context"])
                self._client.track(
                    event["key"], context, event.get("data"), event.get("metricValue")
                )
        except Exception as error:
            return Answer(0, error=type(error).__name__)
        return Answer(202)


def outlet_of(client: Any | None) -> Outlet | None:
    """The outlet of *client* (the `ldclient` singleton when None); None when there is none, or it
    sends nothing.
    """
    taker = client if client is not None else sdk.singleton_client()
    if taker is None or sdk.discards_everything(taker):
        return None
    config = getattr(taker, "_config", None)
    if not isinstance(getattr(config, "events_uri", None), str):
        return TrackOutlet(taker)
    engine = engine_of(taker)
    made = engine.options.transport if engine is not None else None
    return WireOutlet(config, made(config) if made is not None else None)


def outlet_for(sdk_key: str | None) -> Outlet:
    """The outlet of a program without a client, such as `ldinstrument sweep` in cron.

    Args:
        sdk_key: None reads `LAUNCHDARKLY_SDK_KEY`; addresses come from the environment, see
            `launchdarkly_config`.

    Raises:
        DefinitionError: no key anywhere.
    """
    from ..delivery.configuration import launchdarkly_config

    return WireOutlet(launchdarkly_config(sdk_key, events_only=True, event_processor_class=None))
