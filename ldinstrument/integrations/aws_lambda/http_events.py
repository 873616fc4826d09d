"""What an HTTP request looks like as an event of AWS Lambda."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def attributes_of(event: Any) -> dict[str, Any]:
    """Return the attributes of a request's own context; none when *event* is no HTTP request.

    Knows API Gateway's two formats, function URLs and application load balancers.
    Source: AWS, "Create AWS Lambda integrations for HTTP APIs", payload formats 1.0 and 2.0.
    """
    if not isinstance(event, Mapping):
        return {}
    context = _mapping(event, "requestContext")
    headers = {str(name).lower(): value for name, value in _mapping(event, "headers").items()}
    http = _mapping(context, "http")
    method = http.get("method") or event.get("httpMethod")
    if not isinstance(method, str):
        return {}
    return {
        "method": method,
        "host": headers.get("host") or context.get("domainName"),
        "path": http.get("path") or event.get("path"),
        "scheme": headers.get("x-forwarded-proto") or "https",
        "proto": http.get("protocol") or context.get("protocol"),
        "userAgent": http.get("userAgent") or headers.get("user-agent"),
    }


def header_of(event: Any, name: str) -> Any:
    """Return a header of the request, by its lower-case name; None when there is none."""
    if not isinstance(event, Mapping):
        return None
    headers = _mapping(event, "headers")
    return next((headers[known] for known in headers if str(known).lower() == name), None)


def _mapping(event: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = event.get(name)
    return found if isinstance(found, Mapping) else {}
