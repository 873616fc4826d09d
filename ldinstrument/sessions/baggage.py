"""The session's id in W3C baggage, `baggage: session.id=...`, as OpenTelemetry carries it.

What arrives was written by anybody: it is bounded, and it is a label. It never decides whose a
session is, nor which stored visit a request belongs to.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, unquote

from ..diagnostics import warn_once
from .session import Session

HEADER = "baggage"
KEY = "session.id"
MOST_CHARACTERS = 8192
_ID = re.compile(r"[A-Za-z0-9._~:@+/=-]{1,128}")


def arrived_id(header: Any) -> str | None:
    """Return the session's id in a `baggage` header; None when there is none, or none fit to be
    one: letters, digits and `._~:@+/=-`, at most 128 of them.
    """
    if not isinstance(header, str) or KEY not in header or len(header) > MOST_CHARACTERS:
        return None
    found = None
    for member in header.split(","):
        name, _, value = member.partition(";")[0].partition("=")
        if name.strip() == KEY:
            found = unquote(value.strip())
    if found is None or _ID.fullmatch(found):
        return found
    warn_once(
        "baggage",
        KEY,
        f"a {KEY} arrived as baggage that is no id: at most 128 letters, digits and ._~:@+/=- "
        "count; the session keeps its own",
    )
    return None


def adopt(session: Session | None, header: Any) -> None:
    """Let *session* go on under the id in a `baggage` header, where there is one."""
    if session is not None and header and (id := arrived_id(header)) is not None:
        session.adopt_id(id)


def leaving_id(session: Session | None) -> str | None:
    """Return the id that leaves with what *session* calls; None for a stored visit, which gets its
    id from the store when the request ends.
    """
    return None if session is None or session.silent or session.store is not None else session.id


def leaving_header(session: Session | None, before: Any = None) -> str | None:
    """Return a `baggage` header with the session's id added to the one *before*; None without."""
    id = leaving_id(session)
    if id is None:
        return None
    kept = before.split(",") if isinstance(before, str) and before else []
    kept = [member for member in kept if member.partition("=")[0].strip() != KEY]
    return ",".join([*kept, f"{KEY}={quote(id, safe='')}"])
