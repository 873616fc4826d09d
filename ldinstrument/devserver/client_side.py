"""Flag delivery to browsers and phones: evaluated here, by LaunchDarkly's own evaluator, for one
context.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .database import Document
from .database_thread import DatabaseThread
from .flag_delivery import HEADERS, FlagChanges, event_stream, next_change, sse, with_etag
from .flags import Flags
from .intake import IntakeRoutes
from .responses import RefusedRequest, decode, invalid


class Evaluations:
    """What every flag is for one context, computed by an `LDClient` that has no network and sends
    no events.
    """

    def __init__(self, flags: Flags):
        self.flags = flags
        self._client: Any = None
        self._store: Any = None
        self._version = -1

    def of(self, context: Document) -> dict[str, Document]:
        """Return evaluations by flag key, in the format of the client-side SDKs.

        Raises:
            RefusedRequest: 400, this is no context.
        """
        from ldclient import Context

        try:
            found = Context.from_dict(context)
        except (ValueError, TypeError, AttributeError, KeyError):
            raise invalid("not a context") from None
        if not found.valid:
            raise invalid(f"not a context: {found.error}")
        state = self._fresh_client().all_flags_state(found, with_reasons=True).to_json_dict()
        about = state.get("$flagsState", {})
        return {key: _evaluation(state[key], about[key]) for key in about if key in state}

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
            self._store.init({FEATURES: self.flags.all(), SEGMENTS: {}})
            self._version = version
        return self._client

    def close(self) -> None:
        """End the client."""
        if self._client is not None:
            self._client.close()
            self._client = self._store = None
            self._version = -1


def _evaluation(value: Any, about: Document) -> Document:
    """One flag as client-side SDKs want it; in an experiment they must send the event and its
    reason.
    """
    reason = about.get("reason") or {}
    experiment = reason.get("inExperiment") is True
    found = {
        "value": value,
        "variation": about.get("variation"),
        "version": about.get("version", 1),
        "flagVersion": about.get("version", 1),
        "trackEvents": bool(about.get("trackEvents")) or experiment,
        "trackReason": bool(about.get("trackReason")) or experiment,
        "reason": reason,
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
        """Goals, polling and streaming, by environment id (browser) or mobile key (phone)."""
        return [
            Route("/sdk/goals/{env}", self._goals),
            Route("/sdk/evalx/{env}/contexts/{context}", self._poll),
            Route("/sdk/evalx/{env}/users/{context}", self._poll),
            Route("/sdk/evalx/{env}/context", self._poll, methods=["REPORT"]),
            Route("/eval/{env}/{context}", self._stream),
            Route("/eval/{env}", self._stream, methods=["REPORT"]),
            Route("/msdk/evalx/contexts/{context}", self._poll),
            Route("/msdk/evalx/context", self._poll, methods=["REPORT"]),
            Route("/meval/{context}", self._stream),
            Route("/meval", self._stream, methods=["REPORT"]),
        ]

    async def _goals(self, request: Request) -> Response:
        return JSONResponse([], headers=HEADERS)

    async def _poll(self, request: Request) -> Response:
        context = await self._context(request)
        return with_etag(request, await self.database_thread.run(self.evaluations.of, context))

    async def _stream(self, request: Request) -> Response:
        context = await self._context(request)
        await self.database_thread.run(
            self.evaluations.of, context
        )  # refuse what is no context while there is a status to say it
        return event_stream(self._messages(context))

    async def _messages(self, context: Document) -> AsyncIterator[bytes]:
        """Everything, then each change as it is for this context."""
        assert self.changes is not None, "the server is not running"
        with self.changes.subscription() as changes:
            yield sse("put", await self.database_thread.run(self.evaluations.of, context))
            while (change := await next_change(changes)) is not None:
                yield await self.database_thread.run(self._message, context, *change)

    def _message(self, context: Document, verb: str, change: Document) -> bytes:
        if verb == "delete":
            return sse("delete", {"key": change["key"], "version": change["version"]})
        evaluation = self.evaluations.of(context).get(change["key"]) if verb == "put" else None
        return sse("patch", {"key": change["key"], **evaluation}) if evaluation else b":\n\n"

    async def _context(self, request: Request) -> Document:
        """Return the context of a request, from its address or its body; the credential is checked
        on the way.
        """
        if "env" in request.path_params:
            self.intake.check_environment(request.path_params["env"])
        else:
            self.intake.check_key(request)
        try:
            if request.method == "REPORT":
                found = decode(await request.body())
            else:
                found = decode(_unwrapped(request.path_params["context"]))
        except ValueError:
            raise invalid("not a context") from None
        if not isinstance(found, dict):
            raise RefusedRequest(400, "invalid_request", "not a context")
        return found


def _unwrapped(text: str) -> bytes:
    """Return the bytes of base64 in either alphabet, padded or not."""
    standard = re.sub(r"=+$", "", text).replace("-", "+").replace("_", "/")
    return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
