"""Which `Authorization` the REST API accepts: a raw access token, and neither an SDK key nor
`Bearer`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Protocol

from starlette.requests import Request

from .responses import RefusedRequest

NO_TOKEN = re.compile(r"(sdk-|mob-).*|[0-9a-f]{24}|.*\s.*|", re.IGNORECASE | re.DOTALL)


class Access(Protocol):
    """Who may do what; read at every request, so that a test can change it while the server
    runs.
    """

    sdk_keys: Collection[str] | None
    tokens: Collection[str] | None
    max_payload_bytes: int


def require_token(request: Request, tokens: Collection[str] | None) -> str:
    """Return the access token of a REST call.

    Args:
        request: the call.
        tokens: the tokens that are accepted; None accepts everything but what LaunchDarkly's REST
            API never takes: nothing at all, an SDK key, a mobile key, a client-side id, and a
                scheme such as `Bearer` before the token.

    Raises:
        RefusedRequest: 401.
    """
    token = request.headers.get("authorization", "")
    if NO_TOKEN.fullmatch(token) or (tokens is not None and token not in tokens):
        raise RefusedRequest(401, "unauthorized", "Invalid access token")
    return token
