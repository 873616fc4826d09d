"""The ASGI application: every route, and what stands in front of them."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute

from .responses import RefusedRequest

OVERRIDABLE = (b"PATCH", b"PUT", b"DELETE")
PRIVATE = re.compile(r"/$|/dev(/|$)")
CODES = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
}
EXPOSED = (
    "Date",
    "ETag",
    "Location",
    "X-LD-EnvID",
    "X-Ratelimit-Global-Limit",
    "X-Ratelimit-Global-Remaining",
    "X-Ratelimit-Reset",
    "Retry-After",
)


def build(routes: Collection[BaseRoute], allowed_hosts: Collection[str] | None) -> Any:
    """Return the application with its guards.

    Args:
        routes: what is served.
        allowed_hosts: the names that a `Host` header may carry; None accepts all.
    """
    handlers: dict[Any, Any] = {RefusedRequest: _refused, HTTPException: _http_error}
    app: Any = Starlette(routes=list(routes), exception_handlers=handlers)
    return HostGuard(MethodOverride(CrossOrigin(app)), allowed_hosts)


async def _refused(request: Request, refused: Exception) -> JSONResponse:
    assert isinstance(refused, RefusedRequest)
    return JSONResponse(refused.body(), status_code=refused.status, headers=refused.headers)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    refused = RefusedRequest(
        error.status_code, CODES.get(error.status_code, "invalid_request"), str(error.detail)
    )
    return JSONResponse(refused.body(), status_code=error.status_code, headers=error.headers)


class HostGuard:
    """Refuses foreign `Host` headers: a page of the web whose name was rebound to 127.0.0.1 gets
    nothing.

    A request that a browser sends from another origin to the page's own routes is refused too.
    """

    def __init__(self, app: Any, allowed: Collection[str] | None):
        self.app = app
        self.allowed = allowed

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or answer 403."""
        if scope["type"] == "http" and self.allowed is not None:
            headers = dict(scope["headers"])
            host = headers.get(b"host", b"").decode("latin-1")
            if _name(host) not in self.allowed:
                await _say(403, "Unknown Host header", scope, receive, send)
                return
            origin = headers.get(b"origin", b"").decode("latin-1")
            if origin and PRIVATE.match(scope["path"]) and origin.partition("://")[2] != host:
                await _say(
                    403, "The page's own routes answer no other origin", scope, receive, send
                )
                return
        await self.app(scope, receive, send)


def _name(host: str) -> str:
    """Return a Host header without its port."""
    return re.sub(r":\d*$", "", host).lower()


async def _say(status: int, message: str, scope: Any, receive: Any, send: Any) -> None:
    await JSONResponse(RefusedRequest(status, "forbidden", message).body(), status_code=status)(
        scope, receive, send
    )


class MethodOverride:
    """`X-HTTP-Method-Override` on POST, for networks that let nothing else through."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on with the method it means."""
        if (
            scope["type"] == "http"
            and scope["method"] == "POST"
            and scope["path"].startswith("/api/")
        ):
            wanted = dict(scope["headers"]).get(b"x-http-method-override", b"").upper()
            if wanted in OVERRIDABLE:
                scope = {**scope, "method": wanted.decode("ascii")}
        await self.app(scope, receive, send)


class CrossOrigin:
    """CORS for what LaunchDarkly opens to browsers: everything but the page's own routes."""

    def __init__(self, app: Any):
        self.app = app
        self.open: Any = CORSMiddleware(
            app,
            allow_origins=["*"],
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
            max_age=300,
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """BufferedResponse a preflight, or pass the request on."""
        private = scope["type"] != "http" or PRIVATE.match(scope["path"])
        await (self.app if private else self.open)(scope, receive, send)
