"""Flag delivery to browsers and phones: evaluated here, by LaunchDarkly's own evaluator, for one
context.

Browsers get the flags that are available to them (`usingEnvironmentId`), phones theirs
(`usingMobileKey`).
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..database import Document
from ..database_thread import DatabaseThread
from ..events.intake import IntakeRoutes
from ..request_body import read_body
from ..responses import decode, invalid
from .data_system import FlagPayload, Message, delete_object, put_object
from .environment import Flags, availability
from .flag_changes import COMMENT, HEADERS, FlagChange, FlagChanges, event_stream, next_change, sse
from .flag_delivery import polled, with_etag

FLAG_EVAL = "flag-eval"
"""The kind of an evaluated flag in FDv2."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Whom flags are evaluated for.

    Args:
        context: the context, as JSON.
        available: which availability a flag needs, `usingEnvironmentId` or `usingMobileKey`.
        with_reasons: whether the client asked for the reasons.
    """

    context: Document
    available: str
    with_reasons: bool


class Evaluations:
    """Evaluates every flag for one context by an `LDClient` that has no network and sends no
    events.
    """

    def __init__(self, flags: Flags):
        self.flags = flags
        self._client: Any = None
        self._store: Any = None
        self._version = -1

    def of(self, viewer: Viewer) -> dict[str, Document]:
        """Return evaluations by flag key, in the format of the client-side SDKs.

        Raises:
            RefusedRequest: 400, this is no context.
        """
        from ldclient import Context

        try:
            context = Context.from_dict(viewer.context)
        except (ValueError, TypeError, AttributeError, KeyError):
            raise invalid("not a context") from None
        if not context.valid:
            raise invalid(f"not a context: {context.error}")
        client = self._fresh_client()
        state = client.all_flags_state(context, with_reasons=True).to_json_dict()
        about = state.get("$flagsState", {})
        return {
            key: _evaluation(state[key], about[key], viewer.with_reasons)
            for key, flag in self.flags.all().items()
            if key in about and key in state and availability(flag)[viewer.available]
        }

    def _fresh_client(self) -> Any:
        """Return the client, its store holding the present flags."""
        from ldclient import Config, LDClient
        from ldclient.feature_store import InMemoryFeatureStore
        from ldclient.versioned_data_kind import FEATURES, SEGMENTS

        if self._client is None:
            in_memory: Any = InMemoryFeatureStore  # the SDK leaves it untyped
            self._store = in_memory()
            self._client = LDClient(
                Config("sdk-local", feature_store=self._store, use_ldd=True, send_events=False),
                start_wait=0,
            )
        version = self.flags.version()
        if version != self._version:
            self._store.init({FEATURES: self.flags.all(), SEGMENTS: self.flags.segments()})
            self._version = version
        return self._client

    def close(self) -> None:
        """End the client."""
        if self._client is not None:
            self._client.close()
            self._client = self._store = None
            self._version = -1


def _evaluation(value: Any, about: Document, with_reasons: bool) -> Document:
    """Return one flag as client-side SDKs want it; in an experiment they must send the event and
    its reason.
    """
    reason = about.get("reason") or {}
    experiment = reason.get("inExperiment") is True
    track_reason = bool(about.get("trackReason")) or experiment
    found = {
        "value": value,
        "variation": about.get("variation"),
        "version": about.get("version", 1),
        "flagVersion": about.get("version", 1),
        "trackEvents": bool(about.get("trackEvents")) or experiment,
        "trackReason": track_reason,
        "reason": reason if with_reasons or track_reason else None,
        "debugEventsUntilDate": about.get("debugEventsUntilDate"),
        "prerequisites": about.get("prerequisites"),
    }
    return {name: part for name, part in found.items() if part is not None}


class ClientSideRoutes:
    """The routes of client-side SDKs."""

    def __init__(self, database_thread: DatabaseThread, flags: Flags, intake: IntakeRoutes):
        self.database_thread = database_thread
        self.intake = intake
        self.evaluations = Evaluations(flags)
        self.changes: FlagChanges | None = None

    def routes(self) -> list[Route]:
        """Return goals, polling, streaming and pings, by environment id (browser) or mobile key
        (phone).
        """
        with_body = ["POST", "REPORT"]
        return [
            Route("/sdk/goals/{env}", self._goals),
            Route("/sdk/evalx/{env}/contexts/{context}", self._poll),
            Route("/sdk/evalx/{env}/users/{context}", self._poll),
            Route("/sdk/evalx/{env}/context", self._poll, methods=["REPORT"]),
            Route("/eval/{env}/{context}", self._stream),
            Route("/eval/{env}", self._stream, methods=["REPORT"]),
            Route("/ping/{env}", self._ping),
            Route("/msdk/evalx/contexts/{context}", self._poll),
            Route("/msdk/evalx/context", self._poll, methods=["REPORT"]),
            Route("/meval/{context}", self._stream),
            Route("/meval", self._stream, methods=["REPORT"]),
            Route("/mping", self._ping),
            Route("/sdk/poll/eval/{context}", self._poll_v2),
            Route("/sdk/poll/eval", self._poll_v2, methods=with_body),
            Route("/sdk/stream/eval/{context}", self._stream_v2),
            Route("/sdk/stream/eval", self._stream_v2, methods=with_body),
        ]

    async def _goals(self, request: Request) -> Response:
        return JSONResponse([], headers=HEADERS)

    async def _poll(self, request: Request) -> Response:
        viewer = await self._viewer(request)
        return with_etag(request, await self.database_thread.run(self.evaluations.of, viewer))

    async def _stream(self, request: Request) -> Response:
        viewer = await self._viewer(request)
        await self._check(viewer)
        return event_stream(self._messages(viewer))

    async def _check(self, viewer: Viewer) -> None:
        """Refuse what is no context while there is a status to say it."""
        await self.database_thread.run(self.evaluations.of, viewer)

    async def _messages(self, viewer: Viewer) -> AsyncIterator[bytes]:
        """Send everything, then each change as it is for this context."""
        with self._changes().subscription() as changes:
            yield sse("put", await self.database_thread.run(self.evaluations.of, viewer))
            while (change := await next_change(changes)) is not None:
                yield await self.database_thread.run(self._message, viewer, change)

    def _message(self, viewer: Viewer, change: FlagChange) -> bytes:
        verb, kind, document = change
        if kind == "segment":  # any flag may look at it
            return sse("put", self.evaluations.of(viewer))
        if verb == "heartbeat":
            return COMMENT
        key = document["key"]
        evaluation = self.evaluations.of(viewer).get(key) if verb == "put" else None
        if evaluation is None:
            return sse("delete", {"key": key, "version": document["version"]})
        return sse("patch", {"key": key, **evaluation})

    async def _ping(self, request: Request) -> Response:
        self._check_credential(request)
        return event_stream(self._pings())

    async def _pings(self) -> AsyncIterator[bytes]:
        """Tell SDKs that cannot send a context in a stream to poll, at first and on each change."""
        with self._changes().subscription() as changes:
            yield b"event: ping\ndata: \n\n"
            while (change := await next_change(changes)) is not None:
                yield COMMENT if change.verb == "heartbeat" else b"event: ping\ndata: \n\n"

    async def _poll_v2(self, request: Request) -> Response:
        viewer, basis = await self._viewer(request), request.query_params.get("basis", "")
        return polled(request, await self.database_thread.run(self._transfer, viewer, basis))

    async def _stream_v2(self, request: Request) -> Response:
        viewer = await self._viewer(request)
        await self._check(viewer)
        return event_stream(self._messages_v2(viewer, request.query_params.get("basis", "")))

    async def _messages_v2(self, viewer: Viewer, basis: str) -> AsyncIterator[bytes]:
        with self._changes().subscription() as changes:
            for message in await self.database_thread.run(self._transfer, viewer, basis):
                yield sse(*message)
            while (change := await next_change(changes)) is not None:
                yield await self.database_thread.run(self._v2_message, viewer, change)

    def _transfer(self, viewer: Viewer, basis: str) -> list[Message]:
        """Return what a client with this basis has to hear: nothing, or everything."""
        payload = self._payload(viewer)
        if basis == payload.state:
            return list(payload.nothing())
        return list(payload.everything(self._objects(viewer)))

    def _objects(self, viewer: Viewer) -> list[Message]:
        return [_evaluated(key, found) for key, found in self.evaluations.of(viewer).items()]

    def _payload(self, viewer: Viewer) -> FlagPayload:
        """Return the payload of one context: another one's basis is not this one's."""
        flags = self.evaluations.flags
        about = json.dumps([viewer.context, viewer.available, viewer.with_reasons], sort_keys=True)
        return FlagPayload(f"{flags.payload_id}.{zlib.crc32(about.encode()):08x}", flags.version())

    def _v2_message(self, viewer: Viewer, change: FlagChange) -> bytes:
        verb, kind, document = change
        if verb == "heartbeat":
            return sse("heart-beat", {})
        payload = self._payload(viewer)
        if kind == "segment":
            messages = payload.everything(self._objects(viewer))
        else:
            key = document["key"]
            evaluation = self.evaluations.of(viewer).get(key) if verb == "put" else None
            gone = delete_object(FLAG_EVAL, key, document["version"])
            messages = payload.changes([_evaluated(key, evaluation) if evaluation else gone])
        return b"".join(sse(*message) for message in messages)

    def _changes(self) -> FlagChanges:
        assert self.changes is not None, "the server is not running"
        return self.changes

    async def _viewer(self, request: Request) -> Viewer:
        """Return whom a request is for, from its address or its body, its credential checked."""
        available = self._check_credential(request)
        try:
            if "context" in request.path_params:
                found = decode(_unwrapped(request.path_params["context"]))
            else:
                found = decode(await read_body(request))
        except ValueError:
            raise invalid("not a context") from None
        if not isinstance(found, dict):
            raise invalid("not a context")
        return Viewer(found, available, request.query_params.get("withReasons") == "true")

    def _check_credential(self, request: Request) -> str:
        """Check the environment id or the mobile key; return the availability that goes with it."""
        environment = request.path_params.get("env") or request.query_params.get("auth")
        if environment is not None:
            self.intake.check_environment(environment)
            return "usingEnvironmentId"
        self.intake.check_key(request)
        return "usingMobileKey"


def _evaluated(key: str, evaluation: Document) -> Message:
    version = evaluation["version"]
    kept = {name: value for name, value in evaluation.items() if name != "version"}
    return put_object(FLAG_EVAL, key, version, kept)


def _unwrapped(text: str) -> bytes:
    """Return the bytes of base64 in either alphabet, padded or not."""
    standard = re.sub(r"=+$", "", text).replace("-", "+").replace("_", "/")
    return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
