"""The ASGI application: every route, and the guards in front of them."""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request, cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute

from ..settings import is_loopback
from .responses import RefusedRequest

OVERRIDABLE = (b"PATCH", b"PUT", b"DELETE")
OPEN = re.compile(
    r"/(sdk/(goals|evalx|poll/eval|stream/eval)|eval|ping|events/(bulk|diagnostic))(/|$)"
)
"""What browsers' SDKs call, from pages of any origin."""
GUARDED = re.compile(r"/$|/dev(/|$)|/api(/|$)|/v2(/|$)")
"""The page, its data and REST: what a stranger on the network must not read or change."""
COOKIE = "ldinstrument_token"
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "REPORT")
CODES = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
}
EXPOSED = ("Date", "ETag", "X-LD-EnvID", "Retry-After")


def build(
    routes: Collection[BaseRoute], allowed_hosts: Collection[str] | None, token: str | None
) -> Any:
    """Build the application with its guards.

    Args:
        routes: what is served.
        allowed_hosts: the names that a `Host` header may carry; None accepts all.
        token: what a request from elsewhere than this machine needs for the page and REST; None
            asks for none.
    """
    handlers: dict[Any, Any] = {RefusedRequest: _refused, HTTPException: _http_error}
    app: Any = Starlette(routes=list(routes), exception_handlers=handlers)
    return HostGuard(TokenGuard(MethodOverride(CrossOrigin(app)), token), allowed_hosts)


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
    """Refuses foreign `Host` headers (a page of the web whose name was rebound to 127.0.0.1 gets
    nothing), and requests that a browser sends from another origin, but to the routes of browsers'
    SDKs.
    """

    def __init__(self, app: Any, allowed: Collection[str] | None):
        self.app = app
        self.allowed = allowed

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or answer 403."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host = headers.get("host", "")
            if self.allowed is not None and _name(host) not in self.allowed:
                await _forbid("Unknown Host header", scope, receive, send)
                return
            if not OPEN.match(scope["path"]) and _is_foreign(scope, headers, host):
                await _forbid("Other origins get no answer here", scope, receive, send)
                return
        await self.app(scope, receive, send)


def _is_foreign(scope: Any, headers: Headers, host: str) -> bool:
    """Return whether a browser says that a page of another site asks (links may be followed)."""
    origin = headers.get("origin")
    if origin is not None:
        return origin.partition("://")[2] != host
    followed = headers.get("sec-fetch-mode") == "navigate" and scope["method"] in ("GET", "HEAD")
    return headers.get("sec-fetch-site") in ("cross-site", "same-site") and not followed


def _name(host: str) -> str:
    """Return a Host header without its port."""
    return re.sub(r":\d*$", "", host).lower()


async def _forbid(message: str, scope: Any, receive: Any, send: Any) -> None:
    body = RefusedRequest(403, "forbidden", message).body()
    await JSONResponse(body, status_code=403)(scope, receive, send)


class TokenGuard:
    """Asks requests from other machines for the token of the printed address, where the page and
    REST are concerned. The address with it sets a cookie; programs send it as `Authorization`.
    """

    def __init__(self, app: Any, token: str | None):
        self.app = app
        self.token = token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or answer 401; the address with the token leads to the page."""
        if self.token is None or scope["type"] != "http" or not GUARDED.match(scope["path"]):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        if scope["path"] == "/" and self._fits(asked):
            await self._welcome()(scope, receive, send)
        elif _is_local(scope, headers) or any(
            self._fits(given) for given in (cookie, headers.get("authorization", ""))
        ):
            await self.app(scope, receive, send)
        else:
            message = "This needs the token of the address that the server printed"
            body = RefusedRequest(401, "unauthorized", message).body()
            await JSONResponse(body, status_code=401)(scope, receive, send)

    def _fits(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self.token or "").encode())

    def _welcome(self) -> Response:
        """Take the token out of the address bar."""
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(COOKIE, self.token or "", httponly=True, samesite="strict")
        return response


def _is_local(scope: Any, headers: Headers) -> bool:
    """Return whether this machine asks, under one of its loopback names."""
    client = scope.get("client") or ("", 0)
    return is_loopback(client[0]) and is_loopback(_name(headers.get("host", "")))


class MethodOverride:
    """Reads `X-HTTP-Method-Override` on POST, for networks that let nothing else through."""

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
    """CORS for the routes of browsers' SDKs, and for nothing else."""

    def __init__(self, app: Any):
        self.app = app
        self.open: Any = CORSMiddleware(
            app,
            allow_origins=["*"],
            allow_methods=METHODS,
            allow_headers=["*"],
            expose_headers=EXPOSED,
            max_age=300,
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a preflight, or pass the request on."""
        is_open = scope["type"] == "http" and OPEN.match(scope["path"])
        await (self.open if is_open else self.app)(scope, receive, send)
